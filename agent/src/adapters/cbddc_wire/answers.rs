//! What nodes answer.

use cbddc_domain::oplog::OplogEntry;

/// What a node said to the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeOutcome {
    /// The name of the node.
    pub node_id: String,
    /// Whether it took the token. Judge by this only: a node may answer further questions without
    /// any handshake. It closes the connection after a refusal.
    pub accepted: bool,
    /// The collections that the node wants; none means all.
    pub interests: Vec<String>,
}

/// A part of one origin's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainRangeAnswer {
    /// The events after the start up to and with the end.
    Entries(Vec<OplogEntry>),
    /// The node does not know one of the hashes, or cannot look them up (BLite never can): pull
    /// instead.
    SnapshotRequired,
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub node_id: String,
    /// Seconds since it started.
    pub uptime_seconds: i64,
    /// How many peers it joined.
    pub known_peer_count: i32,
    /// Their addresses.
    pub known_peer_addresses: Vec<String>,
    /// Its build, as it names it.
    pub service_version: String,
}

/// What a node said to a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushOutcome {
    /// Whether it took the events.
    pub accepted: bool,
    /// Whether it says that it is too far behind for events.
    pub snapshot_required: bool,
}
