//! The proposer gathers promises and finds out what is already under way (rules 4 and 15).

use super::{Command, Failure, Outcome, Proposer, Stage};
use crate::id::NodeName;
use crate::node::ProposalKind;
use crate::register::{Epoch, Record, RecordKind, RegisterView, is_majority, is_majority_of};
use std::collections::BTreeSet;

/// How often an agent that has just started is asked again, in milliseconds.
const ASK_AGAIN_MS: u64 = 1_000;

/// How long an agent that has just started may take until it promises, in milliseconds.
const STARTING_MS: u64 = 15_000;

impl Proposer {
    /// Asks for promises; `next` goes to those that the plan changes.
    pub(super) fn ask_promises(&mut self, nodes: BTreeSet<NodeName>) -> Vec<Command> {
        let proposal = &self.proposal;
        let takes_part = matches!(proposal.kind, ProposalKind::Rollout | ProposalKind::Resume);
        let targets: BTreeSet<&NodeName> = proposal.plan.targets().filter(|_| takes_part).collect();
        let commands = nodes.iter().map(|node| {
            let next = targets
                .contains(node)
                .then(|| Box::new(proposal.plan.release.clone()));
            Command::Prepare(node.clone(), next)
        });
        let commands = commands.collect();
        self.unheard.extend(nodes);
        commands
    }

    pub(super) fn promise_answered(
        &mut self,
        node: NodeName,
        answer: Result<Box<RegisterView>, Failure>,
        now_ms: u64,
    ) -> Vec<Command> {
        match answer {
            Ok(view) => {
                self.failures.remove(&node);
                self.promises.insert(node.clone(), *view);
            }
            // It cannot speak for its past yet; the others may tell it in a moment (rule 16).
            Err(failure)
                if failure.word() == "starting"
                    && now_ms.saturating_sub(self.began_ms) < STARTING_MS =>
            {
                if self.unheard.contains(&node) {
                    self.later.insert(node);
                }
                return Vec::new();
            }
            Err(failure) => drop(self.failures.insert(node.clone(), failure)),
        }
        self.unheard.remove(&node);
        self.later.remove(&node);
        self.prepared(now_ms)
    }

    pub(super) fn ask_promises_again(&mut self, now_ms: u64) -> Vec<Command> {
        if self.later.is_empty() || now_ms.saturating_sub(self.asked_ms) < ASK_AGAIN_MS {
            return Vec::new();
        }
        self.asked_ms = now_ms;
        let again = std::mem::take(&mut self.later);
        self.ask_promises(again)
    }

    /// The newest decided record of those that promised.
    pub(super) fn base(&self) -> Option<Record> {
        let decided = self
            .promises
            .values()
            .filter_map(|view| view.decided.as_ref());
        decided.max_by_key(|record| record.epoch).cloned()
    }

    /// The newest record that was decided by votes: it says who votes.
    fn elected(&self) -> Option<&Record> {
        let elected = self.promises.values().filter_map(RegisterView::elected);
        elected.max_by_key(|record| record.epoch)
    }

    /// Who votes now.
    pub(super) fn voters(&self) -> BTreeSet<NodeName> {
        let elected = self.elected().map(|record| &record.voters);
        elected.unwrap_or(&self.proposal.voters).clone()
    }

    /// Changes of voters that may be decided: undecided, and not shown to be dead.
    fn open_changes(&self) -> impl Iterator<Item = &Record> {
        let elected = self
            .elected()
            .map(|record| record.epoch)
            .unwrap_or_default();
        let known = self.promises.values().flat_map(RegisterView::undecided);
        known.filter(move |record| {
            record.previous.is_some() && record.epoch > elected && !self.is_dead(record)
        })
    }

    /// Whether so many of the voters before have promised without having voted for it that no majority
    /// of them ever will.
    fn is_dead(&self, change: &Record) -> bool {
        if change.epoch > self.proposal.epoch {
            return false;
        }
        let never = |(node, view): (&NodeName, &RegisterView)| {
            let voted = view.undecided().any(|vote| vote.epoch == change.epoch);
            (!voted).then(|| node.clone())
        };
        let never: BTreeSet<NodeName> = self.promises.iter().filter_map(never).collect();
        let previous = change.previous.as_ref().unwrap_or(&change.voters);
        let left = previous.difference(&never).count();
        !is_majority(left, previous.len())
    }

    /// Rules 4 and 15.
    fn prepared(&mut self, now_ms: u64) -> Vec<Command> {
        if !self.unheard.is_empty() {
            return Vec::new();
        }
        // Voters that nobody has asked yet, until nothing new appears.
        let changes = self.open_changes().flat_map(|record| record.voters.clone());
        let known: BTreeSet<NodeName> = changes.chain(self.voters()).collect();
        let asked =
            |node: &NodeName| self.promises.contains_key(node) || self.failures.contains_key(node);
        let unasked: BTreeSet<NodeName> = known.into_iter().filter(|node| !asked(node)).collect();
        if !unasked.is_empty() {
            return self.ask_promises(unasked);
        }
        if let Some(refused) = self.why_not_begun() {
            return self.give_up(refused);
        }
        let base = self.base();
        let based_on = base.as_ref().map(|record| record.epoch).unwrap_or_default();
        if let Some(vote) = self.undecided(based_on) {
            return self.go_on_with_vote(vote, base.as_ref(), now_ms);
        }
        // What was to be aborted may be what is decided: then no revert may be ordered.
        if based_on != self.proposal.based_on {
            return self.give_up(Outcome::Changed);
        }
        match self.proposal.kind {
            ProposalKind::Rollback | ProposalKind::Amend => self.propose(base.as_ref(), now_ms),
            ProposalKind::Abort => {
                let cause = self.proposal.plan.reason.clone();
                self.order_reverts(cause, now_ms)
            }
            ProposalKind::Rollout | ProposalKind::Resume => self.begin_wave(0, now_ms),
        }
    }

    fn go_on_with_vote(
        &mut self,
        vote: Record,
        base: Option<&Record>,
        now_ms: u64,
    ) -> Vec<Command> {
        let based_on = base.map(|record| record.epoch).unwrap_or_default();
        let change = vote.previous.is_some();
        match self.proposal.kind {
            ProposalKind::Rollout => self.give_up(Outcome::Undecided(vote.epoch)),
            ProposalKind::Amend if !change => self.give_up(Outcome::Undecided(vote.epoch)),
            // A rollback supersedes it.
            ProposalKind::Rollback if !change && based_on != self.proposal.based_on => {
                self.give_up(Outcome::Changed)
            }
            ProposalKind::Rollback if !change => self.propose(base, now_ms),
            ProposalKind::Resume
            | ProposalKind::Abort
            | ProposalKind::Rollback
            | ProposalKind::Amend => {
                self.news.push(format!(
                    "a vote of epoch {} is undecided: it is proposed again",
                    vote.epoch
                ));
                self.finishing = change;
                let record = self.again(vote, base);
                self.ask_votes(record, now_ms)
            }
        }
    }

    /// An undecided record at the own epoch. A change of voters goes onto what is decided now: a record
    /// that was forced meanwhile has other orders, and a change of voters changes nothing else.
    fn again(&self, vote: Record, base: Option<&Record>) -> Record {
        let epoch = self.proposal.epoch;
        if vote.kind != RecordKind::Voters {
            return Record { epoch, ..vote };
        }
        Record {
            epoch,
            release: base.and_then(|base| base.release.clone()),
            exceptions: base.map(|base| base.exceptions.clone()).unwrap_or_default(),
            previous: Some(self.voters()),
            ..vote
        }
    }

    fn propose(&mut self, base: Option<&Record>, now_ms: u64) -> Vec<Command> {
        let voters = self.voters();
        let record = self.proposal.draft.onto(base, self.proposal.epoch, &voters);
        self.ask_votes(record, now_ms)
    }

    /// The newest undecided vote: above everything decided, and for a change of voters above everything
    /// that was decided by votes. A newer one was proposed by somebody who saw that the change is dead.
    fn undecided(&self, decided: Epoch) -> Option<Record> {
        let votes = self.promises.values().flat_map(RegisterView::undecided);
        let votes = votes.filter(|vote| vote.previous.is_none() && vote.epoch > decided);
        let votes = votes.chain(self.open_changes());
        votes.max_by_key(|vote| vote.epoch).cloned()
    }

    fn give_up(&mut self, outcome: Outcome) -> Vec<Command> {
        self.stage = Stage::Done(outcome);
        // Closing an epoch that nothing was activated for frees the nodes at once. Only a rollout and an amendment are
        // promised by steady nodes alone: for the others, nodes may be on probation for an earlier
        // epoch, which is not known to be dead (rule 4), and the lease has to run out.
        if !matches!(
            self.proposal.kind,
            ProposalKind::Rollout | ProposalKind::Amend
        ) {
            return Vec::new();
        }
        let cause = "it did not begin".to_owned();
        let nodes: Vec<_> = self.promises.keys().cloned().collect();
        nodes
            .into_iter()
            .map(|node| Command::Revert(node, cause.clone()))
            .collect()
    }

    fn why_not_begun(&self) -> Option<Outcome> {
        let promised: BTreeSet<_> = self.promises.keys().cloned().collect();
        let needs_targets = matches!(
            self.proposal.kind,
            ProposalKind::Rollout | ProposalKind::Resume
        );
        let target_missing = needs_targets
            && self
                .proposal
                .plan
                .targets()
                .any(|node| !promised.contains(node));
        let revoked = self.promises.values().any(|view| {
            let revocation = view
                .revocations
                .get(&self.proposal.plan.release.build.digest);
            needs_targets && revocation.is_some_and(|revocation| !revocation.lifted)
        });
        if revoked {
            let failure = Failure::Refused {
                word: "build_revoked".into(),
                text: format!("{} is revoked", self.proposal.plan.release.build),
            };
            let all = self
                .promises
                .keys()
                .map(|node| (node.clone(), failure.clone()));
            return Some(Outcome::Refused(all.collect()));
        }
        // Whichever of these decide, a majority of them is fenced (rule 15).
        let mut majorities = self
            .open_changes()
            .map(|record| is_majority_of(&promised, &record.voters));
        let fenced = is_majority_of(&promised, &self.voters()) && majorities.all(|fenced| fenced);
        if !target_missing && fenced {
            return None;
        }
        let locked =
            |failure: &Failure| matches!(failure.word(), "locked" | "epoch_behind" | "busy");
        let failures = self.failures.clone();
        if failures.values().any(locked) {
            return Some(Outcome::Locked(failures));
        }
        Some(Outcome::Refused(failures))
    }
}
