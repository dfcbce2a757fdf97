//! The edge: a file per service. Each turns a request into domain types, hands it to the engine or
//! an adapter, and turns the answer back. Nothing is decided here but who may call.

mod adoption;
mod builds;
mod health;
mod journal;
mod mesh;
mod node;
mod releases;
mod rollouts;
mod server;
mod snapshots;

pub(crate) use node::phase_text;
pub use server::{ServeError, serve};

use crate::adapters::builds::BuildStore;
use crate::adapters::node_protocol::NodeProtocol;
use crate::adapters::snapshots::SnapshotStore;
use crate::adapters::sqlite::SqliteStore;
use crate::adapters::tls::{ConnectInfo, PeerIdentity};
use crate::engine::{EngineError, EngineHandle};
use crate::monitor::Health;
use crate::ports::{Units, World};
use cbddc_domain::node::Refusal;
use cbddc_domain::register::EpochRefusal;
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
    /// The node's CBDDC port; unset: it is not configured.
    pub protocol: Option<Arc<NodeProtocol>>,
    /// The node's unit; unset: the agent supervises the node's process itself.
    pub unit: Option<Arc<dyn Units>>,
    /// Whether a majority of the voters was heard since the host started.
    pub met: watch::Receiver<bool>,
    /// Where the agent keeps everything.
    pub state_dir: PathBuf,
    /// The mesh's name.
    pub mesh_name: Arc<str>,
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
                    | EpochRefusal::OtherRecord(_)
                    | EpochRefusal::TooManyVotes,
                )
                | Refusal::Locked { .. }
                | Refusal::Busy(_)
                | Refusal::Confirmed { .. } => Code::FailedPrecondition,
            };
            refuse(code, refusal.word(), text)
        }
        EngineError::NotSaved(_) => refuse(Code::Unavailable, "not_saved", text),
        EngineError::Stopping => refuse(Code::Unavailable, "stopping", text),
    }
}

/// Who calls, as the certificate says.
fn caller<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    let info = request.extensions().get::<ConnectInfo>();
    let info = info
        .ok_or_else(|| Status::unauthenticated("this connection has no certificate of the mesh"))?;
    Ok(info.peer.clone())
}

/// The name of the person who calls; agents may not order changes.
fn person<T>(request: &Request<T>) -> Result<String, Status> {
    match caller(request)? {
        PeerIdentity::Person(name) => Ok(name),
        PeerIdentity::Node(node) => {
            let text = format!("{node} is an agent: only people may order this");
            Err(refuse(Code::PermissionDenied, "not_allowed", text))
        }
    }
}
