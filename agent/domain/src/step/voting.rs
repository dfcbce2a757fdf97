//! Votes, decided records and revocations, as they are asked for, brought and heard of.

use super::Turn;
use crate::id::NodeName;
use crate::node::Refusal;
use crate::register::{Record, Revocations, merge_revocations};
use crate::trigger::check_back;

impl Turn<'_> {
    /// Rule 6. The own vote is heard like any other: in a mesh of one it decides.
    pub(super) fn vote(&mut self, record: &Record) -> Result<(), Refusal> {
        let known = self.node.register.votes.contains_key(&record.epoch);
        self.check_memory()?;
        self.node.register.vote(record, &self.context.voters)?;
        if !known && record.epoch > self.node.register.decided_epoch() {
            self.say_of(
                "voted",
                record.epoch,
                format!("voted for {}", super::record_words(record, self.context)),
            );
        }
        self.hear(&self.context.name.clone(), record);
        Ok(())
    }

    /// Rule 6 for an agent's own rollback.
    pub(super) fn vote_back(&mut self, record: &Record) -> Result<(), Refusal> {
        if !self.node.register.votes.contains_key(&record.epoch) {
            check_back(&self.node, record).map_err(Refusal::NotBack)?;
        }
        self.vote(record)
    }

    pub(super) fn hear(&mut self, voter: &NodeName, record: &Record) {
        let genesis = &self.context.voters;
        if self.node.register.hear(voter, record, genesis) {
            self.say_decided(record);
        }
    }

    /// Rules 7 and 8: a decided record arrives.
    pub(super) fn learn(&mut self, record: &Record) {
        if self.node.register.learn(record) {
            self.say_decided(record);
        }
    }

    /// Rule 13: a person decides without a majority.
    pub(super) fn force(&mut self, record: &Record) -> Result<(), Refusal> {
        if !record.forced {
            return Err(Refusal::Unknown(
                "only a record that says so can be forced".into(),
            ));
        }
        if self.node.register.force(record)? {
            self.say_decided(record);
        }
        Ok(())
    }

    fn say_decided(&mut self, record: &Record) {
        let (kind, how) = if record.forced {
            ("forced", "forced without a majority")
        } else {
            ("decided", "decided")
        };
        let mut text = format!("{how}: {}", super::record_words(record, self.context));
        if record.previous.is_some() {
            let voters: Vec<_> = record.voters.iter().map(NodeName::as_str).collect();
            text = format!("{text}; who votes from now on: {}", voters.join(", "));
        }
        self.say_of(kind, record.epoch, text);
        for reason in record.revokes.values() {
            self.say_of(
                "revoked",
                record.epoch,
                format!("a build is revoked: {reason}"),
            );
        }
        for reason in record.lifts.values().filter(|_| !record.forced) {
            let text = format!("the revocation of a build is lifted: {reason}");
            self.say_of("revocation_lifted", record.epoch, text);
        }
        for entry in &mut self.node.rollouts {
            if entry.outcome.is_none() && entry.epoch <= record.epoch {
                let committed = entry.epoch == record.epoch;
                let outcome = if committed {
                    "committed".into()
                } else {
                    format!("superseded by epoch {}", record.epoch)
                };
                entry.outcome = Some(outcome);
            }
        }
        if self
            .node
            .lease
            .as_ref()
            .is_some_and(|lease| lease.epoch <= record.epoch)
        {
            self.node.lease = None;
        }
    }

    pub(super) fn hear_revocations(&mut self, revocations: &Revocations) {
        if merge_revocations(&mut self.node.register.revocations, revocations) {
            self.say(
                "revocations_heard",
                "a peer knew of a revocation that was news here",
            );
        }
    }
}
