//! One agent's whole state, the events that may happen to it, and what it decides to do.

mod effect;
mod refusal;

pub use effect::{Effect, Pending};
pub use refusal::Refusal;

use crate::generation::{GenerationNumber, History};
use crate::id::NodeName;
use crate::phase::Phase;
use crate::plan::Plan;
use crate::register::{Answer, Epoch, Record, Register, Revocations};
use crate::release::Release;
use crate::starts::{Start, Starts};
use crate::stops::{Stops, StopsChange};
use crate::time::Deadline;
use crate::trigger::{Observation, Policy, Vigil};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most rollouts an agent remembers.
pub const ROLLOUTS_MAX: usize = 20;

/// What an agent knows of itself and its mesh that no event changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// This node.
    pub name: NodeName,
    /// The nodes whose votes decide until a decided record names others, from the mesh file.
    pub voters: BTreeSet<NodeName>,
    /// How long to wait for the voters' answers at the end of a probation, in milliseconds.
    pub ask_limit_ms: u64,
    /// What is done about triggers.
    pub policy: Policy,
}

/// One agent's whole state. What is in here is saved before anything is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Promises, votes, decisions and revocations.
    pub register: Register,
    /// The rollout that holds this node, if any.
    pub lease: Option<Lease>,
    /// Where the node stands between two releases.
    pub phase: Phase,
    /// What it ran.
    pub history: History,
    /// An epoch whose release failed here; not tried again until a later one (rule 10).
    pub held: Option<Held>,
    /// The effect that is awaited.
    pub pending: Option<Pending>,
    /// Counts effects, so that a late outcome is told from the awaited one.
    pub effects: u64,
    /// When to try again to fetch a build that no peer could give.
    pub fetch_retry: Option<Retry>,
    /// When to start a node again that ended by itself, or when to forget that it did.
    pub restart: Option<Retry>,
    /// Bake time of the running generation.
    pub bake: Option<Bake>,
    /// The rollouts that this agent took part in, oldest first, and how they ended here.
    pub rollouts: Vec<RolloutEntry>,
    /// States of the database that an automatic restore set aside, by snapshot.
    pub owed: Vec<String>,
    /// The agent's own starts, and whether its memory can be trusted (rule 16).
    #[serde(default)]
    pub starts: Starts,
    /// The newest start that each peer told; at most [`crate::mesh::MEMBERS_MAX`].
    #[serde(default)]
    pub peers: BTreeMap<NodeName, Start>,
    /// What the triggers have come to.
    #[serde(default)]
    pub vigil: Vigil,
    /// What is stopped until further notice.
    #[serde(default)]
    pub stops: Stops,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            register: Register::default(),
            lease: None,
            phase: Phase::Steady { running: None },
            history: History::default(),
            held: None,
            pending: None,
            effects: 0,
            fetch_retry: None,
            restart: None,
            bake: None,
            rollouts: Vec::new(),
            owed: Vec::new(),
            starts: Starts::default(),
            peers: BTreeMap::new(),
            vigil: Vigil::default(),
            stops: Stops::default(),
        }
    }
}

/// A node's promise to one rollout's epoch, for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The rollout.
    pub epoch: Epoch,
    /// Who runs it.
    pub holder: String,
    /// What it is about, for the one who is refused.
    pub what: String,
    /// When others are admitted again.
    pub until: Deadline,
}

/// An epoch that failed on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The epoch.
    pub epoch: Epoch,
    /// What failed.
    pub cause: String,
}

/// Another try, after a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// When.
    pub at: Deadline,
    /// How often it failed in a row.
    pub failures: u32,
    /// What failed last.
    pub cause: String,
    /// True once it was tried again and has not failed since.
    pub under_way: bool,
}

/// The bake time of a committed generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bake {
    /// Which one.
    pub generation: GenerationNumber,
    /// Its length in milliseconds; it begins anew after a reboot.
    pub length_ms: u64,
    /// When it has ended clean.
    pub until: Deadline,
    /// True while something is wrong: then it does not end, and begins anew once that is over.
    #[serde(default)]
    pub unclean: bool,
}

/// A rollout as one agent remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutEntry {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its plan.
    pub plan: Plan,
    /// When this agent was asked to take part, Unix time in milliseconds.
    pub started_wall_ms: i64,
    /// How it ended here; unset while it has not.
    pub outcome: Option<String>,
}

/// What the engine does besides the one awaited effect; none of these needs an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Perform the pending effect and report its outcome with this number.
    Perform(Pending),
    /// Ask these about an epoch and hand their answers back as events.
    AskVoters(Epoch, BTreeSet<NodeName>),
    /// Ask these to promise a fresh epoch with [`Event::Fence`]; hand back what each of them knows
    /// after that, and then [`Event::Fenced`] (rule 16).
    Recover(Epoch, BTreeSet<NodeName>),
}

/// What a proposer wants (rule 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProposalKind {
    /// A new release by waves; the node must be steady and free.
    Rollout,
    /// Back to an earlier release, in any state.
    Rollback,
    /// Going on with a rollout that another client began.
    Resume,
    /// Ending one.
    Abort,
    /// Changing who votes, or lifting a revocation: no node changes; the node must be free.
    Amend,
}

/// A request for this agent's promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// The proposer's epoch.
    pub epoch: Epoch,
    /// What it wants.
    pub kind: ProposalKind,
    /// Who asks.
    pub holder: String,
    /// What it is about, in words.
    pub what: String,
    /// For how long others are kept out, in milliseconds.
    pub lease_ms: u64,
    /// The release that comes next on this node, which the engine has found here and intact;
    /// unset on nodes that only vote.
    pub next: Option<Release>,
    /// The plan, to be remembered.
    pub plan: Option<Plan>,
}

/// Everything that may happen to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A proposer asks for a promise (rule 3).
    Prepare(Box<Prepare>),
    /// The proposer is still there: lease and probation are renewed.
    Renew {
        /// Its epoch.
        epoch: Epoch,
        /// For how long from now, in milliseconds.
        lease_ms: u64,
    },
    /// The proposer orders the next release (rule 5).
    Activate {
        /// Its epoch.
        epoch: Epoch,
        /// What to activate.
        release: Box<Release>,
        /// How long probation lasts unless renewed, in milliseconds.
        probation_ms: u64,
        /// True where the build declares that it changes the persistence format.
        changes_persistence: bool,
    },
    /// The proposer asks for a vote (rule 6).
    Vote(Box<Record>),
    /// The same, from an agent, which may propose nothing but the way back.
    VoteBack(Box<Record>),
    /// A record is known to be decided (rules 7 and 8).
    Learn(Box<Record>),
    /// A person decided without a majority (rule 13).
    Force(Box<Record>),
    /// An agent is known to have voted for a record.
    Hear {
        /// Who.
        voter: NodeName,
        /// For what.
        record: Box<Record>,
    },
    /// Revocations that a peer holds.
    HearRevocations(Revocations),
    /// The proposer orders the way back; it knows that the epoch is dead.
    Revert {
        /// Its epoch; rollouts of lower ones end as well.
        epoch: Epoch,
        /// Why.
        cause: String,
    },
    /// A peer whose deadline passed asks about an epoch (rule 9).
    Ask(Epoch),
    /// A voter's answer to this agent's question.
    Answered {
        /// Who.
        voter: NodeName,
        /// About which epoch.
        epoch: Epoch,
        /// What.
        answer: Answer,
        /// The record it voted for, where it did.
        voted: Option<Box<Record>>,
    },
    /// An effect succeeded.
    Done {
        /// Its number.
        number: u64,
        /// What there is to say about it, for the journal.
        note: Option<String>,
    },
    /// An effect failed.
    Failed {
        /// Its number.
        number: u64,
        /// What went wrong, in a sentence.
        error: String,
    },
    /// The local checks have been healthy for long enough.
    Clean(GenerationNumber),
    /// A local check failed in probation.
    CheckFailed {
        /// The generation it speaks of.
        generation: GenerationNumber,
        /// What failed, in a sentence.
        cause: String,
    },
    /// What was found on the node, damage and health together.
    Observed {
        /// The generation it speaks of.
        generation: GenerationNumber,
        /// What.
        observation: Observation,
    },
    /// An own rollback of the mesh was tried, and is not decided.
    RollbackTried {
        /// Why not.
        why: String,
        /// True where there is nothing to go back to, so that trying again is useless.
        nowhere: bool,
        /// Drawn at random, so that agents do not meet again and again: waited longer by this.
        jitter_ms: u64,
    },
    /// A person stops or lets go: traffic, peers or rollouts.
    ChangeStops {
        /// What.
        change: StopsChange,
        /// Why; may be empty.
        reason: String,
        /// Who.
        by: String,
    },
    /// The node's process ended by itself.
    Exited {
        /// How, in words.
        how: String,
    },
    /// A person asks for a snapshot to be restored.
    Restore {
        /// Which.
        snapshot: String,
        /// Who.
        by: String,
    },
    /// The node that runs was taken over as it is: it becomes a generation that can be gone back to.
    Adopt {
        /// What runs.
        release: Box<Release>,
        /// Who asked.
        by: String,
        /// Whether the node may switch at once, where the record orders another release.
        may_switch: bool,
    },
    /// The node is left to whoever runs the host: the agent neither stops nor starts it any more.
    Unadopt {
        /// Who asked.
        by: String,
    },
    /// The agent has started; nothing else happens before this.
    Started {
        /// Whether a process of the node runs.
        node_runs: bool,
        /// For how many milliseconds a node may wait for [`Event::Met`] to be started; zero: not at all.
        wait_ms: u64,
        /// Drawn at random; tells this start from every other (rule 16).
        nonce: u64,
    },
    /// A peer told its starts, oldest first (rule 16).
    PeerStarts {
        /// Who.
        peer: NodeName,
        /// At most [`crate::starts::STARTS_MAX`].
        starts: Vec<Start>,
    },
    /// A peer told the newest start of this agent that it remembers, from before this agent told
    /// its own (rule 16).
    Recalled {
        /// Who.
        peer: NodeName,
        /// Unset: it remembers none.
        remembered: Option<Start>,
    },
    /// A peer that lost its memory asks for a promise, so that nothing older is voted for any more.
    Fence(Epoch),
    /// A peer has answered this agent, which lost its memory, and what the peer knows was handed over.
    Fenced {
        /// Who.
        peer: NodeName,
        /// Which epoch this agent had asked for.
        epoch: Epoch,
        /// What the peer has promised: that one, or another that is beyond it.
        promised: Epoch,
    },
    /// Since the agent started, a majority of the voters has told what it knows (rule 17).
    Met,
    /// Time has passed.
    Tick,
}

/// What an event led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The new state, to be saved first.
    pub node: Node,
    /// What the asker is told, after saving.
    pub reply: Reply,
    /// What to do, after saving.
    pub actions: Vec<Action>,
    /// What the journal says, saved with the state.
    pub entries: Vec<Entry>,
}

/// What the asker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done, or taken on.
    Ok,
    /// The answer to [`Event::Ask`].
    Answer(Answer),
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A stable word for machines, such as `probation_started`.
    pub kind: &'static str,
    /// The epoch it belongs to.
    pub epoch: Option<Epoch>,
    /// The generation it is about.
    pub generation: Option<GenerationNumber>,
    /// What happened, in a sentence.
    pub text: String,
}
