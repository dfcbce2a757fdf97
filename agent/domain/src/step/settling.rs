//! What time and decided records lead to: deadlines, confirmation, convergence.

use super::{Turn, fallback_of};
use crate::generation::{Fallback, GenerationNumber};
use crate::id::NodeName;
use crate::node::{Action, Bake, Held};
use crate::phase::{Asking, CauseKind, Phase, Probation, Purpose, SwitchStep};
use crate::register::{Answer, Epoch, Record, is_majority_of};
use crate::release::Release;
use std::collections::BTreeSet;

impl Turn<'_> {
    pub(super) fn tick(&mut self) {
        if let Some(lease) = &self.node.lease
            && lease.until.passed(self.now)
        {
            let epoch = lease.epoch;
            self.node.lease = None;
            if let Phase::Prepared { running, .. } = self.node.phase {
                self.node.phase = Phase::Steady { running };
                self.say_of(
                    "lease_ended",
                    epoch,
                    "its client did not come back: nothing was changed here",
                );
            }
        }
        if let Phase::Probation(probation) = self.node.phase.clone() {
            match &probation.asking {
                None if probation.deadline.passed(self.now) => self.begin_asking(probation),
                Some(asking) if asking.until.passed(self.now) => {
                    let text = "probation ended, and too few voters answered: in doubt".to_owned();
                    self.begin_revert(CauseKind::InDoubt, text);
                }
                None | Some(_) => {}
            }
        }
        if let Some(bake) = self.node.bake.clone() {
            if bake.until.boot != self.now.boot {
                let until = self.now.deadline(bake.length_ms);
                self.node.bake = Some(Bake { until, ..bake });
            } else if bake.until.passed(self.now) && !bake.unclean {
                self.bake_ended(bake.generation);
            }
        }
        self.end_own_rollback();
        self.prove_memory();
        self.recover_if_due();
        self.restart_if_due();
    }

    /// Rule 9: seal the epoch unless it was voted for, then ask the voters.
    fn begin_asking(&mut self, mut probation: Probation) {
        let epoch = probation.epoch;
        let own = self.node.register.answer(epoch);
        // Rule 16: an own vote may be among what was forgotten.
        let own = own.filter(|own| *own != Answer::No || self.is_sound());
        let answers = own.map(|own| (self.context.name.clone(), own));
        let answers = answers.into_iter().collect();
        let until = self.now.deadline(self.context.ask_limit_ms);
        probation.asking = Some(Asking { until, answers });
        self.node.phase = Phase::Probation(probation);
        self.say(
            "probation_ended",
            "its client did not come back: asking the voters whether it was decided",
        );
        let electorates = self.node.register.electorates(&self.context.voters);
        let mut asked: BTreeSet<NodeName> = electorates.into_iter().flatten().collect();
        asked.remove(&self.context.name);
        self.actions.push(Action::AskVoters(epoch, asked));
        self.count_answers();
    }

    pub(super) fn take_answer(
        &mut self,
        voter: NodeName,
        epoch: Epoch,
        answer: Answer,
        voted: Option<&Record>,
    ) {
        if let Some(record) = voted {
            self.hear(&voter, record);
        }
        if let Phase::Probation(probation) = &mut self.node.phase
            && probation.epoch == epoch
            && let Some(asking) = &mut probation.asking
        {
            asking.answers.insert(voter, answer);
            self.count_answers();
        }
    }

    fn count_answers(&mut self) {
        let Phase::Probation(probation) = &self.node.phase else {
            return;
        };
        let Some(asking) = &probation.asking else {
            return;
        };
        if self.node.register.decided_epoch() >= probation.epoch {
            return;
        }
        // Where a change of voters is under way, it is not known who decides: both sets have to say no.
        let electorates = self.node.register.electorates(&self.context.voters);
        let no =
            |(node, answer): (&NodeName, &Answer)| (*answer == Answer::No).then(|| node.clone());
        let no: BTreeSet<NodeName> = asking.answers.iter().filter_map(no).collect();
        let mut asked = electorates.iter().flatten();
        let all_answered = asked.all(|voter| asking.answers.contains_key(voter));
        if electorates.iter().all(|voters| is_majority_of(&no, voters)) {
            let text = "probation ended without a decision: aborted".to_owned();
            self.begin_revert(CauseKind::Aborted, text);
        } else if all_answered {
            let text =
                "probation ended, and the voters' answers do not settle it: in doubt".to_owned();
            self.begin_revert(CauseKind::InDoubt, text);
        }
    }

    fn bake_ended(&mut self, number: GenerationNumber) {
        self.node.bake = None;
        if let Some(generation) = self.node.history.get_mut(number) {
            generation.known_good = true;
            self.say(
                "known_good",
                format!("generation {number} ended its bake time clean"),
            );
        }
    }

    /// Acts on the highest decided record, wherever the phase allows it (rules 8 and 11).
    pub(super) fn settle(&mut self) {
        // A decided record ends the leases of its epoch and earlier ones, whatever it orders here.
        if let (Phase::Prepared { running, .. }, None) = (&self.node.phase, &self.node.lease) {
            self.node.phase = Phase::Steady { running: *running };
        }
        let Some(record) = self.node.register.decided.clone() else {
            return;
        };
        let Some(target) = record.release_for(&self.context.name).cloned() else {
            return;
        };
        self.hold_back(&record, &target);
        match self.node.phase.clone() {
            Phase::Probation(probation) if record.epoch >= probation.epoch => {
                self.settle_probation(&probation, &record, target);
            }
            Phase::Prepared { running, .. } => {
                let overtakes = self
                    .node
                    .lease
                    .as_ref()
                    .is_none_or(|lease| lease.epoch <= record.epoch);
                if overtakes {
                    self.node.phase = Phase::Steady { running };
                    self.settle_steady(running, &record, target);
                }
            }
            Phase::Steady { running } => self.settle_steady(running, &record, target),
            Phase::Stuck { since, .. }
                if record.epoch > since
                    && self.node.pending.is_none()
                    && !self.is_held(record.epoch)
                    && self.revocation_reason(&target).is_none() =>
            {
                self.converge(Fallback::Nothing, &record, target);
            }
            Phase::Probation(_)
            | Phase::Stuck { .. }
            | Phase::Switching(_)
            | Phase::Reverting(_) => {}
        }
    }

    fn settle_probation(&mut self, probation: &Probation, record: &Record, target: Release) {
        if *self.release_of(probation.running) == target {
            self.node.phase = Phase::Steady {
                running: Some(probation.running),
            };
            self.commit(probation.running, record);
        } else if self.revocation_reason(&target).is_none() && !self.is_held(record.epoch) {
            // A superseded probation switches directly (rule 11).
            let text = format!("superseded by epoch {}", record.epoch);
            if let Some(generation) = self.node.history.get_mut(probation.running) {
                generation.reverted = Some(text);
            }
            self.node.register.close(probation.epoch);
            self.converge(probation.fallback, record, target);
        }
    }

    fn settle_steady(
        &mut self,
        running: Option<GenerationNumber>,
        record: &Record,
        target: Release,
    ) {
        if let Some(running) = running
            && *self.release_of(running) == target
        {
            let committed = self
                .node
                .history
                .get(running)
                .and_then(crate::generation::Generation::confirmed);
            if committed.is_none_or(|committed| committed < record.epoch) {
                self.commit(running, record);
            }
            return;
        }
        if self.must_switch() && self.node.pending.is_none() {
            self.converge(fallback_of(running), record, target);
        }
    }

    /// Whether the decided record orders something else than what runs, and nothing forbids it.
    pub(super) fn must_switch(&self) -> bool {
        let Some(record) = &self.node.register.decided else {
            return false;
        };
        let Some(target) = record.release_for(&self.context.name) else {
            return false;
        };
        let runs = self
            .node
            .phase
            .running()
            .is_some_and(|running| self.release_of(running) == target);
        let held = self.is_held(record.epoch);
        let waits = self
            .node
            .fetch_retry
            .as_ref()
            .is_some_and(|retry| !retry.at.passed(self.now));
        !runs && !held && !waits && self.revocation_reason(target).is_none()
    }

    /// Whether what `epoch` orders has failed here, so that a later record is waited for.
    fn is_held(&self, epoch: Epoch) -> bool {
        let held = self.node.held.as_ref();
        held.is_some_and(|held| held.epoch >= epoch)
    }

    fn converge(&mut self, from: Fallback, record: &Record, target: Release) {
        let epoch = record.epoch;
        let mut restore = None;
        if record.restores.contains(&self.context.name) {
            restore = self.snapshot_to_restore(&target);
            if restore.is_none() {
                let cause =
                    format!("no snapshot from before the activation of what {target} replaces");
                self.say_of("held", epoch, cause.clone());
                self.node.held = Some(Held {
                    epoch,
                    cause: cause.clone(),
                });
                // Nothing but a probation has to be left; the others stay as they are.
                return self.begin_revert_of_probation(cause);
            }
        } else if let Phase::Probation(probation) = &self.node.phase {
            // As a revert would: an older build cannot read what this one has written.
            restore = self.snapshot_to_go_back(probation.running);
        }
        self.begin_switch(
            from,
            target,
            Purpose::Converge { epoch },
            SwitchStep::Fetch,
            restore,
        );
    }

    fn begin_revert_of_probation(&mut self, cause: String) {
        if matches!(self.node.phase, Phase::Probation(_)) {
            self.begin_revert(CauseKind::Superseded, cause);
        }
    }

    /// The snapshot from before the first activation after `target` last ran: the state in which
    /// `target` left the database.
    fn snapshot_to_restore(&self, target: &Release) -> Option<String> {
        let committed =
            |g: &&crate::generation::Generation| g.confirmed().is_some() && g.release == *target;
        let last = self.node.history.iter().rev().find(committed)?.number;
        let next = self
            .node
            .history
            .iter()
            .find(|g| g.number > last && g.snapshot_before.is_some())?;
        next.snapshot_before.clone()
    }

    /// Marks a generation as decided upon (rule 8).
    fn commit(&mut self, number: GenerationNumber, record: &Record) {
        let bake_ms = self.bake_ms(record.epoch);
        let mut first = false;
        if let Some(generation) = self.node.history.get_mut(number) {
            generation.reverted = None;
            if record.forced {
                generation.forced = Some(record.epoch);
            } else {
                first = generation.committed.is_none();
                generation.committed = Some(record.epoch);
            }
        }
        if self
            .node
            .held
            .as_ref()
            .is_some_and(|held| held.epoch <= record.epoch)
        {
            self.node.held = None;
        }
        self.node.fetch_retry = None;
        self.set_guard(first, record);
        if record.forced {
            let text = format!("generation {number} runs by force, not committed");
            return self.say_of("forced_on", record.epoch, text);
        }
        self.say_of(
            "committed",
            record.epoch,
            format!("generation {number} is committed"),
        );
        if first && bake_ms == 0 {
            self.bake_ended(number);
        } else if first {
            let until = self.now.deadline(bake_ms);
            self.node.bake = Some(Bake {
                generation: number,
                length_ms: bake_ms,
                until,
                unclean: false,
            });
        }
    }

    fn bake_ms(&self, epoch: Epoch) -> u64 {
        let entry = self.node.rollouts.iter().find(|entry| entry.epoch == epoch);
        entry.map_or(0, |entry| entry.plan.timing.bake_ms)
    }
}
