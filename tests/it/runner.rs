//! `tests/run` itself: what it says of a test that fails, one that passes late, and one that hangs.

#![expect(
    clippy::disallowed_methods,
    reason = "the test begins a run within a run"
)]

use cbddc_tests::mesh::{interrupt, wait_for};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How the test below goes wrong, and where it may leave a mark.
const HOW: &str = "CBDDC_ON_PURPOSE";
const MARK: &str = "CBDDC_ON_PURPOSE_MARK";

#[test]
#[ignore = "goes wrong on purpose, for the test below"]
fn on_purpose() {
    let mark = std::env::var(MARK).expect("a file for its mark");
    println!("this is what it said");
    match std::env::var(HOW).as_deref() {
        Ok("fails") => panic!("broken on purpose"),
        Ok("late") if !Path::new(&mark).exists() => {
            fs::write(mark, "").expect("a mark");
            panic!("late on purpose");
        }
        Ok("hangs") => {
            interrupt::end_when_time_is_up();
            wait_for("what never comes", Duration::from_secs(600), || None::<()>);
        }
        Ok(_) | Err(_) => {}
    }
}

/// What `tests/run` prints when it runs that test alone, and whether it succeeded.
fn run(how: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut run = Command::new(workspace.join("tests/run"));
    run.args(["runner::on_purpose", "--run-ignored", "only"])
        .env(HOW, how)
        .env(MARK, folder.path().join("mark"));
    // What this run was told is not for the inner one, or Cargo would build everything anew.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let of_user = ["CARGO_HOME", "CARGO_TARGET_DIR"];
        let of_run = name.starts_with("NEXTEST") || name.starts_with("CARGO");
        if of_run && !of_user.contains(&name.as_str()) {
            run.env_remove(name);
        }
    }
    let output = run.env("NEXTEST_PROFILE", "inner").output();
    let output = output.expect("tests/run can be started");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains("Compiling"), "it was built anew:\n{said}");
    (output.status.success(), said)
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for words in words {
        assert!(said.contains(words), "no {words:?} in:\n{said}");
    }
}

#[test]
fn a_run_says_what_went_wrong_and_how_to_run_it_alone() {
    let (ok, said) = run("fails");
    assert!(!ok, "{said}");
    let failed = "failed: runner::on_purpose\n  alone: ./tests/run runner::on_purpose";
    let logs = ["this is what it said", "broken on purpose"];
    says(
        &said,
        &[&logs[..], &[failed, "0 passed, 1 failed"]].concat(),
    );

    let (ok, said) = run("late");
    assert!(ok, "{said}");
    let late = "passed at the second try only, after ";
    says(&said, &[late, ": runner::on_purpose", "1 passed, 0 failed"]);
    let after = said.split(late).nth(1).expect("it was told");
    let seconds: f64 = after.split(' ').next().unwrap_or("").parse().expect("s");
    assert!((0.0..60.0).contains(&seconds), "{said}");

    let (ok, said) = run("hangs");
    assert!(!ok, "{said}");
    let gave_up = "its time was up while it waited";
    says(&said, &[gave_up, failed, "0 passed, 1 failed"]);

    let (ok, said) = run("passes");
    assert!(ok, "{said}");
    says(&said, &["1 passed, 0 failed"]);
}
