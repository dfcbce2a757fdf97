//! Why the register refuses.

use super::{Epoch, VOTES_MAX};

/// Why a vote, a promise or an activation was refused by the register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EpochRefusal {
    /// Another proposer came later (rules 3, 5, 6).
    #[error("epoch {given} is behind epoch {promised}, which another command has taken since")]
    Behind {
        /// The epoch of the request.
        given: Epoch,
        /// The epoch that this agent has promised.
        promised: Epoch,
    },
    /// This agent has answered a peer that it did not vote for the epoch (rule 9).
    #[error("epoch {0} is sealed here: its deadline passed before it was decided")]
    Sealed(Epoch),
    /// This node went back from the epoch (rule 10).
    #[error("epoch {0} is closed here: this node has gone back from it")]
    Closed(Epoch),
    /// A revocation stands against the build (rules 5, 6).
    #[error("{build} is revoked: {reason}")]
    Revoked {
        /// The build, as people call it.
        build: String,
        /// Why it was revoked.
        reason: String,
    },
    /// The record names other voters than those that this agent knows (rule 15).
    #[error(
        "the record names other voters than the newest record that this agent knows: it asks its peers for a newer one; try again in a moment"
    )]
    OtherVoters,
    /// A change of voters, or a lifting, that changes more than that (rules 14 and 15).
    #[error(
        "the record changes more than it was made for, or this agent does not know the newest record yet: it asks its peers for a newer one; try again in a moment"
    )]
    ChangesMore,
    /// A forced record is told, not voted for (rule 13).
    #[error("a record that was forced is not voted for")]
    Forced,
    /// Another record was voted for in the same epoch: two proposers drew the same nonce.
    #[error("another record was voted for in epoch {0} already")]
    OtherRecord(Epoch),
    /// Too many undecided votes are held.
    #[error("this agent holds {VOTES_MAX} undecided votes: finish one with `cbctl rollout resume`")]
    TooManyVotes,
}
