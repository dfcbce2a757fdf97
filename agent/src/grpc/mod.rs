//! The edge: a file per service. Each turns a request into domain types, hands it to the engine or
//! an adapter, and turns the answer back. Nothing is decided here but who may call.

pub mod access;
mod adoption;
mod authority;
mod builds;
mod data_inside;
mod health;
mod joining;
mod journal;
mod mesh;
mod node;
mod releases;
mod removing;
mod replication;
mod reseeding;
mod rollouts;
mod server;
mod snapshots;
mod stops;
mod stranded;

pub use joining::Joining;
pub(crate) use node::phase_text;
pub use server::{ServeError, serve};

use crate::adapters::builds::BuildStore;
use crate::adapters::clusters::ClusterAccess;
use crate::adapters::evidence::EvidenceKeeper;
use crate::adapters::health_history::HealthHistory;
use crate::adapters::roster::RosterKeeper;
use crate::adapters::seen::Seen;
use crate::adapters::snapshots::SnapshotStore;
use crate::adapters::sqlite::SqliteStore;
use crate::adapters::swim::Swim;
use crate::adapters::tls::{Caller, Tls};
use crate::engine::{EngineError, EngineHandle};
use crate::monitor::Health;
use crate::ports::{Units, World};
use cbddc_domain::node::Refusal;
use cbddc_domain::register::EpochRefusal;
use cbddc_domain::replication::Findings;
use cbddc_proto::WORD_KEY;
use cbddc_proto::convert::Malformed;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

/// Bundles that may arrive at once; each takes disk and a thread.
pub const UPLOADS_MAX: usize = 4;

/// What the services share.
#[derive(Clone)]
pub struct Services {
    /// Room for bundles that arrive.
    pub uploads: Arc<Semaphore>,
    /// The state machine.
    pub engine: EngineHandle,
    /// The journal.
    pub store: SqliteStore,
    /// The builds.
    pub builds: BuildStore,
    /// The snapshots.
    pub snapshots: Arc<SnapshotStore>,
    /// The node's databases.
    pub databases: Arc<Vec<PathBuf>>,
    /// The checks.
    pub world: Arc<dyn World>,
    /// The newest health.
    pub health: watch::Receiver<Health>,
    /// What health was before.
    pub history: HealthHistory,
    /// The clusters that the node serves, with events and documents; empty: none is configured.
    pub clusters: Arc<Vec<ClusterAccess>>,
    /// What this agent has found about replication by itself.
    pub findings: watch::Receiver<Findings>,
    /// The node's unit; unset: the agent supervises the node's process itself.
    pub unit: Option<Arc<dyn Units>>,
    /// Whether a majority of the voters was heard since the host started.
    pub met: watch::Receiver<bool>,
    /// Where the agent keeps everything.
    pub state_dir: PathBuf,
    /// Who is in the mesh.
    pub roster: RosterKeeper,
    /// What makes others believe a record.
    pub evidence: EvidenceKeeper,
    /// This agent's identity.
    pub tls: Tls,
    /// What it takes to let hosts in.
    pub joining: Joining,
    /// When each member was last heard of.
    pub seen: Seen,
    /// Which members are there.
    pub swim: Swim,
}

/// A status with its stable word.
fn refuse(code: Code, word: &str, text: impl Into<String>) -> Status {
    let mut status = Status::new(code, text);
    if let Ok(word) = MetadataValue::try_from(word) {
        status.metadata_mut().insert(WORD_KEY, word);
    }
    status
}

fn malformed(error: Malformed) -> Status {
    refuse(Code::InvalidArgument, "malformed", error.to_string())
}

/// The one mapping from the engine's errors to gRPC codes.
fn engine_error(error: EngineError) -> Status {
    let text = error.to_string();
    match error {
        EngineError::Refused(refusal) => {
            let code = match &refusal {
                Refusal::Epoch(EpochRefusal::Behind { .. }) | Refusal::NoLease(_) => Code::Aborted,
                Refusal::Unknown(_) => Code::NotFound,
                Refusal::Epoch(
                    EpochRefusal::Sealed(_)
                    | EpochRefusal::Closed(_)
                    | EpochRefusal::Revoked { .. }
                    | EpochRefusal::OtherVoters
                    | EpochRefusal::ChangesMore
                    | EpochRefusal::Forced
                    | EpochRefusal::OtherRecord(_)
                    | EpochRefusal::TooManyVotes,
                )
                | Refusal::Locked { .. }
                | Refusal::Busy(_)
                | Refusal::Starting
                | Refusal::MemoryLost { .. }
                | Refusal::Forgotten(_)
                | Refusal::Alarmed(_)
                | Refusal::Frozen { .. }
                | Refusal::Quarantined { .. }
                | Refusal::Confirmed { .. } => Code::FailedPrecondition,
                Refusal::NotBack(_) => Code::PermissionDenied,
            };
            refuse(code, refusal.word(), text)
        }
        EngineError::NotSaved(_) => refuse(Code::Unavailable, "not_saved", text),
        EngineError::Stopping => refuse(Code::Unavailable, "stopping", text),
    }
}

/// Who calls, as the table of calls has let them in.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::unauthenticated("this connection has no certificate of the mesh"))
}

/// The name of the person who calls; agents may not order changes.
fn person<T>(request: &Request<T>) -> Result<String, Status> {
    match caller(request)? {
        Caller::Person { name, .. } => Ok(name),
        Caller::Agent { .. } | Caller::Stranger => {
            let text = "only people may order this";
            Err(refuse(Code::PermissionDenied, "not_allowed", text))
        }
    }
}
