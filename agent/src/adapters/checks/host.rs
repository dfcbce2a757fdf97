//! Whether the host has room, and the right time: disk, memory, load, open files, clock.

use super::{Finding, figure};
use crate::adapters::host::{self, HostError};
use crate::adapters::skews::Skews;
use crate::error_chain;
use crate::ports::{Supervisor, UnitState};
use cbddc_domain::health::{Status, doubt_clock};
use std::path::PathBuf;
use std::time::Duration;

/// When the host counts as short of something. It never counts as worse than degraded: another
/// release would find the same host.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// A path on the file system that has the node's data.
    pub data_dir: PathBuf,
    /// Free bytes on it below which the host is degraded.
    pub min_free_disk_bytes: u64,
    /// Available bytes of memory below which the host is degraded; 0 switches this off.
    pub min_available_memory_bytes: u64,
    /// Load per CPU above which the host is degraded, where this is looked at.
    pub max_load_per_cpu: Option<f64>,
    /// Open files in percent of their limit, of the host's and of the node's, above which the host is
    /// degraded.
    pub max_open_files_percent: u64,
    /// How far the clock may be from the other members'.
    pub max_clock_skew: Duration,
    /// What the others told of theirs.
    pub skews: Skews,
}

pub(super) async fn host(settings: HostSettings, supervisor: &dyn Supervisor) -> Finding {
    let pid = match supervisor.state().await {
        Ok(UnitState::Running { pid, .. }) => Some(pid),
        Ok(UnitState::Stopped { .. }) | Err(_) => None,
    };
    // File systems can hang; that must not hold up the other tasks of this thread.
    match tokio::task::spawn_blocking(move || host_now(&settings, pid)).await {
        Ok(outcome) => outcome,
        Err(_) => (Status::Unknown, "the agent is shutting down".to_owned()).into(),
    }
}

fn host_now(settings: &HostSettings, pid: Option<u32>) -> Finding {
    match judge_host(settings, pid) {
        Ok(outcome) => outcome,
        Err(error) => (Status::Unknown, error_chain(&error)).into(),
    }
}

fn judge_host(settings: &HostSettings, pid: Option<u32>) -> Result<Finding, HostError> {
    let (disk, memory, load) = (
        host::disk(&settings.data_dir)?,
        host::memory()?,
        host::load()?,
    );
    let (free, available) = (disk.free_bytes, memory.available_bytes);
    let mut short = Vec::new();
    if free < settings.min_free_disk_bytes {
        let wanted = mebibytes(settings.min_free_disk_bytes);
        short.push(format!(
            "{} MiB free of {wanted} MiB wanted on {}",
            mebibytes(free),
            settings.data_dir.display()
        ));
    }
    if available < settings.min_available_memory_bytes {
        let wanted = mebibytes(settings.min_available_memory_bytes);
        let available = mebibytes(available);
        short.push(format!(
            "{available} MiB of memory available of {wanted} MiB wanted"
        ));
    }
    if settings
        .max_load_per_cpu
        .is_some_and(|max| load.per_cpu() > max)
    {
        short.push(format!("load {:.1} on {} CPUs", load.one_minute, load.cpus));
    }
    let mut files = host::open_files()?.percent();
    if files > settings.max_open_files_percent {
        short.push(format!("{files} % of the host's open files are in use"));
    }
    // Another user's process cannot be looked into without the right to; that is no shortage.
    if let Some(Ok(Some(of_node))) = pid.map(host::open_files_of) {
        files = files.max(of_node.percent());
        if of_node.percent() > settings.max_open_files_percent {
            let (open, most) = (of_node.open, of_node.most);
            short.push(format!("the node has {open} of at most {most} files open"));
        }
    }
    let most_ms = settings.max_clock_skew.as_millis();
    let most_ms = most_ms.try_into().unwrap_or(u64::MAX);
    short.extend(doubt_clock(&settings.skews.offsets(), most_ms));
    let figures = vec![
        figure("disk_free", free, "B"),
        figure("memory_available", available, "B"),
        figure("open_files", files, "%"),
    ];
    let (status, detail) = if short.is_empty() {
        let (disk, memory) = (mebibytes(free), mebibytes(available));
        let load = load.one_minute;
        let text =
            format!("{disk} MiB of disk free, {memory} MiB of memory available, load {load:.1}");
        (Status::Healthy, text)
    } else {
        (Status::Degraded, short.join("; "))
    };
    Ok(Finding {
        status,
        detail,
        figures,
    })
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}
