//! Rules about triggers: no way back without a cause in the journal, a bound on how often, and agents
//! that propose nothing but the way back.

use super::super::mesh::{Host, short};
use super::Checker;
use cbddc_domain::node::{Effect, Event, Step};
use cbddc_domain::phase::{CauseKind, Phase};
use cbddc_domain::register::{Record, RecordKind};
use cbddc_domain::time::Now;

impl Checker {
    pub(super) fn trigger_rules(
        &mut self,
        index: usize,
        host: &Host,
        event: &Event,
        step: &Step,
        now: &Now,
    ) -> Result<(), String> {
        let (before, after) = (&host.node, &step.node);
        if let Event::VoteBack(record) = event {
            self.proposed_by_agent(record)?;
        }
        if let Phase::Reverting(revert) = &after.phase
            && !matches!(&before.phase, Phase::Reverting(held) if held.left == revert.left)
        {
            let told = |kind: &str| {
                let mut entries = step.entries.iter();
                entries.any(|entry| entry.kind == kind && entry.text.contains(&revert.cause.text))
            };
            if revert.cause.text.is_empty() || !told("revert_began") {
                return Err("goes back without a cause in the journal".into());
            }
            if revert.cause.kind == CauseKind::Triggered {
                if !told("triggered") {
                    return Err("a trigger was set off that the journal does not tell".into());
                }
                self.way_back_begins(index, host, event, step)?;
            }
        }
        self.restart_rules(index, host, step, now)
    }

    fn way_back_begins(
        &mut self,
        index: usize,
        host: &Host,
        event: &Event,
        step: &Step,
    ) -> Result<(), String> {
        let (before, after) = (&host.node, &step.node);
        let Phase::Reverting(revert) = &after.phase else {
            return Ok(());
        };
        if !matches!(event, Event::Observed { observation, .. } if !observation.is_clean()) {
            return Err("a trigger was set off though nothing was found".into());
        }
        if !matches!(before.phase, Phase::Steady { .. }) {
            return Err("a trigger took a node back in the middle of something else".into());
        }
        let release = |number| after.history.get(number).map(|g| &g.release);
        if let Some(cbddc_domain::generation::Fallback::Generation(to)) = revert.to
            && release(to) == release(revert.left)
        {
            return Err("goes back to the release that it leaves".into());
        }
        self.ways_back.0 += 1;
        self.budgets.entry(index).or_default().triggered += 1;
        let left = self.triggered.entry(index).or_default();
        if !left.insert(revert.left) {
            return Err(format!("g{} was left twice", revert.left));
        }
        // Each needs a release that a rollout brought; the first one was there before.
        let rollouts = self.decided.values();
        let rollouts = rollouts
            .filter(|record| record.kind == RecordKind::Rollout)
            .count();
        if left.len() > rollouts + 1 {
            let times = left.len();
            return Err(format!(
                "went back {times} times by triggers after {rollouts} rollouts"
            ));
        }
        if before.vigil.guard.is_some() {
            return Err("went back although nothing new came since it did".into());
        }
        Ok(())
    }

    /// At most as many starts in a window as policy says.
    fn restart_rules(
        &mut self,
        index: usize,
        host: &Host,
        step: &Step,
        now: &Now,
    ) -> Result<(), String> {
        let ordered = step.node.pending.as_ref().filter(|pending| {
            pending.effect == Effect::Restart && host.node.pending.as_ref() != Some(pending)
        });
        let Some(_) = ordered else { return Ok(()) };
        if !step.entries.iter().any(|entry| entry.kind == "remedied") {
            return Err("starts a node anew without a cause in the journal".into());
        }
        let limits = self.remediation.ok_or("no policy allows it")?;
        let starts = self.restarts.entry(index).or_default();
        starts.push((now.boot.clone(), now.since_boot_ms));
        starts.retain(|(boot, at)| *boot == now.boot && now.since_boot_ms - at < limits.window_ms);
        if starts.len() > limits.restarts as usize {
            return Err(format!(
                "was started anew {} times in a window",
                starts.len()
            ));
        }
        Ok(())
    }

    /// By what really was decided, not by what the voter knows.
    fn proposed_by_agent(&self, record: &Record) -> Result<(), String> {
        let epoch = short(record.epoch);
        let plain = record.kind == RecordKind::Rollback
            && !record.forced
            && record.lifts.is_empty()
            && record.previous.is_none();
        if !plain {
            return Err(format!(
                "{epoch}: an agent got a vote for more than the way back"
            ));
        }
        let earlier = |release| {
            let mut before = self.decided.range(..record.epoch);
            before.any(|(_, one)| {
                one.release.as_ref() == Some(release)
                    || one.exceptions.values().any(|other| other == release)
            })
        };
        let mut ordered = record.release.iter().chain(record.exceptions.values());
        match ordered.all(earlier) {
            true => Ok(()),
            false => Err(format!(
                "{epoch}: an agent got a vote for what never was decided"
            )),
        }
    }
}
