//! Builds for the fixture node. All run the same program; a bad one differs by its own files only.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What every build starts: the fixture node, which the agent's `[service]` names, with the version
/// and the faults that the build carries. No other program is started on the way.
const PROGRAM: &str = r#"#!/bin/sh
here="${0%/*}/.."
read -r version < "$here/version"
read -r faults < "$here/faults"
exec "$FIXTURE_NODE" "$@" --version "$version" --faults "$faults" --base "$here"
"#;

/// Writes the files of a build to a new folder. `faults` are those of the fixture node, such as
/// `drop-every=1`; none: a good build.
#[track_caller]
pub fn write(folder: &Path, version: &str, faults: &str) -> PathBuf {
    let program = folder.join("bin/cbddc");
    fs::create_dir_all(folder.join("bin")).expect("the folder can be made");
    fs::write(&program, PROGRAM).expect("the program can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .expect("the program can be made executable");
    fs::write(folder.join("version"), format!("{version}\n")).expect("a file can be written");
    fs::write(folder.join("faults"), format!("{faults}\n")).expect("a file can be written");
    folder.to_owned()
}
