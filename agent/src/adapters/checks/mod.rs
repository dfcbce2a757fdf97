//! The checks of one node, each within a limit of its own. What they are worth is decided in
//! `cbddc_domain::health`, when they run in the monitor.

mod blite;
mod database;
mod exec;
mod host;
mod journal_mode;
mod reply;
mod unit;

pub use blite::{BliteSettings, look_at as look_at_blite};
pub use database::{DatabaseCheck, DatabaseSettings};
pub use exec::{ExecSettings, exec as run_program};
pub use host::HostSettings;
pub use reply::read_reply;
pub use unit::UnitCheck;

use crate::adapters::http::{self, HttpTarget};
use crate::adapters::node_protocol::NodeProtocol;
use crate::error_chain;
use crate::ports::Supervisor;
use cbddc_domain::health::{Check, Measurement, Perf, Policy, Severity, Status, judge_reply};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// The limit of each check where nothing else is configured.
pub const CHECK_LIMIT_DEFAULT: Duration = Duration::from_secs(2);

/// How much later than the check itself its backstop ends it: a check that knows its limit says
/// better what it has waited for.
const BACKSTOP: Duration = Duration::from_millis(200);

/// What a check asks.
pub enum Probe {
    /// Whether the node's process runs.
    Unit(UnitCheck),
    /// Whether a port accepts connections, `HOST:PORT`.
    Tcp(String),
    /// The same of a node's sync port, which takes no connection without a word.
    SyncPort(Arc<NodeProtocol>, String),
    /// What a health page says.
    Http(HttpTarget),
    /// Whether a page that reads the database answers: a health page may say Healthy over a lost one.
    Reads(HttpTarget),
    /// Whether the node speaks CBDDC and knows its peers.
    Cbddc(Arc<NodeProtocol>),
    /// Whether a database can be read and is sound.
    Database(Arc<DatabaseCheck>),
    /// Whether a BLite database is there, and how large its log is.
    Blite(BliteSettings),
    /// Whether the host has room.
    Host(HostSettings),
    /// What a program says.
    Exec(ExecSettings),
}

/// A check, and its newest result where a run is costly.
pub struct NodeCheck {
    policy: Policy,
    probe: Probe,
    newest: Mutex<Option<(Instant, Measurement)>>,
}

impl NodeCheck {
    /// Nothing was measured yet.
    pub fn new(policy: Policy, probe: Probe) -> Self {
        Self {
            policy,
            probe,
            newest: Mutex::default(),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.policy.timeout_ms)
    }

    async fn run(&self, supervisor: &dyn Supervisor) -> Measurement {
        let limit = self.limit();
        let kind = self.policy.kind;
        let mut measurement = match &self.probe {
            Probe::Unit(unit) => measured(kind, limit, unit.look(supervisor)).await,
            Probe::Tcp(address) => measured(kind, limit, tcp(address)).await,
            Probe::SyncPort(protocol, address) => {
                let asking = protocol.takes_connections(address, supervisor);
                measured(kind, limit, asking).await
            }
            Probe::Http(target) => measured(kind, limit + BACKSTOP, http(target, limit)).await,
            Probe::Reads(target) => measured(kind, limit + BACKSTOP, reads(target, limit)).await,
            Probe::Cbddc(protocol) => protocol.measure(supervisor).await,
            Probe::Database(database) => {
                measured(kind, limit, database.clone().look(supervisor, limit)).await
            }
            Probe::Blite(settings) => measured(kind, limit, blite::look_at(settings)).await,
            Probe::Host(settings) => {
                measured(kind, limit, host::host(settings.clone(), supervisor)).await
            }
            Probe::Exec(settings) => {
                measured(kind, limit + BACKSTOP, exec::exec(settings, limit)).await
            }
        };
        measurement.name = self.policy.name.clone();
        measurement.severity = self.policy.severity;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = Some((Instant::now(), measurement.clone()));
        measurement
    }

    /// What is told of a run that was not waited for.
    fn late(&self, within: Duration) -> Measurement {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, measurement)) = newest.as_ref() {
            return measurement.clone();
        }
        Measurement {
            check: self.policy.kind,
            name: self.policy.name.clone(),
            severity: self.policy.severity,
            status: Status::Unknown,
            detail: format!("no answer within {} ms yet", within.as_millis()),
            took_ms: within.as_millis().try_into().unwrap_or(u64::MAX),
            figures: Vec::new(),
        }
    }

    /// A program's result that was good and is not older than the pause between its runs.
    fn recent(&self) -> Option<Measurement> {
        let interval = Duration::from_millis(self.policy.interval_ms);
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, measurement) = newest.as_ref()?;
        let holds = self.policy.kind == Check::Exec
            && measurement.status.is_acceptable()
            && when.elapsed() < interval;
        holds.then(|| measurement.clone())
    }
}

/// The checks of one node.
#[derive(Clone)]
pub struct NodeChecks {
    /// Knows the node's process.
    pub supervisor: Arc<dyn Supervisor>,
    /// The checks, in the order in which they are shown.
    pub checks: Arc<Vec<NodeCheck>>,
}

impl NodeChecks {
    /// How each is run and judged.
    pub fn policies(&self) -> Vec<Policy> {
        let policies = self.checks.iter().map(|check| check.policy.clone());
        policies.collect()
    }

    /// Runs one, by its place.
    ///
    /// # Panics
    /// When there is no such check.
    pub async fn measure_one(&self, check: usize) -> Measurement {
        self.checks[check].run(&*self.supervisor).await
    }

    /// Runs all, all at once, in their order; takes as long as the slowest, and not longer than
    /// `within`: a check that takes longer is told as its last run was. A program that was content not
    /// long ago is not run again.
    pub async fn measure(&self, within: Duration) -> Vec<Measurement> {
        let runs = (0..self.checks.len()).map(|index| {
            let all = self.clone();
            async move {
                let check = &all.checks[index];
                if let Some(measurement) = check.recent() {
                    return measurement;
                }
                let run = timeout(within, all.measure_one(index)).await;
                run.unwrap_or_else(|_| check.late(within))
            }
        });
        join_all(runs).await
    }
}

/// Runs futures at once in this task, and returns what they return, in their order.
pub(crate) async fn join_all<T>(runs: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut open: Vec<_> = runs.map(|run| (Box::pin(run), None)).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (run, result) in &mut open {
            if result.is_none() {
                match run.as_mut().poll(context) {
                    std::task::Poll::Ready(done) => *result = Some(done),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    open.into_iter().filter_map(|(_, result)| result).collect()
}

/// What one run of a check found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What it showed.
    pub status: Status,
    /// The same in a sentence.
    pub detail: String,
    /// Figures that came with it.
    pub figures: Vec<Perf>,
}

impl From<(Status, String)> for Finding {
    fn from((status, detail): (Status, String)) -> Self {
        Self {
            status,
            detail,
            figures: Vec::new(),
        }
    }
}

/// Runs one check within a limit; one that hangs is unhealthy, because what it asks does not answer.
pub async fn measured<F: Into<Finding>>(
    check: Check,
    limit: Duration,
    work: impl Future<Output = F>,
) -> Measurement {
    let began = Instant::now();
    let finding = match timeout(limit, work).await {
        Ok(outcome) => outcome.into(),
        Err(_) => Finding::from((
            Status::Unhealthy,
            format!("no answer within {} ms", limit.as_millis()),
        )),
    };
    let took_ms = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    Measurement {
        check,
        name: check.as_str().to_owned(),
        severity: Severity::Critical,
        status: finding.status,
        detail: finding.detail,
        took_ms,
        figures: finding.figures,
    }
}

async fn tcp(address: &str) -> (Status, String) {
    match TcpStream::connect(address).await {
        Ok(_) => (Status::Healthy, format!("{address} accepts connections")),
        Err(error) => (
            Status::Unhealthy,
            format!("{address} does not accept connections: {error}"),
        ),
    }
}

async fn http(target: &HttpTarget, limit: Duration) -> (Status, String) {
    match http::get(target, limit).await {
        Ok(answer) => judge_reply(&read_reply(answer)),
        Err(error) => (Status::Unhealthy, error_chain(&error)),
    }
}

async fn reads(target: &HttpTarget, limit: Duration) -> (Status, String) {
    match http::get(target, limit).await {
        Ok(answer) if (200..300).contains(&answer.code) => {
            let text = format!("the page that reads the database answered {}", answer.code);
            (Status::Healthy, text)
        }
        Ok(answer) => {
            let text = format!("the page that reads the database answered {}", answer.code);
            (Status::Unhealthy, text)
        }
        Err(error) => {
            let why = error_chain(&error);
            let text = format!("the page that reads the database does not answer: {why}");
            (Status::Unhealthy, text)
        }
    }
}

/// A figure of our own.
fn figure(label: &str, value: u64, unit: &str) -> Perf {
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures are for people and graphs"
    )]
    Perf {
        label: label.to_owned(),
        value: value as f64,
        unit: unit.to_owned(),
    }
}
