//! What can be found to be wrong with replication, and the words for it.

use super::Grade;
use crate::generation::GenerationNumber;
use crate::id::NodeName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What was found to be wrong, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The node refuses the cluster's token.
    AuthRefused,
    /// Two nodes answer with the same id.
    SharedId,
    /// The node lacks an event that its clock covers.
    Missed,
    /// All other nodes lack an event of this one although their clocks cover it.
    NotPassedOn,
    /// An event of the node that was there in an earlier round and is nowhere now.
    Lost,
    /// The node lacks events that it wrote itself and that peers hold: its next write begins its chain
    /// anew, a fork. A power cut does that to a database whose log was not synced.
    Forgotten,
    /// The same hash, or the same moment of the same origin, more than once on one node.
    Duplicate,
    /// Two events follow the same one, or two events claim the same moment.
    Fork,
    /// The event's hash is not the one that its fields ask for.
    Tampered,
    /// An event's predecessor is not there.
    ChainGap,
    /// The same version of a document has another content on some node. Found by comparing documents:
    /// no hash covers them.
    PayloadDiffers,
    /// A document whose newest version is not everywhere, and that no event explains: no peer will ever
    /// get it by itself. Found by comparing documents.
    DocumentWithoutEvent,
    /// The node's clock names an event that no node holds, itself included.
    ClockAhead,
    /// The node's clock has not moved for [`super::STALLED_ROUNDS`] although others are ahead.
    Stalled,
    /// An expected peer was not joined for [`super::STALLED_ROUNDS`].
    NotJoined,
    /// The node's clock is behind the others'. A note: it becomes `stalled` when it stays there.
    Lagging,
    /// Hash and previous hash are exchanged, as snapshot imports do. A note: current CBDDC nodes do
    /// so without harm to the event, whatever build is rolled out.
    SnapshotSwapped,
    /// The event has no hash: an old dialect. A note.
    NoHash,
    /// The hash cannot be checked without the payload: the rule of 0.8.3 and 0.8.4. A note.
    UnknownHash,
}

impl FindingKind {
    /// True for what fails a wave; false for a note.
    pub fn is_definite(self) -> bool {
        match self {
            Self::AuthRefused
            | Self::SharedId
            | Self::Missed
            | Self::NotPassedOn
            | Self::Lost
            | Self::Forgotten
            | Self::Duplicate
            | Self::Fork
            | Self::Tampered
            | Self::ChainGap
            | Self::PayloadDiffers
            | Self::DocumentWithoutEvent
            | Self::ClockAhead
            | Self::Stalled
            | Self::NotJoined => true,
            Self::Lagging | Self::SnapshotSwapped | Self::NoHash | Self::UnknownHash => false,
        }
    }

    /// All of them, the worst first.
    pub const ALL: [Self; 19] = [
        Self::AuthRefused,
        Self::SharedId,
        Self::Missed,
        Self::NotPassedOn,
        Self::Lost,
        Self::Forgotten,
        Self::Duplicate,
        Self::Fork,
        Self::Tampered,
        Self::ChainGap,
        Self::PayloadDiffers,
        Self::DocumentWithoutEvent,
        Self::ClockAhead,
        Self::Stalled,
        Self::NotJoined,
        Self::Lagging,
        Self::SnapshotSwapped,
        Self::NoHash,
        Self::UnknownHash,
    ];

    /// The kind of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthRefused => "auth-refused",
            Self::SharedId => "shared-id",
            Self::Missed => "missed",
            Self::NotPassedOn => "not-passed-on",
            Self::Lost => "lost",
            Self::Forgotten => "forgotten",
            Self::Duplicate => "duplicate",
            Self::Fork => "fork",
            Self::Tampered => "tampered",
            Self::ChainGap => "chain-gap",
            Self::PayloadDiffers => "payload-differs",
            Self::DocumentWithoutEvent => "document-without-event",
            Self::ClockAhead => "clock-ahead",
            Self::Stalled => "stalled",
            Self::Lagging => "lagging",
            Self::NotJoined => "not-joined",
            Self::SnapshotSwapped => "snapshot-swapped",
            Self::NoHash => "no-hash",
            Self::UnknownHash => "unknown-hash",
        }
    }

    /// What the node did `count` times, up to the detail of the first.
    pub(super) fn verb(self, count: usize) -> String {
        let (one, many) = match self {
            Self::AuthRefused => return "refuses the cluster's token: ".to_owned(),
            Self::SharedId => return "shares the id ".to_owned(),
            Self::ClockAhead => return "has a clock that is ahead of its oplog: ".to_owned(),
            Self::Stalled => return "is stalled: ".to_owned(),
            Self::Forgotten => return "has forgotten events of its own: ".to_owned(),
            Self::Lagging => return "lags: ".to_owned(),
            Self::NotJoined => return "has not joined ".to_owned(),
            Self::Missed => ("missed ", "missed # events, first "),
            Self::NotPassedOn => (
                "alone has ",
                "alone has # events that no other node received, first ",
            ),
            Self::Lost => ("has lost ", "has lost # events, first "),
            Self::Duplicate => (
                "holds an event more than once: ",
                "holds # events more than once, first ",
            ),
            Self::Fork => ("holds a fork: ", "holds # forks, first "),
            Self::Tampered => (
                "holds an event that does not match its hash: ",
                "holds # events that do not match their hashes, first ",
            ),
            Self::ChainGap => ("has a gap before ", "has # gaps in chains, first before "),
            Self::PayloadDiffers => (
                "holds another content of ",
                "holds another content of # documents, first ",
            ),
            Self::DocumentWithoutEvent => (
                "holds a document that no event takes to its peers: ",
                "holds # documents that no event takes to its peers, first ",
            ),
            Self::SnapshotSwapped => (
                "holds an event with its hashes exchanged, as a snapshot import leaves it: ",
                "holds # events with their hashes exchanged, as a snapshot import leaves them, first ",
            ),
            Self::NoHash => (
                "holds an event without hash: ",
                "holds # events without hash, first ",
            ),
            Self::UnknownHash => (
                "holds an event whose hash cannot be checked without its payload: ",
                "holds # events whose hashes cannot be checked without their payloads, first ",
            ),
        };
        if count == 1 {
            one.to_owned()
        } else {
            many.replacen('#', &count.to_string(), 1)
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that was found to be wrong, or a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The node to look at first.
    pub node: NodeName,
    /// The id of the CBDDC node that wrote the event, where it is about one; may be empty.
    pub origin: String,
    /// The cluster, where it has a name.
    pub cluster: String,
    /// What the collection makes of it.
    pub grade: Grade,
    /// A sentence: what is where and what is not.
    pub text: String,
    /// It was there before the release that runs, or goes on at the same rate: not that one's doing.
    pub is_old: bool,
    /// Which generation ran when an agent found it; unset: it was found across the mesh.
    pub generation: Option<GenerationNumber>,
}
