//! The proposer's way back.

use super::running::ASK_AGAIN_MS;
use super::{Command, Outcome, Proposer, Stage, View};
use crate::id::NodeName;
use crate::node::ProposalKind;
use std::collections::{BTreeMap, BTreeSet};

/// The longest cause of a revert, in bytes; agents take 1024.
const CAUSE_BYTES_MAX: usize = 1000;

impl Proposer {
    pub(super) fn order_reverts(&mut self, mut cause: String, now_ms: u64) -> Vec<Command> {
        // An order whose cause is beyond its bound would be refused, and nothing would go back.
        cause.truncate(cause.floor_char_boundary(CAUSE_BYTES_MAX));
        self.news.push(format!("going back: {cause}"));
        self.stage = Stage::Reverting {
            cause: cause.clone(),
            since_ms: now_ms,
        };
        self.asked_ms = now_ms;
        let nodes = self.proposal.members.iter().cloned();
        nodes
            .map(|node| Command::Revert(node, cause.clone()))
            .collect()
    }

    pub(super) fn watch_reverts(
        &mut self,
        cause: &str,
        since_ms: u64,
        now_ms: u64,
    ) -> Vec<Command> {
        let (mut pending, mut failed) = (BTreeMap::new(), BTreeMap::new());
        let takes_part = matches!(
            self.proposal.kind,
            ProposalKind::Rollout | ProposalKind::Resume
        );
        let targets: BTreeSet<&NodeName> = self.proposal.plan.targets().collect();
        for node in &self.proposal.members {
            let is_target = takes_part && targets.contains(node);
            match self.views.get(node) {
                // Nothing was ordered there.
                None if takes_part && !is_target => {}
                None => drop(pending.insert(node.clone(), "not seen".to_owned())),
                Some(view) if view.stuck.is_some() => {
                    failed.insert(node.clone(), view.stuck.clone().unwrap_or_default());
                }
                Some(view) if !self.is_back(view, is_target) => {
                    pending.insert(node.clone(), "on its way back".to_owned());
                }
                Some(_) => {}
            }
        }
        if pending.is_empty() || now_ms.saturating_sub(since_ms) > self.proposal.settle_ms {
            let cause = cause.to_owned();
            return self.done(Outcome::Reverted {
                cause,
                pending,
                failed,
            });
        }
        if now_ms.saturating_sub(self.asked_ms) < ASK_AGAIN_MS {
            return Vec::new();
        }
        self.asked_ms = now_ms;
        let again: Vec<_> = pending.keys().cloned().collect();
        again
            .into_iter()
            .map(|node| Command::Revert(node, cause.to_owned()))
            .collect()
    }

    /// Steady, and the rollout is known to have ended there. A view from before a target was prepared
    /// says nothing about it, and one of an abort that shows a rollout under way is too old.
    fn is_back(&self, view: &View, is_target: bool) -> bool {
        let ended = match &view.last_rollout {
            Some((epoch, _)) if *epoch > self.proposal.epoch => true,
            Some((epoch, outcome)) if *epoch == self.proposal.epoch => outcome.is_some(),
            Some((_, outcome)) => outcome.is_some() && !is_target,
            None => !is_target,
        };
        view.steady && ended
    }
}
