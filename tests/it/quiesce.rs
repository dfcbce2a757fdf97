//! Draining a node with real commands.

use cbagent::adapters::quiesce::{QuiesceSettings, quiesce, unquiesce};
use std::fs;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

fn settings(script: Option<&str>) -> QuiesceSettings {
    let shell = |script: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    QuiesceSettings {
        drain: script.map(shell),
        undrain: script.map(shell),
        command_limit: Duration::from_secs(20),
        sync_interval: Duration::from_millis(20),
        margin: Duration::from_millis(10),
    }
}

fn limited(script: &str, limit_ms: u64) -> QuiesceSettings {
    QuiesceSettings {
        command_limit: Duration::from_millis(limit_ms),
        ..settings(Some(script))
    }
}

async fn error_of(settings: &QuiesceSettings) -> String {
    quiesce(settings).await.unwrap_err().to_string()
}

#[tokio::test]
async fn without_a_command_two_cycles_are_waited_out_and_it_is_said() {
    let done = quiesce(&settings(None)).await.unwrap();
    assert!(!done.writers_stopped && done.waited_ms >= 50, "{done:?}");
    unquiesce(&settings(None)).await.unwrap();
}

#[tokio::test]
async fn a_command_stops_the_writers_and_the_cycles_are_waited_out_too() {
    let folder = TempDir::new().unwrap();
    let script = format!("echo $0 >> {}/ran", folder.path().display());
    let done = quiesce(&settings(Some(&script))).await.unwrap();
    assert!(done.writers_stopped && done.waited_ms >= 50, "{done:?}");
    unquiesce(&settings(Some(&script))).await.unwrap();
    assert_eq!(
        fs::read_to_string(folder.path().join("ran"))
            .unwrap()
            .lines()
            .count(),
        2
    );
}

#[tokio::test]
async fn a_failed_command_is_told_with_its_last_line_only() {
    let error = error_of(&settings(Some(
        "echo hello; echo detail >&2; echo 'tills are busy' >&2; echo >&2; exit 4",
    )))
    .await;
    assert_eq!(
        error,
        "the drain command ended with exit code 4; its last line: tills are busy"
    );
    let error = error_of(&settings(Some("echo only; kill -9 $$"))).await;
    assert_eq!(
        error,
        "the drain command ended with signal 9; its last line: only"
    );
    let error = error_of(&settings(Some("exit 1"))).await;
    assert_eq!(
        error,
        "the drain command ended with exit code 1; its last line: (none)"
    );
    let error = unquiesce(&settings(Some("exit 1")))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("the undrain command ended"), "{error}");
}

#[tokio::test]
async fn no_shell_reads_the_arguments() {
    let command = ["/bin/sh", "-c", "echo \"$1\" >&2; exit 1", "sh", "$HOME; *"];
    let settings = QuiesceSettings {
        drain: Some(command.map(str::to_owned).to_vec()),
        ..settings(None)
    };
    assert!(
        error_of(&settings)
            .await
            .ends_with("its last line: $HOME; *")
    );
}

#[tokio::test]
async fn endless_output_is_bounded_and_does_not_block_the_command() {
    let error = error_of(&settings(Some(
        "head -c 3000000 /dev/zero | tr '\\0' x; exit 1",
    )))
    .await;
    assert!(
        error.len() < 300 && error.contains("exit code 1") && error.ends_with("xxx"),
        "{error}"
    );
}

#[tokio::test]
async fn a_hanging_command_is_killed_with_what_it_started() {
    let folder = TempDir::new().unwrap();
    let pids = folder.path().join("pids");
    let script = format!(
        "sleep 60 & echo $$ $! > {}; echo waiting; wait",
        pids.display()
    );
    let began = Instant::now();
    let error = error_of(&limited(&script, 500)).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        error,
        "the drain command did not end within 500 ms and was killed; its last line: waiting"
    );
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        let ended = || {
            !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
        };
        while !ended() {
            assert!(began.elapsed() < Duration::from_secs(20), "{pid} lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn what_a_command_leaves_in_the_background_is_not_waited_for() {
    let began = Instant::now();
    quiesce(&settings(Some("sleep 15 & exit 0"))).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn what_is_no_command_is_said() {
    let empty = QuiesceSettings {
        drain: Some(Vec::new()),
        ..settings(None)
    };
    assert_eq!(
        error_of(&empty).await,
        "the drain command is empty; name a program or leave it out"
    );
    let missing = QuiesceSettings {
        drain: Some(vec!["/no/such/program".into()]),
        ..settings(None)
    };
    assert_eq!(
        error_of(&missing).await,
        "the drain command /no/such/program does not start"
    );
}
