//! Rules about promises, votes, answers and decisions, and about what is asked of an agent.

use super::super::mesh::short;
use super::Checker;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Node, ProposalKind, Reply, Step};
use cbddc_domain::phase::Phase;
use cbddc_domain::register::{Answer, Record, RecordKind};
use std::collections::BTreeSet;

impl Checker {
    pub(super) fn register_rules(
        &mut self,
        index: usize,
        before: &Node,
        event: &Event,
        step: &Step,
    ) -> Result<(), String> {
        let after = &step.node;
        let (old, new) = (&before.register, &after.register);
        if new.promised < old.promised || new.decided_epoch() < old.decided_epoch() {
            return Err("promise or decision went back".into());
        }
        if let Event::Vote(record) | Event::VoteBack(record) = event {
            self.vote(index, before, record)?;
        }
        if let Event::Force(record) = event {
            self.forced(old, record)?;
        }
        self.belief_rules(old, new)?;
        if let (Event::Ask(epoch), Reply::Answer(Answer::No)) = (event, &step.reply) {
            let voted = self.votes.get(epoch);
            let name = super::super::mesh::host_name(index);
            if voted.is_some_and(|(_, voters)| voters.contains(&name)) {
                return Err(format!("voted for {} and answers no", short(*epoch)));
            }
            self.answered_no.insert((index, *epoch));
        }
        if new.decided_epoch() > old.decided_epoch() {
            let record = new.decided.as_ref().expect("it has an epoch");
            match self.decided.get(&record.epoch) {
                Some(truth) if truth == record => {}
                Some(_) => {
                    return Err(format!(
                        "another record is decided in {}",
                        short(record.epoch)
                    ));
                }
                None => {
                    return Err(format!(
                        "{} was taken for decided without a majority",
                        short(record.epoch)
                    ));
                }
            }
            self.budgets
                .entry(index)
                .or_default()
                .records
                .insert(record.epoch);
        }
        for generation in after.history.iter() {
            let known = before
                .history
                .get(generation.number)
                .and_then(|held| held.committed);
            if let Some(epoch) = generation.committed.filter(|epoch| Some(*epoch) != known) {
                let record = self.decided.get(&epoch);
                if record.is_none() {
                    return Err(format!(
                        "g{} is committed by {}, undecided",
                        generation.number,
                        short(epoch)
                    ));
                }
                if record.is_some_and(|record| record.forced) {
                    return Err(format!("rule 13: {} was forced and commits", short(epoch)));
                }
                let name = super::super::mesh::host_name(index);
                if record.and_then(|r| r.release_for(&name)) != Some(&generation.release) {
                    return Err(format!(
                        "g{} is committed by a record of another release",
                        generation.number
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn vote(
        &mut self,
        index: usize,
        before: &Node,
        record: &Record,
    ) -> Result<(), String> {
        let register = &before.register;
        let epoch = record.epoch;
        if register.votes.contains_key(&epoch) || register.decided_epoch() == epoch {
            return Ok(());
        }
        if epoch < register.promised {
            return Err(format!(
                "rule 6: voted for {} below its promise",
                short(epoch)
            ));
        }
        if self.answered_no.contains(&(index, epoch)) {
            return Err(format!(
                "rule 9: voted for {} after it answered no",
                short(epoch)
            ));
        }
        if self.gone_back.contains(&(index, epoch)) {
            return Err(format!(
                "rule 10: voted for {} after it went back",
                short(epoch)
            ));
        }
        let orders = matches!(record.kind, RecordKind::Rollout | RecordKind::Rollback);
        let mut ordered = record.release.iter().chain(record.exceptions.values());
        if orders && ordered.any(|release| register.revoked(&release.build.digest).is_some()) {
            return Err(format!(
                "rule 6: voted for {} of a revoked build",
                short(epoch)
            ));
        }
        let name = super::super::mesh::host_name(index);
        let entry = self
            .votes
            .entry(epoch)
            .or_insert_with(|| (record.clone(), BTreeSet::new()));
        if entry.0 != *record {
            return Err(format!("two records were voted for in {}", short(epoch)));
        }
        entry.1.insert(name);
        // Counted here again, not by the domain's own word.
        let majority = |of: &BTreeSet<NodeName>| entry.1.intersection(of).count() * 2 > of.len();
        let both = majority(&record.voters) && record.previous.as_ref().is_none_or(majority);
        if both && !self.decided.contains_key(&epoch) {
            self.check_lineage(record)?;
            if let Some(cause) = self.reverted.get(&epoch) {
                return Err(format!(
                    "{} was reverted ({cause}) and is decided now",
                    short(epoch)
                ));
            }
            let mut dead = self.dead.iter();
            if let Some((_, by)) = dead.find(|(after, by)| *after < epoch && epoch < *by) {
                let (epoch, by) = (short(epoch), short(*by));
                return Err(format!(
                    "rule 4: {epoch} was ended by {by} and is decided now"
                ));
            }
            self.ways_back.1 += u64::from(record.proposed_by.starts_with("node "));
            self.decided.insert(epoch, record.clone());
        }
        Ok(())
    }

    pub(super) fn request_rules(
        &mut self,
        index: usize,
        before: &Node,
        event: &Event,
        after: &Node,
    ) -> Result<(), String> {
        let highest = self.highest.entry(index).or_default();
        match event {
            Event::Prepare(prepare) => {
                let repeated = before.register.promised == prepare.epoch;
                if prepare.epoch <= highest.0 && !repeated {
                    return Err(format!("rule 3: promised {} again", short(prepare.epoch)));
                }
                let free = matches!(before.phase, Phase::Steady { .. } | Phase::Prepared { .. });
                let asks = matches!(prepare.kind, ProposalKind::Rollout | ProposalKind::Amend);
                if asks && !repeated && !free {
                    return Err("rule 3: prepared a rollout while busy".into());
                }
            }
            Event::Activate { epoch, release, .. } => {
                if *epoch != highest.0 {
                    return Err(format!(
                        "rule 5: activated {} but promised {}",
                        short(*epoch),
                        short(highest.0)
                    ));
                }
                if self.answered_no.contains(&(index, *epoch))
                    || self.gone_back.contains(&(index, *epoch))
                {
                    return Err(format!(
                        "rule 5: activated {}, sealed or closed",
                        short(*epoch)
                    ));
                }
                if before.register.revoked(&release.build.digest).is_some() {
                    return Err("rule 5: activated a revoked build".into());
                }
                if before
                    .lease
                    .as_ref()
                    .is_none_or(|lease| lease.epoch != *epoch)
                {
                    return Err(format!(
                        "rule 5: activated {} without its lease",
                        short(*epoch)
                    ));
                }
                self.activated.insert((index, *epoch));
                if matches!(before.phase, Phase::Prepared { .. }) {
                    self.budgets.entry(index).or_default().activations += 1;
                }
            }
            Event::Renew { epoch, .. } => {
                if self.answered_no.contains(&(index, *epoch))
                    || self.gone_back.contains(&(index, *epoch))
                {
                    return Err(format!(
                        "rule 9: {} was renewed, sealed or closed",
                        short(*epoch)
                    ));
                }
            }
            Event::Revert { epoch, .. } => {
                let running = before
                    .phase
                    .running()
                    .filter(|_| !matches!(before.phase, Phase::Probation(_)));
                let generation = running.and_then(|number| before.history.get(number));
                if generation
                    .and_then(cbddc_domain::generation::Generation::confirmed)
                    .is_some_and(|committed| committed >= *epoch)
                {
                    return Err(format!(
                        "rule 8: confirmed, and takes a revert of {}",
                        short(*epoch)
                    ));
                }
                self.gone_back.insert((index, *epoch));
            }
            Event::Vote(_)
            | Event::VoteBack(_)
            | Event::Observed { .. }
            | Event::RollbackTried { .. }
            | Event::ChangeStops { .. }
            | Event::Learn(_)
            | Event::Hear { .. }
            | Event::HearRevocations(_)
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
            | Event::Force(_)
            | Event::PeerStarts { .. }
            | Event::Recalled { .. }
            | Event::Fenced { .. }
            | Event::Fence(_)
            | Event::Met
            | Event::Tick => {}
        }
        let highest = self.highest.entry(index).or_default();
        highest.0 = highest.0.max(after.register.promised);
        highest.1 = highest.1.max(after.register.decided_epoch());
        Ok(())
    }
}
