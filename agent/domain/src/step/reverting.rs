//! The way back: where to, step by step, and what happens when it fails too.

use super::Turn;
use super::switching::purpose_epoch;
use crate::generation::{Fallback, Generation, GenerationNumber};
use crate::node::Effect;
use crate::phase::{Cause, CauseKind, Phase, Purpose, Revert, RevertStep, SwitchStep};

use crate::register::Epoch;

/// How often a step of a revert is tried before a person is needed.
const REVERT_TRIES: u32 = 3;

/// How many ways back are tried before a person is needed: each try is time in which nothing runs.
const WAYS_BACK_MAX: usize = 3;

impl Turn<'_> {
    /// Begins the way back from a switch or a probation (rule 10: it closes the epoch).
    pub(super) fn begin_revert(&mut self, kind: CauseKind, text: String) {
        let (from, left, epoch, rollout, restore) = match &self.node.phase {
            Phase::Switching(switch) => {
                let restored = switch.restore.is_some() && switch.at >= SwitchStep::Restore;
                let started = switch.at >= SwitchStep::Start && self.changes_persistence(switch.to);
                let restore = if restored || started {
                    switch.taken.clone()
                } else {
                    switch
                        .supersedes
                        .and_then(|number| self.snapshot_to_go_back(number))
                };
                let rollout = matches!(switch.purpose, Purpose::Rollout { .. });
                (
                    switch.from,
                    switch.to,
                    purpose_epoch(switch.purpose),
                    rollout,
                    restore,
                )
            }
            Phase::Probation(probation) => {
                let restore = self.snapshot_to_go_back(probation.running);
                (
                    probation.fallback,
                    probation.running,
                    Some(probation.epoch),
                    true,
                    restore,
                )
            }
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => return,
        };
        self.say("revert_began", text.clone());
        self.mark_left(left, kind, &text, epoch);
        if let (true, Some(epoch)) = (rollout, epoch) {
            self.close(epoch, &text);
        }
        let to = self.choose_fallback(from, left, kind, &[]);
        let cause = Cause { kind, text };
        self.node.phase = Phase::Reverting(Revert {
            from,
            to,
            left,
            cause,
            at: RevertStep::Stop,
            restore,
            failures: 0,
            unusable: Vec::new(),
        });
        self.order(Effect::Stop);
    }

    /// The snapshot that going back from a generation restores, if it has to.
    pub(super) fn snapshot_to_go_back(&self, number: GenerationNumber) -> Option<String> {
        let generation = self.node.history.get(number);
        let changed = generation.filter(|generation| generation.changes_persistence);
        changed.and_then(|generation| generation.snapshot_before.clone())
    }

    fn changes_persistence(&self, number: GenerationNumber) -> bool {
        self.node
            .history
            .get(number)
            .is_some_and(|generation| generation.changes_persistence)
    }

    /// Rule 11: only a committed, unrevoked generation, best the one that the record orders.
    /// What a trigger made the node leave is no way back, whatever the record orders; nor is what is
    /// `unusable`, and what follows that is further away (see [`Turn::replaces`]).
    fn choose_fallback(
        &self,
        from: Fallback,
        left: GenerationNumber,
        kind: CauseKind,
        unusable: &[GenerationNumber],
    ) -> Option<Fallback> {
        let triggered = kind == CauseKind::Triggered;
        let usable = |number: &GenerationNumber| {
            self.node.history.get(*number).is_some_and(|generation| {
                generation.confirmed().is_some()
                    && *number != left
                    && !(triggered && generation.release == *self.release_of(left))
                    && self
                        .node
                        .register
                        .revoked(&generation.release.build.digest)
                        .is_none()
                    && unusable
                        .iter()
                        .all(|tried| self.replaces(*number, *tried, left))
            })
        };
        let numbers = || {
            self.node
                .history
                .iter()
                .rev()
                .map(|generation| generation.number)
        };
        let ordered = self
            .node
            .register
            .decided
            .as_ref()
            .and_then(|r| r.release_for(&self.context.name));
        let by_record = numbers()
            .filter(usable)
            .find(|number| Some(self.release_of(*number)) == ordered);
        if let Some(number) = by_record {
            return Some(Fallback::Generation(number));
        }
        match from {
            Fallback::Nothing => Some(Fallback::Nothing),
            Fallback::Generation(number) if usable(&number) => Some(from),
            Fallback::Generation(_) => numbers().find(usable).map(Fallback::Generation),
        }
    }

    /// Whether a generation can be gone back to in the place of one that was tried: another build, not the
    /// release that is left, and no change of the persistence format between the two, since what runs on
    /// one side of it cannot read what the other has written.
    fn replaces(
        &self,
        number: GenerationNumber,
        tried: GenerationNumber,
        left: GenerationNumber,
    ) -> bool {
        let between = number.min(tried) + 1..=number.max(tried);
        let changes = |generation: &Generation| {
            generation.number != left
                && generation.changes_persistence
                && between.contains(&generation.number)
        };
        let release = self.release_of(number);
        release.build != self.release_of(tried).build
            && release != self.release_of(left)
            && !self.node.history.iter().any(changes)
    }

    pub(super) fn revert_step_done(&mut self, revert: Revert) {
        let next = match revert.at {
            RevertStep::Drain => RevertStep::Stop,
            RevertStep::Stop if revert.restore.is_some() => RevertStep::Restore,
            RevertStep::Stop => RevertStep::Point,
            RevertStep::Restore => {
                // Done once: what is stopped again later must not lose what came after it.
                if let Phase::Reverting(held) = &mut self.node.phase {
                    held.restore = None;
                }
                self.owe(format!("replaced-by-revert-g{}", revert.left));
                RevertStep::Point
            }
            RevertStep::Point => RevertStep::Start,
            RevertStep::Start => RevertStep::Check,
            RevertStep::Check => return self.reverted(revert.to),
        };
        self.enter_revert_step(next);
    }

    pub(super) fn enter_revert_step(&mut self, at: RevertStep) {
        if let Phase::Reverting(revert) = &mut self.node.phase {
            revert.failures = 0;
        }
        self.take_revert_step(at);
    }

    /// Orders a step of the revert, for the first time or again.
    fn take_revert_step(&mut self, at: RevertStep) {
        let Phase::Reverting(mut revert) = self.node.phase.clone() else {
            return;
        };
        if matches!(at, RevertStep::Point | RevertStep::Start) {
            // A revocation may have come in since the way back was chosen.
            let Revert { from, left, .. } = revert;
            let to = self.choose_fallback(from, left, revert.cause.kind, &revert.unusable);
            // The earlier choice may run already, where only its check has failed.
            revert.at = if to == revert.to {
                at
            } else {
                RevertStep::Stop
            };
            revert.to = to;
        } else {
            revert.at = at;
        }
        let (at, to, restore, left) = (revert.at, revert.to, revert.restore.clone(), revert.left);
        self.node.phase = Phase::Reverting(revert);
        self.order_revert_step(at, to, restore, left);
    }

    fn order_revert_step(
        &mut self,
        at: RevertStep,
        to: Option<Fallback>,
        restore: Option<String>,
        left: GenerationNumber,
    ) {
        match (at, to, restore) {
            (RevertStep::Drain, _, _) => self.order(Effect::Drain),
            (RevertStep::Stop, _, _) => self.order(Effect::Stop),
            (RevertStep::Restore, _, Some(snapshot)) => {
                self.order(Effect::Restore(
                    snapshot,
                    format!("replaced-by-revert-g{left}"),
                ));
            }
            (RevertStep::Restore, _, None) => self.enter_revert_step(RevertStep::Point),
            (_, None, _) => {
                self.stuck("there is no committed generation left whose build is not revoked")
            }
            (RevertStep::Point, Some(Fallback::Generation(number)), _) => {
                let build = self.release_of(number).build.clone();
                self.order(Effect::Point(Some(build)));
            }
            (RevertStep::Point, Some(Fallback::Nothing), _) => self.order(Effect::Point(None)),
            (RevertStep::Start | RevertStep::Check, Some(Fallback::Nothing), _) => {
                self.reverted(to)
            }
            (RevertStep::Start | RevertStep::Check, Some(Fallback::Generation(_)), _)
                if self.is_kept_stopped() =>
            {
                self.reverted(to)
            }
            // Rule 17: what the voters say may change where it goes.
            (RevertStep::Start, Some(Fallback::Generation(_)), _) if self.waits_for_voters() => {}
            (RevertStep::Start, Some(Fallback::Generation(_)), _) => {
                self.node.restart = None;
                self.order(Effect::Start);
            }
            (RevertStep::Check, Some(Fallback::Generation(_)), _) => self.order(Effect::Check),
        }
    }

    fn reverted(&mut self, to: Option<Fallback>) {
        let running = match to {
            Some(Fallback::Generation(number)) => Some(number),
            Some(Fallback::Nothing) | None => None,
        };
        self.node.phase = Phase::Steady { running };
        let text = running.map_or("back: nothing runs, as before".into(), |n| {
            format!("back on generation {n}")
        });
        self.say("reverted", text);
    }

    /// What could not be pointed to is damaged beyond repair: whether there is another way back instead,
    /// which the revert then leads to.
    fn try_next_way_back(&mut self, revert: &mut Revert) -> bool {
        let Some(Fallback::Generation(tried)) = revert.to else {
            return false;
        };
        revert.unusable.push(tried);
        let Revert { from, left, .. } = *revert;
        let next = self.choose_fallback(from, left, revert.cause.kind, &revert.unusable);
        let Some(Fallback::Generation(number)) = next else {
            return false;
        };
        if revert.unusable.len() >= WAYS_BACK_MAX {
            return false;
        }
        let (tried, release) = (self.release_of(tried), self.release_of(number));
        let text = format!(
            "{tried} cannot be gone back to, because its build cannot be used: going back to generation \
             {number} instead, {release}"
        );
        self.say("next_way_back", text);
        revert.to = next;
        revert.failures = 0;
        true
    }

    fn stuck(&mut self, why: &str) {
        if let Phase::Reverting(revert) = &self.node.phase
            && revert.at == RevertStep::Restore
        {
            // It may have got as far as setting the newest state aside.
            self.owe(format!("replaced-by-revert-g{}", revert.left));
        }
        let cause = match &self.node.phase {
            Phase::Reverting(revert) => {
                format!("{why}; it was going back because: {}", revert.cause.text)
            }
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Probation(_)
            | Phase::Stuck { .. } => why.to_owned(),
        };
        self.say("stuck", cause.clone());
        let remedy =
            "the node is stopped; look at `cbctl journal list`, then order a release that works \
                      with `cbctl rollback --mesh --to RELEASE`"
                .to_owned();
        let since = if self.tried_what_is_decided() {
            self.node.register.decided_epoch()
        } else {
            Epoch::default()
        };
        self.node.phase = Phase::Stuck {
            cause,
            remedy,
            since,
        };
        self.order(Effect::Stop);
    }

    /// Whether what the record orders is what failed on the way there or on the way back. If it is
    /// not, it came in meanwhile and is still worth a try.
    fn tried_what_is_decided(&self) -> bool {
        let decided = self.node.register.decided.as_ref();
        let Some(target) = decided.and_then(|record| record.release_for(&self.context.name)) else {
            return true;
        };
        let Phase::Reverting(revert) = &self.node.phase else {
            return true;
        };
        let to = match revert.to {
            Some(Fallback::Generation(number)) => Some(number),
            Some(Fallback::Nothing) | None => None,
        };
        let unusable = revert.unusable.iter().copied();
        let mut tried = to.into_iter().chain([revert.left]).chain(unusable);
        tried.any(|number| self.release_of(number) == target)
    }

    pub(super) fn revert_step_failed(&mut self, mut revert: Revert, error: &str) {
        // The way back can do without; the journal has the error.
        if revert.at == RevertStep::Drain {
            return self.enter_revert_step(RevertStep::Stop);
        }
        revert.failures += 1;
        if revert.failures >= REVERT_TRIES {
            if revert.at == RevertStep::Point && self.try_next_way_back(&mut revert) {
                self.node.phase = Phase::Reverting(revert);
                return self.take_revert_step(RevertStep::Point);
            }
            return self.stuck(error);
        }
        // A node that was not ready may have ended: start it again before checking again.
        let at = if revert.at == RevertStep::Check {
            RevertStep::Start
        } else {
            revert.at
        };
        self.node.phase = Phase::Reverting(revert);
        self.take_revert_step(at);
    }
}
