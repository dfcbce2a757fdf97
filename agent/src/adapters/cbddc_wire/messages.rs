//! The payloads, as `network.proto`, `sync.proto` and `nodestatus.proto` number them.
//!
//! Written by hand: the fields are few, and proto3 absorbs the differences between dialects.

use cbddc_domain::hlc::{Hlc, VectorClock};
use cbddc_domain::oplog::{Operation, OplogEntry};

/// Message types, one byte each on the wire.
pub mod kind {
    #![allow(missing_docs, reason = "the names are those of the messages below")]
    pub const HANDSHAKE_REQUEST: u8 = 1;
    pub const HANDSHAKE_RESPONSE: u8 = 2;
    pub const GET_CLOCK: u8 = 3;
    pub const CLOCK: u8 = 4;
    pub const PULL_CHANGES: u8 = 5;
    pub const CHANGE_SET: u8 = 6;
    pub const PUSH_CHANGES: u8 = 7;
    pub const ACK: u8 = 8;
    pub const SECURE_ENVELOPE: u8 = 9;
    pub const GET_CHAIN_RANGE: u8 = 10;
    pub const CHAIN_RANGE: u8 = 11;
    pub const GET_VECTOR_CLOCK: u8 = 12;
    pub const VECTOR_CLOCK: u8 = 13;
    pub const GET_SNAPSHOT: u8 = 14;
    pub const SNAPSHOT_CHUNK: u8 = 15;
    /// 1000 in the sources, but truncated to a byte when sent.
    pub const NODE_STATUS_REQUEST: u8 = (1000 & 0xff) as u8;
    /// 1001 in the sources, but truncated to a byte when sent.
    pub const NODE_STATUS: u8 = (1001 & 0xff) as u8;
}

/// Type 1: who is asking, with the token of the cluster.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct HandshakeRequest {
    /// The asking node.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// The token of the cluster. Secret: not in the debug output.
    #[prost(string, tag = "2")]
    pub auth_token: String,
    /// Compression algorithms on offer.
    #[prost(string, repeated, tag = "3")]
    pub supported_compression: Vec<String>,
    /// Collections of interest; none means all.
    #[prost(string, repeated, tag = "4")]
    pub interesting_collections: Vec<String>,
}

impl std::fmt::Debug for HandshakeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandshakeRequest")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

/// Type 2: whether the token was right.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HandshakeResponse {
    /// The answering node.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// False, and so absent, when the token was wrong.
    #[prost(bool, tag = "2")]
    pub accepted: bool,
    /// The compression algorithm chosen from the offer, or empty.
    #[prost(string, tag = "3")]
    pub selected_compression: String,
    /// Collections that the answering node is interested in; none means all.
    #[prost(string, repeated, tag = "4")]
    pub interesting_collections: Vec<String>,
}

/// Types 3, 12, 14 and 232: a request without fields.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// Type 4: the latest event of the node; all fields absent when it has none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Clock {
    /// Unix milliseconds.
    #[prost(int64, tag = "1")]
    pub hlc_wall: i64,
    /// Counter within the millisecond.
    #[prost(int32, tag = "2")]
    pub hlc_logic: i32,
    /// Origin.
    #[prost(string, tag = "3")]
    pub hlc_node: String,
}

/// Type 5: everything after a moment, of every origin.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PullChanges {
    /// Unix milliseconds.
    #[prost(int64, tag = "1")]
    pub since_wall: i64,
    /// Counter within the millisecond.
    #[prost(int32, tag = "2")]
    pub since_logic: i32,
    /// Origin; ignored by the nodes.
    #[prost(string, tag = "3")]
    pub since_node: String,
    /// Only these collections; none means all.
    #[prost(string, repeated, tag = "4")]
    pub collections: Vec<String>,
}

/// Types 6 and 7: events.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeSet {
    /// The events, oldest first.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
}

/// Type 8: whether a push was taken.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ack {
    /// True when the events were applied.
    #[prost(bool, tag = "1")]
    pub success: bool,
    /// True when the receiver is too far behind for events.
    #[prost(bool, tag = "2")]
    pub snapshot_required: bool,
}

/// Type 9: an encrypted frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SecureEnvelope {
    /// AES-256-CBC over `type | compression | payload`.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// The initialisation vector, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub nonce: Vec<u8>,
    /// HMAC-SHA256 over nonce and ciphertext.
    #[prost(bytes = "vec", tag = "3")]
    pub auth_tag: Vec<u8>,
}

/// Type 10: the events after one hash up to another.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetChainRange {
    /// Excluded.
    #[prost(string, tag = "1")]
    pub start_hash: String,
    /// Included.
    #[prost(string, tag = "2")]
    pub end_hash: String,
}

/// Type 11: a part of one origin's chain.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChainRange {
    /// The events, oldest first.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
    /// True when the node cannot tell, because it does not know one of the hashes.
    #[prost(bool, tag = "2")]
    pub snapshot_required: bool,
}

/// Type 13: the latest event of every origin.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VectorClockResponse {
    /// One per origin.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<VectorClockEntry>,
}

/// One origin of a vector clock.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VectorClockEntry {
    /// The origin.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// Unix milliseconds.
    #[prost(int64, tag = "2")]
    pub hlc_wall: i64,
    /// Counter within the millisecond.
    #[prost(int32, tag = "3")]
    pub hlc_logic: i32,
}

/// Type 15: a piece of a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotChunk {
    /// The piece; empty in the last one.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
    /// True in the last piece.
    #[prost(bool, tag = "2")]
    pub is_last: bool,
}

/// Type 233: what the node says about itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeStatusResponse {
    /// The node.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// Seconds since it started.
    #[prost(int64, tag = "2")]
    pub uptime_seconds: i64,
    /// How many peers it joined.
    #[prost(int32, tag = "3")]
    pub known_peer_count: i32,
    /// Their addresses.
    #[prost(string, repeated, tag = "4")]
    pub known_peer_addresses: Vec<String>,
    /// Its build, as it names it.
    #[prost(string, tag = "5")]
    pub service_version: String,
}

/// One event on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// Collection.
    #[prost(string, tag = "1")]
    pub collection: String,
    /// Key.
    #[prost(string, tag = "2")]
    pub key: String,
    /// `Put` or `Delete`, in any case.
    #[prost(string, tag = "3")]
    pub operation: String,
    /// The document; empty for none.
    #[prost(string, tag = "4")]
    pub json_data: String,
    /// Unix milliseconds.
    #[prost(int64, tag = "5")]
    pub hlc_wall: i64,
    /// Counter within the millisecond.
    #[prost(int32, tag = "6")]
    pub hlc_logic: i32,
    /// Origin.
    #[prost(string, tag = "7")]
    pub hlc_node: String,
    /// Hash; empty in old dialects.
    #[prost(string, tag = "8")]
    pub hash: String,
    /// Hash of the origin's preceding event.
    #[prost(string, tag = "9")]
    pub previous_hash: String,
}

/// An event whose operation is neither put nor delete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event names an operation that is neither Put nor Delete; the peer speaks an unknown dialect"
)]
pub struct UnknownOperation;

impl TryFrom<Entry> for OplogEntry {
    type Error = UnknownOperation;

    fn try_from(entry: Entry) -> Result<Self, UnknownOperation> {
        Ok(Self {
            operation: Operation::parse(&entry.operation).ok_or(UnknownOperation)?,
            collection: entry.collection,
            key: entry.key,
            payload: entry.json_data,
            hlc: Hlc {
                wall: entry.hlc_wall,
                logic: entry.hlc_logic,
                node: entry.hlc_node,
            },
            hash: entry.hash,
            previous_hash: entry.previous_hash,
        })
    }
}

impl From<OplogEntry> for Entry {
    fn from(entry: OplogEntry) -> Self {
        Self {
            collection: entry.collection,
            key: entry.key,
            operation: entry.operation.to_string(),
            json_data: entry.payload,
            hlc_wall: entry.hlc.wall,
            hlc_logic: entry.hlc.logic,
            hlc_node: entry.hlc.node,
            hash: entry.hash,
            previous_hash: entry.previous_hash,
        }
    }
}

/// Turns received events into those of the domain, keeping order and duplicates.
///
/// # Errors
/// [`UnknownOperation`] for the first event that has one.
pub fn to_domain(entries: Vec<Entry>) -> Result<Vec<OplogEntry>, UnknownOperation> {
    entries.into_iter().map(OplogEntry::try_from).collect()
}

impl From<&VectorClock> for VectorClockResponse {
    fn from(clock: &VectorClock) -> Self {
        let entry = |(node_id, (hlc_wall, hlc_logic)): (&String, &(i64, i32))| VectorClockEntry {
            node_id: node_id.clone(),
            hlc_wall: *hlc_wall,
            hlc_logic: *hlc_logic,
        };
        Self {
            entries: clock.0.iter().map(entry).collect(),
        }
    }
}

impl From<VectorClockResponse> for VectorClock {
    fn from(response: VectorClockResponse) -> Self {
        let mut clock = Self::default();
        for entry in response.entries {
            clock.advance(&entry.node_id, (entry.hlc_wall, entry.hlc_logic));
        }
        clock
    }
}

impl From<Hlc> for Clock {
    fn from(hlc: Hlc) -> Self {
        Self {
            hlc_wall: hlc.wall,
            hlc_logic: hlc.logic,
            hlc_node: hlc.node,
        }
    }
}

impl From<Clock> for Hlc {
    fn from(clock: Clock) -> Self {
        Self {
            wall: clock.hlc_wall,
            logic: clock.hlc_logic,
            node: clock.hlc_node,
        }
    }
}

/// How many fields with number 1 an encoded message has, counted to one above `most`. What cannot be
/// read ends the count: decoding says why.
pub fn first_fields(mut bytes: &[u8], most: usize) -> usize {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    let mut count = 0;
    while !bytes.is_empty() && count <= most {
        let Ok((tag, wire_type)) = decode_key(&mut bytes) else {
            break;
        };
        count += usize::from(tag == 1);
        if skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).is_err() {
            break;
        }
    }
    count
}
