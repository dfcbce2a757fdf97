//! What follows from effects: the steps of a switch and of a revert, and what a crash left behind.

use super::Turn;
use crate::generation::{Fallback, GenerationNumber};
use crate::node::{Effect, Held, Retry};
use crate::phase::{
    Cause, CauseKind, Phase, Probation, Purpose, Revert, RevertStep, Switch, SwitchStep,
};
use crate::register::Epoch;
use crate::release::Release;

/// How often a step of a revert is tried before a person is needed.
const REVERT_TRIES: u32 = 3;

/// The longest pause between two tries of a fetch or a restart, in milliseconds.
const BACKOFF_MS_MAX: u64 = 60_000;

/// How long a node that was started again must run before its failures are forgotten, in
/// milliseconds.
const RESTART_CLEAN_MS: u64 = 60_000;

/// 1 s, 2 s, 4 s and so on.
fn backoff_ms(failures: u32) -> u64 {
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
        self.node.restart = None;
        self.say("switch_began", format!("generation {to} is {release}"));
        self.enter_switch_step(first);
    }

    fn enter_switch_step(&mut self, at: SwitchStep) {
        let Phase::Switching(switch) = &mut self.node.phase else {
            return;
        };
        switch.at = at;
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
            SwitchStep::Start => self.order(Effect::Start),
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
    fn overtaken(&self, switch: &Switch) -> Option<(CauseKind, String)> {
        if let Some(cause) = &switch.abandoned {
            return Some((CauseKind::Ordered, cause.clone()));
        }
        if switch.at >= SwitchStep::Start {
            return None;
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
            generation.known_good = from.is_some_and(|from| from.known_good);
        }
        if switch.restore.is_some() {
            self.owe(format!("replaced-g{}", switch.to));
        }
        self.say("switched", format!("generation {} runs", switch.to));
    }

    fn owe(&mut self, snapshot: String) {
        if !self.node.owed.contains(&snapshot) {
            self.node.owed.push(snapshot);
        }
    }

    /// Ends a switch on the way: back to what still runs, or a revert where it was stopped.
    fn leave_switch(&mut self, kind: CauseKind, cause: String) {
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
        if running.is_some() && !revoked {
            self.order(Effect::Start);
        }
    }

    fn close(&mut self, epoch: Epoch, cause: &str) {
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

    fn mark_left(
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
        if let (CauseKind::StepFailed | CauseKind::CheckFailed, Some(epoch)) = (kind, epoch) {
            self.node.held = Some(Held {
                epoch,
                cause: cause.to_owned(),
            });
        }
    }

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
        let to = self.choose_fallback(from, left);
        let cause = Cause { kind, text };
        self.node.phase = Phase::Reverting(Revert {
            from,
            to,
            left,
            cause,
            at: RevertStep::Stop,
            restore,
            failures: 0,
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
    fn choose_fallback(&self, from: Fallback, left: GenerationNumber) -> Option<Fallback> {
        let usable = |number: &GenerationNumber| {
            self.node.history.get(*number).is_some_and(|generation| {
                generation.committed.is_some()
                    && *number != left
                    && self
                        .node
                        .register
                        .revoked(&generation.release.build.digest)
                        .is_none()
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

    fn revert_step_done(&mut self, revert: Revert) {
        let next = match revert.at {
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

    fn enter_revert_step(&mut self, at: RevertStep) {
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
            let to = self.choose_fallback(revert.from, revert.left);
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
            (RevertStep::Start, Some(Fallback::Generation(_)), _) => self.order(Effect::Start),
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
        let mut tried = to.into_iter().chain([revert.left]);
        tried.any(|number| self.release_of(number) == target)
    }

    pub(super) fn effect_failed(&mut self, number: u64, error: &str) {
        if !self.take_pending(number) {
            return;
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

    fn revert_step_failed(&mut self, mut revert: Revert, error: &str) {
        revert.failures += 1;
        if revert.failures >= REVERT_TRIES {
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

    pub(super) fn check_failed(&mut self, generation: GenerationNumber, cause: &str) {
        if let Phase::Probation(probation) = &self.node.phase
            && probation.running == generation
        {
            self.begin_revert(CauseKind::CheckFailed, cause.to_owned());
        }
    }

    pub(super) fn clean(&mut self, generation: GenerationNumber) {
        if let Phase::Probation(probation) = &mut self.node.phase
            && probation.running == generation
            && !probation.clean
        {
            probation.clean = true;
            self.say(
                "probation_clean",
                "the local checks have been healthy for long enough",
            );
        }
    }

    /// The node's process ended by itself.
    pub(super) fn exited(&mut self, how: &str) {
        match self.node.phase.clone() {
            Phase::Steady { running: Some(_) }
            | Phase::Prepared {
                running: Some(_), ..
            } => {
                if self.node.pending.is_none() && !self.restart_scheduled() {
                    self.say("node_ended", format!("the node ended by itself: {how}"));
                    self.schedule_restart(how);
                }
            }
            Phase::Probation(probation) => {
                self.check_failed(
                    probation.running,
                    &format!("the node ended by itself: {how}"),
                );
            }
            Phase::Steady { running: None }
            | Phase::Prepared { running: None, .. }
            | Phase::Switching(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => {}
        }
    }

    fn restart_scheduled(&self) -> bool {
        self.node
            .restart
            .as_ref()
            .is_some_and(|restart| !restart.under_way)
    }

    fn schedule_restart(&mut self, how: &str) {
        let failures = self
            .node
            .restart
            .as_ref()
            .map_or(0, |restart| restart.failures)
            + 1;
        let at = self.now.deadline(backoff_ms(failures));
        self.node.restart = Some(Retry {
            at,
            failures,
            cause: how.to_owned(),
            under_way: false,
        });
    }

    pub(super) fn restart_if_due(&mut self) {
        let Some(restart) = self.node.restart.clone() else {
            return;
        };
        if !restart.at.passed(self.now) || self.node.pending.is_some() {
            return;
        }
        let running = match &self.node.phase {
            Phase::Steady { running } | Phase::Prepared { running, .. } => *running,
            // It waits for the voters' answers: see `started`.
            Phase::Probation(_) => return,
            Phase::Switching(_) | Phase::Reverting(_) | Phase::Stuck { .. } => None,
        };
        match running {
            _ if restart.under_way => self.node.restart = None,
            None => self.node.restart = None,
            // Never start a revoked build (the design's third "must never happen").
            Some(running) if self.revocation_reason(self.release_of(running)).is_some() => {}
            Some(_) => {
                if let Some(restart) = &mut self.node.restart {
                    restart.at = self.now.deadline(BACKOFF_MS_MAX);
                }
                self.order(Effect::Start);
            }
        }
    }

    /// The agent starts: finish or undo what it finds.
    pub(super) fn started(&mut self, node_runs: bool) {
        self.node.pending = None;
        match self.node.phase.clone() {
            Phase::Switching(switch) => match switch.purpose {
                Purpose::Rollout { .. } => {
                    let cause = "the agent was interrupted in the middle of the switch".to_owned();
                    self.leave_switch(CauseKind::Interrupted, cause);
                }
                Purpose::Converge { .. } | Purpose::Restore => {
                    // The host may have gone down as well: a node that ended is started again.
                    let mut switch = switch;
                    if switch.at == SwitchStep::Check && !node_runs {
                        switch.at = SwitchStep::Start;
                    }
                    let revoked = self.revocation_reason(self.release_of(switch.to));
                    let revoked = revoked.filter(|_| switch.at == SwitchStep::Start);
                    let revoked = revoked.map(|reason| (CauseKind::Superseded, reason));
                    match revoked.or_else(|| self.overtaken(&switch)) {
                        Some((kind, cause)) => self.leave_switch(kind, cause),
                        None => self.enter_switch_step(switch.at),
                    }
                }
            },
            Phase::Reverting(revert) if revert.at == RevertStep::Check && !node_runs => {
                self.enter_revert_step(RevertStep::Start);
            }
            Phase::Reverting(revert) => self.enter_revert_step(revert.at),
            Phase::Probation(mut probation) => {
                let over = probation.asking.is_some() || probation.deadline.passed(self.now);
                // Answers that were on their way are lost: ask again.
                probation.asking = None;
                self.node.phase = Phase::Probation(probation);
                if !node_runs && over {
                    // It starts once it is confirmed, not before.
                    self.node.restart = Some(Retry {
                        at: self.now.deadline(0),
                        failures: 0,
                        cause: "the node had ended when the agent came back".to_owned(),
                        under_way: false,
                    });
                } else if !node_runs {
                    let cause = "the node had ended when the agent came back".to_owned();
                    self.begin_revert(CauseKind::CheckFailed, cause);
                }
            }
            Phase::Steady {
                running: Some(running),
            }
            | Phase::Prepared {
                running: Some(running),
                ..
            } => {
                let revoked = self.revocation_reason(self.release_of(running)).is_some();
                if !node_runs && !revoked && !self.must_switch() {
                    self.order(Effect::Start);
                }
            }
            Phase::Steady { running: None } | Phase::Prepared { running: None, .. } => {}
            Phase::Stuck { .. } => self.order(Effect::Stop),
        }
        self.tick();
    }
}

pub(super) fn purpose_epoch(purpose: Purpose) -> Option<Epoch> {
    match purpose {
        Purpose::Rollout { epoch, .. } | Purpose::Converge { epoch } => Some(epoch),
        Purpose::Restore => None,
    }
}
