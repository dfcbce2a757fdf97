//! Finds the binaries under test.

use std::path::PathBuf;

/// The binary of that name, built beside the running program. Fails with what to do when it is
/// missing: Cargo builds the binaries of a package only for that package's own tests.
pub fn binary(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("the path of the running program");
    let folder = program.parent().expect("a program lies in a folder");
    // Tests and benchmarks lie in target/PROFILE/deps, the demo in target/PROFILE.
    let folder = match folder.parent() {
        Some(above) if folder.ends_with("deps") => above,
        Some(_) | None => folder,
    };
    let binary = folder.join(name);
    assert!(
        binary.is_file(),
        "{} is missing; run `cargo build --workspace --bins` with the same profile first",
        binary.display()
    );
    binary
}
