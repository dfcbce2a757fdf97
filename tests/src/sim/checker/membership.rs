//! Rules about who votes, what is forced or lifted, what is remembered, and who holds a node.

use super::super::mesh::short;
use super::Checker;
use cbddc_domain::node::{Event, Node, ProposalKind};
use cbddc_domain::register::{Record, Register};
use cbddc_domain::time::Now;
use std::collections::BTreeSet;

impl Checker {
    /// A record has the votes of those that the decided records name (rule 15): each one decided by
    /// votes goes on from the one before it.
    pub(super) fn check_lineage(&self, record: &Record) -> Result<(), String> {
        let by_votes = |held: &&Record| !held.forced;
        let mut earlier = self.decided.range(..record.epoch).map(|(_, held)| held);
        let before = earlier.rfind(by_votes);
        let voters = before.map_or(&self.genesis, |held| &held.voters);
        let later = (
            std::ops::Bound::Excluded(record.epoch),
            std::ops::Bound::Unbounded,
        );
        let mut later = self.decided.range(later).map(|(_, held)| held);
        let after = later.find(by_votes);
        let goes_on = |held: &Record, from: &BTreeSet<_>| {
            held.previous.as_ref().unwrap_or(&held.voters) == from
        };
        // A change that is proposed again has a majority of the new voters, too, whoever knew of it.
        let again = |held: &Record, from: &Record| {
            held.previous.is_some() && held.previous == from.previous && held.voters == from.voters
        };
        if !goes_on(record, voters) && !before.is_some_and(|before| again(record, before)) {
            let epoch = short(record.epoch);
            return Err(format!(
                "rule 15: {epoch} was decided by others than {voters:?}"
            ));
        }
        let wrong = |after: &&Record| !goes_on(after, &record.voters) && !again(after, record);
        if let Some(after) = after.filter(wrong) {
            let (epoch, after) = (short(record.epoch), short(after.epoch));
            return Err(format!(
                "rule 15: {epoch} was decided after {after}, which others decided"
            ));
        }
        Ok(())
    }

    /// A person forces a record.
    pub(super) fn forced(&mut self, old: &Register, record: &Record) -> Result<(), String> {
        let epoch = record.epoch;
        if epoch <= old.promised && old.decided.as_ref() != Some(record) {
            return Err(format!(
                "rule 13: {} was taken below the promise",
                short(epoch)
            ));
        }
        self.decided.entry(epoch).or_insert_with(|| record.clone());
        Ok(())
    }

    /// Only votes lift a revocation (rule 14), and what votes decided stays known beside what was forced.
    pub(super) fn belief_rules(&self, old: &Register, new: &Register) -> Result<(), String> {
        for (build, revocation) in &new.revocations {
            let record = self.decided.get(&revocation.epoch);
            let lifts = record.is_some_and(|held| !held.forced && held.lifts.contains_key(build));
            if revocation.lifted && !lifts {
                return Err("rule 14: a revocation was lifted, and no record says so".into());
            }
            let known = old.revocations.get(build);
            if known.is_some_and(|known| known.epoch > revocation.epoch) {
                return Err("rule 14: an older word on a build replaced a newer one".into());
            }
        }
        if new.elected_epoch() < old.elected_epoch() {
            return Err("rule 15: who votes went back".into());
        }
        let elected = new.elected();
        let truth = elected.and_then(|record| self.decided.get(&record.epoch));
        if elected.is_some_and(|record| record.forced) || elected != truth {
            return Err("rule 15: who votes is taken from what no votes decided".into());
        }
        Ok(())
    }

    /// Nobody takes a node that another rollout holds.
    pub(super) fn lock_rules(&self, before: &Node, event: &Event, now: &Now) -> Result<(), String> {
        let (Event::Prepare(prepare), Some(lease)) = (event, &before.lease) else {
            return Ok(());
        };
        let asks = matches!(prepare.kind, ProposalKind::Rollout | ProposalKind::Amend);
        if asks && lease.epoch != prepare.epoch && !lease.until.passed(now) {
            let (taken, held) = (short(prepare.epoch), short(lease.epoch));
            return Err(format!("rule 3: {taken} took a node that {held} holds"));
        }
        Ok(())
    }

    /// Rule 16: nobody speaks for what it may have forgotten.
    pub(super) fn memory_rules(&self, before: &Node, event: &Event) -> Result<(), String> {
        let speaks = match event {
            Event::Vote(record) | Event::VoteBack(record) => {
                before.register.promised != record.epoch
            }
            Event::Prepare(prepare) => before.register.promised != prepare.epoch,
            Event::Fence(epoch) => before.register.promised != *epoch,
            Event::Renew { .. }
            | Event::Observed { .. }
            | Event::RollbackTried { .. }
            | Event::ChangeStops { .. }
            | Event::Activate { .. }
            | Event::Learn(_)
            | Event::Force(_)
            | Event::Hear { .. }
            | Event::HearRevocations(_)
            | Event::Revert { .. }
            | Event::Ask(_)
            | Event::Answered { .. }
            | Event::Done { .. }
            | Event::Failed { .. }
            | Event::Clean(_)
            | Event::CheckFailed { .. }
            | Event::Exited { .. }
            | Event::Restore { .. }
            | Event::Adopt { .. }
            | Event::Unadopt { .. }
            | Event::Started { .. }
            | Event::PeerStarts { .. }
            | Event::Recalled { .. }
            | Event::Fenced { .. }
            | Event::Met
            | Event::Tick => false,
        };
        if speaks && !before.starts.is_sound() {
            return Err("rule 16: spoke for what it may have forgotten".into());
        }
        Ok(())
    }
}
