//! The client's side of a rollout, a rollback, a resume or an abort: what to ask of whom, and when
//! to give up. Pure, like the agent's side; `cbctl` performs the commands and tells the outcomes.
//!
//! ```text
//! Preparing ─promises→ Waves ─all clean→ Voting ─majority→ Confirming → Done
//!     │                  └─any failure→ Reverting → Done        (rollout, resume)
//!     ├─promises→ Voting                                        (rollback)
//!     └─promises, no vote seen→ Reverting → Done                (abort)
//! ```
//!
//! Once the first vote is asked for, the proposer never orders a revert (rule 6).

use crate::id::NodeName;
use crate::node::ProposalKind;
use crate::plan::Plan;
use crate::register::{Epoch, Record, RegisterView, is_majority};
use crate::release::Release;
use std::collections::{BTreeMap, BTreeSet};

mod draft;
mod running;
#[cfg(test)]
mod tests;

pub use draft::Draft;

/// What to do for the proposer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Ask for a promise; `next` is the release to be prepared there.
    Prepare(NodeName, Option<Box<Release>>),
    /// Order the next release.
    Activate(NodeName),
    /// Renew lease and probation.
    Renew(NodeName),
    /// Check replication across the mesh after this wave, and tell the verdict.
    CheckMesh(usize),
    /// Ask for a vote.
    Vote(NodeName, Box<Record>),
    /// Tell that the record is decided, and who voted.
    Confirm(NodeName, Box<Record>, BTreeSet<NodeName>),
    /// Order the way back.
    Revert(NodeName, String),
}

/// Why a node did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It could not be reached, or did not answer in time: it may have done it all the same.
    Unreachable(String),
    /// It refused; nothing changed there.
    Refused {
        /// The stable word.
        word: String,
        /// The reason in a sentence.
        text: String,
    },
}

impl Failure {
    /// The reason in words.
    pub fn text(&self) -> &str {
        match self {
            Self::Unreachable(text) | Self::Refused { text, .. } => text,
        }
    }

    fn word(&self) -> &str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused { word, .. } => word,
        }
    }
}

/// What a node showed of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The epoch of its probation, if it is on one.
    pub probation: Option<Epoch>,
    /// Whether that probation's local checks have been healthy for long enough.
    pub clean: bool,
    /// Why its checks are not healthy, if they are not.
    pub unhealthy: Option<String>,
    /// The newest rollout it took part in, and how it ended there.
    pub last_rollout: Option<(Epoch, Option<String>)>,
    /// What runs.
    pub running: Option<Release>,
    /// Whether it is steady.
    pub steady: bool,
    /// The highest decided epoch it knows.
    pub decided: Epoch,
    /// Why it is stuck, if it is.
    pub stuck: Option<String>,
    /// Why it does not run what is decided, where it has given up on it for now.
    pub drift: Option<String>,
}

/// The verdict of a mesh check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshVerdict {
    /// Everything that moved arrived everywhere, once.
    Passed,
    /// Not yet: ask again.
    Pending(String),
    /// Found to be wrong.
    Failed(String),
}

/// What the proposer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An answer to [`Command::Prepare`].
    Prepared(NodeName, Result<Box<RegisterView>, Failure>),
    /// An answer to [`Command::Activate`].
    Activated(NodeName, Result<(), Failure>),
    /// An answer to [`Command::Renew`].
    Renewed(NodeName, Result<(), Failure>),
    /// An answer to [`Command::CheckMesh`].
    MeshChecked(usize, MeshVerdict),
    /// An answer to [`Command::Vote`].
    Voted(NodeName, Result<(), Failure>),
    /// An answer to [`Command::Confirm`].
    Confirmed(NodeName, Result<(), Failure>),
    /// An answer to [`Command::Revert`].
    Reverted(NodeName, Result<(), Failure>),
    /// What a node shows now.
    Seen(NodeName, Box<View>),
    /// Time has passed.
    Tick,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Decided, and every node that can be reached runs it; the named ones will converge.
    Decided {
        /// Nodes that were not seen to run it.
        pending: BTreeMap<NodeName, String>,
        /// Nodes that need a person.
        failed: BTreeMap<NodeName, String>,
    },
    /// Not begun: these nodes refused or could not be reached. Nothing changed.
    Refused(BTreeMap<NodeName, Failure>),
    /// Not begun: another rollout holds a node, or came later.
    Locked(BTreeMap<NodeName, Failure>),
    /// Not begun: a vote is undecided; resume or roll back.
    Undecided(Epoch),
    /// Not begun: the mesh's record has changed since the command looked.
    Changed,
    /// Another command took over on the way. Its nodes are in its hands, or go back by themselves.
    TakenOver(String),
    /// Failed or aborted; went back.
    Reverted {
        /// Why.
        cause: String,
        /// Nodes that were not seen to be back.
        pending: BTreeMap<NodeName, String>,
        /// Nodes that need a person.
        failed: BTreeMap<NodeName, String>,
    },
    /// Votes were asked for, and no majority answered in time.
    InDoubt(BTreeMap<NodeName, String>),
}

/// What a proposer is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What it wants.
    pub kind: ProposalKind,
    /// Its epoch.
    pub epoch: Epoch,
    /// All members of the mesh.
    pub members: BTreeSet<NodeName>,
    /// Those whose votes decide.
    pub voters: BTreeSet<NodeName>,
    /// The plan; for a rollback and an abort, without waves.
    pub plan: Plan,
    /// The change that the record makes.
    pub draft: Draft,
    /// The decided epoch that the plan was made from.
    pub based_on: Epoch,
    /// How long to wait for nodes to converge or go back, in milliseconds.
    pub settle_ms: u64,
}

enum Stage {
    Preparing,
    Waves {
        wave: usize,
        since_ms: u64,
        checked: Checked,
    },
    Voting {
        record: Box<Record>,
        since_ms: u64,
    },
    Converging {
        record: Box<Record>,
        since_ms: u64,
    },
    Reverting {
        cause: String,
        since_ms: u64,
    },
    Done(Outcome),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Checked {
    No,
    Asked,
    Passed { at_ms: u64 },
}

/// A proposer at work.
pub struct Proposer {
    proposal: Proposal,
    stage: Stage,
    promises: BTreeMap<NodeName, RegisterView>,
    failures: BTreeMap<NodeName, Failure>,
    activated: BTreeSet<NodeName>,
    voted: BTreeSet<NodeName>,
    views: BTreeMap<NodeName, View>,
    renewed_ms: u64,
    asked_ms: u64,
    /// What the newest mesh check waited for.
    mesh_waits: String,
    news: Vec<String>,
}

impl Proposer {
    /// Begins; the commands ask every member for its promise.
    pub fn begin(proposal: Proposal, now_ms: u64) -> (Self, Vec<Command>) {
        let takes_part = matches!(proposal.kind, ProposalKind::Rollout | ProposalKind::Resume);
        let targets: BTreeSet<&NodeName> = proposal.plan.targets().filter(|_| takes_part).collect();
        let commands = proposal.members.iter().map(|node| {
            let next = targets
                .contains(node)
                .then(|| Box::new(proposal.plan.release.clone()));
            Command::Prepare(node.clone(), next)
        });
        let commands = commands.collect();
        let proposer = Self {
            proposal,
            stage: Stage::Preparing,
            promises: BTreeMap::new(),
            failures: BTreeMap::new(),
            activated: BTreeSet::new(),
            voted: BTreeSet::new(),
            views: BTreeMap::new(),
            renewed_ms: now_ms,
            asked_ms: now_ms,
            mesh_waits: String::new(),
            news: Vec::new(),
        };
        (proposer, commands)
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.stage {
            Stage::Done(outcome) => Some(outcome),
            Stage::Preparing
            | Stage::Waves { .. }
            | Stage::Voting { .. }
            | Stage::Converging { .. }
            | Stage::Reverting { .. } => None,
        }
    }

    /// Sentences about what has happened since the last call, for people.
    pub fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// What it does at the moment, for the one who interrupts it.
    pub fn standing(&self) -> &'static str {
        match &self.stage {
            Stage::Preparing => "no node had changed",
            Stage::Waves { .. } => {
                "nodes on probation go back by themselves when it ends; `cbctl rollout resume` goes on, \
                 `cbctl rollout abort` goes back at once"
            }
            Stage::Voting { .. } => {
                "votes had been asked for: `cbctl rollout resume` finishes, `cbctl rollback --mesh` goes back"
            }
            Stage::Converging { .. } => "it is decided, and the nodes converge by themselves",
            Stage::Reverting { .. } => "the nodes go back by themselves",
            Stage::Done(_) => "it had ended",
        }
    }

    /// Takes an answer or a moment; returns what to do next.
    pub fn tell(&mut self, told: Told, now_ms: u64) -> Vec<Command> {
        if let Told::Seen(node, view) = told {
            self.views.insert(node, *view);
            return self.go_on(now_ms);
        }
        match (&self.stage, told) {
            (Stage::Done(_), _) => Vec::new(),
            (Stage::Preparing, Told::Prepared(node, answer)) => {
                match answer {
                    Ok(view) => drop(self.promises.insert(node, *view)),
                    Err(failure) => drop(self.failures.insert(node, failure)),
                }
                self.prepared(now_ms)
            }
            (Stage::Waves { .. }, Told::Activated(node, Ok(()))) => {
                self.activated.insert(node);
                Vec::new()
            }
            (
                Stage::Waves { .. },
                Told::Activated(node, Err(failure)) | Told::Renewed(node, Err(failure)),
            ) => self.wave_refused(&node, &failure, now_ms),
            (Stage::Waves { .. }, Told::MeshChecked(wave, verdict)) => {
                self.mesh_checked(wave, verdict, now_ms)
            }
            (Stage::Voting { .. }, Told::Voted(node, answer)) => {
                self.vote_answered(node, answer, now_ms)
            }
            (_, _) => self.go_on(now_ms),
        }
    }

    fn done(&mut self, outcome: Outcome) -> Vec<Command> {
        self.stage = Stage::Done(outcome);
        Vec::new()
    }

    fn has_majority(&self, of: &BTreeSet<NodeName>) -> bool {
        is_majority(
            of.intersection(&self.proposal.voters).count(),
            self.proposal.voters.len(),
        )
    }

    /// Rule 4.
    fn prepared(&mut self, now_ms: u64) -> Vec<Command> {
        let heard = self.promises.len() + self.failures.len();
        if heard < self.proposal.members.len() {
            return Vec::new();
        }
        if let Some(refused) = self.why_not_begun() {
            return self.give_up(refused);
        }
        let base = self
            .promises
            .values()
            .filter_map(|view| view.decided.as_ref());
        let base = base.max_by_key(|record| record.epoch).cloned();
        let based_on = base.as_ref().map(|record| record.epoch).unwrap_or_default();
        if let Some(vote) = self.undecided(based_on) {
            return match self.proposal.kind {
                // A rollback supersedes it.
                ProposalKind::Rollback => self.propose(base.as_ref(), based_on, now_ms),
                ProposalKind::Resume | ProposalKind::Abort => {
                    self.news.push(format!(
                        "a vote of epoch {} is undecided: it is proposed again",
                        vote.epoch
                    ));
                    let record = Record {
                        epoch: self.proposal.epoch,
                        ..vote
                    };
                    self.ask_votes(record, now_ms)
                }
                ProposalKind::Rollout => self.give_up(Outcome::Undecided(vote.epoch)),
            };
        }
        match self.proposal.kind {
            ProposalKind::Rollback => self.propose(base.as_ref(), based_on, now_ms),
            // What was to be aborted may be what is decided: then no revert may be ordered.
            ProposalKind::Abort if based_on != self.proposal.based_on => {
                self.give_up(Outcome::Changed)
            }
            ProposalKind::Abort => {
                let cause = self.proposal.plan.reason.clone();
                self.order_reverts(cause, now_ms)
            }
            ProposalKind::Rollout | ProposalKind::Resume if based_on != self.proposal.based_on => {
                self.give_up(Outcome::Changed)
            }
            ProposalKind::Rollout | ProposalKind::Resume => self.begin_wave(0, now_ms),
        }
    }

    fn propose(&mut self, base: Option<&Record>, based_on: Epoch, now_ms: u64) -> Vec<Command> {
        if based_on != self.proposal.based_on {
            return self.give_up(Outcome::Changed);
        }
        let record = self
            .proposal
            .draft
            .onto(base, self.proposal.epoch, &self.proposal.voters);
        self.ask_votes(record, now_ms)
    }

    fn give_up(&mut self, outcome: Outcome) -> Vec<Command> {
        self.stage = Stage::Done(outcome);
        // Closing an epoch that nothing was activated for frees the nodes at once. Only a rollout is
        // promised by steady nodes alone: for the others, nodes may be on probation for an earlier
        // epoch, which is not known to be dead (rule 4), and the lease has to run out.
        if self.proposal.kind != ProposalKind::Rollout {
            return Vec::new();
        }
        let cause = "it did not begin".to_owned();
        let nodes: Vec<_> = self.promises.keys().cloned().collect();
        nodes
            .into_iter()
            .map(|node| Command::Revert(node, cause.clone()))
            .collect()
    }

    /// The vote with the highest epoch above everything decided.
    fn undecided(&self, decided: Epoch) -> Option<Record> {
        let votes = self.promises.values().flat_map(|view| &view.votes);
        let votes = votes.filter(|vote| vote.epoch > decided);
        votes.max_by_key(|vote| vote.epoch).cloned()
    }

    fn why_not_begun(&self) -> Option<Outcome> {
        let promised: BTreeSet<_> = self.promises.keys().cloned().collect();
        let needs_targets = matches!(
            self.proposal.kind,
            ProposalKind::Rollout | ProposalKind::Resume
        );
        let target_missing = needs_targets
            && self
                .proposal
                .plan
                .targets()
                .any(|node| !promised.contains(node));
        let revoked = self.promises.values().any(|view| {
            let revocation = view
                .revocations
                .get(&self.proposal.plan.release.build.digest);
            needs_targets && revocation.is_some_and(|revocation| !revocation.lifted)
        });
        if revoked {
            let failure = Failure::Refused {
                word: "build_revoked".into(),
                text: format!("{} is revoked", self.proposal.plan.release.build),
            };
            let all = self
                .promises
                .keys()
                .map(|node| (node.clone(), failure.clone()));
            return Some(Outcome::Refused(all.collect()));
        }
        if !target_missing && self.has_majority(&promised) {
            return None;
        }
        let locked =
            |failure: &Failure| matches!(failure.word(), "locked" | "epoch_behind" | "busy");
        let failures = self.failures.clone();
        if failures.values().any(locked) {
            return Some(Outcome::Locked(failures));
        }
        Some(Outcome::Refused(failures))
    }
}
