//! Finds the binaries under test.

use std::path::PathBuf;

/// The binary of that name, built beside the running test. Fails with what to do when it is missing:
/// Cargo builds the binaries of a package only for that package's own tests.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    // target/PROFILE/deps/it-HASH: two folders up. A benchmark lies there, too.
    let folder = test
        .ancestors()
        .nth(2)
        .expect("a test runs from target/PROFILE/deps");
    let binary = folder.join(name);
    assert!(
        binary.is_file(),
        "{} is missing; run `cargo build --workspace --bins` with the same profile first",
        binary.display()
    );
    binary
}
