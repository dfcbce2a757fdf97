//! Rules about switches, probations, reverts and what is started.

use super::super::mesh::{ASK_LIMIT_MS, Host, TICK_MS, short};
use super::{Checker, UNDER_WAY_MS, rollout_of};
use cbddc_domain::generation::{Fallback, GenerationNumber};
use cbddc_domain::node::{Action, Effect, Event, Node, Step};
use cbddc_domain::phase::{CauseKind, Phase, Purpose};
use cbddc_domain::time::Now;

impl Checker {
    pub(super) fn phase_rules(
        &mut self,
        index: usize,
        host: &Host,
        after: &Node,
        event: &Event,
    ) -> Result<(), String> {
        let before = &host.node;
        if let Some((epoch, left)) = rollout_of(&before.phase) {
            let goes_on = rollout_of(&after.phase).is_some_and(|(_, number)| number == left);
            let committed = after
                .history
                .get(left)
                .is_some_and(|g| g.confirmed().is_some());
            if !goes_on && !committed {
                self.gone_back.insert((index, epoch));
            }
        }
        if let Phase::Probation(probation) = &after.phase
            && probation.asking.is_some()
            && !after.register.votes.contains_key(&probation.epoch)
            && after.register.decided_epoch() < probation.epoch
        {
            if after.register.sealed.contains(&probation.epoch) {
                self.answered_no.insert((index, probation.epoch));
            } else if probation.epoch >= after.register.promised {
                return Err(format!(
                    "rule 9: asks about {} without sealing it",
                    short(probation.epoch)
                ));
            }
        }
        let (was, is) = (&before.phase, &after.phase);
        if let Phase::Switching(switch) = is
            && !matches!(was, Phase::Switching(held) if held.to == switch.to)
        {
            self.switch_begins(index, before, after, event)?;
        }
        if let Phase::Reverting(revert) = is
            && !matches!(was, Phase::Reverting(_))
        {
            self.revert_begins(before, after, revert.left)?;
        }
        Ok(())
    }

    pub(super) fn switch_begins(
        &mut self,
        index: usize,
        before: &Node,
        after: &Node,
        event: &Event,
    ) -> Result<(), String> {
        let Phase::Switching(switch) = &after.phase else {
            return Ok(());
        };
        let release = &after
            .history
            .get(switch.to)
            .ok_or("a switch to a forgotten generation")?
            .release;
        if after.register.revoked(&release.build.digest).is_some() {
            return Err("rule 14: a switch to a revoked build began".into());
        }
        match switch.purpose {
            Purpose::Converge { epoch } => {
                let decided = self.highest.get(&index).map(|highest| highest.1);
                if Some(epoch) != decided {
                    return Err(format!(
                        "rule 11: converges to {}, not to the newest it knows",
                        short(epoch)
                    ));
                }
                let name = super::super::mesh::host_name(index);
                let target = self
                    .decided
                    .get(&epoch)
                    .and_then(|record| record.release_for(&name));
                if target != Some(release) {
                    return Err("rule 7: converges to what the record does not order".into());
                }
                if let Phase::Probation(probation) = &before.phase
                    && probation.epoch > epoch
                {
                    return Err("rule 11: a probation converges to an older record".into());
                }
            }
            Purpose::Rollout { epoch, .. } => {
                if !matches!(event, Event::Activate { epoch: ordered, .. } if *ordered == epoch) {
                    return Err("rule 5: a rollout's switch began without its order".into());
                }
            }
            Purpose::Restore => {}
        }
        Ok(())
    }

    pub(super) fn revert_begins(
        &self,
        before: &Node,
        after: &Node,
        left: GenerationNumber,
    ) -> Result<(), String> {
        let generation = after
            .history
            .get(left)
            .ok_or("a revert from a forgotten generation")?;
        let Phase::Reverting(revert) = &after.phase else {
            return Ok(());
        };
        let triggered = revert.cause.kind == CauseKind::Triggered;
        if generation.confirmed().is_some() && !triggered {
            return Err(format!("rule 8: g{left} was confirmed and is reverted"));
        }
        if let Some(epoch) = rollout_of(&before.phase).map(|(epoch, _)| epoch) {
            if revert.cause.kind == CauseKind::Aborted && self.decided.contains_key(&epoch) {
                return Err(format!(
                    "rule 9: {} is decided, and is called aborted",
                    short(epoch)
                ));
            }
            if epoch >= after.register.promised && !after.register.closed.contains(&epoch) {
                return Err(format!(
                    "rule 10: went back from {} without closing it",
                    short(epoch)
                ));
            }
        }
        if let Some(Fallback::Generation(number)) = revert.to {
            let generation = after
                .history
                .get(number)
                .ok_or("falls back to a forgotten generation")?;
            if generation.confirmed().is_none() {
                return Err(format!(
                    "rule 11: falls back to g{number}, which never was committed"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn effect_rules(&self, host: &Host, step: &Step) -> Result<(), String> {
        let after = &step.node;
        for action in &step.actions {
            let Action::Perform(pending) = action else {
                continue;
            };
            if after.pending.as_ref() != Some(pending) {
                return Err("an effect is ordered that is not saved".into());
            }
            let steady = matches!(&after.phase, Phase::Steady { running: Some(_) });
            if pending.effect == Effect::Restart && !steady {
                return Err("starts a node anew in the middle of something else".into());
            }
            let starts = pending.effect == Effect::Start && host.world.process.is_none();
            if (starts || pending.effect == Effect::Restart)
                && let Some(build) = &host.world.current
            {
                if self.quarantine_stops && after.stops.quarantined.is_some() {
                    return Err("starts a node that is quarantined, and stopped for it".into());
                }
                if after.register.revoked(&build.digest).is_some() {
                    return Err(format!("starts {build}, which it knows to be revoked"));
                }
                let number = match &after.phase {
                    Phase::Steady { running } | Phase::Prepared { running, .. } => *running,
                    Phase::Switching(switch) => Some(switch.to),
                    Phase::Reverting(revert) => match revert.to {
                        Some(Fallback::Generation(number)) => Some(number),
                        Some(Fallback::Nothing) | None => None,
                    },
                    Phase::Probation(probation) => Some(probation.running),
                    Phase::Stuck { .. } => None,
                };
                let meant = number.and_then(|number| after.history.get(number));
                if meant.is_none_or(|generation| generation.release.build != *build) {
                    return Err(format!("starts {build}, which is not what its phase names"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn time_rules(
        &mut self,
        index: usize,
        host: &Host,
        after: &Node,
        event: &Event,
        now: &Now,
    ) -> Result<(), String> {
        let t = now.since_boot_ms;
        if let Phase::Probation(probation) = &after.phase
            && probation.asking.is_none()
            && probation.deadline.boot != now.boot
        {
            return Err("a probation goes on in another boot".into());
        }
        if !matches!(event, Event::Tick) {
            return Ok(());
        }
        match &after.phase {
            Phase::Probation(probation) => {
                let over = match &probation.asking {
                    None => probation.deadline.clone(),
                    Some(asking) => asking.until.clone(),
                };
                if over.passed(now) {
                    return Err("rule 9: stays on probation past its deadline".into());
                }
                if over.left_ms(now) > 15_000 + ASK_LIMIT_MS + TICK_MS {
                    return Err("its deadline lies too far away".into());
                }
                self.went_back_at.remove(&index);
            }
            Phase::Switching(_) | Phase::Reverting(_) => {
                let since = *self.went_back_at.entry(index).or_insert(t);
                let since = since.max(host.up_since.min(t)).min(t);
                if t - since > UNDER_WAY_MS {
                    return Err(format!("is in phase {} for too long", after.phase.word()));
                }
            }
            Phase::Steady { .. } | Phase::Prepared { .. } | Phase::Stuck { .. } => {
                self.went_back_at.remove(&index);
            }
        }
        Ok(())
    }
}
