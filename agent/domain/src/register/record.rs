//! What a mesh is meant to run, as it is proposed, voted for and decided.

use super::epoch::Epoch;
use crate::build::Digest;
use crate::id::NodeName;
use crate::release::Release;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a record was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RecordKind {
    /// A new release that went through waves and probation.
    Rollout,
    /// The way back to an earlier release.
    Rollback,
    /// Other voters (rule 15); it changes nothing else.
    Voters,
    /// Revocations are lifted (rule 14); it changes nothing else.
    Trust,
}

/// What the mesh is meant to run, once decided. A record stands alone: it says what *every* node
/// is meant to run, so that no older record has to be kept to read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The epoch it was proposed in.
    pub epoch: Epoch,
    /// What it was made for.
    pub kind: RecordKind,
    /// What every node runs that `exceptions` does not name; unset: such nodes are left as they are.
    pub release: Option<Release>,
    /// Nodes that are meant to run something else.
    pub exceptions: BTreeMap<NodeName, Release>,
    /// The nodes whose votes decide (rule 15).
    pub voters: BTreeSet<NodeName>,
    /// The voters before, where this record changes them: then a majority of these has to vote for
    /// it as well.
    #[serde(default)]
    pub previous: Option<BTreeSet<NodeName>>,
    /// True where a person decided it without a majority (rule 13): it acts as decided where it is
    /// heard, is never called committed, and nobody votes for it.
    #[serde(default)]
    pub forced: bool,
    /// Builds that this record revokes, with the reason (rule 12), by digest of the build.
    pub revokes: BTreeMap<Digest, String>,
    /// Builds whose revocation this record lifts, with the reason (rule 14), by digest of the build.
    #[serde(default)]
    pub lifts: BTreeMap<Digest, String>,
    /// Nodes that restore the snapshot taken before they activated what they leave.
    pub restores: BTreeSet<NodeName>,
    /// Who proposed it.
    pub proposed_by: String,
    /// Why.
    pub reason: String,
}

impl Record {
    /// What `node` is meant to run; `None`: whatever it runs now.
    pub fn release_for(&self, node: &NodeName) -> Option<&Release> {
        self.exceptions.get(node).or(self.release.as_ref())
    }

    /// Whether the votes of `voted` decide it: a majority of its voters and, where it changes them,
    /// of those before as well (rules 6 and 15). Nobody votes for a forced record.
    pub fn is_decided_by(&self, voted: &BTreeSet<NodeName>) -> bool {
        let majority = |of: &BTreeSet<NodeName>| is_majority_of(voted, of);
        !self.forced && majority(&self.voters) && self.previous.as_ref().is_none_or(majority)
    }

    /// Everybody whose vote counts for it.
    pub fn electorate(&self) -> BTreeSet<NodeName> {
        let previous = self.previous.iter().flatten();
        self.voters.iter().chain(previous).cloned().collect()
    }
}

/// More than half of `all`.
pub fn is_majority(count: usize, all: usize) -> bool {
    count > all / 2
}

/// Whether `some` holds more than half of `all`.
pub fn is_majority_of(some: &BTreeSet<NodeName>, all: &BTreeSet<NodeName>) -> bool {
    is_majority(some.intersection(all).count(), all.len())
}
