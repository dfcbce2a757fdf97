//! What an agent does to its host, one thing at a time.

use crate::build::BuildRef;
use serde::{Deserialize, Serialize};

/// An effect that was ordered and has not reported back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its number.
    pub number: u64,
    /// What to do. Doing it twice is the same as once.
    pub effect: Effect,
}

/// What the engine is to do to the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Get the build from a peer, unless it is here and intact.
    Fetch(BuildRef),
    /// Stop the writers, wait until local events have reached the peers.
    Drain,
    /// Stop the node.
    Stop,
    /// Take a verified snapshot of the database under this name.
    Snapshot(String),
    /// Put this snapshot in the database's place, keeping what is replaced under the second name.
    Restore(String, String),
    /// Point `current` to the build, or to nothing.
    Point(Option<BuildRef>),
    /// Start the node and let its writers go on.
    Start,
    /// Stop the node as before a switch, as far as it lets itself be, and start it again.
    Restart,
    /// Stop the node like that, and leave it stopped.
    Halt,
    /// Wait until the node is ready, within the configured limit.
    Check,
}
