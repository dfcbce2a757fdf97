//! The process supervisor against real processes: started once, ended in full, its traces kept.

use cbagent::adapters::clock::SystemClock;
use cbagent::adapters::process::{LOG_BYTES_MAX, ProcessSettings, ProcessSupervisor};
use cbagent::ports::{Stop, Supervisor, UnitState};
use cbddc_tests::ground::{Ground, PATIENCE, pid_of, process_is_there, stopped, wait_until};
use std::fs;
use std::time::Duration;

#[tokio::test]
async fn a_node_starts_once_and_stops_without_a_trace() {
    let ground = Ground::new();
    let supervisor = ground.supervisor("/bin/sleep", &["60"]);
    assert_eq!(supervisor.state().await.unwrap(), stopped(None));
    let pid = supervisor.start().await.unwrap();
    assert_eq!(
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(),
        "sleep\n"
    );
    assert_eq!(supervisor.start().await.unwrap(), pid);
    let UnitState::Running {
        pid: seen,
        started_ms,
    } = supervisor.state().await.unwrap()
    else {
        panic!("the node does not run")
    };
    let now = SystemClock::new().unwrap().now().since_boot_ms;
    assert_eq!(seen, pid);
    assert!(
        started_ms <= now && now - started_ms < 60_000,
        "{started_ms} is not just before {now}"
    );
    assert_eq!(supervisor.stop(PATIENCE).await.unwrap(), Stop::Asked);
    assert!(!process_is_there(pid), "not even a zombie is left");
    assert_eq!(
        supervisor.state().await.unwrap(),
        stopped(Some("killed by signal 15"))
    );
    assert_eq!(supervisor.stop(PATIENCE).await.unwrap(), Stop::WasStopped);
}

#[tokio::test]
async fn the_exit_of_a_node_is_told_in_words() {
    let ground = Ground::new();
    for (script, words) in [
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "killed by signal 9"),
    ] {
        let supervisor = ground.shell(script);
        supervisor.start().await.unwrap();
        wait_until("the node ended", async || {
            pid_of(supervisor.state().await.unwrap()).is_none()
        })
        .await;
        assert_eq!(supervisor.state().await.unwrap(), stopped(Some(words)));
    }
}

#[tokio::test]
async fn a_node_lives_in_a_session_of_its_own_and_does_not_see_the_agents_environment() {
    let ground = Ground::new();
    let mut settings = ground.settings("/bin/sleep", &["60"]);
    settings.env = vec![("NODE_TOKEN".into(), "s3cret".into())];
    assert!(
        !format!("{settings:?}").contains("s3cret"),
        "environment values are never shown"
    );
    let supervisor = ProcessSupervisor::new(settings).unwrap();
    let pid = supervisor.start().await.unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(
        stat.rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .nth(3)
            .unwrap(),
        pid.to_string()
    );
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.contains("NODE_TOKEN=s3cret"), "{environment}");
    // Cargo sets this one for the test, which plays the agent here.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !environment.contains("CARGO_"));
    supervisor.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_node_that_ignores_the_request_is_killed_in_time() {
    let ground = Ground::new();
    let supervisor = ground.shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let pid = supervisor.start().await.unwrap();
    ground.wait_for_text("node.log", "ready").await;
    let limit = Duration::from_millis(200);
    let stop = tokio::time::timeout(limit + Duration::from_secs(5), supervisor.stop(limit)).await;
    assert_eq!(stop.unwrap().unwrap(), Stop::Killed);
    assert!(!process_is_there(pid));
    assert_eq!(
        supervisor.state().await.unwrap(),
        stopped(Some("killed by signal 9"))
    );
}

#[tokio::test]
async fn a_suspended_node_is_woken_to_end() {
    let ground = Ground::new();
    let supervisor = ground.shell("kill -STOP $$; exec sleep 60");
    let pid = supervisor.start().await.unwrap();
    let stat = async || {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .unwrap()
            .contains(") T ")
    };
    wait_until("the node is suspended", stat).await;
    assert_eq!(supervisor.stop(PATIENCE).await.unwrap(), Stop::Asked);
}

#[tokio::test]
async fn the_children_of_a_node_end_with_it() {
    // The second one has neither the lock nor the environment, only the session.
    let bare = "env -i /bin/sh -c 'exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec sleep 60'";
    for child in ["sleep 60", bare] {
        let ground = Ground::new();
        let supervisor = ground.shell(&format!("{child} & echo child $!; wait"));
        supervisor.start().await.unwrap();
        ground.wait_for_text("node.log", "child ").await;
        let log = ground.text("node.log");
        let pid: u32 = log.trim().strip_prefix("child ").unwrap().parse().unwrap();
        let is_sleep = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "sleep\n";
        wait_until("the child sleeps", async || is_sleep()).await;
        assert_eq!(supervisor.stop(PATIENCE).await.unwrap(), Stop::Asked);
        wait_until("the child ended", async || !process_is_there(pid)).await;
    }
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    let ground = Ground::new();
    fs::write(ground.path("plain"), "no program").unwrap();
    fs::write(ground.path("lost"), "#!/no/such/interpreter\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(ground.path("lost"), executable).unwrap();
    let program = |name: &str| ground.settings(ground.path(name).to_str().unwrap(), &[]);
    let sleep = || ground.settings("/bin/sleep", &["60"]);
    let cases = [
        (
            program("missing"),
            "does not exist, or names an interpreter",
        ),
        (program("lost"), "does not exist, or names an interpreter"),
        (program("plain"), "is not executable"),
        (
            ProcessSettings {
                working_dir: ground.path("nowhere"),
                ..sleep()
            },
            "is not a folder",
        ),
        (
            ProcessSettings {
                launcher: ground.path("nothing"),
                ..sleep()
            },
            "cannot start the launcher",
        ),
        (
            ProcessSettings {
                launcher: "/bin/true".into(),
                ..sleep()
            },
            "the launcher ended: exit code 0",
        ),
        (
            ProcessSettings {
                log_file: ground.path("no/folder"),
                ..sleep()
            },
            "cannot open the log",
        ),
    ];
    for (settings, words) in cases {
        let supervisor = ProcessSupervisor::new(settings).unwrap();
        let error = supervisor.start().await.unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
        assert_eq!(supervisor.state().await.unwrap(), stopped(None));
    }
    let run_dir = ProcessSupervisor::new(ProcessSettings {
        run_dir: ground.path("plain"),
        ..sleep()
    });
    assert!(
        run_dir
            .unwrap_err()
            .to_string()
            .contains("cannot use the run folder")
    );
}

#[tokio::test]
async fn the_log_is_appended_to_and_set_aside_when_large() {
    let ground = Ground::new();
    for turn in ["one", "two"] {
        let supervisor = ground.shell(&format!("echo {turn}; echo error {turn} >&2"));
        supervisor.start().await.unwrap();
        ground
            .wait_for_text("node.log", &format!("error {turn}"))
            .await;
        wait_until("it ended", async || {
            pid_of(supervisor.state().await.unwrap()).is_none()
        })
        .await;
    }
    assert_eq!(ground.text("node.log"), "one\nerror one\ntwo\nerror two\n");
    fs::File::options()
        .append(true)
        .open(ground.path("node.log"))
        .unwrap()
        .set_len(LOG_BYTES_MAX + 1)
        .unwrap();
    fs::write(ground.path("node.log.1"), "older").unwrap();
    let supervisor = ground.shell("echo three");
    supervisor.start().await.unwrap();
    ground.wait_for_text("node.log", "three").await;
    assert_eq!(ground.text("node.log"), "three\n");
    assert_eq!(
        fs::metadata(ground.path("node.log.1")).unwrap().len(),
        LOG_BYTES_MAX + 1
    );
}
