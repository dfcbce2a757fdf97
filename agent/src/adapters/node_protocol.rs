//! The node as its peers see it: does it take the right token and refuse a wrong one, has it joined
//! its peers, and which events does it hold. Only safe requests, one connection at a time.

mod asked;
mod canary;
mod joined;

pub use canary::{CanaryBy, CanaryError, CanarySettings};
pub use joined::{JoinedPeers, not_checked};

use crate::adapters::cbddc_wire::{Secret, Security, WireClient, WireError, WireOptions};
use crate::adapters::checks::measured;
use crate::adapters::connections::judge::Joined;
use crate::error_chain;
use crate::ports::{Supervisor, UnitState};
use asked::{Asked, Known};
use cbddc_domain::health::{Check, Measurement, Status};
use cbddc_domain::hlc::{Hlc, VectorClock};
use cbddc_domain::id::NodeName;
use cbddc_domain::oplog::OplogEntry;
use cbddc_domain::replication::{ExpectedPeer, Topology, of_cluster};
use joined::{all_joined, not_joined};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The name under which the agent asks: nodes log it.
const ASKER: &str = "cbagent";

/// How often the check may open a connection to a node that was found in order.
const STEADY_INTERVAL: Duration = Duration::from_secs(30);

/// How long a node may take to join a peer that is up, as after its start: its rounds come every 2 s, and
/// after two failures it waits for 5 s more (`SyncOrchestrator.cs`).
const JOINING_GRACE: Duration = Duration::from_secs(10);

/// How long a peer that is up may be missing from a node that had joined it: CBDDC nodes back off up
/// to 60 s (`SyncOrchestrator.cs`).
const JOIN_GRACE: Duration = Duration::from_secs(90);

/// How long a node may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long a node that was found to speak the secure channel may take to begin its hello. One that is
/// busy is late with it; what another build speaks is found out after this time, once.
const HELLO_LIMIT: Duration = Duration::from_secs(3);

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
    /// Where it is kept what need not be asked of the node's process again; unset: nowhere.
    pub asked: Option<PathBuf>,
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
    /// What is known of it, and what of that is kept.
    known: Known,
    kept: Known,
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
    asked: Asked,
    /// The node's process does not know the question for its status: it is not asked again, as some
    /// builds log a warning each time.
    knows_no_status: AtomicBool,
    /// The node was found to speak the secure channel.
    speaks_secure: Arc<AtomicBool>,
    /// What was seen of its connections.
    joining: Mutex<joined::Memory>,
    /// When an event of its own was last written; held while one is, so that its chain never forks.
    canary: Mutex<canary::Written>,
}

impl NodeProtocol {
    /// Nothing is connected yet.
    pub fn new(settings: NodeProtocolSettings, is_required: IsRequired) -> Self {
        Self {
            asked: Asked::at(settings.asked.clone()),
            settings,
            is_required,
            memory: Mutex::default(),
            knows_no_status: AtomicBool::new(false),
            speaks_secure: Arc::default(),
            joining: Mutex::default(),
            canary: Mutex::default(),
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &NodeProtocolSettings {
        &self.settings
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
            Ok(UnitState::Running { pid, started_ms }) => Some(Some((pid, started_ms))),
            Ok(UnitState::Stopped { .. }) => Some(None),
            // Not known is no other process: what was asked of it is not asked again.
            Err(_) => None,
        };
        let mut memory = self.memory.lock().await;
        if let Some(process) = process.filter(|process| *process != memory.process) {
            let known = match process {
                Some(process) => self.asked.of(process).await,
                None => Known::default(),
            };
            *memory = Memory {
                process,
                known,
                kept: known,
                ..Memory::default()
            };
            self.knows_no_status
                .store(known.knows_no_status, Ordering::Relaxed);
        }
        if let Some((when, measurement)) = &memory.healthy
            && when.elapsed() < STEADY_INTERVAL
        {
            return measurement.clone();
        }
        let measurement = measured(
            Check::Cbddc,
            self.settings.limit,
            self.judge(&mut memory, supervisor),
        )
        .await;
        let known = Known {
            knows_no_status: self.knows_no_status.load(Ordering::Relaxed),
            ..memory.known
        };
        if let Some(process) = memory.process.filter(|_| known != memory.kept) {
            self.asked.keep(process, known).await;
            memory.kept = known;
        }
        let measurement = Measurement {
            detail: of_cluster(&self.settings.cluster, &measurement.detail),
            ..measurement
        };
        let healthy = measurement.status == Status::Healthy;
        memory.healthy = healthy.then(|| (Instant::now(), measurement.clone()));
        measurement
    }

    async fn judge(&self, memory: &mut Memory, supervisor: &dyn Supervisor) -> (Status, String) {
        match self.try_judge(memory, supervisor).await {
            Ok(verdict) => verdict,
            Err(error) => (Status::Unhealthy, error_chain(&error)),
        }
    }

    async fn try_judge(
        &self,
        memory: &mut Memory,
        supervisor: &dyn Supervisor,
    ) -> Result<(Status, String), ProtocolError> {
        let mut client = self.connect(self.settings.token.clone()).await?;
        if !client.handshake().await?.accepted {
            let text =
                "the node refuses the cluster's token: its configuration differs from its peers'";
            return Ok((Status::Unhealthy, text.into()));
        }
        if !memory.known.wrong_token_refused {
            let wrong = Secret::new(format!("{}-wrong", self.settings.token.expose()));
            if self.connect(wrong).await?.handshake().await?.accepted {
                let text = "the node takes a wrong token: anybody on the network can join it";
                return Ok((Status::Unhealthy, text.into()));
            }
            memory.known.wrong_token_refused = true;
        }
        if self.settings.topology == Topology::Hosted {
            let text = "it takes the token and refuses a wrong one; it joins nobody, being hosted";
            return Ok((Status::Healthy, text.into()));
        }
        if self.settings.expected_peers.is_empty() {
            let text = "it takes the token and refuses a wrong one; no peers are expected";
            return Ok((Status::Healthy, text.into()));
        }
        let processes = supervisor.processes().await;
        let joined = self.joined(processes).await;
        Ok(self.judge_joined(memory, &joined).await)
    }

    async fn judge_joined(&self, memory: &mut Memory, joined: &JoinedPeers) -> (Status, String) {
        let all_that = |is_it: fn(&Joined) -> bool| -> Vec<String> {
            let those = joined.iter().filter(|(_, joined)| is_it(joined));
            those.map(|(address, _)| address.clone()).collect()
        };
        let there = all_that(|joined| *joined == Joined::Yes);
        memory.joined_once.extend(there.iter().cloned());
        let open = all_that(|joined| matches!(joined, Joined::No | Joined::ByPeer));
        let up = self.up(open).await;
        let is_missing = |peer: &&ExpectedPeer| up.contains(&peer.address);
        let missing = self.settings.expected_peers.iter().filter(is_missing);
        let (missing, optional): (Vec<_>, Vec<_>) = missing.partition(|peer| self.requires(peer));
        if missing.is_empty() {
            memory.missing_since = None;
        }
        if missing.is_empty() && !optional.is_empty() {
            let text = format!("{}, and not required", not_joined(&optional));
            return (Status::Degraded, text);
        }
        if missing.is_empty() {
            return (Status::Healthy, all_joined(joined));
        }
        let since = *memory.missing_since.get_or_insert_with(Instant::now);
        let mut text = not_joined(&missing);
        let by_peer = |peer: &&&ExpectedPeer| joined.get(&peer.address) == Some(&Joined::ByPeer);
        if missing.iter().any(|peer| by_peer(&peer)) {
            text.push_str("; the other way round, it was joined");
        }
        if since.elapsed() < JOINING_GRACE {
            let names: Vec<&str> = missing.iter().map(|peer| &*peer.address).collect();
            let text = format!("it has yet to join {}", names.join(", "));
            return (Status::Degraded, text);
        }
        let mut each = missing.iter();
        let had_joined = each.all(|peer| memory.joined_once.contains(&peer.address));
        if had_joined && since.elapsed() < JOIN_GRACE {
            return (Status::Degraded, text);
        }
        (Status::Unhealthy, text)
    }

    /// Reads clocks, events since a moment, and clocks again.
    pub async fn observe(&self, since_wall_ms: i64) -> Result<Observation, ProtocolError> {
        let mut client = self.connect(self.settings.token.clone()).await?;
        let handshake = client.handshake().await?;
        let mut observation = Observation {
            node_id: handshake.node_id,
            token_accepted: handshake.accepted,
            interests: handshake.interests,
            clock_before: VectorClock::default(),
            events: Vec::new(),
            clock_after: VectorClock::default(),
        };
        if !handshake.accepted {
            return Ok(observation);
        }
        observation.clock_before = client.vector_clock().await?;
        let since = Hlc::new(since_wall_ms.saturating_sub(1), i32::MAX, "");
        observation.events = client.pull(&since, &[]).await?;
        observation.clock_after = client.vector_clock().await?;
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

    /// Has the node send all that it holds into a file, at most so many bytes: how many there are, or
    /// nothing where it refuses the token. It costs the node time and disk.
    pub async fn snapshot(
        &self,
        file: &mut tokio::fs::File,
        most: u64,
    ) -> Result<Option<u64>, ProtocolError> {
        let mut client = self.connect(self.settings.token.clone()).await?;
        if !client.handshake().await?.accepted {
            return Ok(None);
        }
        Ok(Some(client.snapshot(file, most).await?))
    }

    async fn connect(&self, token: Secret) -> Result<WireClient, ProtocolError> {
        self.connect_to(&self.settings.address, token).await
    }

    async fn connect_to(&self, address: &str, token: Secret) -> Result<WireClient, ProtocolError> {
        self.open(address, token, CONNECT_LIMIT).await
    }

    /// Opens a connection. Its hello is finished, in a task of its own, also where nobody waits for it
    /// any more: a node logs an error of 20 lines about one that is not.
    async fn open(
        &self,
        address: &str,
        token: Secret,
        connect_limit: Duration,
    ) -> Result<WireClient, ProtocolError> {
        let mut options = WireOptions::new(ASKER, token);
        options.security = self.settings.security;
        options.connect_timeout = connect_limit;
        if self.speaks_secure.load(Ordering::Relaxed) {
            options.detect_timeout = HELLO_LIMIT;
        }
        let resolved = resolve(address).await;
        let resolved = resolved.map_err(|source| ProtocolError::Resolve {
            address: address.to_owned(),
            source,
        })?;
        let is_own = address == self.settings.address;
        let speaks_secure = self.speaks_secure.clone();
        let opening = tokio::spawn(async move {
            let client = WireClient::connect(resolved, options).await?;
            if is_own {
                speaks_secure.store(client.is_secure(), Ordering::Relaxed);
            }
            Ok::<_, WireError>(client)
        });
        Ok(opening.await.map_err(|_| WireError::Broken)??)
    }
}

async fn resolve(address: &str) -> std::io::Result<SocketAddr> {
    let mut found = lookup_host(address).await?;
    found
        .next()
        .ok_or_else(|| std::io::Error::other(format!("{address} has no address")))
}
