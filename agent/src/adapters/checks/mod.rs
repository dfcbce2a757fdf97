//! The checks of one node: process, port, `/health` and host, all at once, each within a limit of its
//! own. What they are worth is decided in `cbddc_domain::health`.

mod reply;

pub use reply::read_reply;

use crate::adapters::host::{self, HostError};
use crate::adapters::http::{self, HttpAddress};
use crate::error_chain;
use crate::ports::{Supervisor, UnitState};
use cbddc_domain::health::{Check, Measurement, Status, judge_reply};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// The limit of each check where nothing else is configured.
pub const CHECK_LIMIT_DEFAULT: Duration = Duration::from_secs(2);

/// When the host counts as short of something. It never counts as worse than degraded: another
/// release would find the same host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSettings {
    /// A path on the file system that has the node's data.
    pub data_dir: PathBuf,
    /// Free bytes on it below which the host is degraded.
    pub min_free_disk_bytes: u64,
    /// Available bytes of memory below which the host is degraded; 0 switches this off.
    pub min_available_memory_bytes: u64,
    /// Load per CPU above which the host is degraded, where this is looked at.
    pub max_load_per_cpu: Option<f64>,
}

/// The checks of one node.
#[derive(Clone)]
pub struct NodeChecks {
    /// Knows the node's process.
    pub supervisor: Arc<dyn Supervisor>,
    /// Where the node listens, if that is to be checked.
    pub tcp: Option<SocketAddr>,
    /// Where the node tells its health, if it does.
    pub http: Option<HttpAddress>,
    /// What is looked at on the host, if anything.
    pub host: Option<HostSettings>,
    /// How long each check may take.
    pub limit: Duration,
}

impl NodeChecks {
    /// Measures everything that is configured, all at once; takes at most about `limit`, whatever
    /// hangs. Always in the order unit, tcp, http, host. Other checks, run through [`measured`] at the
    /// same time, may be appended.
    pub async fn measure(&self) -> Vec<Measurement> {
        let (unit, tcp, http, host) = tokio::join!(
            measured(Check::Unit, self.limit, unit(&*self.supervisor)),
            optional(
                self.tcp
                    .map(|address| measured(Check::Tcp, self.limit, tcp(address)))
            ),
            // The HTTP client tells by itself how far it came; the outer limit only backs it up.
            optional(self.http.as_ref().map(|address| measured(
                Check::Http,
                self.limit,
                http(address, self.limit)
            ))),
            optional(self.host.clone().map(|settings| measured(
                Check::Host,
                self.limit,
                host(settings)
            ))),
        );
        [Some(unit), tcp, http, host]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Runs one check within a limit; one that hangs is unhealthy, because what it asks does not answer.
pub async fn measured(
    check: Check,
    limit: Duration,
    work: impl Future<Output = (Status, String)>,
) -> Measurement {
    let began = Instant::now();
    let (status, detail) = match timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => (
            Status::Unhealthy,
            format!("no answer within {} ms", limit.as_millis()),
        ),
    };
    let took_ms = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    Measurement {
        check,
        status,
        detail,
        took_ms,
    }
}

async fn optional<T>(work: Option<impl Future<Output = T>>) -> Option<T> {
    match work {
        Some(work) => Some(work.await),
        None => None,
    }
}

async fn unit(supervisor: &dyn Supervisor) -> (Status, String) {
    match supervisor.state().await {
        Ok(UnitState::Running { pid, .. }) => (Status::Healthy, format!("runs as process {pid}")),
        Ok(UnitState::Stopped {
            last_exit: Some(words),
        }) => (
            Status::Unhealthy,
            format!("does not run; it ended with: {words}"),
        ),
        Ok(UnitState::Stopped { last_exit: None }) => {
            (Status::Unhealthy, "does not run".to_owned())
        }
        Err(error) => (Status::Unknown, error.to_string()),
    }
}

async fn tcp(address: SocketAddr) -> (Status, String) {
    match TcpStream::connect(address).await {
        Ok(_) => (Status::Healthy, format!("{address} accepts connections")),
        Err(error) => (
            Status::Unhealthy,
            format!("{address} does not accept connections: {error}"),
        ),
    }
}

async fn http(address: &HttpAddress, limit: Duration) -> (Status, String) {
    match http::get(address, limit).await {
        Ok(answer) => judge_reply(&read_reply(answer)),
        Err(error) => (Status::Unhealthy, error_chain(&error)),
    }
}

async fn host(settings: HostSettings) -> (Status, String) {
    // File systems can hang; that must not hold up the other tasks of this thread.
    match tokio::task::spawn_blocking(move || host_now(&settings)).await {
        Ok(outcome) => outcome,
        Err(_) => (Status::Unknown, "the agent is shutting down".to_owned()),
    }
}

fn host_now(settings: &HostSettings) -> (Status, String) {
    match judge_host(settings) {
        Ok(outcome) => outcome,
        Err(error) => (Status::Unknown, error_chain(&error)),
    }
}

fn judge_host(settings: &HostSettings) -> Result<(Status, String), HostError> {
    let (disk, memory, load) = (
        host::disk(&settings.data_dir)?,
        host::memory()?,
        host::load()?,
    );
    let mut short = Vec::new();
    if disk.free_bytes < settings.min_free_disk_bytes {
        let (free, wanted) = (
            mebibytes(disk.free_bytes),
            mebibytes(settings.min_free_disk_bytes),
        );
        short.push(format!(
            "{free} MiB free of {wanted} MiB wanted on {}",
            settings.data_dir.display()
        ));
    }
    if memory.available_bytes < settings.min_available_memory_bytes {
        let (free, wanted) = (
            mebibytes(memory.available_bytes),
            mebibytes(settings.min_available_memory_bytes),
        );
        short.push(format!(
            "{free} MiB of memory available of {wanted} MiB wanted"
        ));
    }
    if settings
        .max_load_per_cpu
        .is_some_and(|max| load.per_cpu() > max)
    {
        short.push(format!("load {:.1} on {} CPUs", load.one_minute, load.cpus));
    }
    if !short.is_empty() {
        return Ok((Status::Degraded, short.join("; ")));
    }
    let (disk, memory) = (
        mebibytes(disk.free_bytes),
        mebibytes(memory.available_bytes),
    );
    let detail = format!(
        "{disk} MiB of disk free, {memory} MiB of memory available, load {:.1}",
        load.one_minute
    );
    Ok((Status::Healthy, detail))
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}
