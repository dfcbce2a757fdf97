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
use std::fmt;
use std::str::FromStr;

/// The most undecided votes an agent holds. A vote is dropped once a record of its epoch or a later
/// one is decided; more than a handful means that proposers keep dying.
pub const VOTES_MAX: usize = 64;

/// The order of proposals: a counter, then the nonce of the client that drew it (rule 1).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch {
    /// Counts up; the next proposer takes the highest it heard of plus one.
    pub counter: u64,
    /// Drawn at random by the proposer.
    pub nonce: u64,
}

impl Epoch {
    /// The epoch of a new proposer that has heard of `self` at most.
    pub fn next(self, nonce: u64) -> Self {
        Self {
            counter: self.counter.saturating_add(1),
            nonce,
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{:016x}", self.counter, self.nonce))
    }
}

impl FromStr for Epoch {
    type Err = crate::id::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            crate::id::InvalidName::new(
                "epoch",
                text,
                "COUNTER-NONCE, as `cbctl rollout list` shows it",
            )
        };
        let (counter, nonce) = text.split_once('-').ok_or_else(wrong)?;
        Ok(Self {
            counter: counter.parse().map_err(|_| wrong())?,
            nonce: u64::from_str_radix(nonce, 16).map_err(|_| wrong())?,
        })
    }
}

/// What a record was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RecordKind {
    /// A new release that went through waves and probation.
    Rollout,
    /// The way back to an earlier release.
    Rollback,
}

/// What the mesh is meant to run, once decided. A record stands alone: it says what *every* node
/// is meant to run, so that no older record has to be kept to read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The epoch it was proposed in.
    pub epoch: Epoch,
    /// What it was made for.
    pub kind: RecordKind,
    /// What every node runs that `exceptions` does not name; unset: such nodes are left as they are.
    pub release: Option<Release>,
    /// Nodes that are meant to run something else.
    pub exceptions: BTreeMap<NodeName, Release>,
    /// The nodes whose votes decide (rule 15).
    pub voters: BTreeSet<NodeName>,
    /// Builds that this record revokes, with the reason (rule 12), by digest of the build.
    pub revokes: BTreeMap<Digest, String>,
    /// Nodes that restore the snapshot taken before they activated what they leave.
    pub restores: BTreeSet<NodeName>,
    /// Who proposed it.
    pub proposed_by: String,
    /// Why.
    pub reason: String,
}

impl Record {
    /// What `node` is meant to run; `None`: whatever it runs now.
    pub fn release_for(&self, node: &NodeName) -> Option<&Release> {
        self.exceptions.get(node).or(self.release.as_ref())
    }
}

/// A build that must not start again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The epoch of the record that revoked or lifted it; the higher one wins (rule 14).
    pub epoch: Epoch,
    /// True once a decided record has lifted it.
    pub lifted: bool,
    /// Why it was revoked.
    pub reason: String,
}

/// Revocations by the digest of the build.
pub type Revocations = BTreeMap<Digest, Revocation>;

/// Merges `new` into `known` (rule 14): the higher epoch wins, revoked wins ties.
pub fn merge_revocations(known: &mut Revocations, new: &Revocations) -> bool {
    let mut changed = false;
    for (build, revocation) in new {
        let wins = known
            .get(build)
            .is_none_or(|held| (revocation.epoch, !revocation.lifted) > (held.epoch, !held.lifted));
        if wins {
            known.insert(*build, revocation.clone());
            changed = true;
        }
    }
    changed
}

/// Why a vote, a promise or an activation was refused by the register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EpochRefusal {
    /// Another proposer came later (rules 3, 5, 6).
    #[error("epoch {given} is behind epoch {promised}, which another command has taken since")]
    Behind {
        /// The epoch of the request.
        given: Epoch,
        /// The epoch that this agent has promised.
        promised: Epoch,
    },
    /// This agent has answered a peer that it did not vote for the epoch (rule 9).
    #[error("epoch {0} is sealed here: its deadline passed before it was decided")]
    Sealed(Epoch),
    /// This node went back from the epoch (rule 10).
    #[error("epoch {0} is closed here: this node has gone back from it")]
    Closed(Epoch),
    /// A revocation stands against the build (rules 5, 6).
    #[error("{build} is revoked: {reason}")]
    Revoked {
        /// The build, as people call it.
        build: String,
        /// Why it was revoked.
        reason: String,
    },
    /// The record names other voters than this agent's mesh file (rule 15).
    #[error(
        "the record names other voters than this agent's mesh file: bring the mesh files in line first"
    )]
    OtherVoters,
    /// Another record was voted for in the same epoch: two proposers drew the same nonce.
    #[error("another record was voted for in epoch {0} already")]
    OtherRecord(Epoch),
    /// Too many undecided votes are held.
    #[error("this agent holds {VOTES_MAX} undecided votes: finish one with `cbctl rollout resume`")]
    TooManyVotes,
}

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
        voters: &BTreeSet<NodeName>,
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
        if record.voters != *voters {
            return Err(EpochRefusal::OtherVoters);
        }
        for release in record.release.iter().chain(record.exceptions.values()) {
            self.check_revoked(release)?;
        }
        if self.votes.len() >= VOTES_MAX {
            return Err(EpochRefusal::TooManyVotes);
        }
        self.promised = epoch;
        self.votes.insert(epoch, record.clone());
        self.forget();
        Ok(())
    }

    /// Learns that `record` is decided (rules 7 and 8). Returns true when it is news.
    pub fn learn(&mut self, record: &Record) -> bool {
        let mut news = false;
        if record.epoch > self.decided_epoch() {
            self.decided = Some(record.clone());
            // What is decided fences like a promise: a vote for an earlier epoch would be forgotten
            // at once, and an activation would be overtaken at once.
            self.promised = self.promised.max(record.epoch);
            news = true;
        }
        news |= merge_revocations(&mut self.revocations, &record_revocations(record));
        self.forget();
        news
    }

    /// Hears that `voter` voted for `record`; returns true when that made it decided (rule 7).
    pub fn hear(&mut self, voter: &NodeName, record: &Record) -> bool {
        if record.epoch <= self.decided_epoch() || !record.voters.contains(voter) {
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
        let decided = is_majority(heard.voters.len(), record.voters.len());
        if decided {
            self.learn(record);
        }
        decided
    }

    /// Answers a peer that asks about `epoch`, sealing the epoch unless it was voted for (rule 9).
    pub fn answer(&mut self, epoch: Epoch) -> Answer {
        // Votes below the decided record are forgotten: whether this agent had voted for a superseded
        // epoch cannot be told any more, so it never claims that it had not.
        if self.decided_epoch() >= epoch {
            Answer::Decided
        } else if self.votes.contains_key(&epoch) {
            Answer::Voted
        } else {
            self.sealed.insert(epoch);
            self.forget();
            Answer::No
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
        self.votes.retain(|epoch, _| *epoch > decided);
        self.heard.retain(|epoch, _| *epoch > decided);
        self.sealed.retain(|epoch| *epoch >= promised);
        self.closed.retain(|epoch| *epoch >= promised);
    }
}

/// The revocations that follow from a decided record (rules 12 and 14). No record lifts one yet.
pub fn record_revocations(record: &Record) -> Revocations {
    let revoked = record.revokes.iter().map(|(build, reason)| {
        (
            *build,
            Revocation {
                epoch: record.epoch,
                lifted: false,
                reason: reason.clone(),
            },
        )
    });
    revoked.collect()
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
    /// Builds that must not start again.
    pub revocations: Revocations,
    /// The nodes whose votes decide, from the agent's mesh file.
    pub voters: BTreeSet<NodeName>,
    /// The highest epoch that the agent has heard of in any way.
    pub highest: Epoch,
}

impl Register {
    /// What to tell of this register.
    pub fn view(&self, voters: &BTreeSet<NodeName>) -> RegisterView {
        RegisterView {
            promised: self.promised,
            votes: self.votes.values().cloned().collect(),
            decided: self.decided.clone(),
            revocations: self.revocations.clone(),
            voters: voters.clone(),
            highest: self.highest_epoch(),
        }
    }
}

/// More than half of `all`.
pub fn is_majority(count: usize, all: usize) -> bool {
    count > all / 2
}
