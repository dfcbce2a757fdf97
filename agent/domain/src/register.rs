//! What one agent has promised, voted for and learnt: its part of the mesh's register.
//!
//! The rules are numbered in the design; the numbers stand beside the code that keeps them. An
//! epoch has one proposer and one record, so two records are never decided with the same epoch;
//! of several decided records the one with the highest epoch is what the mesh is meant to run.

use crate::build::Digest;
use crate::id::NodeName;
use crate::release::Release;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod epoch;
mod record;
mod refusal;
mod revocations;
mod signing;

pub use epoch::Epoch;
pub use record::{Record, RecordKind, is_majority, is_majority_of};
pub use refusal::EpochRefusal;
pub use revocations::{Revocation, Revocations, merge_revocations, record_revocations};
pub use signing::vote_signing_bytes;

/// The most undecided votes an agent holds. A vote is dropped once a record of its epoch or a later
/// one is decided; more than a handful means that proposers keep dying.
pub const VOTES_MAX: usize = 64;

/// What an agent says of an epoch to a peer whose deadline passed (rule 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Answer {
    /// It voted for the epoch's record.
    Voted,
    /// It did not, and never will.
    No,
    /// It knows the epoch's record, or a later one that stands instead, to be decided.
    Decided,
}

/// One agent's durable part of the register (rule 2).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Register {
    /// The highest epoch promised to a proposer.
    pub promised: Epoch,
    /// Own votes that are not known to be decided, by epoch.
    #[serde(with = "crate::serde_pairs")]
    pub votes: BTreeMap<Epoch, Record>,
    /// Epochs for which this agent will never vote, because it told a peer so.
    pub sealed: BTreeSet<Epoch>,
    /// Epochs that this node has gone back from.
    pub closed: BTreeSet<Epoch>,
    /// The decided record with the highest epoch.
    pub decided: Option<Record>,
    /// Where that one was forced: the newest one that was voted for, which says who votes.
    #[serde(default)]
    pub elected: Option<Record>,
    /// What this agent may have voted for below this epoch, and no longer knows (rule 16).
    #[serde(default)]
    pub forgotten: Epoch,
    /// Builds that must not start again.
    pub revocations: Revocations,
    /// Votes of others that were heard of, until decided: who voted in which epoch for what.
    #[serde(with = "crate::serde_pairs")]
    pub heard: BTreeMap<Epoch, HeardVotes>,
}

/// Votes of several agents for one epoch's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardVotes {
    /// The record.
    pub record: Record,
    /// Who is known to have voted for it.
    pub voters: BTreeSet<NodeName>,
}

impl Register {
    /// The epoch of the highest decided record.
    pub fn decided_epoch(&self) -> Epoch {
        self.decided
            .as_ref()
            .map_or(Epoch::default(), |record| record.epoch)
    }

    /// The newest record that was decided by votes. A forced one never says who votes (rule 13).
    pub fn elected(&self) -> Option<&Record> {
        let decided = self.decided.iter().filter(|record| !record.forced);
        decided
            .chain(&self.elected)
            .max_by_key(|record| record.epoch)
    }

    /// The epoch of the newest record that was decided by votes.
    pub fn elected_epoch(&self) -> Epoch {
        self.elected()
            .map_or(Epoch::default(), |record| record.epoch)
    }

    /// The nodes whose votes decide: those that the newest record decided by votes names, and
    /// `genesis` until there is one (rule 15).
    pub fn voters<'a>(&'a self, genesis: &'a BTreeSet<NodeName>) -> &'a BTreeSet<NodeName> {
        self.elected().map_or(genesis, |record| &record.voters)
    }

    /// The voters, and those of every change of voters that is known and undecided: what holds only
    /// where a majority of each of them says so holds whichever of them decide (rule 15).
    pub fn electorates(&self, genesis: &BTreeSet<NodeName>) -> BTreeSet<BTreeSet<NodeName>> {
        let heard = self.heard.values().map(|heard| &heard.record);
        let known = self.votes.values().chain(heard);
        let changes = known.filter(|record| self.is_open_change(record));
        let sets = changes.map(|record| record.voters.clone());
        sets.chain([self.voters(genesis).clone()]).collect()
    }

    fn is_open_change(&self, record: &Record) -> bool {
        record.previous.is_some() && record.epoch > self.elected_epoch()
    }

    /// The highest epoch that this agent has heard of in any way.
    pub fn highest_epoch(&self) -> Epoch {
        let vote = self.votes.keys().chain(self.heard.keys()).max();
        self.promised
            .max(self.decided_epoch())
            .max(vote.copied().unwrap_or_default())
    }

    /// The standing revocation of a build, if any.
    pub fn revoked(&self, build: &Digest) -> Option<&Revocation> {
        self.revocations
            .get(build)
            .filter(|revocation| !revocation.lifted)
    }

    fn check_revoked(&self, release: &Release) -> Result<(), EpochRefusal> {
        self.revoked(&release.build.digest)
            .map_or(Ok(()), |revocation| {
                Err(EpochRefusal::Revoked {
                    build: release.build.to_string(),
                    reason: revocation.reason.clone(),
                })
            })
    }

    /// Takes a proposer's epoch (rule 3), if no later or equal one was promised.
    pub fn promise(&mut self, epoch: Epoch) -> Result<(), EpochRefusal> {
        if epoch <= self.promised {
            return Err(EpochRefusal::Behind {
                given: epoch,
                promised: self.promised,
            });
        }
        self.promised = epoch;
        self.forget();
        Ok(())
    }

    /// Whether `epoch` may activate `release` here (rule 5, its register part).
    pub fn check_activate(&self, epoch: Epoch, release: &Release) -> Result<(), EpochRefusal> {
        if epoch != self.promised {
            return Err(EpochRefusal::Behind {
                given: epoch,
                promised: self.promised,
            });
        }
        self.check_open(epoch)?;
        self.check_revoked(release)
    }

    /// Whether `epoch` was neither sealed nor closed here.
    pub fn check_open(&self, epoch: Epoch) -> Result<(), EpochRefusal> {
        if self.sealed.contains(&epoch) {
            return Err(EpochRefusal::Sealed(epoch));
        }
        if self.closed.contains(&epoch) {
            return Err(EpochRefusal::Closed(epoch));
        }
        Ok(())
    }

    /// Votes for `record` (rule 6). Voting twice for the same record is the same as once.
    pub fn vote(
        &mut self,
        record: &Record,
        genesis: &BTreeSet<NodeName>,
    ) -> Result<(), EpochRefusal> {
        let epoch = record.epoch;
        match self
            .votes
            .get(&epoch)
            .or(self.decided.as_ref().filter(|held| held.epoch == epoch))
        {
            Some(held) if held == record => return Ok(()),
            Some(_) => return Err(EpochRefusal::OtherRecord(epoch)),
            None => {}
        }
        if epoch < self.promised {
            return Err(EpochRefusal::Behind {
                given: epoch,
                promised: self.promised,
            });
        }
        self.check_open(epoch)?;
        if record.forced {
            return Err(EpochRefusal::Forced);
        }
        if !self.is_of(record, genesis) {
            return Err(EpochRefusal::OtherVoters);
        }
        self.check_changes(record)?;
        // What orders nothing new starts nothing: every node looks for itself before it starts a build.
        if matches!(record.kind, RecordKind::Rollout | RecordKind::Rollback) {
            for release in record.release.iter().chain(record.exceptions.values()) {
                self.check_revoked(release)?;
            }
        }
        if self.votes.len() >= VOTES_MAX {
            return Err(EpochRefusal::TooManyVotes);
        }
        self.promised = epoch;
        self.votes.insert(epoch, record.clone());
        self.forget();
        Ok(())
    }

    /// Whether the voters that this agent knows decide about `record` (rule 15).
    fn is_of(&self, record: &Record, genesis: &BTreeSet<NodeName>) -> bool {
        if record.previous.as_ref().unwrap_or(&record.voters) == self.voters(genesis) {
            return true;
        }
        // The same change, proposed again by a client that could not know that it is decided: it has
        // the votes of those who vote now as well.
        let held = self.elected().filter(|held| held.previous.is_some());
        held.is_some_and(|held| held.previous == record.previous && held.voters == record.voters)
    }

    /// A change of voters changes nothing else, and neither does a lifting (rules 14 and 15).
    fn check_changes(&self, record: &Record) -> Result<(), EpochRefusal> {
        let decided = self.decided.as_ref();
        let same = record.release.as_ref() == decided.and_then(|held| held.release.as_ref())
            && decided.map_or(record.exceptions.is_empty(), |held| {
                record.exceptions == held.exceptions
            })
            && record.revokes.is_empty()
            && record.restores.is_empty();
        let fits = match record.kind {
            RecordKind::Rollout | RecordKind::Rollback => {
                record.previous.is_none() && record.lifts.is_empty()
            }
            RecordKind::Voters => {
                same && record.previous.is_some()
                    && record.lifts.is_empty()
                    && !record.voters.is_empty()
            }
            RecordKind::Trust => same && record.previous.is_none(),
        };
        if fits {
            Ok(())
        } else {
            Err(EpochRefusal::ChangesMore)
        }
    }

    /// Takes a record that a person forced without a majority (rule 13), if nothing later was
    /// promised; it acts as decided at once. Returns true when it is news.
    pub fn force(&mut self, record: &Record) -> Result<bool, EpochRefusal> {
        if self.decided.as_ref() == Some(record) {
            return Ok(false);
        }
        if record.epoch <= self.promised {
            return Err(EpochRefusal::Behind {
                given: record.epoch,
                promised: self.promised,
            });
        }
        Ok(self.learn(record))
    }

    /// Learns that `record` is decided (rules 7 and 8). Returns true when it is news.
    pub fn learn(&mut self, record: &Record) -> bool {
        let mut elected = self.elected().cloned();
        let mut news = false;
        if !record.forced && record.epoch > self.elected_epoch() {
            elected = Some(record.clone());
            news = true;
        }
        if record.epoch > self.decided_epoch() {
            self.decided = Some(record.clone());
            // What is decided fences like a promise: a vote for an earlier epoch would be forgotten
            // at once, and an activation would be overtaken at once.
            self.promised = self.promised.max(record.epoch);
            news = true;
        }
        // Kept apart only where a forced record stands over it.
        self.elected = elected.filter(|held| self.decided.as_ref() != Some(held));
        news |= merge_revocations(&mut self.revocations, &record_revocations(record));
        self.forget();
        news
    }

    /// Hears that `voter` voted for `record`; returns true when that made it decided (rule 7).
    pub fn hear(
        &mut self,
        voter: &NodeName,
        record: &Record,
        genesis: &BTreeSet<NodeName>,
    ) -> bool {
        let over = record.epoch <= self.decided_epoch() && !self.is_open_change(record);
        let counts = record.electorate().contains(voter);
        if over || !counts || record.forced || !self.is_of(record, genesis) {
            return false;
        }
        if self.heard.len() >= VOTES_MAX && !self.heard.contains_key(&record.epoch) {
            return false;
        }
        let heard = self
            .heard
            .entry(record.epoch)
            .or_insert_with(|| HeardVotes {
                record: record.clone(),
                voters: BTreeSet::new(),
            });
        if heard.record != *record {
            return false;
        }
        heard.voters.insert(voter.clone());
        heard.record.is_decided_by(&heard.voters) && self.learn(record)
    }

    /// Answers a peer that asks about `epoch`, sealing the epoch unless it was voted for (rule 9).
    /// Nothing is answered about an epoch that this agent may have voted for and forgotten (rule 16).
    pub fn answer(&mut self, epoch: Epoch) -> Option<Answer> {
        // Votes below the decided record are forgotten: whether this agent had voted for a superseded
        // epoch cannot be told any more, so it never claims that it had not.
        if self.decided_epoch() >= epoch {
            Some(Answer::Decided)
        } else if self.votes.contains_key(&epoch) {
            Some(Answer::Voted)
        } else {
            self.sealed.insert(epoch);
            self.forget();
            (epoch > self.forgotten).then_some(Answer::No)
        }
    }

    /// Closes `epoch`: this node goes back from it (rule 10).
    pub fn close(&mut self, epoch: Epoch) {
        self.closed.insert(epoch);
        self.forget();
    }

    /// Drops what can no longer matter: votes that a decided record has overtaken (rule 2), and
    /// seals and closures below the promise, where every vote and activation is refused anyway.
    fn forget(&mut self) {
        let (promised, decided) = (self.promised, self.decided_epoch());
        let elected = self.elected_epoch();
        // A forced record supersedes what it does not know, but never who votes (rule 13).
        let matters = |record: &Record| {
            record.epoch > decided || (record.previous.is_some() && record.epoch > elected)
        };
        self.votes.retain(|_, record| matters(record));
        self.heard.retain(|_, heard| matters(&heard.record));
        self.sealed.retain(|epoch| *epoch >= promised);
        self.closed.retain(|epoch| *epoch >= promised);
    }
}

/// What an agent tells proposers and peers of its register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterView {
    /// The highest epoch promised to a proposer.
    pub promised: Epoch,
    /// Own votes that are not known to be decided.
    pub votes: Vec<Record>,
    /// The decided record with the highest epoch.
    pub decided: Option<Record>,
    /// Where that one was forced: the newest one that was voted for, which says who votes.
    pub elected: Option<Record>,
    /// Votes of others that this agent heard of, for undecided records: an agent that lost its memory
    /// tells with them what it may have voted for (rule 16).
    pub heard: Vec<HeardVotes>,
    /// Builds that must not start again.
    pub revocations: Revocations,
    /// The nodes whose votes decide, as far as the agent knows.
    pub voters: BTreeSet<NodeName>,
    /// The highest epoch that the agent has heard of in any way.
    pub highest: Epoch,
}

impl RegisterView {
    /// The newest record that the agent knows to be decided by votes.
    pub fn elected(&self) -> Option<&Record> {
        let decided = self.decided.iter().filter(|record| !record.forced);
        decided
            .chain(&self.elected)
            .max_by_key(|record| record.epoch)
    }

    /// Undecided records that somebody is known to have voted for.
    pub fn undecided(&self) -> impl Iterator<Item = &Record> {
        let heard = self.heard.iter().map(|heard| &heard.record);
        self.votes.iter().chain(heard)
    }
}

impl Register {
    /// What to tell of this register.
    pub fn view(&self, genesis: &BTreeSet<NodeName>) -> RegisterView {
        // Its own votes stand in `votes`.
        let heard = self.heard.values();
        let heard = heard.filter(|heard| !self.votes.contains_key(&heard.record.epoch));
        RegisterView {
            promised: self.promised,
            votes: self.votes.values().cloned().collect(),
            decided: self.decided.clone(),
            elected: self.elected.clone(),
            heard: heard.cloned().collect(),
            revocations: self.revocations.clone(),
            voters: self.voters(genesis).clone(),
            highest: self.highest_epoch(),
        }
    }
}
