//! The few traits that the engine needs of the world. A trait stands here only where a fake exists
//! or a second technology will take its place.

use async_trait::async_trait;
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
    /// What runs now.
    async fn state(&self) -> Result<UnitState, EffectError>;
}
