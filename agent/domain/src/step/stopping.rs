//! Traffic, peers and rollouts that a person stops and lets go.

use super::Turn;
use crate::node::Refusal;
use crate::stops::{Freeze, Stopped, StopsChange};
use crate::trigger::Decision;

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
