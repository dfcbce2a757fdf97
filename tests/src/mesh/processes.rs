//! Processes by their numbers, never mistaken for others that came later.

use super::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long a process may take to vanish after SIGKILL.
const VANISH_LIMIT: Duration = Duration::from_secs(10);

/// A process: its number, and when it started in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started.
    pub start: u64,
}

impl Process {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may hold anything; the fields after it are counted from 3.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, start })
    }

    /// The node that the lock file of an agent names, while it lives.
    pub fn of_lock(lock: &Path) -> Option<Self> {
        let text = fs::read_to_string(lock).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u64>().ok()
        };
        let recorded = Self {
            pid: field("pid ")?.try_into().ok()?,
            start: field("start ")?,
        };
        (Self::of(recorded.pid) == Some(recorded)).then_some(recorded)
    }

    /// True while it lives.
    pub fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal, if it lives.
    pub fn signal(self, signal: Signal) {
        if !self.lives() {
            return;
        }
        let pid = self.pid.try_into().ok().and_then(Pid::from_raw);
        // It may have ended in between.
        let _ = kill_process(pid.expect("a process has a number above 0"), signal);
    }

    /// Kills it and waits until it is gone.
    pub fn kill(self) {
        self.signal(Signal::KILL);
        wait_for("a killed process is gone", VANISH_LIMIT, || {
            (!self.lives()).then_some(())
        });
    }
}
