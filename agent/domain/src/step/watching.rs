//! What the checks find, a node that ended by itself, and what an agent finds when it starts.

use super::Turn;
use super::switching::{BACKOFF_MS_MAX, backoff_ms};
use crate::generation::GenerationNumber;
use crate::node::{Effect, Retry};
use crate::phase::{CauseKind, Phase, Probation, Purpose, RevertStep, Switch, SwitchStep};

/// Why a node that does not run is not started yet.
const WAITS_FOR_VOTERS: &str = "the host has just started";

impl Turn<'_> {
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
        if self.is_kept_stopped() {
            return;
        }
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
            // The voters' answers say where it goes, also after a boot, where the node has not started
            // yet: a revert now would leave for good what may be decided.
            Phase::Probation(probation) if probation.asking.is_some() => {}
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

    pub(super) fn restart_scheduled(&self) -> bool {
        self.node
            .restart
            .as_ref()
            .is_some_and(|restart| !restart.under_way)
    }

    pub(super) fn schedule_restart(&mut self, how: &str) {
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
        if restart.cause == WAITS_FOR_VOTERS {
            return self.stop_waiting();
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
            Some(_) if self.is_kept_stopped() => {
                let at = self.now.deadline(BACKOFF_MS_MAX);
                if let Some(restart) = &mut self.node.restart {
                    (restart.at, restart.under_way) = (at, true);
                }
            }
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

    /// Whether the host has just started, and has not heard of enough voters to start its node.
    pub(super) fn waits_for_voters(&self) -> bool {
        let restart = self.node.restart.as_ref();
        restart.is_some_and(|r| r.cause == WAITS_FOR_VOTERS && !r.at.passed(self.now))
    }

    /// The voters were heard, or were waited for in vain: goes on with what was found.
    fn stop_waiting(&mut self) {
        match &self.node.phase {
            // Their answers about this very rollout are still awaited.
            Phase::Probation(_) => {}
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => {
                self.node.restart = None;
                self.started(false, 0);
            }
        }
    }

    /// Rule 17: a host that has just started hears the voters before its node starts, or waits for
    /// them in vain, whatever it was doing when it went down.
    fn wait_for_voters(&mut self, wait_ms: u64) {
        self.say(
            "start_waits",
            "the host has just started: asking the voters what was decided before the node starts",
        );
        self.node.restart = Some(Retry {
            at: self.now.deadline(wait_ms),
            failures: 0,
            cause: WAITS_FOR_VOTERS.to_owned(),
            under_way: false,
        });
    }

    pub(super) fn met(&mut self) {
        if let Some(restart) = &mut self.node.restart
            && restart.cause == WAITS_FOR_VOTERS
        {
            restart.at = self.now.deadline(0);
            self.restart_if_due();
        }
    }

    /// The agent starts: finish or undo what it finds.
    pub(super) fn started(&mut self, node_runs: bool, wait_ms: u64) {
        self.node.pending = None;
        // It may have been started meanwhile, by a host that booted without this agent.
        self.node.stops.halted &= !self.is_kept_stopped();
        let waits = wait_ms > 0 && !node_runs;
        match self.node.phase.clone() {
            Phase::Steady { running: Some(_) }
            | Phase::Prepared {
                running: Some(_), ..
            }
            | Phase::Switching(_)
            | Phase::Reverting(_)
                if waits =>
            {
                self.wait_for_voters(wait_ms);
            }
            Phase::Switching(switch) => self.go_on_switching(switch, node_runs),
            Phase::Reverting(revert) if revert.at == RevertStep::Check && !node_runs => {
                self.enter_revert_step(RevertStep::Start);
            }
            Phase::Reverting(revert) => self.enter_revert_step(revert.at),
            Phase::Probation(probation) => self.go_on_with_probation(probation, node_runs, wait_ms),
            Phase::Steady {
                running: Some(running),
            }
            | Phase::Prepared {
                running: Some(running),
                ..
            } => {
                let revoked = self.revocation_reason(self.release_of(running)).is_some();
                let stays = self.is_kept_stopped() || self.must_switch();
                if !node_runs && !revoked && !stays {
                    self.order(Effect::Start);
                }
            }
            Phase::Steady { running: None } | Phase::Prepared { running: None, .. } => {}
            Phase::Stuck { .. } => self.order(Effect::Stop),
        }
        self.tick();
    }

    /// A rollout's switch is undone; what was decided, or a person ordered, is gone on with.
    fn go_on_switching(&mut self, mut switch: Switch, node_runs: bool) {
        match switch.purpose {
            Purpose::Rollout { .. } => {
                let cause = "the agent was interrupted in the middle of the switch".to_owned();
                self.leave_switch(CauseKind::Interrupted, cause);
            }
            Purpose::Converge { .. } | Purpose::Restore => {
                // The host may have gone down as well: a node that ended is started again.
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
        }
    }

    fn go_on_with_probation(&mut self, mut probation: Probation, node_runs: bool, wait_ms: u64) {
        let over = probation.asking.is_some() || probation.deadline.passed(self.now);
        // Answers that were on their way are lost: ask again.
        probation.asking = None;
        self.node.phase = Phase::Probation(probation);
        if node_runs {
            return;
        }
        if !over {
            let cause = "the node had ended when the agent came back".to_owned();
            return self.begin_revert(CauseKind::CheckFailed, cause);
        }
        // It starts once it is confirmed, not before; and a way back waits for the voters, too.
        if wait_ms > 0 {
            return self.wait_for_voters(wait_ms);
        }
        self.node.restart = Some(Retry {
            at: self.now.deadline(0),
            failures: 0,
            cause: "the node had ended when the agent came back".to_owned(),
            under_way: false,
        });
    }
}
