//! The packages under test, made from the binaries beside the running program.

use super::workspace;
use crate::bins::binary;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The version of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is made once for all tests, whatever processes they run in.
#[derive(Debug)]
pub struct Packages {
    folder: PathBuf,
    arch: String,
}

impl Packages {
    /// Makes them: both packages in this version and in a newer one, and a small fixture node.
    #[track_caller]
    pub fn get() -> &'static Self {
        static PACKAGES: OnceLock<Packages> = OnceLock::new();
        PACKAGES.get_or_init(Self::make)
    }

    fn make() -> Self {
        let binaries = binary("cbagent");
        let binaries = binaries.parent().expect("a program lies in a folder");
        // Beside the binaries that they are made of: there is nothing to clean up.
        let folder = binaries.join("hosts");
        fs::create_dir_all(&folder).expect("a folder beside the binaries");
        let packages = Self {
            arch: said(Command::new("dpkg").arg("--print-architecture")),
            folder,
        };
        // Held until the end of this function: one makes them, the others wait for that.
        let lock = File::create(packages.folder.join("lock")).expect("a file to lock");
        lock.lock().expect("a lock");
        let (made_of, stamp) = (stamp(), packages.folder.join("made-of"));
        if fs::read_to_string(&stamp).is_ok_and(|text| text == made_of) {
            return packages;
        }
        for version in [packages.version(), packages.newer_version()] {
            let mut build = Command::new(workspace().join("packaging/build-deb"));
            // The fast compression: tests look at what is inside.
            build.args(["--compress", "gzip", "--version", &version]);
            build.arg("--target-dir").arg(binaries);
            build.arg("--out").arg(&packages.folder);
            said(&mut build);
        }
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(packages.fixture_node());
        said(strip.arg(binary("fixture-node")));
        fs::write(stamp, made_of).expect("a note of what they are made of");
        packages
    }

    /// The version that is installed first.
    pub fn version(&self) -> String {
        VERSION.to_owned()
    }

    /// The version for an upgrade.
    pub fn newer_version(&self) -> String {
        format!("{VERSION}+newer")
    }

    /// The file of a package.
    pub fn file(&self, package: &str, version: &str) -> PathBuf {
        let name = format!("{package}_{version}_{}.deb", self.arch);
        self.folder.join(name)
    }

    /// The fixture node without what only a debugger reads.
    pub fn fixture_node(&self) -> PathBuf {
        self.folder.join("fixture-node")
    }

    /// Errors that lintian finds in the packages; none: it is content.
    #[track_caller]
    pub fn lintian_errors(&self) -> Vec<String> {
        let mut lintian = Command::new("lintian");
        lintian.args(["--tag-display-limit", "0", "--allow-root"]);
        let files = ["cbagent", "cbctl"].map(|package| self.file(package, &self.version()));
        lintian.args(files.iter().map(PathBuf::as_path));
        let output = lintian.output().expect("lintian can be started");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = text.lines().filter(|line| line.starts_with("E:"));
        let errors: Vec<String> = errors.map(str::to_owned).collect();
        // 2: lintian found errors; anything else but 0 is a fault of its own.
        let usual = matches!(output.status.code(), Some(0 | 2));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(usual, "lintian failed: {stderr}");
        errors
    }

    /// Whether lintian is installed here.
    pub fn has_lintian() -> bool {
        Command::new("lintian")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    }

    /// The folder with all of it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// What the packages are made of: other binaries, other packaging, or other sizes or times of them.
fn stamp() -> String {
    let programs = ["cbagent", "cbctl", "fixture-node"].map(binary);
    let mut files: Vec<PathBuf> = programs.into();
    let mut folders = vec![workspace().join("packaging")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the workspace") {
            let path = entry.expect("its entries can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    let line = |file: &PathBuf| {
        let seen = fs::metadata(file).expect("a file of the workspace");
        let changed = seen.modified().expect("a file has a time");
        format!("{} {} {changed:?}\n", file.display(), seen.len())
    };
    files.iter().map(line).collect()
}

/// What a program prints that must succeed.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {stderr}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
