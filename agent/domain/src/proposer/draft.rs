//! The change that a proposer wants to make to the record.

use crate::build::Digest;
use crate::id::NodeName;
use crate::register::{Epoch, Record, RecordKind};
use crate::release::Release;
use std::collections::{BTreeMap, BTreeSet};

/// A record in the making: what changes with respect to the decided one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is made for.
    pub kind: RecordKind,
    /// What is ordered.
    pub release: Release,
    /// For whom; unset: for every node, and all exceptions end.
    pub nodes: Option<BTreeSet<NodeName>>,
    /// Builds to revoke, with the reason.
    pub revokes: BTreeMap<Digest, String>,
    /// Nodes that restore their snapshot.
    pub restores: BTreeSet<NodeName>,
    /// Who proposes it.
    pub proposed_by: String,
    /// Why.
    pub reason: String,
}

impl Draft {
    /// The whole record: `base` with this change.
    pub fn onto(&self, base: Option<&Record>, epoch: Epoch, voters: &BTreeSet<NodeName>) -> Record {
        let (release, exceptions) = match &self.nodes {
            None => (Some(self.release.clone()), BTreeMap::new()),
            Some(nodes) => {
                let mut exceptions = base.map(|base| base.exceptions.clone()).unwrap_or_default();
                exceptions.extend(
                    nodes
                        .iter()
                        .map(|node| (node.clone(), self.release.clone())),
                );
                let release = base.and_then(|base| base.release.clone());
                exceptions.retain(|_, exception| Some(&*exception) != release.as_ref());
                (release, exceptions)
            }
        };
        Record {
            epoch,
            kind: self.kind,
            release,
            exceptions,
            voters: voters.clone(),
            revokes: self.revokes.clone(),
            restores: self.restores.clone(),
            proposed_by: self.proposed_by.clone(),
            reason: self.reason.clone(),
        }
    }
}
