//! The ground on which tests of processes play.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start programs and play the agent"
)]

use crate::bins::binary;
use cbagent::adapters::clock::SystemClock;
use cbagent::adapters::process::{ProcessSettings, ProcessSupervisor};
use cbagent::ports::UnitState;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for a busy machine; only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of one test: run folder, log, and what the programs leave behind.
pub struct Ground {
    folder: TempDir,
}

impl Ground {
    /// A new one, removed when dropped.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Settings for a program that starts in the folder.
    pub fn settings(&self, program: &str, args: &[&str]) -> ProcessSettings {
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

    /// A supervisor over the run folder, as a new agent would have it.
    pub fn supervisor(&self, program: &str, args: &[&str]) -> ProcessSupervisor {
        ProcessSupervisor::new(self.settings(program, args)).unwrap()
    }

    /// A supervisor of a shell script.
    pub fn shell(&self, script: &str) -> ProcessSupervisor {
        self.supervisor("/bin/sh", &["-c", script])
    }

    /// What a file of the folder says; nothing when it is missing.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a file of the folder says it.
    pub async fn wait_for_text(&self, name: &str, part: &str) {
        wait_until(&format!("{name} says {part:?}"), async || {
            self.text(name).contains(part)
        })
        .await;
    }

    /// The launcher as an agent would run it, whose death this test plays.
    pub fn launcher(&self, program: &[&str]) -> Command {
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

    /// Makes the lock file name a living process.
    pub fn write_record(&self, pid: u32) {
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
pub struct Foreign(pub Child);

impl Foreign {
    /// Starts one.
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    pub fn new() -> Self {
        Self(Command::new("/bin/sleep").arg("60").spawn().unwrap())
    }

    /// True while it lives.
    pub fn is_untouched(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a condition; panics with its name when it does not come true.
pub async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// The process that runs.
pub fn pid_of(state: UnitState) -> Option<u32> {
    match state {
        UnitState::Running { pid, .. } => Some(pid),
        UnitState::Stopped { .. } => None,
    }
}

/// The state of a node that does not run.
pub fn stopped(last_exit: Option<&str>) -> UnitState {
    UnitState::Stopped {
        last_exit: last_exit.map(str::to_owned),
    }
}

/// True while the process lives or is a zombie.
pub fn process_is_there(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}
