//! The few traits that the engine needs of the world. A trait stands here only where a fake exists
//! or a second technology will take its place.

use crate::adoption::UnitFacts;
use async_trait::async_trait;
use cbddc_domain::build::BuildRef;
use cbddc_domain::generation::GenerationNumber;
use cbddc_domain::health::Measurement;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Effect, Node};
use cbddc_domain::register::{Answer, Epoch, RegisterView};
use cbddc_domain::time::Now;
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
    /// Runs the local checks.
    async fn measure(&self) -> Vec<Measurement>;
    /// Asks a voter about an epoch (rule 9).
    async fn ask(
        &self,
        voter: &NodeName,
        epoch: Epoch,
    ) -> Result<(Answer, RegisterView), EffectError>;
    /// What a peer has voted for and learnt.
    async fn register_of(&self, peer: &NodeName) -> Result<RegisterView, EffectError>;
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
