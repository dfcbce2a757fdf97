//! The process supervisor against real processes: started once, recognised again, ended in full, and
//! no other process ever touched.

use cbagent::adapters::clock::SystemClock;
use cbagent::adapters::process::{LOG_BYTES_MAX, ProcessSettings, ProcessSupervisor};
use cbagent::ports::{Stop, Supervisor, UnitState};
use cbddc_tests::bins::binary;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for a busy machine; only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(20);

/// The folder of one test: run folder, log, and what the programs leave behind.
struct Ground {
    folder: TempDir,
}

impl Ground {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self, program: &str, args: &[&str]) -> ProcessSettings {
        ProcessSettings {
            run_dir: self.path("run"),
            log_file: self.path("node.log"),
            program: program.into(),
            args: args.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            working_dir: self.folder.path().to_owned(),
            launcher: binary("cbagent"),
        }
    }

    fn supervisor(&self, program: &str, args: &[&str]) -> ProcessSupervisor {
        ProcessSupervisor::new(self.settings(program, args)).unwrap()
    }

    fn shell(&self, script: &str) -> ProcessSupervisor {
        self.supervisor("/bin/sh", &["-c", script])
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    async fn wait_for_text(&self, name: &str, part: &str) {
        wait_until(&format!("{name} says {part:?}"), async || {
            self.text(name).contains(part)
        })
        .await;
    }

    /// Runs the launcher as an agent would, whose death this test plays.
    fn launcher(&self, program: &[&str]) -> Command {
        fs::create_dir_all(self.path("run")).unwrap();
        let mut command = Command::new(binary("cbagent"));
        command
            .arg("launch")
            .arg("--lock")
            .arg(self.path("run/node.lock"))
            .arg("--")
            .args(program);
        command
            .current_dir(self.folder.path())
            .stderr(Stdio::null());
        command
    }

    fn write_record(&self, pid: u32) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .nth(19)
            .unwrap();
        let boot = SystemClock::new().unwrap().now().boot;
        fs::create_dir_all(self.path("run")).unwrap();
        let record = format!("pid {pid}\nstart {start}\nboot {boot}\nend\n");
        fs::write(self.path("run/node.lock"), record).unwrap();
    }
}

/// A process that is none of the supervisor's business; ended with the test.
struct Foreign(Child);

impl Foreign {
    fn new() -> Self {
        Self(Command::new("/bin/sleep").arg("60").spawn().unwrap())
    }

    fn is_untouched(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

fn pid_of(state: UnitState) -> Option<u32> {
    match state {
        UnitState::Running { pid, .. } => Some(pid),
        UnitState::Stopped { .. } => None,
    }
}

fn stopped(last_exit: Option<&str>) -> UnitState {
    UnitState::Stopped {
        last_exit: last_exit.map(str::to_owned),
    }
}

fn process_is_there(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

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
                "process::an_agent_to_be_killed",
                "--ignored",
                "--quiet",
            ])
            .env("CBDDC_TESTS_GROUND", ground.folder.path())
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
    let ground = Ground::new();
    let supervisor = ground.shell("sleep 60 & echo child $!; wait");
    supervisor.start().await.unwrap();
    ground.wait_for_text("node.log", "child ").await;
    let child: u32 = ground
        .text("node.log")
        .trim()
        .strip_prefix("child ")
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(supervisor.stop(PATIENCE).await.unwrap(), Stop::Asked);
    wait_until("the child ended", async || !process_is_there(child)).await;
}

/// A node that leaves a process of another session behind and ends; the process writes its number.
fn stray(extra: &str) -> String {
    format!("setsid sh -c '{extra} echo $$ > stray; exec sleep 60' & exit 0")
}

async fn stray_pid(ground: &Ground) -> u32 {
    ground.wait_for_text("stray", "\n").await;
    ground.text("stray").trim().parse().unwrap()
}

#[tokio::test]
async fn what_a_node_left_behind_counts_as_running_until_it_is_stopped() {
    // The second one closes every inherited file, as daemons of the old school do, and with it the
    // lock; the third one forgets its environment.
    let close_all = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-;";
    let forget = "[ -z \"$CBAGENT_NODE_LOCK\" ] || exec env -i /bin/sh -c \"echo \\$\\$ > stray; exec sleep 60\";";
    for (case, extra) in [("plain", ""), ("closed", close_all), ("forgot", forget)] {
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
    let supervisor = ground.supervisor("/bin/sleep", &["60"]);
    supervisor.start().await.unwrap();
    // A foreign process that has the lock file open, as a probing agent has.
    let open = fs::File::open(ground.path("run/node.lock")).unwrap();
    let mut foreign = Foreign(
        Command::new("/bin/sleep")
            .arg("60")
            .stdin(open)
            .spawn()
            .unwrap(),
    );
    supervisor.stop(PATIENCE).await.unwrap();
    assert!(foreign.is_untouched());
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
