//! Where the programs under test are.

use std::path::PathBuf;

/// The path of a program of this workspace, beside the folder of the test that runs.
///
/// # Panics
/// When it was not built.
pub fn bin(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.parent().and_then(std::path::Path::parent);
    let path = folder
        .expect("tests lie two folders deep in target")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}
