//! What is found on a node that runs: starts before the way back, triggers, and the hold after it.
//!
//! Never during a switch: everything waits until the node is steady or on probation again.

use super::Turn;
use super::switching::backoff_ms;
use crate::generation::{Fallback, GenerationNumber};
use crate::node::{Effect, Held, Refusal};
use crate::phase::{Cause, CauseKind, Phase, Revert, RevertStep};
use crate::register::{Record, RecordKind};
use crate::release::Release;
use crate::stops::StopsChange;
use crate::trigger::{Alarm, Decision, Guard, Observation, OwnRollback, Standing, Trigger, decide};

impl Turn<'_> {
    pub(super) fn observed(&mut self, generation: GenerationNumber, observation: &Observation) {
        let (Phase::Steady { .. } | Phase::Probation(_)) = &self.node.phase else {
            return;
        };
        if self.node.phase.running() != Some(generation) || self.node.pending.is_some() {
            return;
        }
        // It is stopped on purpose.
        if self.is_kept_stopped() {
            return;
        }
        self.note_bake(observation.is_clean());
        self.note_found(observation);
        if let Some((trigger, cause)) = self.ripe(observation) {
            self.set_off(generation, trigger, &cause);
        } else if let Some(reason) = &observation.unhealthy
            && matches!(self.node.phase, Phase::Steady { .. })
        {
            self.remedy(generation, reason);
        }
    }

    /// What is wrong while it bakes makes the bake time begin anew once it is over.
    fn note_bake(&mut self, clean: bool) {
        let now = self.now;
        if let Some(bake) = &mut self.node.bake {
            if bake.unclean && clean {
                bake.until = now.deadline(bake.length_ms);
            }
            bake.unclean = !clean;
        }
    }

    fn note_found(&mut self, observation: &Observation) {
        let found = |trigger: &Trigger| observation.found.contains_key(trigger);
        self.node.vigil.due.retain(|trigger, _| found(trigger));
        for trigger in observation.found.keys() {
            let at = self.now.deadline(self.context.policy.sustain_ms(*trigger));
            self.node.vigil.due.entry(*trigger).or_insert(at);
        }
        let lasts = |trigger: &Trigger, alarm: &Alarm| match alarm.decision {
            // What the node went back for stands until it is committed on something else.
            Decision::EndProbation | Decision::RevertNode | Decision::RevertMesh => true,
            Decision::Hold | Decision::Nowhere | Decision::Ask | Decision::Alarm => match trigger {
                Trigger::PersistentUnhealthy => observation.unhealthy.is_some(),
                Trigger::DataIntegrity | Trigger::SyncRegression | Trigger::AuthOrConnectivity => {
                    found(trigger)
                }
            },
        };
        let alarms = &self.node.vigil.alarms;
        let over: Vec<Trigger> = alarms
            .iter()
            .filter(|(trigger, alarm)| !lasts(trigger, alarm))
            .map(|(trigger, _)| *trigger)
            .collect();
        for trigger in over {
            self.node.vigil.alarms.remove(&trigger);
            self.say(
                "trigger_over",
                format!("{trigger}: it is not found any more"),
            );
        }
    }

    /// The worst that was found for long enough and is news for what runs.
    fn ripe(&self, observation: &Observation) -> Option<(Trigger, String)> {
        let vigil = &self.node.vigil;
        let running = self.node.phase.running();
        let mut found = observation.found.iter();
        let (trigger, cause) = found.find(|(trigger, _)| {
            let due = vigil.due.get(trigger);
            let told = vigil.alarms.get(trigger);
            due.is_some_and(|at| at.passed(self.now))
                && told.is_none_or(|alarm| Some(alarm.generation) != running)
        })?;
        Some((*trigger, cause.clone()))
    }

    /// Starts an unhealthy node anew, so often as policy allows; then its health is a trigger.
    fn remedy(&mut self, generation: GenerationNumber, reason: &str) {
        let limits = self.context.policy.remediation;
        let waits = self.node.restart.as_ref().filter(|one| !one.under_way);
        if let Some(waits) = waits {
            // It ends by itself again and again, and is started again with a growing pause.
            if waits.failures > limits.restarts {
                self.set_off(generation, Trigger::PersistentUnhealthy, reason);
            }
            return;
        }
        let now = self.now;
        let patience = self.node.vigil.patience.as_ref();
        if patience.is_some_and(|until| !until.passed(now)) {
            return;
        }
        self.node.vigil.restarts.retain(|until| !until.passed(now));
        let done = u32::try_from(self.node.vigil.restarts.len()).unwrap_or(u32::MAX);
        let revoked = self
            .revocation_reason(self.release_of(generation))
            .is_some();
        if done >= limits.restarts || revoked {
            return self.set_off(generation, Trigger::PersistentUnhealthy, reason);
        }
        let vigil = &mut self.node.vigil;
        vigil.restarts.push(now.deadline(limits.window_ms));
        let pause = limits.backoff_ms.saturating_mul(1 << done.min(10));
        vigil.patience = Some(now.deadline(pause));
        let text = format!(
            "unhealthy ({reason}): start {} of {} within {} s",
            done + 1,
            limits.restarts,
            limits.window_ms / 1000
        );
        self.say("remedied", text);
        self.order(Effect::Restart);
    }

    fn set_off(&mut self, generation: GenerationNumber, trigger: Trigger, cause: &str) {
        let told = self.node.vigil.alarms.get(&trigger);
        if told.is_some_and(|alarm| alarm.generation == generation) {
            return;
        }
        let standing = match &self.node.phase {
            Phase::Probation(_) => Standing::Probation,
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => match &self.node.bake {
                Some(bake) if bake.generation == generation => Standing::Baking,
                Some(_) | None => Standing::Baked,
            },
        };
        let way_back = self.way_back(generation);
        let went_back = self.node.vigil.guard.is_some();
        let policy = &self.context.policy;
        let decision = decide(policy, trigger, standing, went_back, way_back.is_some());
        self.say(
            "triggered",
            format!("{trigger}: {cause}: {}", decision.words()),
        );
        let alarm = Alarm {
            generation,
            cause: cause.to_owned(),
            decision,
        };
        self.node.vigil.alarms.insert(trigger, alarm);
        match (decision, way_back) {
            (Decision::EndProbation, _) => {
                self.check_failed(generation, &format!("{trigger}: {cause}"));
            }
            (Decision::RevertNode, Some(to)) => self.leave(generation, to, trigger, cause),
            (Decision::RevertMesh, Some(to)) => {
                self.propose_rollback(generation, trigger, cause);
                self.leave(generation, to, trigger, cause);
            }
            (Decision::RevertNode | Decision::RevertMesh, None)
            | (Decision::Nowhere | Decision::Ask | Decision::Alarm, _) => {}
            (Decision::Hold, _) => self.cut_off(trigger, cause),
        }
    }

    /// A node that would spread damage and does not go back again is kept from its peers, where policy
    /// says so. A person lets it go.
    fn cut_off(&mut self, trigger: Trigger, cause: &str) {
        if self.context.policy.quarantine && trigger.spreads() {
            let reason = format!("{trigger}: {cause}");
            self.change_stops(&StopsChange::Quarantined(true), reason, "agent");
        }
    }

    /// The newest earlier release that was committed, baked clean and was never left or revoked.
    fn way_back(&self, running: GenerationNumber) -> Option<GenerationNumber> {
        let leaving = self.release_of(running);
        let mut earlier = self.node.history.iter().rev();
        let usable = earlier.find(|one| {
            one.number < running
                && one.confirmed().is_some()
                && one.known_good
                && one.reverted.is_none()
                && one.release != *leaving
                && self
                    .node
                    .register
                    .revoked(&one.release.build.digest)
                    .is_none()
        });
        usable.map(|generation| generation.number)
    }

    fn propose_rollback(&mut self, generation: GenerationNumber, trigger: Trigger, cause: &str) {
        self.node.vigil.rollback = Some(OwnRollback {
            trigger,
            cause: cause.to_owned(),
            leaving: self.release_of(generation).clone(),
            since: self.node.register.decided_epoch(),
            tries: 0,
            at: self.now.deadline(0),
        });
    }

    /// Begins the way back of a committed generation: its epoch stays decided, and is held.
    fn leave(
        &mut self,
        left: GenerationNumber,
        to: GenerationNumber,
        trigger: Trigger,
        cause: &str,
    ) {
        let text = format!("{trigger}: {cause}");
        self.say("revert_began", text.clone());
        let epoch = self.node.register.decided_epoch();
        self.mark_left(left, CauseKind::Triggered, &text, Some(epoch));
        let restore = self.snapshot_to_go_back(left);
        self.node.vigil.guard = Some(Guard {
            left: Some(self.release_of(left).clone()),
            cause: text.clone(),
        });
        self.node.vigil.patience = None;
        self.node.bake = None;
        self.node.restart = None;
        self.node.phase = Phase::Reverting(Revert {
            from: Fallback::Generation(to),
            to: Some(Fallback::Generation(to)),
            left,
            cause: Cause {
                kind: CauseKind::Triggered,
                text,
            },
            at: RevertStep::Drain,
            restore,
            failures: 0,
            unusable: Vec::new(),
        });
        self.order(Effect::Drain);
    }

    /// What a trigger made this node leave is taken up again by a rollout that activates it here, or
    /// by a rollback that names it; not by a record that is about something else.
    pub(super) fn hold_back(&mut self, record: &Record, target: &Release) {
        let Some(guard) = &self.node.vigil.guard else {
            return;
        };
        let again = guard.left.as_ref() == Some(target) && record.kind != RecordKind::Rollback;
        let held = self.node.held.as_ref();
        let known = held.is_some_and(|held| held.epoch >= record.epoch);
        let on_it = matches!(&self.node.phase, Phase::Probation(on)
            if self.release_of(on.running) == target);
        if again && !known && !on_it {
            let cause = guard.cause.clone();
            self.say_of(
                "held",
                record.epoch,
                format!("it went back before: {cause}"),
            );
            self.node.held = Some(Held {
                epoch: record.epoch,
                cause,
            });
        }
    }

    /// A record was committed here: what went back holds from now on, what is new may go back.
    pub(super) fn set_guard(&mut self, first: bool, record: &Record) {
        match record.kind {
            RecordKind::Rollback => {
                let cause = format!("went back by epoch {}: {}", record.epoch, record.reason);
                let vigil = &mut self.node.vigil;
                vigil.guard.get_or_insert(Guard { left: None, cause });
                vigil.alarms.clear();
            }
            RecordKind::Rollout if first => {
                self.node.vigil.guard = None;
                self.node.vigil.alarms.clear();
            }
            RecordKind::Rollout | RecordKind::Voters | RecordKind::Trust => {}
        }
    }

    pub(super) fn check_alarms(&self) -> Result<(), Refusal> {
        let mut alarms = self.node.vigil.alarms.iter();
        let asks = alarms.find(|(_, alarm)| alarm.decision == Decision::Ask);
        asks.map_or(Ok(()), |(trigger, alarm)| {
            Err(Refusal::Alarmed(format!("{trigger}: {}", alarm.cause)))
        })
    }

    /// Nothing is left to propose once the mesh is meant to run something else.
    pub(super) fn end_own_rollback(&mut self) {
        let register = &self.node.register;
        let own = self.node.vigil.rollback.as_ref();
        if own.is_some_and(|own| own.is_needless(register, &self.context.name)) {
            self.node.vigil.rollback = None;
            self.say(
                "rollback_over",
                "the mesh is meant to run something else: this agent proposes nothing any more",
            );
        }
    }

    pub(super) fn rollback_tried(&mut self, why: &str, nowhere: bool, jitter_ms: u64) {
        let Some(mut own) = self.node.vigil.rollback.take() else {
            return;
        };
        if nowhere {
            let text = format!("the mesh cannot go back by itself, and a person decides: {why}");
            return self.say("rollback_impossible", text);
        }
        own.tries += 1;
        let pause = backoff_ms(own.tries).saturating_add(jitter_ms);
        own.at = self.now.deadline(pause);
        let text = format!("the rollback of the mesh is not decided ({why}): again in {pause} ms");
        self.node.vigil.rollback = Some(own);
        self.say("rollback_tried", text);
    }
}
