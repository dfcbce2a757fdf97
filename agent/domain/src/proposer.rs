//! The client's side of a rollout, a rollback, a resume or an abort: what to ask of whom, and when
//! to give up. Pure, like the agent's side; `cbctl` performs the commands and tells the outcomes.
//!
//! ```text
//! Preparing ─promises→ Waves ─all clean→ Voting ─majority→ Confirming → Done
//!     │                  └─any failure→ Reverting → Done        (rollout, resume)
//!     ├─promises→ Voting                                        (rollback)
//!     ├─promises→ Voting                                        (amend: voters, lifting)
//!     └─promises, no vote seen→ Reverting → Done                (abort)
//! ```
//!
//! Whatever it wants, a change of voters that is found undecided is finished first, and it ends with
//! [`Outcome::Changed`] (rule 15): the caller looks at the mesh again and begins anew. That is the
//! simplest way that is right, since each epoch has one record and a change of voters changes nothing
//! else; a rollout stops with [`Outcome::Undecided`] instead.
//!
//! Once the first vote is asked for, the proposer never orders a revert (rule 6).

use crate::id::NodeName;
use crate::node::ProposalKind;
use crate::plan::Plan;
use crate::readiness::Excused;
use crate::register::{Epoch, Record, RegisterView};
use crate::release::Release;
use std::collections::{BTreeMap, BTreeSet};

mod draft;
mod preparing;
mod reverting;
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
    /// Whether its start still keeps it busy, as with reading its database's log.
    pub starting: bool,
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
    /// Those whose votes decide, unless the replies show a newer record.
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
    /// Asked for a promise, and has neither given nor refused it for good.
    unheard: BTreeSet<NodeName>,
    /// Asked to be asked again: it has just started.
    later: BTreeSet<NodeName>,
    began_ms: u64,
    /// The record that is voted for is a change of voters that another client left undecided.
    finishing: bool,
    activated: BTreeSet<NodeName>,
    voted: BTreeSet<NodeName>,
    views: BTreeMap<NodeName, View>,
    renewed_ms: u64,
    asked_ms: u64,
    /// Time of this wave that does not count, because starts keep nodes busy.
    excused: Excused,
    /// What the newest mesh check waited for.
    mesh_waits: String,
    news: Vec<String>,
}

impl Proposer {
    /// Begins; the commands ask every member for its promise.
    pub fn begin(proposal: Proposal, now_ms: u64) -> (Self, Vec<Command>) {
        let members = proposal.members.clone();
        let mut proposer = Self {
            proposal,
            stage: Stage::Preparing,
            promises: BTreeMap::new(),
            failures: BTreeMap::new(),
            unheard: BTreeSet::new(),
            later: BTreeSet::new(),
            began_ms: now_ms,
            finishing: false,
            activated: BTreeSet::new(),
            voted: BTreeSet::new(),
            views: BTreeMap::new(),
            renewed_ms: now_ms,
            asked_ms: now_ms,
            excused: Excused::NONE,
            mesh_waits: String::new(),
            news: Vec::new(),
        };
        let commands = proposer.ask_promises(members);
        (proposer, commands)
    }

    /// Begins with a record that a person forces (rule 13), which [`Draft::forced`] made: it is told to
    /// every member that can be reached, and followed until they run it.
    pub fn force(proposal: Proposal, record: Record, now_ms: u64) -> (Self, Vec<Command>) {
        let (mut proposer, _) = Self::begin(proposal, now_ms);
        let record = Box::new(record);
        let commands = proposer.confirmations(&record);
        proposer.stage = Stage::Converging {
            record,
            since_ms: now_ms,
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
                self.promise_answered(node, answer, now_ms)
            }
            (Stage::Preparing, Told::Tick) => self.ask_promises_again(now_ms),
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
}
