//! What `/proc` tells about processes, and signals that cannot reach the wrong one.

use super::lock::Record;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Linux reports start times to user space in hundredths of a second on every architecture that
/// Rust and .NET run on (`USER_HZ`).
const MS_PER_TICK: u64 = 10;

/// More than the line of `/proc/PID/stat` ever takes: a name of 15 bytes and 51 numbers.
const STAT_BYTES_MAX: usize = 2_048;

/// The environment variable that marks the processes of a node; its value is the lock file. It
/// finds those that closed the inherited lock.
pub(super) const MARKER: &str = "CBAGENT_NODE_LOCK";

/// One process, as it was when `/proc/PID/stat` was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Clock ticks between boot and its start; with the pid, names a process for one boot.
    pub(super) start_ticks: u64,
    pub(super) session: u32,
    /// The name of the program, shortened by the kernel to 15 bytes.
    pub(super) name: String,
}

impl Process {
    /// Reads a process that lives. `None` when there is none, or only a zombie, which runs no code
    /// and holds no file.
    pub(super) fn read(pid: u32) -> Option<Self> {
        let mut buffer = [0; STAT_BYTES_MAX];
        let text = read_start(&format!("/proc/{pid}/stat"), &mut buffer).ok()?;
        Self::parse(pid, &String::from_utf8_lossy(text))
    }

    /// The name may contain spaces and brackets, so fields are counted from its *last* bracket
    /// (`man 5 proc_pid_stat`).
    fn parse(pid: u32, text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        // Field 3 of the manual is the first one after the name.
        let mut fields = tail.split_ascii_whitespace();
        let (state, session) = (fields.next()?, fields.nth(2)?);
        let start_ticks = fields.nth(15)?;
        if matches!(state, "Z" | "X" | "x") {
            return None;
        }
        Some(Self {
            pid,
            start_ticks: start_ticks.parse().ok()?,
            session: session.parse().ok()?,
            name: name.chars().filter(|c| !c.is_control()).collect(),
        })
    }

    /// Milliseconds between boot and the start of this process.
    pub(super) fn started_ms(&self) -> u64 {
        self.start_ticks.saturating_mul(MS_PER_TICK)
    }

    /// True while this very process lives, not merely another with its number.
    pub(super) fn lives(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.start_ticks == self.start_ticks)
    }

    /// Sends a signal to this very process; does nothing if it has ended.
    ///
    /// The pid file descriptor pins the process: its start time is compared after it was opened, so
    /// a reused number is noticed before anything is sent.
    pub(super) fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error),
        };
        if !self.lives() {
            return Ok(());
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// True when this process carries the marker of its node or holds the lock; `None` when that may
    /// not be read, as for a process of another user.
    pub(super) fn is_marked(&self, lock: &Path) -> Option<bool> {
        let by_marker = carries_marker(self.pid, lock);
        if by_marker == Some(true) {
            return by_marker;
        }
        let by_lock = holds_lock(self.pid, lock);
        if by_lock == Some(true) {
            by_lock
        } else {
            by_marker.and(by_lock)
        }
    }
}

/// The processes that carry the marker, and all of the session that the node began; the oldest
/// first, this one excepted. A small file is read for each process of the host, and one more for
/// those that are younger than the leader: everything of a node descends from it.
pub(super) fn members(lock: &Path, leader: Option<&Record>) -> Vec<Process> {
    let oldest = leader.map_or(0, |record| record.start_ticks);
    let all: Vec<(Process, bool)> = others()
        .filter(|one| one.start_ticks >= oldest)
        .map(|one| {
            let marked = carries_marker(one.pid, lock) == Some(true);
            (one, marked)
        })
        .collect();
    // A session number can be trusted only while a process that is surely ours belongs to it.
    let session = leader.map(|record| record.pid).filter(|session| {
        all.iter()
            .any(|(one, marked)| *marked && one.session == *session)
    });
    let ours =
        |(one, marked): (Process, bool)| (marked || session == Some(one.session)).then_some(one);
    oldest_first(all.into_iter().filter_map(ours))
}

/// A process and everything that descends from it, as far as `/proc` tells (it may be built without
/// `CONFIG_PROC_CHILDREN`): much cheaper than [`members`], but blind for what was left by its parent.
pub(super) fn family(leader: Process) -> Vec<Process> {
    let mut found = vec![leader];
    let mut at = 0;
    while let Some(parent) = found.get(at) {
        let children = children_of(parent.pid);
        let new = children.filter(|pid| !found.iter().any(|known| known.pid == *pid));
        let new: Vec<Process> = new.filter_map(Process::read).collect();
        found.extend(new);
        at += 1;
    }
    found
}

/// The children that any thread of the process began.
fn children_of(pid: u32) -> impl Iterator<Item = u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = |list: String| -> Vec<u32> {
        let words = list.split_ascii_whitespace();
        words.filter_map(|pid| pid.parse().ok()).collect()
    };
    lists.flat_map(pids)
}

/// The processes that hold the lock, the oldest first, this one excepted. Reads every open file of
/// the host, so it is asked only when [`members`] does not explain who holds the lock: the marker can
/// be lost with the environment.
pub(super) fn lock_holders(lock: &Path) -> Vec<Process> {
    oldest_first(others().filter(|one| holds_lock(one.pid, lock) == Some(true)))
}

fn oldest_first(processes: impl Iterator<Item = Process>) -> Vec<Process> {
    let mut found: Vec<Process> = processes.collect();
    found.sort_by_key(|one| (one.start_ticks, one.pid));
    found
}

/// Every living process but this one.
fn others() -> impl Iterator<Item = Process> {
    let own_pid = std::process::id();
    pids()
        .filter(move |pid| *pid != own_pid)
        .filter_map(Process::read)
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether an open file of the process is the lock file, and locked through it. To have it open is
/// not enough: an agent that probes the lock has it open for a moment, too.
fn holds_lock(pid: u32, lock: &Path) -> Option<bool> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    for entry in entries.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target == lock) {
            let name = entry.file_name();
            let info = format!("/proc/{pid}/fdinfo/{}", name.to_string_lossy());
            let info = fs::read_to_string(info).unwrap_or_default();
            if info
                .lines()
                .any(|line| line.starts_with("lock:") && line.contains("WRITE"))
            {
                return Some(true);
            }
        }
    }
    Some(false)
}

/// The start of a file of `/proc`, as much as one read gives.
fn read_start<'buffer>(path: &str, buffer: &'buffer mut [u8]) -> io::Result<&'buffer [u8]> {
    let count = File::open(path)?.read(buffer)?;
    Ok(&buffer[..count])
}

fn carries_marker(pid: u32, lock: &Path) -> Option<bool> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{MARKER}=");
    Some(environment.split(|byte| *byte == 0).any(|variable| {
        variable
            .strip_prefix(prefix.as_bytes())
            .is_some_and(|value| value == lock.as_os_str().as_bytes())
    }))
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = "7 (a) R 1 (b) S 1 70 71 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 103098 4 0";
        let process = Process::parse(7, text).unwrap();
        assert_eq!((process.session, process.start_ticks), (71, 103_098));
        assert_eq!(process.name, "a) R 1 (b");
        assert_eq!(process.started_ms(), 1_030_980);
    }

    #[test]
    fn a_zombie_and_a_torn_line_are_no_process() {
        assert_eq!(
            Process::parse(7, "7 (a) Z 1 70 71 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9 4 0"),
            None
        );
        assert_eq!(Process::parse(7, "7 (a) S 1 70"), None);
        assert_eq!(Process::parse(7, ""), None);
    }

    #[test]
    fn this_process_lives_and_another_start_time_does_not() {
        let own = Process::read(std::process::id()).unwrap();
        assert!(own.lives());
        assert!(
            !Process {
                start_ticks: own.start_ticks + 1,
                ..own
            }
            .lives()
        );
    }
}
