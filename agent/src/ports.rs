//! The few traits that the engine needs of the world. A trait stands here only where a fake exists
//! or a second technology will take its place.

use crate::adoption::UnitFacts;
use async_trait::async_trait;
use cbddc_domain::build::BuildRef;
use cbddc_domain::generation::GenerationNumber;
use cbddc_domain::health::{Measurement, Policy};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Effect, Node};
use cbddc_domain::node_starts::NodeStart;
use cbddc_domain::readiness::Effort;
use cbddc_domain::register::{Answer, Epoch, RegisterView};
use cbddc_domain::starts::Start;
use cbddc_domain::stops::Stops;
use cbddc_domain::time::Now;
use cbddc_domain::trigger::Trigger;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// An effect that did not happen, in a sentence for people. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EffectError(pub String);

/// What the supervisor knows of the node's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitState {
    /// A process of the node runs.
    Running {
        /// Its process id.
        pid: u32,
        /// When it started, in milliseconds since this boot.
        started_ms: u64,
    },
    /// No process of the node runs.
    Stopped {
        /// How the last one ended, in words (`exit code 3`, `killed by signal 9`), where known.
        last_exit: Option<String>,
    },
}

/// What a service manager does for the node by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Care {
    /// How often it has started the node again since somebody last ordered a start.
    pub restarts: u32,
    /// How often the node has to show that it lives, where it has to.
    pub watchdog: Option<Duration>,
}

/// How a stop came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Nothing ran.
    WasStopped,
    /// The node ended within the limit after being asked.
    Asked,
    /// The node did not end within the limit and was killed.
    Killed,
}

/// Starts and stops the node that the `current` link points to. There is never more than one.
#[async_trait]
pub trait Supervisor: Send + Sync {
    /// Starts the node; returns its process id. If it already runs, returns that one's id and
    /// starts nothing.
    async fn start(&self) -> Result<u32, EffectError>;
    /// Asks the node to end, kills it after `limit`, and returns once nothing of it runs.
    async fn stop(&self, limit: Duration) -> Result<Stop, EffectError>;
    /// The commands that start the node, each as its words; an error where nothing would start it.
    async fn commands(&self) -> Result<Vec<Vec<String>>, EffectError>;
    /// What runs now.
    async fn state(&self) -> Result<UnitState, EffectError>;
    /// The processes of the node that run now, the first one first.
    async fn processes(&self) -> Result<Vec<u32>, EffectError> {
        Ok(match self.state().await? {
            UnitState::Running { pid, .. } => vec![pid],
            UnitState::Stopped { .. } => Vec::new(),
        })
    }
    /// The end of what the node that ran last has written to its log, as it stands there: it may hold
    /// secrets.
    async fn log_end(&self) -> Result<String, EffectError> {
        Ok(String::new())
    }
    /// What is done for the node without the agent; nothing where the agent alone starts it.
    async fn care(&self) -> Result<Option<Care>, EffectError> {
        Ok(None)
    }
}

/// What the service manager knows of the node's unit, where there is one.
#[async_trait]
pub trait Units: Send + Sync {
    /// How the unit is set up, and what it runs.
    async fn facts(&self) -> Result<UnitFacts, EffectError>;
    /// Makes the service manager read its unit files again.
    async fn reload(&self) -> Result<(), EffectError>;
    /// Has the service manager start this agent anew; the node goes on.
    async fn restart_agent(&self) -> Result<(), EffectError>;
}

/// Everything that the engine does to its host and asks of its peers. Doing anything here twice is
/// the same as doing it once.
#[async_trait]
pub trait World: Send + Sync {
    /// The clocks.
    fn now(&self) -> Now;
    /// Performs an effect; returns what there is to say about it.
    async fn perform(&self, effect: &Effect) -> Result<Option<String>, EffectError>;
    /// Refuses a build, which must be here, that this host could not start.
    async fn check_startable(&self, build: &BuildRef) -> Result<(), EffectError>;
    /// The node's process.
    async fn unit(&self) -> Result<UnitState, EffectError>;
    /// The processes of the node that run now, the first one first.
    async fn processes(&self) -> Result<Vec<u32>, EffectError> {
        Ok(Vec::new())
    }
    /// What they have done since they began; `None`: it cannot be read.
    async fn effort(&self) -> Option<Effort> {
        None
    }
    /// The size of the logs of the node's databases, in bytes; `None`: no database is known.
    async fn log_bytes(&self) -> Option<u64> {
        None
    }
    /// The node's newest starts, newest first.
    async fn node_starts(&self) -> Vec<NodeStart> {
        Vec::new()
    }
    /// Remembers a start.
    async fn keep_node_start(&self, _: NodeStart) {}
    /// That writers go on while the node is replaced, and what that may cost; unset: they are kept away.
    fn uncovered(&self) -> Option<String> {
        None
    }
    /// The files in which the node keeps its data.
    fn data_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    /// The node was seen to hold all that it wrote itself, or that cannot be told: whoever was kept from it
    /// since the host started, until that is known, may come.
    async fn history_is_known(&self) {}
    /// Whether anything is set up that keeps writers from the node.
    fn keeps_writers_away(&self) -> bool {
        false
    }
    /// For how long before the node's last stop writers went on, in milliseconds, if that was within
    /// `ago_ms`; zero: they were kept away, or it is not known.
    fn uncovered_before_stop(&self, _ago_ms: u64) -> u64 {
        0
    }
    /// The node is up again, or has had its time for that: whoever was kept from it may come.
    async fn node_is_up(&self) {}
    /// Writes down what a node that has ended said last.
    async fn keep_last_lines(&self) {}
    /// Runs all local checks, all at once; what is costly, or takes longer than `within`, may be answered
    /// from an earlier run.
    async fn measure(&self, within: Duration) -> Vec<Measurement>;
    /// The local checks, and how each is run and judged.
    fn checks(&self) -> Vec<Policy>;
    /// Runs one of [`World::checks`], by its place among them, within its limit.
    async fn measure_one(&self, check: usize) -> Measurement;
    /// Does on the host what follows from what is stopped; again, it changes nothing.
    async fn apply_stops(&self, _: &Stops) -> Result<(), EffectError> {
        Ok(())
    }
    /// Triggers that somebody else raised, with the cause.
    fn raised(&self) -> BTreeMap<Trigger, String> {
        BTreeMap::new()
    }
    /// Asks a voter about an epoch (rule 9).
    async fn ask(
        &self,
        voter: &NodeName,
        epoch: Epoch,
    ) -> Result<(Answer, RegisterView), EffectError>;
    /// What a peer has voted for and learnt, and what it remembers of this agent's starts.
    async fn register_of(&self, peer: &NodeName, starts: &[Start]) -> Result<Told, EffectError>;
    /// Some other member to exchange with, drawn at random; nothing: there is none.
    fn partner(&self) -> Option<NodeName>;
    /// Exchanges with a member what both know of the mesh's members; says how the rest compares.
    async fn exchange(&self, peer: &NodeName) -> Result<Compared, EffectError>;
    /// Asks a peer for a promise after this agent lost its memory (rule 16); returns what it knows.
    async fn fence(&self, peer: &NodeName, epoch: Epoch) -> Result<RegisterView, EffectError>;
    /// A random number that tells this start of the agent from every other.
    fn nonce(&self) -> u64;
}

/// How what a peer knows compares with what this agent does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Whether both can prove the same records.
    pub same_register: bool,
    /// The newest start of this agent that the peer remembers.
    pub remembered: Option<Start>,
    /// The peer's own newest start.
    pub start: Option<Start>,
}

/// What a peer tells of itself and of this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it has promised, voted for and learnt.
    pub register: RegisterView,
    /// The newest start of this agent that it remembered before this question.
    pub remembered: Option<Start>,
    /// Its own starts, oldest first.
    pub starts: Vec<Start>,
}

/// A line for the journal, before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalLine {
    /// When, Unix time in milliseconds.
    pub wall_ms: i64,
    /// A stable word.
    pub kind: String,
    /// The epoch it belongs to.
    pub epoch: Option<Epoch>,
    /// The generation it is about.
    pub generation: Option<GenerationNumber>,
    /// Who asked for it; `agent` for what the agent did by itself.
    pub actor: String,
    /// What happened, in a sentence.
    pub text: String,
}

/// Keeps state and journal.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes the state, and the lines behind the journal's last one, in one transaction. When this
    /// returns, both survive a power cut.
    async fn save(&self, node: &Node, lines: Vec<JournalLine>) -> Result<(), EffectError>;
}
