//! The host, as far as a node depends on it: memory, disk, load. Each question reads only what it
//! needs; nothing is kept between two of them.

use std::io;
use std::path::{Path, PathBuf};
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// What could not be read of the host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Memory, load or processes.
    #[error("cannot read the {0} of this host")]
    System(&'static str, #[source] sysinfo::Error),
    /// Open files.
    #[error("cannot read /proc")]
    Proc(#[source] io::Error),
    /// The room on a file system.
    #[error("cannot ask for the room on {}", .0.display())]
    Disk(PathBuf, #[source] io::Error),
}

/// Memory of the host, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What is there.
    pub total_bytes: u64,
    /// What is in use.
    pub used_bytes: u64,
    /// What a program could get without the host having to swap.
    pub available_bytes: u64,
}

/// Reads the memory of the host.
pub fn memory() -> Result<Memory, HostError> {
    let mut system = System::new().map_err(|error| HostError::System("memory", error))?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    Ok(Memory {
        total_bytes: system.total_memory(),
        used_bytes: system.used_memory(),
        available_bytes: system.available_memory(),
    })
}

/// Room on the file system of a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// The size of the file system.
    pub total_bytes: u64,
    /// What this user may still write.
    pub free_bytes: u64,
}

/// Reads the room on the file system that `path` is on. Asks that one only: a list of all would
/// hang with the first network share that does.
pub fn disk(path: &Path) -> Result<Disk, HostError> {
    let found = rustix::fs::statvfs(path)
        .map_err(|error| HostError::Disk(path.to_owned(), error.into()))?;
    Ok(Disk {
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// How busy the host is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// The mean number of runnable tasks over the last minute.
    pub one_minute: f64,
    /// How many of them can run at once.
    pub cpus: usize,
}

impl Load {
    /// The load of each CPU; 1.0 is a host that is just fully used.
    #[expect(clippy::cast_precision_loss, reason = "no host has 2^52 CPUs")]
    pub fn per_cpu(self) -> f64 {
        self.one_minute / self.cpus.max(1) as f64
    }
}

/// Reads the load of the host.
pub fn load() -> Result<Load, HostError> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mean = System::load_average().map_err(|error| HostError::System("load", error))?;
    Ok(Load {
        one_minute: mean.one,
        cpus,
    })
}

/// The memory that a process occupies, in bytes; `None` if there is no such process.
pub fn resident_bytes(pid: u32) -> Result<Option<u64>, HostError> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new().map_err(|error| HostError::System("processes", error))?;
    let what = ProcessRefreshKind::nothing().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    Ok(system.process(pid).map(sysinfo::Process::memory))
}

/// Open files against the most there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// Open ones.
    pub open: u64,
    /// The most that are allowed.
    pub most: u64,
}

impl OpenFiles {
    /// The share that is used, in percent.
    pub fn percent(self) -> u64 {
        self.open.saturating_mul(100) / self.most.max(1)
    }
}

/// Reads the open files of the whole host.
pub fn open_files() -> Result<OpenFiles, HostError> {
    let text = read_proc("/proc/sys/fs/file-nr")?;
    let mut words = text.split_whitespace();
    let mut number = || words.next().and_then(|word| word.parse().ok());
    let (open, _, most): (_, Option<u64>, _) = (number(), number(), number());
    let unknown = || HostError::Proc(io::Error::other("/proc/sys/fs/file-nr has another form"));
    Ok(OpenFiles {
        open: open.ok_or_else(unknown)?,
        most: most.ok_or_else(unknown)?,
    })
}

/// Reads the open files of one process, and its own limit; `None` if there is no such process.
pub fn open_files_of(pid: u32) -> Result<Option<OpenFiles>, HostError> {
    let entries = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HostError::Proc(error)),
    };
    let open = u64::try_from(entries.count()).unwrap_or(u64::MAX);
    let text = read_proc(&format!("/proc/{pid}/limits"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    // `unlimited` is no number.
    let most = soft.and_then(|word| word.parse().ok()).unwrap_or(u64::MAX);
    Ok(Some(OpenFiles { open, most }))
}

fn read_proc(path: &str) -> Result<String, HostError> {
    std::fs::read_to_string(path).map_err(HostError::Proc)
}

/// This host's own name, without its domain.
pub fn name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().to_ascii_lowercase();
    name.split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{disk, load, memory, open_files, open_files_of, resident_bytes};
    use std::path::Path;

    #[test]
    fn the_host_of_this_test_is_plausible() {
        let memory = memory().unwrap();
        assert!(
            memory.total_bytes > 1 << 26 && memory.available_bytes <= memory.total_bytes,
            "{memory:?}"
        );
        let disk = disk(Path::new("/")).unwrap();
        assert!(
            disk.free_bytes <= disk.total_bytes && disk.total_bytes > 0,
            "{disk:?}"
        );
        let load = load().unwrap();
        assert!(load.one_minute >= 0.0 && load.cpus > 0 && load.per_cpu() <= load.one_minute);
        let files = open_files().unwrap();
        assert!(files.open > 0 && files.open <= files.most, "{files:?}");
        let files = open_files_of(std::process::id()).unwrap().unwrap();
        assert!(files.open > 2 && files.percent() < 100, "{files:?}");
        assert_eq!(open_files_of(999_999_999).unwrap(), None);
        let own = resident_bytes(std::process::id()).unwrap().unwrap();
        assert!((1 << 20..1 << 32).contains(&own), "{own}");
        assert_eq!(resident_bytes(999_999_999).unwrap(), None);
        assert!(super::disk(Path::new("/no/such/path")).is_err());
    }
}
