//! A disk that fills up quickly.

use std::path::Path;

/// A small tmpfs, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts a tmpfs of `bytes`. Without the right to mount, says so and returns `None`, or fails
    /// if `CBDDC_TESTS_REQUIRE_ALL=1`.
    ///
    /// # Panics
    /// If all tests are required and the disk cannot be mounted.
    pub fn mount(bytes: u64) -> Option<Self> {
        Self::mounted(&format!("size={bytes},mode=0755"))
    }

    /// The same, from which no program may be started.
    ///
    /// # Panics
    /// As [`SmallDisk::mount`].
    pub fn without_programs() -> Option<Self> {
        Self::mounted("size=64k,mode=0755,noexec")
    }

    fn mounted(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if run(
            "mount",
            &["-t", "tmpfs", "-o", options, "cbddc-test"],
            folder.path(),
        ) {
            return Some(Self(folder));
        }
        let required =
            std::env::var_os("CBDDC_TESTS_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(
            !required,
            "all tests are required, but a tmpfs cannot be mounted (root is needed)"
        );
        eprintln!("LEFT OUT: a test that needs root to mount a small tmpfs");
        None
    }

    /// The folder it is mounted on.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if !run("umount", &[], self.0.path()) {
            eprintln!("cannot unmount {}", self.0.path().display());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests run `mount` themselves")]
fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .arg(path)
        .stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
