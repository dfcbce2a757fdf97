//! Traffic, peers and rollouts that a person stops and lets go.

use super::Turn;
use crate::node::{Effect, Refusal};
use crate::phase::{CauseKind, Phase};
use crate::stops::{Freeze, Stopped, StopsChange};
use crate::trigger::Decision;

/// Why a rollout ends on a node that is stopped.
pub(super) const QUARANTINED: &str = "the node was quarantined, and is stopped for it";

impl Turn<'_> {
    pub(super) fn change_stops(&mut self, change: &StopsChange, reason: String, by: &str) {
        let why = match reason.as_str() {
            "" => by.to_owned(),
            reason => format!("{by}: {reason}"),
        };
        let (by, before) = (by.to_owned(), self.node.stops.clone());
        let stops = &mut self.node.stops;
        let kind = match change {
            StopsChange::Drained(true) => {
                stops.drained.get_or_insert(Stopped { by, reason });
                "drained"
            }
            StopsChange::Drained(false) => {
                stops.drained = None;
                "undrained"
            }
            StopsChange::Quarantined(true) => {
                stops.quarantined.get_or_insert(Stopped { by, reason });
                self.leave_what_would_start();
                "quarantined"
            }
            StopsChange::Quarantined(false) => {
                stops.quarantined = None;
                "released"
            }
            StopsChange::Frozen(Some(lasts_ms)) => {
                let lasts_ms = i64::try_from(*lasts_ms).unwrap_or(i64::MAX);
                let until_wall_ms = self.now.wall_ms.saturating_add(lasts_ms);
                stops.frozen = Some(Freeze {
                    by,
                    reason,
                    until_wall_ms,
                });
                "frozen"
            }
            StopsChange::Frozen(None) => {
                stops.frozen = None;
                self.acknowledge();
                "thawed"
            }
        };
        if self.node.stops != before || kind == "thawed" {
            self.say(kind, why);
        }
    }

    /// Whether this node is stopped for as long as it is quarantined.
    pub(super) fn is_kept_stopped(&self) -> bool {
        self.context.policy.quarantine_stops && self.node.stops.quarantined.is_some()
    }

    /// A node on probation is to be stopped for good: its rollout ends here.
    fn leave_what_would_start(&mut self) {
        if !self.is_kept_stopped() {
            return;
        }
        if !self.waits_for_voters() {
            self.node.restart = None;
        }
        if matches!(self.node.phase, Phase::Probation(_)) {
            self.begin_revert(CauseKind::Ordered, QUARANTINED.to_owned());
        }
    }

    /// Stops a node that is quarantined in that way once nothing else is under way, and starts it again
    /// once it is let go.
    pub(super) fn keep_halted(&mut self) {
        let (Phase::Steady { running } | Phase::Prepared { running, .. }) = self.node.phase else {
            return;
        };
        let Some(running) = running else { return };
        if self.node.pending.is_some() || self.restart_scheduled() {
            return;
        }
        match (self.is_kept_stopped(), self.node.stops.halted) {
            (true, false) => {
                self.node.stops.halted = true;
                self.order(Effect::Halt);
            }
            (false, true) => {
                self.node.stops.halted = false;
                let revoked = self.revocation_reason(self.release_of(running)).is_some();
                if !revoked && !self.must_switch() {
                    self.order(Effect::Start);
                }
            }
            (true, true) | (false, false) => {}
        }
    }

    /// A rollout does not begin on a node that is quarantined: it would not be joined by its peers.
    pub(super) fn check_quarantine(&self) -> Result<(), Refusal> {
        let quarantined = self.node.stops.quarantined.as_ref();
        quarantined.map_or(Ok(()), |stopped| {
            Err(Refusal::Quarantined {
                by: stopped.by.clone(),
                reason: stopped.reason.clone(),
            })
        })
    }

    /// A person who lets rollouts begin again has seen what the triggers ask.
    fn acknowledge(&mut self) {
        for alarm in self.node.vigil.alarms.values_mut() {
            if alarm.decision == Decision::Ask {
                alarm.decision = Decision::Alarm;
            }
        }
    }

    pub(super) fn check_frozen(&self) -> Result<(), Refusal> {
        let freeze = self.node.stops.freeze_at(self.now.wall_ms);
        freeze.map_or(Ok(()), |freeze| {
            let left = u64::try_from(freeze.until_wall_ms - self.now.wall_ms).unwrap_or_default();
            Err(Refusal::Frozen {
                by: freeze.by.clone(),
                reason: freeze.reason.clone(),
                left_s: left.div_ceil(1000),
            })
        })
    }
}
