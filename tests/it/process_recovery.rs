//! The process supervisor when things went wrong: agents killed at any moment, two at once, nodes
//! that leave processes behind, process numbers that are used again.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start programs and play the agent"
)]

use cbagent::adapters::process::{ProcessSettings, ProcessSupervisor};
use cbagent::ports::{Stop, Supervisor};
use cbddc_tests::bins::binary;
use cbddc_tests::ground::{
    Foreign, Ground, PATIENCE, pid_of, process_is_there, stopped, wait_until,
};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_supervisors_at_once_start_one_node() {
    let ground = Ground::new();
    let script = "echo begun >> begun; exec sleep 60";
    for round in 1..=20 {
        let (one, two) = (ground.shell(script), ground.shell(script));
        let (first, second) = tokio::join!(
            tokio::spawn(async move { one.start().await }),
            tokio::spawn(async move { (two.start().await, two) }),
        );
        let (second, supervisor) = second.unwrap();
        assert_eq!(first.unwrap().unwrap(), second.unwrap(), "round {round}");
        wait_until("the node began", async || {
            ground.text("begun").lines().count() >= round
        })
        .await;
        supervisor.stop(PATIENCE).await.unwrap();
        assert_eq!(ground.text("begun").lines().count(), round);
    }
}

#[tokio::test]
async fn a_new_supervisor_adopts_the_node_and_stops_it() {
    let ground = Ground::new();
    let pid = ground
        .supervisor("/bin/sleep", &["60"])
        .start()
        .await
        .unwrap();
    // Another program: what counts is what runs, not what would be started.
    let supervisor = ground.supervisor("/bin/false", &[]);
    assert_eq!(pid_of(supervisor.state().await.unwrap()), Some(pid));
    assert_eq!(supervisor.start().await.unwrap(), pid);
    assert_eq!(supervisor.stop(PATIENCE).await.unwrap(), Stop::Asked);
    assert_eq!(
        supervisor.state().await.unwrap(),
        stopped(None),
        "it was not our child"
    );
}

#[tokio::test]
async fn a_launcher_whose_agent_died_before_it_had_the_lock_starts_nothing() {
    let ground = Ground::new();
    let mut launcher = ground.launcher(&["/bin/sh", "-c", "echo begun >> begun"]);
    // Nobody reads: the agent is gone.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = launcher.stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(71));
    assert_eq!(ground.text("begun"), "");
    let supervisor = ground.supervisor("/bin/sleep", &["60"]);
    assert_eq!(supervisor.state().await.unwrap(), stopped(None));
    supervisor.start().await.unwrap();
    supervisor.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_second_launcher_finds_the_lock_held() {
    let ground = Ground::new();
    let supervisor = ground.supervisor("/bin/sleep", &["60"]);
    supervisor.start().await.unwrap();
    let output = ground
        .launcher(&["/bin/sh", "-c", "echo begun >> begun"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(ground.text("begun"), "");
    supervisor.stop(PATIENCE).await.unwrap();
}

/// What the node of the next test does: says so when it is not alone.
const JEALOUS: &str = "trap 'rmdir alone; exit 0' TERM
mkdir alone || echo doubled >> doubled
while :; do sleep 0.02; done";

/// Not a test: the agent that the next test kills.
#[tokio::test]
#[ignore = "run by the test below, in a process of its own"]
async fn an_agent_to_be_killed() {
    let Some(folder) = std::env::var_os("CBDDC_TESTS_GROUND") else {
        return;
    };
    let settings = ProcessSettings {
        run_dir: PathBuf::from(&folder).join("run"),
        log_file: PathBuf::from(&folder).join("node.log"),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), JEALOUS.into()],
        env: Vec::new(),
        working_dir: folder.into(),
        launcher: binary("cbagent"),
    };
    let supervisor = ProcessSupervisor::new(settings).unwrap();
    loop {
        supervisor.start().await.unwrap();
        supervisor.stop(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_killed_at_any_moment_never_leads_to_two_nodes() {
    let ground = Ground::new();
    let mut adopted = 0;
    for round in 0..40_u64 {
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "process_recovery::an_agent_to_be_killed",
                "--ignored",
                "--quiet",
            ])
            .env("CBDDC_TESTS_GROUND", ground.path(""))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Spread over the agent's start and several of its turns.
        tokio::time::sleep(Duration::from_millis(5 + round * 7 % 120)).await;
        agent.kill().unwrap();
        assert_eq!(agent.wait().unwrap().signal(), Some(9));
        let next = ground.shell(JEALOUS);
        let found = pid_of(next.state().await.unwrap());
        let pid = next.start().await.unwrap();
        if found.is_some_and(|found| found == pid) {
            adopted += 1;
        }
        assert_eq!(pid_of(next.state().await.unwrap()), Some(pid));
        next.stop(PATIENCE).await.unwrap();
        assert_eq!(
            next.state().await.unwrap().clone(),
            next.state().await.unwrap()
        );
        let _ = fs::remove_dir(ground.path("alone"));
    }
    assert_eq!(ground.text("doubled"), "");
    assert!(
        adopted > 0,
        "no round killed the agent while the node ran; the timing proves nothing"
    );
}

/// A node that leaves a process of another session behind and ends; the process writes its number.
fn stray(extra: &str) -> String {
    format!("setsid sh -c '{extra} echo $$ > stray; exec sleep 60' & exit 0")
}

/// A stray that forgets its environment, and with it the marker.
const FORGET: &str =
    r#"[ -z "$CBAGENT_NODE_LOCK" ] || exec env -i /bin/sh -c "echo \$\$ > stray; exec sleep 60";"#;

async fn stray_pid(ground: &Ground) -> u32 {
    ground.wait_for_text("stray", "\n").await;
    ground.text("stray").trim().parse().unwrap()
}

#[tokio::test]
async fn what_a_node_left_behind_counts_as_running_until_it_is_stopped() {
    // The second one closes every inherited file, as daemons of the old school do, and with it the
    // lock; the third one forgets its environment.
    let close_all = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-;";
    for (case, extra) in [("plain", ""), ("closed", close_all), ("forgot", FORGET)] {
        let ground = Ground::new();
        let supervisor = ground.shell(&stray(extra));
        let leader = supervisor.start().await.unwrap();
        let stray = stray_pid(&ground).await;
        wait_until("the leader ended", async || !process_is_there(leader)).await;
        if case != "closed" {
            assert_eq!(
                pid_of(supervisor.state().await.unwrap()),
                Some(stray),
                "{case}"
            );
        }
        let error = supervisor.start().await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {stray}; stop the node first")),
            "{case}: {error}"
        );
        assert_eq!(
            supervisor.stop(PATIENCE).await.unwrap(),
            Stop::Asked,
            "{case}"
        );
        // Init reaps it, in its own time.
        wait_until("the stray ended", async || !process_is_there(stray)).await;
        assert_eq!(pid_of(supervisor.state().await.unwrap()), None, "{case}");
    }
}

#[tokio::test]
async fn a_deleted_lock_file_does_not_hide_the_node() {
    let ground = Ground::new();
    let supervisor = ground.supervisor("/bin/sleep", &["60"]);
    let pid = supervisor.start().await.unwrap();
    fs::remove_file(ground.path("run/node.lock")).unwrap();
    let error = ground
        .supervisor("/bin/sleep", &["60"])
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&format!("process {pid}")), "{error}");
    assert_eq!(supervisor.stop(PATIENCE).await.unwrap(), Stop::Asked);
    assert!(!process_is_there(pid));
}

#[tokio::test]
async fn a_reused_process_number_is_never_signalled() {
    let ground = Ground::new();
    let mut foreign = Foreign::new();
    ground.write_record(foreign.0.id());
    let supervisor = ground.supervisor("/bin/sleep", &["60"]);
    assert_eq!(supervisor.state().await.unwrap(), stopped(None));
    assert_eq!(
        supervisor.stop(Duration::ZERO).await.unwrap(),
        Stop::WasStopped
    );
    assert!(foreign.is_untouched());
    // Now something of ours runs, but the record names the foreign process.
    let pid = supervisor.start().await.unwrap();
    assert_ne!(pid, foreign.0.id());
    ground.write_record(foreign.0.id());
    assert_eq!(pid_of(supervisor.state().await.unwrap()), Some(pid));
    assert_eq!(supervisor.stop(PATIENCE).await.unwrap(), Stop::Asked);
    assert!(foreign.is_untouched() && !process_is_there(pid));
}

#[tokio::test]
async fn an_agent_that_only_looks_at_the_lock_is_not_taken_for_a_node() {
    let ground = Ground::new();
    // Without the marker only the lock tells who belongs to the node.
    let supervisor = ground.shell(&stray(FORGET));
    supervisor.start().await.unwrap();
    let stray = stray_pid(&ground).await;
    // A foreign process that has the lock file open, as a probing agent has.
    let open = fs::File::open(ground.path("run/node.lock")).unwrap();
    let foreign = Command::new("/bin/sleep")
        .arg("60")
        .stdin(open)
        .spawn()
        .unwrap();
    let mut foreign = Foreign(foreign);
    supervisor.stop(PATIENCE).await.unwrap();
    assert!(foreign.is_untouched());
    wait_until("the stray ended", async || !process_is_there(stray)).await;
}
