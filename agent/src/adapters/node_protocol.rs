//! The node as its peers see it: does it take the right token and refuse a wrong one, has it joined
//! its peers, and which events does it hold. Only safe requests, one connection at a time.

mod canary;

pub use canary::{CANARY_COLLECTION, CanaryBy, CanaryError, CanarySettings};

use crate::adapters::cbddc_wire::{
    NodeStatus, Secret, Security, WireClient, WireError, WireOptions,
};
use crate::adapters::checks::measured;
use crate::error_chain;
use crate::ports::{Supervisor, UnitState};
use cbddc_domain::health::{Check, Measurement, Status};
use cbddc_domain::hlc::{Hlc, VectorClock};
use cbddc_domain::id::NodeName;
use cbddc_domain::oplog::OplogEntry;
use cbddc_domain::replication::{ExpectedPeer, Topology, of_cluster};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// The name under which the agent asks: nodes log it.
const ASKER: &str = "cbagent";

/// How often the check may open a connection to a node that was found in order.
const STEADY_INTERVAL: Duration = Duration::from_secs(30);

/// How long a peer that is up may be missing from a node that had joined it: CBDDC nodes back off up
/// to 60 s (`SyncOrchestrator.cs`).
const JOIN_GRACE: Duration = Duration::from_secs(90);

/// How long a peer's port may take to accept a connection before the peer counts as down.
const PEER_CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// How long a node may take at least to answer a question that it may not know; old builds never do.
const STATUS_LIMIT_MIN: Duration = Duration::from_millis(300);

/// The same in lengths of its answer to the handshake: a node on a busy host is slow with all its answers.
const STATUS_LIMIT_HANDSHAKES: u32 = 10;

/// How to reach the node.
#[derive(Debug, Clone)]
pub struct NodeProtocolSettings {
    /// The cluster's name; empty where it has none.
    pub cluster: String,
    /// How the cluster's nodes get events.
    pub topology: Topology,
    /// Where it listens, `HOST:PORT`.
    pub address: String,
    /// The cluster's token.
    pub token: Secret,
    /// Whether it speaks the secure channel.
    pub security: Security,
    /// The peers it is expected to join.
    pub expected_peers: Vec<ExpectedPeer>,
    /// The collections that must replicate; empty: all that move.
    pub target_collections: Vec<String>,
    /// The collections in which anything that is found is critical.
    pub critical_collections: Vec<String>,
    /// How events are written on purpose; unset: they are not.
    pub canary: Option<CanarySettings>,
    /// How long the whole check may take.
    pub limit: Duration,
}

/// What the node holds, as a peer would read it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Its id.
    pub node_id: String,
    /// Whether it took the token; if not, nothing else was asked.
    pub token_accepted: bool,
    /// The collections it is interested in; empty: all.
    pub interests: Vec<String>,
    /// Its clock before the events were read.
    pub clock_before: VectorClock,
    /// Its events, as given.
    pub events: Vec<OplogEntry>,
    /// Its clock after.
    pub clock_after: VectorClock,
    /// The peers it says it joined; unset: it does not answer that question.
    pub joined: Option<Vec<String>>,
}

/// Who the node is and how far its clock is.
#[derive(Debug, Clone)]
pub struct Look {
    /// Its id.
    pub node_id: String,
    /// Whether it took the token; if not, the clock is empty.
    pub token_accepted: bool,
    /// The collections it is interested in; empty: all.
    pub interests: Vec<String>,
    /// Its clock.
    pub clock: VectorClock,
}

/// Why the node could not be asked. Never contains the token.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// Its address has no meaning here.
    #[error(
        "cannot find the address {address} of the CBDDC node; correct `address` in its section"
    )]
    Resolve {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The exchange failed.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Memory between two checks, for one process of the node.
#[derive(Default)]
struct Memory {
    process: Option<(u32, u64)>,
    wrong_token_refused: bool,
    joined_once: BTreeSet<String>,
    missing_since: Option<Instant>,
    healthy: Option<(Instant, Measurement)>,
}

/// Whether a member of the mesh is required now.
pub type IsRequired = Arc<dyn Fn(&NodeName) -> bool + Send + Sync>;

/// A CBDDC port of the node.
pub struct NodeProtocol {
    settings: NodeProtocolSettings,
    is_required: IsRequired,
    memory: Mutex<Memory>,
    /// The node's process does not know the question for its status: it is not asked again, as some
    /// builds log a warning each time.
    knows_no_status: AtomicBool,
    /// When an event of its own was last written; held while one is, so that its chain never forks.
    canary: Mutex<canary::Written>,
}

impl NodeProtocol {
    /// Nothing is connected yet.
    pub fn new(settings: NodeProtocolSettings, is_required: IsRequired) -> Self {
        Self {
            settings,
            is_required,
            memory: Mutex::default(),
            knows_no_status: AtomicBool::new(false),
            canary: Mutex::default(),
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &NodeProtocolSettings {
        &self.settings
    }

    /// The required peers that it is expected to join and that accept connections now.
    pub async fn expected_peers_up(&self) -> Vec<String> {
        let mut up = Vec::new();
        for peer in &self.settings.expected_peers {
            if self.requires(peer) && is_up(&peer.address).await {
                up.push(peer.address.clone());
            }
        }
        up
    }

    /// A peer without a name is required; one that left the mesh is not.
    fn requires(&self, peer: &ExpectedPeer) -> bool {
        peer.node
            .as_ref()
            .is_none_or(|node| (self.is_required)(node))
    }

    /// The `cbddc` check. A node that was in order is not asked again for a while.
    pub async fn measure(&self, supervisor: &dyn Supervisor) -> Measurement {
        let process = match supervisor.state().await {
            Ok(UnitState::Running { pid, started_ms }) => Some((pid, started_ms)),
            Ok(UnitState::Stopped { .. }) | Err(_) => None,
        };
        let mut memory = self.memory.lock().await;
        if memory.process != process {
            *memory = Memory {
                process,
                ..Memory::default()
            };
            self.knows_no_status.store(false, Ordering::Relaxed);
        }
        if let Some((when, measurement)) = &memory.healthy
            && when.elapsed() < STEADY_INTERVAL
        {
            return measurement.clone();
        }
        let measurement =
            measured(Check::Cbddc, self.settings.limit, self.judge(&mut memory)).await;
        let measurement = Measurement {
            detail: of_cluster(&self.settings.cluster, &measurement.detail),
            ..measurement
        };
        let healthy = measurement.status == Status::Healthy;
        memory.healthy = healthy.then(|| (Instant::now(), measurement.clone()));
        measurement
    }

    async fn judge(&self, memory: &mut Memory) -> (Status, String) {
        match self.try_judge(memory).await {
            Ok(verdict) => verdict,
            Err(error) => (Status::Unhealthy, error_chain(&error)),
        }
    }

    async fn try_judge(&self, memory: &mut Memory) -> Result<(Status, String), ProtocolError> {
        let mut client = self.connect(self.settings.token.clone()).await?;
        let asked = Instant::now();
        let accepted = client.handshake().await?.accepted;
        let handshake_took = asked.elapsed();
        if !accepted {
            let text =
                "the node refuses the cluster's token: its configuration differs from its peers'";
            return Ok((Status::Unhealthy, text.into()));
        }
        if !memory.wrong_token_refused {
            let wrong = Secret::new(format!("{}-wrong", self.settings.token.expose()));
            if self.connect(wrong).await?.handshake().await?.accepted {
                let text = "the node takes a wrong token: anybody on the network can join it";
                return Ok((Status::Unhealthy, text.into()));
            }
            memory.wrong_token_refused = true;
        }
        if self.settings.topology == Topology::Hosted {
            let text = "it takes the token and refuses a wrong one; it joins nobody, being hosted";
            return Ok((Status::Healthy, text.into()));
        }
        let Some(status) = self.node_status(client, handshake_took).await else {
            let text = "it takes the token and refuses a wrong one; it does not tell which peers it joined";
            return Ok((Status::Healthy, text.into()));
        };
        Ok(self
            .judge_joined(memory, &status.known_peer_addresses)
            .await)
    }

    /// The last question of a connection, unless the node's process is known not to know it.
    async fn node_status(&self, client: WireClient, took: Duration) -> Option<NodeStatus> {
        if self.knows_no_status.load(Ordering::Relaxed) {
            return None;
        }
        let limit = (took * STATUS_LIMIT_HANDSHAKES).max(STATUS_LIMIT_MIN);
        let status = client.node_status(limit).await;
        if status.is_none() {
            self.knows_no_status.store(true, Ordering::Relaxed);
        }
        status
    }

    async fn judge_joined(&self, memory: &mut Memory, joined: &[String]) -> (Status, String) {
        memory.joined_once.extend(joined.iter().cloned());
        let (mut missing, mut optional) = (Vec::new(), Vec::new());
        for peer in &self.settings.expected_peers {
            if joined.contains(&peer.address) || !is_up(&peer.address).await {
                continue;
            }
            let place = match self.requires(peer) {
                true => &mut missing,
                false => &mut optional,
            };
            place.push(peer.address.clone());
        }
        if missing.is_empty() {
            memory.missing_since = None;
        }
        if missing.is_empty() && !optional.is_empty() {
            let text = format!("{}, and not required", not_joined(&optional));
            return (Status::Degraded, text);
        }
        if missing.is_empty() {
            let count = joined.len();
            return (
                Status::Healthy,
                format!("it takes the token, refuses a wrong one, and joined {count} peers"),
            );
        }
        let since = *memory.missing_since.get_or_insert_with(Instant::now);
        let text = not_joined(&missing);
        let had_joined = missing.iter().all(|peer| memory.joined_once.contains(peer));
        if had_joined && since.elapsed() < JOIN_GRACE {
            return (Status::Degraded, text);
        }
        (Status::Unhealthy, text)
    }

    /// Reads clocks, events since a moment, and clocks again.
    pub async fn observe(&self, since_wall_ms: i64) -> Result<Observation, ProtocolError> {
        let mut client = self.connect(self.settings.token.clone()).await?;
        let asked = Instant::now();
        let handshake = client.handshake().await?;
        let handshake_took = asked.elapsed();
        let mut observation = Observation {
            node_id: handshake.node_id,
            token_accepted: handshake.accepted,
            interests: handshake.interests,
            clock_before: VectorClock::default(),
            events: Vec::new(),
            clock_after: VectorClock::default(),
            joined: None,
        };
        if !handshake.accepted {
            return Ok(observation);
        }
        observation.clock_before = client.vector_clock().await?;
        let since = Hlc::new(since_wall_ms.saturating_sub(1), i32::MAX, "");
        observation.events = client.pull(&since, &[]).await?;
        observation.clock_after = client.vector_clock().await?;
        let status = self.node_status(client, handshake_took).await;
        observation.joined = status.map(|status| status.known_peer_addresses);
        Ok(observation)
    }

    /// Who the node is, what it wants, and its clock.
    pub async fn look(&self) -> Result<Look, ProtocolError> {
        self.look_at(&self.settings.address).await
    }

    /// The same of the node at that address, `HOST:PORT`, with the same token.
    pub async fn look_at(&self, address: &str) -> Result<Look, ProtocolError> {
        let mut client = self
            .connect_to(address, self.settings.token.clone())
            .await?;
        let handshake = client.handshake().await?;
        let clock = if handshake.accepted {
            client.vector_clock().await?
        } else {
            VectorClock::default()
        };
        Ok(Look {
            node_id: handshake.node_id,
            token_accepted: handshake.accepted,
            interests: handshake.interests,
            clock,
        })
    }

    /// The events after a moment, of all origins, that the node at that address gives, `HOST:PORT`.
    /// Never with a filter: some builds give nothing then (`NODE.md`, section 3).
    pub async fn events_at(
        &self,
        address: &str,
        after: (i64, i32),
    ) -> Result<Vec<OplogEntry>, ProtocolError> {
        let token = self.settings.token.clone();
        let mut client = self.connect_to(address, token).await?;
        if !client.handshake().await?.accepted {
            return Ok(Vec::new());
        }
        Ok(client.pull(&Hlc::new(after.0, after.1, ""), &[]).await?)
    }

    async fn connect(&self, token: Secret) -> Result<WireClient, ProtocolError> {
        self.connect_to(&self.settings.address, token).await
    }

    async fn connect_to(&self, address: &str, token: Secret) -> Result<WireClient, ProtocolError> {
        let mut options = WireOptions::new(ASKER, token);
        options.security = self.settings.security;
        let resolved = resolve(address).await;
        let resolved = resolved.map_err(|source| ProtocolError::Resolve {
            address: address.to_owned(),
            source,
        })?;
        Ok(WireClient::connect(resolved, options).await?)
    }
}

fn not_joined(peers: &[String]) -> String {
    let are = if peers.len() == 1 { "is" } else { "are" };
    format!("not joined with {}, which {are} up", peers.join(", "))
}

async fn resolve(address: &str) -> std::io::Result<SocketAddr> {
    let mut found = lookup_host(address).await?;
    found
        .next()
        .ok_or_else(|| std::io::Error::other(format!("{address} has no address")))
}

async fn is_up(peer: &str) -> bool {
    let connect = async { TcpStream::connect(resolve(peer).await?).await };
    matches!(timeout(PEER_CONNECT_LIMIT, connect).await, Ok(Ok(_)))
}
