//! What follows from effects: the steps of a switch.

use super::Turn;
use super::stopping::QUARANTINED;
use crate::generation::{Fallback, GenerationNumber};
use crate::node::{Effect, Held, Retry};
use crate::phase::{CauseKind, Phase, Probation, Purpose, Switch, SwitchStep};
use crate::register::Epoch;
use crate::release::Release;

/// The longest pause between two tries of a fetch or a restart, in milliseconds.
pub(super) const BACKOFF_MS_MAX: u64 = 60_000;

/// How long a node that was started again must run before its failures are forgotten, in
/// milliseconds.
const RESTART_CLEAN_MS: u64 = 60_000;

/// 1 s, 2 s, 4 s and so on.
pub(super) fn backoff_ms(failures: u32) -> u64 {
    (500 << failures.min(10)).min(BACKOFF_MS_MAX)
}

impl Turn<'_> {
    pub(super) fn current_epoch(&self) -> Option<Epoch> {
        match &self.node.phase {
            Phase::Switching(switch) => purpose_epoch(switch.purpose),
            Phase::Probation(probation) => Some(probation.epoch),
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => None,
        }
    }

    pub(super) fn current_generation(&self) -> Option<GenerationNumber> {
        match &self.node.phase {
            Phase::Switching(switch) => Some(switch.to),
            Phase::Reverting(revert) => Some(revert.left),
            phase @ (Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Probation(_)
            | Phase::Stuck { .. }) => phase.running(),
        }
    }

    pub(super) fn begin_switch(
        &mut self,
        from: Fallback,
        release: Release,
        purpose: Purpose,
        first: SwitchStep,
        restore: Option<String>,
    ) {
        let epoch = purpose_epoch(purpose).unwrap_or_default();
        let mut kept = self.kept_generations();
        if let Fallback::Generation(number) = from {
            kept.push(number);
        }
        let to = self
            .node
            .history
            .add(release.clone(), epoch, self.now.wall_ms, &kept);
        let supersedes = match &self.node.phase {
            Phase::Probation(probation) => Some(probation.running),
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => None,
        };
        self.node.phase = Phase::Switching(Switch {
            from,
            supersedes,
            to,
            purpose,
            at: first,
            restore,
            taken: None,
            abandoned: None,
        });
        self.node.bake = None;
        if !self.waits_for_voters() {
            self.node.restart = None;
        }
        self.say("switch_began", format!("generation {to} is {release}"));
        self.enter_switch_step(first);
    }

    pub(super) fn enter_switch_step(&mut self, at: SwitchStep) {
        let is_kept_stopped = self.is_kept_stopped();
        let Phase::Switching(switch) = &mut self.node.phase else {
            return;
        };
        switch.at = at;
        if is_kept_stopped && at >= SwitchStep::Start {
            let switch = switch.clone();
            return self.switch_checked(&switch);
        }
        let (to, restore) = (switch.to, switch.restore.clone());
        let build = self.release_of(to).build.clone();
        match at {
            SwitchStep::Fetch => self.order(Effect::Fetch(build)),
            SwitchStep::Drain => self.order(Effect::Drain),
            SwitchStep::Stop => self.order(Effect::Stop),
            SwitchStep::Snapshot => self.order(Effect::Snapshot(format!("before-g{to}"))),
            SwitchStep::Restore => match restore {
                Some(snapshot) => self.order(Effect::Restore(snapshot, format!("replaced-g{to}"))),
                None => self.enter_switch_step(SwitchStep::Point),
            },
            SwitchStep::Point => self.order(Effect::Point(Some(build))),
            SwitchStep::Start => {
                self.node.restart = None;
                self.order(Effect::Start);
            }
            SwitchStep::Check => self.order(Effect::Check),
        }
    }

    pub(super) fn effect_done(&mut self, number: u64, note: Option<String>) {
        if !self.take_pending(number) {
            return;
        }
        if let Some(note) = note {
            self.say("note", note);
        }
        match self.node.phase.clone() {
            Phase::Switching(switch) => self.switch_step_done(&switch),
            Phase::Reverting(revert) => self.revert_step_done(revert),
            Phase::Steady { .. } | Phase::Prepared { .. } => {
                let at = self.now.deadline(RESTART_CLEAN_MS);
                if let Some(restart) = &mut self.node.restart {
                    restart.at = at;
                    restart.under_way = true;
                }
            }
            Phase::Probation(_) | Phase::Stuck { .. } => {}
        }
    }

    fn take_pending(&mut self, number: u64) -> bool {
        let awaited = self
            .node
            .pending
            .as_ref()
            .is_some_and(|pending| pending.number == number);
        if awaited {
            self.node.pending = None;
        }
        awaited
    }

    fn switch_step_done(&mut self, switch: &Switch) {
        if switch.at == SwitchStep::Snapshot {
            let snapshot = format!("before-g{}", switch.to);
            if let Phase::Switching(held) = &mut self.node.phase {
                held.taken = Some(snapshot.clone());
            }
            if let Some(generation) = self.node.history.get_mut(switch.to) {
                generation.snapshot_before = Some(snapshot);
            }
        }
        if let Some((kind, cause)) = self.overtaken(switch) {
            return self.leave_switch(kind, cause);
        }
        self.next_switch_step(switch);
    }

    fn next_switch_step(&mut self, switch: &Switch) {
        match switch.at {
            SwitchStep::Fetch if switch.from == Fallback::Nothing => {
                self.enter_switch_step(SwitchStep::Stop)
            }
            SwitchStep::Fetch => self.enter_switch_step(SwitchStep::Drain),
            SwitchStep::Drain => self.enter_switch_step(SwitchStep::Stop),
            SwitchStep::Stop => self.enter_switch_step(SwitchStep::Snapshot),
            SwitchStep::Snapshot => self.enter_switch_step(SwitchStep::Restore),
            SwitchStep::Restore => self.enter_switch_step(SwitchStep::Point),
            // Rule 17: the voters may yet tell of a later record; then this step is taken again.
            SwitchStep::Point if self.waits_for_voters() => {}
            SwitchStep::Point => self.enter_switch_step(SwitchStep::Start),
            SwitchStep::Start => match switch.purpose {
                Purpose::Rollout {
                    epoch,
                    probation_ms,
                } => self.begin_probation(switch, epoch, probation_ms),
                Purpose::Converge { .. } | Purpose::Restore => {
                    self.enter_switch_step(SwitchStep::Check)
                }
            },
            SwitchStep::Check => self.switch_checked(switch),
        }
    }

    /// Whether something came up while an effect was awaited that makes going on wrong. Once the
    /// node is started, the phases that follow deal with it.
    pub(super) fn overtaken(&self, switch: &Switch) -> Option<(CauseKind, String)> {
        if let Some(cause) = &switch.abandoned {
            return Some((CauseKind::Ordered, cause.clone()));
        }
        if switch.at >= SwitchStep::Start {
            return None;
        }
        if self.is_kept_stopped() && matches!(switch.purpose, Purpose::Rollout { .. }) {
            return Some((CauseKind::Ordered, QUARANTINED.to_owned()));
        }
        let release = self.release_of(switch.to);
        if let Some(reason) = self.revocation_reason(release) {
            return Some((CauseKind::Superseded, reason));
        }
        let decided = self.node.register.decided.as_ref()?;
        let target = decided.release_for(&self.context.name)?;
        let superseded = purpose_epoch(switch.purpose).is_some_and(|epoch| decided.epoch > epoch);
        let text = || format!("superseded by epoch {}: {target}", decided.epoch);
        (superseded && target != release).then(|| (CauseKind::Superseded, text()))
    }

    fn begin_probation(&mut self, switch: &Switch, epoch: Epoch, probation_ms: u64) {
        self.node.phase = Phase::Probation(Probation {
            running: switch.to,
            fallback: switch.from,
            epoch,
            deadline: self.now.deadline(probation_ms),
            clean: false,
            asking: None,
        });
        self.say(
            "probation_began",
            format!("on probation for {} s unless renewed", probation_ms / 1000),
        );
    }

    fn switch_checked(&mut self, switch: &Switch) {
        let from = match switch.from {
            Fallback::Generation(number) => self.node.history.get(number).cloned(),
            Fallback::Nothing => None,
        };
        self.node.phase = Phase::Steady {
            running: Some(switch.to),
        };
        if switch.purpose == Purpose::Restore
            && let Some(generation) = self.node.history.get_mut(switch.to)
        {
            generation.committed = from.as_ref().and_then(|from| from.committed);
            generation.forced = from.as_ref().and_then(|from| from.forced);
            generation.known_good = from.is_some_and(|from| from.known_good);
        }
        if switch.restore.is_some() {
            self.owe(format!("replaced-g{}", switch.to));
        }
        let how = if self.is_kept_stopped() {
            "is what runs once the node is let go"
        } else {
            "runs"
        };
        self.say("switched", format!("generation {} {how}", switch.to));
    }

    pub(super) fn owe(&mut self, snapshot: String) {
        if !self.node.owed.contains(&snapshot) {
            self.node.owed.push(snapshot);
        }
    }

    /// Ends a switch on the way: back to what still runs, or a revert where it was stopped.
    pub(super) fn leave_switch(&mut self, kind: CauseKind, cause: String) {
        let Phase::Switching(switch) = self.node.phase.clone() else {
            return;
        };
        // A superseded generation still runs: it has to be stopped, like one on its way.
        if switch.at > SwitchStep::Drain || switch.supersedes.is_some() {
            return self.begin_revert(kind, cause);
        }
        self.mark_left(switch.to, kind, &cause, purpose_epoch(switch.purpose));
        if switch.at == SwitchStep::Fetch {
            self.node.history.forget(switch.to);
        }
        if let Purpose::Rollout { epoch, .. } = switch.purpose {
            self.close(epoch, &cause);
        }
        let running = match switch.from {
            Fallback::Generation(number) => Some(number),
            Fallback::Nothing => None,
        };
        self.node.phase = Phase::Steady { running };
        self.say("switch_left", cause);
        // The writers may have been stopped: starting a node that runs lets them go on. One whose
        // build is revoked may have ended, and must not start again.
        let revoked = running.is_some_and(|n| self.revocation_reason(self.release_of(n)).is_some());
        let stays = self.waits_for_voters() || self.is_kept_stopped();
        if running.is_some() && !revoked && !stays {
            self.order(Effect::Start);
        }
    }

    pub(super) fn close(&mut self, epoch: Epoch, cause: &str) {
        self.node.register.close(epoch);
        if self
            .node
            .lease
            .as_ref()
            .is_some_and(|lease| lease.epoch == epoch)
        {
            self.node.lease = None;
        }
        self.end_rollouts(epoch, cause);
    }

    pub(super) fn mark_left(
        &mut self,
        number: GenerationNumber,
        kind: CauseKind,
        cause: &str,
        epoch: Option<Epoch>,
    ) {
        if let Some(generation) = self.node.history.get_mut(number) {
            generation.reverted = Some(cause.to_owned());
        }
        // A revert by timer, by order or by a later record sets no hold (rule 10).
        let failed = matches!(
            kind,
            CauseKind::StepFailed | CauseKind::CheckFailed | CauseKind::Triggered
        );
        if let (true, Some(epoch)) = (failed, epoch) {
            self.node.held = Some(Held {
                epoch,
                cause: cause.to_owned(),
            });
        }
    }

    pub(super) fn effect_failed(&mut self, number: u64, error: &str) {
        let halts = matches!(&self.node.pending, Some(pending) if pending.effect == Effect::Halt);
        if !self.take_pending(number) {
            return;
        }
        if halts {
            self.node.stops.halted = false;
        }
        self.say("effect_failed", error);
        match self.node.phase.clone() {
            Phase::Switching(switch) => self.switch_step_failed(&switch, error),
            Phase::Reverting(revert) => self.revert_step_failed(revert, error),
            Phase::Steady { .. } | Phase::Prepared { .. } => self.schedule_restart(error),
            Phase::Probation(_) | Phase::Stuck { .. } => {}
        }
    }

    fn switch_step_failed(&mut self, switch: &Switch, error: &str) {
        let converges = matches!(switch.purpose, Purpose::Converge { .. });
        match switch.at {
            SwitchStep::Fetch => {
                let failures = self
                    .node
                    .fetch_retry
                    .as_ref()
                    .map_or(0, |retry| retry.failures)
                    + 1;
                let at = self.now.deadline(backoff_ms(failures));
                let cause = error.to_owned();
                self.node.fetch_retry = Some(Retry {
                    at,
                    failures,
                    cause,
                    under_way: false,
                });
                self.leave_switch(CauseKind::Interrupted, error.to_owned());
            }
            // A decided record goes on without what it can do without; the journal has the error.
            SwitchStep::Drain if converges => self.next_switch_step(switch),
            SwitchStep::Snapshot if converges && switch.restore.is_none() => {
                self.next_switch_step(switch)
            }
            SwitchStep::Drain => self.leave_switch(CauseKind::StepFailed, error.to_owned()),
            SwitchStep::Stop
            | SwitchStep::Snapshot
            | SwitchStep::Restore
            | SwitchStep::Point
            | SwitchStep::Start
            | SwitchStep::Check => self.begin_revert(CauseKind::StepFailed, error.to_owned()),
        }
    }
}

pub(super) fn purpose_epoch(purpose: Purpose) -> Option<Epoch> {
    match purpose {
        Purpose::Rollout { epoch, .. } | Purpose::Converge { epoch } => Some(epoch),
        Purpose::Restore => None,
    }
}
