//! Why an agent does not do what it is asked.

use crate::generation::GenerationNumber;
use crate::register::{Epoch, EpochRefusal};

/// Why a request was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The epoch does not allow it.
    #[error(transparent)]
    Epoch(#[from] EpochRefusal),
    /// Another rollout holds the node.
    #[error(
        "held by {holder} for {what} for another {left_s} s at most: wait for it, take it over with `cbctl rollout resume`, or end it with `cbctl rollout abort`"
    )]
    Locked {
        /// Who.
        holder: String,
        /// What for.
        what: String,
        /// Seconds until others are admitted, rounded up.
        left_s: u64,
    },
    /// The node is between two releases.
    #[error("{0}: wait until it is steady, or look at it with `cbctl status`")]
    Busy(String),
    /// Nothing to act on: no lease, or it ran out.
    #[error(
        "epoch {0} does not hold this node (any more): its lease ran out or another command took over"
    )]
    NoLease(Epoch),
    /// The node was confirmed on a release and does not go back for this epoch (rule 8).
    #[error(
        "confirmed on generation {generation} by epoch {committed}: use `cbctl rollback` to go back"
    )]
    Confirmed {
        /// What runs.
        generation: GenerationNumber,
        /// The epoch that committed it.
        committed: Epoch,
    },
    /// It has just started, and does not know yet whether it has all of its memory (rule 16).
    #[error(
        "this agent has just started and asks the voters what they remember of it: try again in a moment"
    )]
    Starting,
    /// An old state of this agent came back, and it is still asking the others (rule 16).
    #[error(
        "an old state of this agent came back: it takes part again once it has asked {needed} other voters, and {granted} have answered; with two voters, bring the other one back and change the voters with `cbctl mesh voters`"
    )]
    MemoryLost {
        /// How many others have to answer.
        needed: usize,
        /// How many have.
        granted: usize,
    },
    /// It may have voted for the epoch and have forgotten it (rule 16).
    #[error("this agent cannot tell whether it voted in epoch {0}")]
    Forgotten(Epoch),
    /// A trigger was set off here, and policy says that a person decides.
    #[error("{0}: a person has to decide first: `cbctl rollback`, or `cbctl mesh thaw`")]
    Alarmed(String),
    /// Somebody froze the mesh.
    #[error(
        "frozen by {by} for another {left_s} s: {reason}: wait, or let rollouts begin again with `cbctl mesh thaw`; rollbacks pass"
    )]
    Frozen {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Seconds until it ends, rounded up.
        left_s: u64,
    },
    /// The node is quarantined.
    #[error(
        "quarantined by {by}: {reason}: let it go with `cbctl node release`, or roll out to the others with --node"
    )]
    Quarantined {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An agent proposed something else than the way back.
    #[error("{0}")]
    NotBack(String),
    /// The named thing is not known here.
    #[error("{0}")]
    Unknown(String),
}

impl Refusal {
    /// The stable word for machines.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Epoch(EpochRefusal::Behind { .. }) => "epoch_behind",
            Self::Epoch(EpochRefusal::Sealed(_)) => "epoch_sealed",
            Self::Epoch(EpochRefusal::Closed(_)) => "epoch_closed",
            Self::Epoch(EpochRefusal::Revoked { .. }) => "build_revoked",
            Self::Epoch(EpochRefusal::OtherVoters) => "other_voters",
            Self::Epoch(EpochRefusal::ChangesMore) => "changes_more",
            Self::Epoch(EpochRefusal::Forced) => "forced",
            Self::Epoch(EpochRefusal::OtherRecord(_)) => "other_record",
            Self::Epoch(EpochRefusal::TooManyVotes) => "too_many_votes",
            Self::Locked { .. } => "locked",
            Self::Busy(_) => "busy",
            Self::NoLease(_) => "no_lease",
            Self::Confirmed { .. } => "confirmed",
            Self::Starting => "starting",
            Self::MemoryLost { .. } => "memory_lost",
            Self::Forgotten(_) => "forgotten",
            Self::Alarmed(_) => "alarmed",
            Self::Frozen { .. } => "frozen",
            Self::Quarantined { .. } => "quarantined",
            Self::NotBack(_) => "not_back",
            Self::Unknown(_) => "unknown",
        }
    }
}
