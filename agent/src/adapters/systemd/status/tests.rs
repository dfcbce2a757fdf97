//! What properties as systemd 252 shows them mean.

use super::{Status, SystemdError};
use crate::adapters::systemd::bus::JobEnd;
use crate::ports::{Stop, UnitState};
use std::time::Duration;

fn status(load: &str, active: &str, sub: &str, main_pid: u32, result: &str) -> Status {
    Status {
        load: load.to_owned(),
        active: active.to_owned(),
        sub: sub.to_owned(),
        conditions_hold: true,
        main_pid,
        result: result.to_owned(),
        exit_code: 0,
        exit_status: 0,
        started_us: 5_500_000,
        start_timeout: Duration::from_secs(90),
        restarts: 0,
        watchdog: Duration::ZERO,
    }
}

fn loaded(active: &str, sub: &str, main_pid: u32, result: &str) -> Status {
    status("loaded", active, sub, main_pid, result)
}

fn ended(mut status: Status, code: i32, number: i32) -> Status {
    (status.exit_code, status.exit_status) = (code, number);
    status
}

#[test]
fn a_job_that_is_done_is_not_yet_a_start() {
    let done = JobEnd::Told("done".to_owned());
    let up = loaded("active", "running", 42, "success");
    assert_eq!(up.started("u", &done).expect("it runs"), 42);

    let mut unmet = loaded("inactive", "dead", 0, "success");
    unmet.conditions_hold = false;
    let cases: &[(Status, &str, &str)] = &[
        (
            loaded("inactive", "dead", 0, "exec-condition"),
            "done",
            "skipped by its ExecCondition",
        ),
        (unmet, "done", "one of its conditions"),
        (
            status("masked", "inactive", "dead", 0, ""),
            "done",
            "systemctl unmask u",
        ),
        (
            status("not-found", "inactive", "dead", 0, ""),
            "done",
            "there is no unit u",
        ),
        (
            status("bad-setting", "inactive", "dead", 0, ""),
            "done",
            "systemd-analyze verify u",
        ),
        (
            ended(loaded("failed", "failed", 0, "exit-code"), 1, 203),
            "done",
            "(exit code 203)",
        ),
        (
            ended(loaded("failed", "failed", 0, "signal"), 2, 11),
            "failed",
            "killed by signal 11",
        ),
        (
            loaded("failed", "failed", 0, "timeout"),
            "failed",
            "longer than its unit allows",
        ),
        (
            loaded("failed", "failed", 0, "start-limit-hit"),
            "failed",
            "started too often",
        ),
        (
            loaded("inactive", "dead", 0, "success"),
            "done",
            "it is inactive",
        ),
        (
            loaded("inactive", "dead", 0, "success"),
            "canceled",
            "cancelled by another request",
        ),
        (
            loaded("inactive", "dead", 0, "success"),
            "dependency",
            "a unit that it requires",
        ),
        (
            loaded("active", "exited", 0, "success"),
            "done",
            "has no main process",
        ),
        (
            ended(loaded("activating", "auto-restart", 0, "exit-code"), 1, 1),
            "done",
            "exit code 1",
        ),
    ];
    for (status, job, said) in cases {
        let error = status.started("u", &JobEnd::Told((*job).to_owned()));
        let text = error.expect_err(said).to_string();
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(matches!(
        loaded("failed", "failed", 0, "resources").started("u", &JobEnd::Gone),
        Err(SystemdError::Failed { .. })
    ));
}

#[test]
fn a_process_is_what_runs() {
    let running = UnitState::Running {
        pid: 7,
        started_ms: 5_500,
    };
    for active in ["active", "reloading", "activating", "deactivating"] {
        assert_eq!(
            loaded(active, "", 7, "success").state(),
            running,
            "{active}"
        );
    }
    for (status, last_exit) in [
        (loaded("inactive", "dead", 0, "success"), None),
        (
            ended(loaded("inactive", "dead", 0, "success"), 1, 0),
            Some("exit code 0"),
        ),
        (
            ended(loaded("activating", "auto-restart", 0, "exit-code"), 1, 3),
            Some("exit code 3"),
        ),
        (
            ended(loaded("failed", "failed", 0, "signal"), 2, 9),
            Some("killed by signal 9"),
        ),
        (
            ended(loaded("failed", "failed", 0, "oom-kill"), 2, 9),
            Some("killed by signal 9: the host ran out of memory"),
        ),
        (
            ended(loaded("failed", "failed", 0, "watchdog"), 3, 6),
            Some("killed by signal 6, core dumped: it did not feed its watchdog"),
        ),
        (loaded("activating", "condition", 0, "success"), None),
    ] {
        let last_exit = last_exit.map(str::to_owned);
        assert_eq!(
            status.state(),
            UnitState::Stopped { last_exit },
            "{status:?}"
        );
    }
    assert!(!loaded("activating", "start", 7, "success").is_up());
    assert!(loaded("activating", "auto-restart", 0, "").waits_to_restart());
    assert!(loaded("activating", "auto-restart-queued", 0, "").waits_to_restart());
    assert!(!loaded("activating", "condition", 0, "").waits_to_restart());
}

#[test]
fn a_stop_tells_who_ended_the_node() {
    let ran = loaded("active", "running", 7, "success");
    let waited = loaded("activating", "condition", 0, "success");
    let asked = ended(loaded("inactive", "dead", 0, "success"), 1, 0);
    let rude = ended(loaded("failed", "failed", 0, "exit-code"), 1, 143);
    let timed_out = ended(loaded("failed", "failed", 0, "timeout"), 2, 9);
    let watchdog = ended(loaded("failed", "failed", 0, "watchdog"), 2, 6);
    let killed = ended(loaded("failed", "failed", 0, "signal"), 2, 9);
    assert_eq!(asked.stopped(&ran, false), Stop::Asked);
    assert_eq!(rude.stopped(&ran, false), Stop::Asked);
    assert_eq!(asked.stopped(&ran, true), Stop::Killed);
    assert_eq!(timed_out.stopped(&ran, false), Stop::Killed);
    assert_eq!(watchdog.stopped(&ran, false), Stop::Killed);
    assert_eq!(killed.stopped(&ran, false), Stop::Killed);
    assert_eq!(timed_out.stopped(&waited, false), Stop::WasStopped);
}
