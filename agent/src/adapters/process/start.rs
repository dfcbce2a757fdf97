//! Starting the node through the launcher.

use super::launch::{REPORT_BUSY, REPORT_LOCKED};
use super::place::{Depth, Found};
use super::{Known, OwnChild, POLL, ProcessError, ProcessSupervisor, log, procfs};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long the launcher may take, and how long another launcher that is under way is waited for.
const LAUNCH_LIMIT: Duration = Duration::from_secs(10);

/// The launcher reports in a line or two.
const REPORT_BYTES_MAX: u64 = 4_096;

/// What of the agent's environment the node may see. The rest could hold the agent's secrets.
const ENVIRONMENT_PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// What came of a launch.
enum Launched {
    /// The launcher became the node.
    Node(u32),
    /// Another supervisor's launcher was faster.
    Busy,
}

impl ProcessSupervisor {
    /// Starts the node unless it runs; returns its process id.
    pub(super) async fn start_once(&self) -> Result<u32, ProcessError> {
        let mut known = self.operation.lock().await;
        let depth = match std::mem::take(&mut *known) {
            Known::AllGone => Depth::Quick,
            Known::Nothing => Depth::Thorough,
        };
        let deadline = Instant::now() + LAUNCH_LIMIT;
        let mut before = None;
        loop {
            let late = Instant::now() >= deadline;
            match self.look(depth).await? {
                Found::Leader(process) => return Ok(process.pid),
                Found::Nothing => match self.launch().await? {
                    Launched::Node(pid) => return Ok(pid),
                    Launched::Busy if late => return Err(self.hidden()),
                    Launched::Busy => {}
                },
                // A launcher that is under way shows as one of these for a moment; it may become the
                // node between our reading of the record and of `/proc`, so only what is seen twice
                // is what an earlier node left behind.
                Found::Others(others) => {
                    let settled =
                        before.as_ref() == Some(&others) && !others.iter().any(is_launcher);
                    if late || settled {
                        return Err(others.first().map_or_else(
                            || self.hidden(),
                            |one| ProcessError::Leftover(one.into()),
                        ));
                    }
                    before = Some(others);
                }
                Found::Hidden if late => return Err(self.hidden()),
                Found::Hidden => {}
            }
            sleep(POLL).await;
        }
    }

    async fn launch(&self) -> Result<Launched, ProcessError> {
        let mut child = self.spawn_launcher()?;
        let mut report = String::new();
        if let Some(pipe) = child.stdout.take() {
            let mut pipe = pipe.take(REPORT_BYTES_MAX);
            let read = timeout(LAUNCH_LIMIT, pipe.read_to_string(&mut report)).await;
            if !matches!(read, Ok(Ok(_))) {
                // It is our own child and not waited for yet, so its number is still its own.
                let _ = child.kill().await;
                return Err(ProcessError::Silent(LAUNCH_LIMIT));
            }
        }
        let pid = child.id();
        match (report.trim_end(), pid) {
            (REPORT_LOCKED, Some(pid)) => {
                self.remember_child(reap(child, pid));
                Ok(Launched::Node(pid))
            }
            (REPORT_BUSY, _) => {
                let _ = child.wait().await;
                Ok(Launched::Busy)
            }
            (words, _) => {
                let status = child.wait().await;
                let words = words.trim_start_matches(REPORT_LOCKED).trim();
                let ended = || {
                    status.map_or_else(
                        |_| "the launcher ended".to_owned(),
                        |s| format!("the launcher ended: {}", exit_words(s)),
                    )
                };
                Err(ProcessError::Refused(if words.is_empty() {
                    ended()
                } else {
                    words.to_owned()
                }))
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the process adapter")]
    fn spawn_launcher(&self) -> Result<Child, ProcessError> {
        let settings = &self.settings;
        if !settings.working_dir.is_dir() {
            return Err(ProcessError::WorkingDir(settings.working_dir.clone()));
        }
        let log = log::open(&settings.log_file, log::LOG_BYTES_MAX)
            .map_err(|error| ProcessError::Log(settings.log_file.clone(), error))?;
        let written = log.metadata().map_or(0, |found| found.len());
        self.log_from.store(written, Ordering::Relaxed);
        let lock = self.place.lock.path();
        let mut command = Command::new(&settings.launcher);
        command
            .arg("launch")
            .arg("--lock")
            .arg(lock)
            .arg("--")
            .arg(&settings.program)
            .args(&settings.args);
        command.env_clear();
        for name in ENVIRONMENT_PASSED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .envs(settings.env.iter().map(|(name, value)| (name, value)))
            .env(procfs::MARKER, lock);
        command
            .current_dir(&settings.working_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .kill_on_drop(false)
            .spawn()
            .map_err(|error| ProcessError::Launcher(settings.launcher.clone(), error))
    }
}

/// Waits for the node in the background, so that it leaves no zombie and its exit is known.
fn reap(mut child: Child, pid: u32) -> OwnChild {
    let (told, exit) = watch::channel(None);
    tokio::spawn(async move {
        if let Ok(status) = child.wait().await {
            tracing::info!(pid, exit = exit_words(status), "the node's process ended");
            told.send_replace(Some(exit_words(status)));
        }
    });
    OwnChild { pid, exit }
}

/// True while the process is still the launcher and not yet the node.
fn is_launcher(process: &procfs::Process) -> bool {
    let command = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let mut arguments = command.split(|byte| *byte == 0).skip(1);
    arguments.next() == Some(b"launch") && arguments.next() == Some(b"--lock")
}

fn exit_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}
