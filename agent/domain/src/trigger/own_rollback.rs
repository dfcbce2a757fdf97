//! The rollback of the mesh that an agent proposes by itself: after a commit there is no client.
//!
//! Agents may propose only that: back to an earlier committed release, with the cause. Each voter
//! holds it to that by what it knows itself ([`check_back`]).

use super::Trigger;
use crate::id::NodeName;
use crate::node::{Node, ProposalKind};
use crate::plan::{Plan, Timing};
use crate::proposer::{Draft, Proposal};
use crate::register::{Epoch, Record, RecordKind, Register};
use crate::release::Release;
use crate::rollback::{Known, NoTarget, choose_target};
use crate::time::Deadline;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long the voters may take, and how long they keep others out, in milliseconds.
pub const VOTES_MS: u64 = 10_000;

/// How long the decision is told to members that do not know it, in milliseconds; the exchange
/// between members brings it to the others.
const SETTLE_MS: u64 = 5_000;

/// A rollback of the mesh that this agent proposes until it is decided or needless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRollback {
    /// What set it off.
    pub trigger: Trigger,
    /// What was found.
    pub cause: String,
    /// The release that the mesh is to leave.
    pub leaving: Release,
    /// The decided epoch at that time.
    pub since: Epoch,
    /// How often it was tried in vain.
    pub tries: u32,
    /// When it is tried next.
    pub at: Deadline,
}

impl OwnRollback {
    /// Whether there is nothing left to propose: the mesh is meant to run something else here, or a
    /// person went back to just this release knowing better.
    pub fn is_needless(&self, register: &Register, name: &NodeName) -> bool {
        let decided = register.decided.as_ref();
        let ordered = decided.and_then(|record| record.release_for(name));
        let meant = decided
            .is_some_and(|record| record.kind == RecordKind::Rollback && record.epoch > self.since);
        ordered != Some(&self.leaving) || meant
    }
}

/// What an agent knows of its mesh when it proposes.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// This node.
    pub name: &'a NodeName,
    /// All members.
    pub members: &'a BTreeSet<NodeName>,
    /// The voters until a record names others.
    pub genesis: &'a BTreeSet<NodeName>,
    /// What the members that answered know of releases.
    pub known: &'a BTreeMap<NodeName, Vec<Known>>,
    /// The highest epoch that anybody was heard to know.
    pub highest: Epoch,
    /// Drawn at random.
    pub nonce: u64,
}

/// The proposal: every node that is meant to run the release goes back from it, and it is revoked.
pub fn proposal(
    own: &OwnRollback,
    register: &Register,
    around: &Surroundings<'_>,
) -> Result<Proposal, NoTarget> {
    let decided = register.decided.as_ref();
    let ordered = |node: &NodeName| decided.and_then(|record| record.release_for(node));
    let mut nodes = around.members.clone();
    nodes.retain(|node| ordered(node) == Some(&own.leaving));
    let mut known = around.known.clone();
    known.retain(|node, _| nodes.contains(node));
    let leaving = BTreeSet::from([own.leaving.clone()]);
    let revoked = |release: &Release| register.revoked(&release.build.digest).is_some();
    let target = choose_target(&known, nodes.len(), &leaving, revoked)?;
    // What a few nodes run besides is left to them.
    let whole_mesh = decided.is_some_and(|record| {
        let mut exceptions = record.exceptions.values();
        record.release.as_ref() == Some(&own.leaving)
            && exceptions.all(|release| *release == own.leaving || *release == target)
    });
    let author = author(around.name);
    let reason = format!("{}: {}", own.trigger, own.cause);
    let mut revokes = BTreeMap::new();
    if own.leaving.build != target.build {
        let build = &own.leaving.build;
        revokes.insert(build.digest, format!("{}: {reason}", build.id));
    }
    let highest = around.highest.max(register.highest_epoch());
    Ok(Proposal {
        kind: ProposalKind::Rollback,
        epoch: highest.next(around.nonce),
        members: around.members.clone(),
        voters: register.voters(around.genesis).clone(),
        plan: Plan {
            id: String::new(),
            release: target.clone(),
            waves: Vec::new(),
            whole_mesh,
            timing: Timing {
                probation_ms: VOTES_MS,
                ..Timing::default()
            },
            started_by: author.clone(),
            reason: reason.clone(),
            accepted: None,
        },
        draft: Draft {
            kind: RecordKind::Rollback,
            release: Some(target),
            nodes: (!whole_mesh).then_some(nodes),
            voters: None,
            revokes,
            lifts: BTreeMap::new(),
            restores: BTreeSet::new(),
            proposed_by: author,
            reason,
        },
        based_on: register.decided_epoch(),
        settle_ms: SETTLE_MS,
    })
}

/// An agent as the author of a record.
fn author(name: &NodeName) -> String {
    format!("node {name}")
}

/// Whether a record that an agent proposes only goes back, by what this voter knows: every release
/// that it newly orders was committed here and baked clean, and it revokes only what it leaves.
pub fn check_back(node: &Node, record: &Record) -> Result<(), String> {
    let plain = record.kind == RecordKind::Rollback
        && !record.forced
        && record.previous.is_none()
        && record.lifts.is_empty()
        && record.restores.is_empty();
    if !plain {
        return Err("an agent may propose nothing but a rollback".to_owned());
    }
    if record.reason.is_empty() {
        return Err("an agent's rollback has to name its cause".to_owned());
    }
    let register = &node.register;
    let orders = |of: &Record| -> BTreeSet<Release> {
        of.release
            .iter()
            .chain(of.exceptions.values())
            .cloned()
            .collect()
    };
    let stands = register.decided.as_ref().map(orders).unwrap_or_default();
    let proposed = orders(record);
    for release in proposed.difference(&stands) {
        let mut history = node.history.iter();
        if !history.any(|one| one.release == *release && one.committed.is_some() && one.known_good)
        {
            return Err(format!(
                "{release} was not committed and baked clean here: an agent may only go back"
            ));
        }
    }
    let left: BTreeSet<_> = stands.iter().map(|release| release.build.digest).collect();
    let kept: BTreeSet<_> = proposed
        .iter()
        .map(|release| release.build.digest)
        .collect();
    let revokes = |digest| left.contains(digest) && !kept.contains(digest);
    // Voting again for what is decided meanwhile changes nothing.
    let again = register.decided.as_ref() == Some(record);
    if !again && !record.revokes.keys().all(revokes) {
        return Err("an agent may revoke only the build that its mesh leaves".to_owned());
    }
    Ok(())
}
