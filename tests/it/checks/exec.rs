//! Programs by the convention of monitoring plugins: how they are read, bounded and ended.

use super::{checks, of, running};
use cbagent::adapters::checks::{ExecSettings, Probe};
use cbddc_domain::health::{Check, Measurement, Status};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Where Debian installs plugins.
const PLUGINS: &str = "/usr/lib/nagios/plugins";

async fn run(command: &[&str]) -> Measurement {
    let settings = ExecSettings {
        command: command.iter().map(ToString::to_string).collect(),
        env: BTreeMap::from([("OWN".to_owned(), "1".to_owned())]),
    };
    let probe = (Check::Exec, Probe::Exec(settings));
    let mut measured = checks(running(), vec![probe]).measure(Duration::MAX).await;
    measured.pop().expect("the program's result is the last")
}

async fn shell(script: &str) -> Measurement {
    run(&["/bin/sh", "-c", script]).await
}

#[tokio::test]
async fn the_exit_code_is_the_status_and_figures_follow_a_bar() {
    for (script, status, detail) in [
        ("echo 'FINE | a=1'", Status::Healthy, "FINE"),
        ("echo SO SO; exit 1", Status::Degraded, "SO SO"),
        ("echo BAD; exit 2", Status::Unhealthy, "BAD"),
        ("echo 'who knows' >&2; exit 3", Status::Unknown, "who knows"),
        ("exit 4", Status::Unknown, "exit code 4"),
        ("kill -9 $$", Status::Unknown, "ended by a signal"),
    ] {
        let measured = shell(script).await;
        assert_eq!(measured.status, status, "{script}: {measured:?}");
        assert!(measured.detail.contains(detail), "{script}: {measured:?}");
    }
    let measured = shell("echo 'FINE | used=71.5%;80;90'").await;
    let figure = &measured.figures[0];
    assert_eq!(
        (figure.label.as_str(), figure.value, figure.unit.as_str()),
        ("used", 71.5, "%")
    );
    let measured = run(&["/no/such/plugin"]).await;
    assert_eq!(measured.status, Status::Unknown);
    assert!(
        measured.detail.contains("/no/such/plugin cannot be run"),
        "{measured:?}"
    );
}

/// Every process whose number a script has written to a file; waits until all are gone.
async fn gone(file: &Path) {
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).expect("the script wrote its processes");
        let lives = |pid: &&str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            // A zombie waits for its parent only.
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        let living: Vec<&str> = text.split_whitespace().filter(lives).collect();
        if living.is_empty() {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{living:?} still run"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn one_that_hangs_is_killed_with_all_that_it_started() {
    let folder = tempfile::TempDir::new().unwrap();
    let pids = folder.path().join("pids");
    let file = pids.display();
    let began = Instant::now();
    let script = format!(
        "trap '' TERM; sleep 1000 & echo $! >{file}; (sleep 1000 & echo $! >>{file}; wait) & \
         echo $! $$ >>{file}; wait"
    );
    let measured = shell(&script).await;
    assert_eq!(
        (measured.status, measured.detail.as_str()),
        (
            Status::Unhealthy,
            "did not end within 1500 ms and was killed"
        )
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    gone(&pids).await;
}

#[tokio::test]
async fn what_one_leaves_behind_is_killed_and_not_waited_for() {
    let folder = tempfile::TempDir::new().unwrap();
    let pids = folder.path().join("pids");
    // It holds the output open.
    let script = format!("sleep 1000 & echo $! >{}; echo LEFT", pids.display());
    let measured = shell(&script).await;
    assert_eq!(
        (measured.status, measured.detail.as_str()),
        (Status::Healthy, "LEFT")
    );
    gone(&pids).await;
}

#[tokio::test]
async fn a_check_that_is_given_up_leaves_nothing_behind() {
    let folder = tempfile::TempDir::new().unwrap();
    let pids = folder.path().join("pids");
    let script = format!("sleep 1000 & echo $! $$ >{}; wait", pids.display());
    let run = tokio::spawn(async move { shell(&script).await });
    while !pids.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run.abort();
    let _ = run.await;
    gone(&pids).await;
}

#[tokio::test]
async fn output_is_bounded_and_the_environment_nearly_empty() {
    let measured = shell("echo MUCH; head -c 3000000 /dev/zero | tr '\\0' x").await;
    assert_eq!(measured.status, Status::Healthy, "{measured:?}");
    assert_eq!(measured.detail, "MUCH");
    let measured = shell("echo $(env | cut -d= -f1 | sort); pwd").await;
    // The shell sets PWD by itself.
    assert_eq!(measured.detail, "LC_ALL OWN PATH PWD");
}

#[tokio::test]
async fn plugins_of_debian_work_as_they_are() {
    let plugin = |name: &str| format!("{PLUGINS}/{name}");
    if !Path::new(&plugin("check_disk")).exists() {
        let required = std::env::var_os("CBDDC_TESTS_REQUIRE_ALL").is_some_and(|all| all == "1");
        assert!(!required, "install monitoring-plugins-basic");
        eprintln!("left out: monitoring-plugins-basic is not installed");
        return;
    }
    let disk = run(&[&plugin("check_disk"), "-w", "1", "-c", "0", "-p", "/"]).await;
    assert_eq!(disk.status, Status::Healthy, "{disk:?}");
    assert!(disk.detail.starts_with("DISK OK"), "{disk:?}");
    assert_eq!(disk.figures[0].label, "/", "{disk:?}");
    assert!(disk.figures[0].value > 0.0 && !disk.figures[0].unit.is_empty());
    let load = run(&[&plugin("check_load"), "-w", "9999", "-c", "9999"]).await;
    assert_eq!(load.status, Status::Healthy, "{load:?}");
    assert_eq!(load.figures.len(), 3, "{load:?}");
    for (code, status) in [
        ("0", Status::Healthy),
        ("1", Status::Degraded),
        ("2", Status::Unhealthy),
        ("3", Status::Unknown),
    ] {
        let dummy = run(&[&plugin("check_dummy"), code, "as told"]).await;
        assert_eq!(dummy.status, status, "{dummy:?}");
        assert!(dummy.detail.ends_with(": as told"), "{dummy:?}");
    }
    let tcp = run(&[
        &plugin("check_tcp"),
        "-H",
        "127.0.0.1",
        "-p",
        "1",
        "-t",
        "2",
    ])
    .await;
    assert_eq!(tcp.status, Status::Unhealthy, "{tcp:?}");
}

#[tokio::test]
async fn one_that_was_content_is_not_run_again_at_once() {
    let folder = tempfile::TempDir::new().unwrap();
    let count = folder.path().join("count");
    let command = |code: u8| {
        let script = format!("echo x >>{}; exit {code}", count.display());
        vec!["/bin/sh".to_owned(), "-c".to_owned(), script]
    };
    for (code, runs) in [(0, 1), (2, 2)] {
        let _ = std::fs::remove_file(&count);
        let settings = ExecSettings {
            command: command(code),
            env: BTreeMap::new(),
        };
        let checks = checks(running(), vec![(Check::Exec, Probe::Exec(settings))]);
        let first = checks.measure(Duration::MAX).await;
        let second = checks.measure(Duration::MAX).await;
        assert_eq!(of(&first, Check::Exec), of(&second, Check::Exec));
        let written = std::fs::read_to_string(&count).unwrap();
        assert_eq!(written.lines().count(), runs);
    }
}
