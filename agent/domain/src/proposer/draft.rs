//! The change that a proposer wants to make to the record.

use crate::build::Digest;
use crate::id::NodeName;
use crate::register::{Epoch, Record, RecordKind};
use crate::release::Release;
use std::collections::{BTreeMap, BTreeSet};

/// How far a forced record goes ahead of everything that was heard, so that it beats what others
/// decide in ignorance of it (rule 13).
const FORCED_AHEAD: u64 = 1 << 20;

/// A record in the making: what changes with respect to the decided one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is made for.
    pub kind: RecordKind,
    /// What is ordered; unset: nothing new, whatever is decided stays as it is.
    pub release: Option<Release>,
    /// For whom; unset: for every node, and all exceptions end.
    pub nodes: Option<BTreeSet<NodeName>>,
    /// Who votes from now on; unset: the voters stay (rule 15).
    pub voters: Option<BTreeSet<NodeName>>,
    /// Builds to revoke, with the reason.
    pub revokes: BTreeMap<Digest, String>,
    /// Builds whose revocation is to be lifted, with the reason.
    pub lifts: BTreeMap<Digest, String>,
    /// Nodes that restore their snapshot.
    pub restores: BTreeSet<NodeName>,
    /// Who proposes it.
    pub proposed_by: String,
    /// Why.
    pub reason: String,
}

impl Draft {
    /// The whole record: `base` with this change, for the mesh whose `voters` decide now.
    pub fn onto(&self, base: Option<&Record>, epoch: Epoch, voters: &BTreeSet<NodeName>) -> Record {
        let (release, exceptions) = self.orders(base);
        let previous = self.voters.is_some().then(|| voters.clone());
        Record {
            epoch,
            kind: self.kind,
            release,
            exceptions,
            voters: self.voters.as_ref().unwrap_or(voters).clone(),
            previous,
            forced: false,
            revokes: self.revokes.clone(),
            lifts: self.lifts.clone(),
            restores: self.restores.clone(),
            proposed_by: self.proposed_by.clone(),
            reason: self.reason.clone(),
        }
    }

    /// The record that a person forces without a majority (rule 13), where `highest` is the highest
    /// epoch that anybody was heard to know. It never changes who votes, and lifts nothing.
    pub fn forced(
        &self,
        base: Option<&Record>,
        highest: Epoch,
        nonce: u64,
        voters: &BTreeSet<NodeName>,
    ) -> Record {
        let counter = highest.counter.saturating_add(FORCED_AHEAD);
        Record {
            forced: true,
            voters: voters.clone(),
            previous: None,
            lifts: BTreeMap::new(),
            ..self.onto(base, Epoch { counter, nonce }, voters)
        }
    }

    fn orders(&self, base: Option<&Record>) -> (Option<Release>, BTreeMap<NodeName, Release>) {
        let held = base.and_then(|base| base.release.clone());
        let mut exceptions = base.map(|base| base.exceptions.clone()).unwrap_or_default();
        match (&self.release, &self.nodes) {
            (None, _) => (held, exceptions),
            (Some(release), None) => (Some(release.clone()), BTreeMap::new()),
            (Some(release), Some(nodes)) => {
                let ordered = nodes.iter().map(|node| (node.clone(), release.clone()));
                exceptions.extend(ordered);
                exceptions.retain(|_, exception| Some(&*exception) != held.as_ref());
                (held, exceptions)
            }
        }
    }
}
