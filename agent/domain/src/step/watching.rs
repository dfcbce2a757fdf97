//! What the checks find, a node that ended by itself, and what an agent finds when it starts.

use super::Turn;
use super::switching::{BACKOFF_MS_MAX, backoff_ms};
use crate::generation::GenerationNumber;
use crate::node::{Effect, Retry};
use crate::phase::{CauseKind, Phase, Purpose, RevertStep, SwitchStep};

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

    /// Rule 17: a host that has just started hears the voters before its node starts, or waits for
    /// them in vain.
    fn start_after(&mut self, wait_ms: u64) {
        if wait_ms == 0 {
            return self.order(Effect::Start);
        }
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
                    self.start_after(wait_ms);
                }
            }
            Phase::Steady { running: None } | Phase::Prepared { running: None, .. } => {}
            Phase::Stuck { .. } => self.order(Effect::Stop),
        }
        self.tick();
    }
}
