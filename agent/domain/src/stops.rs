//! What a person, or a trigger, has stopped on a node until further notice: its traffic, its peers,
//! or rollouts. Saved, so that it outlasts every restart; what follows from it on the host is done by
//! an adapter, again at each start.

use serde::{Deserialize, Serialize};

/// What is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stops {
    /// The node takes no traffic.
    pub drained: Option<Stopped>,
    /// The node is cut off from its peers; its data stays.
    pub quarantined: Option<Stopped>,
    /// The node was stopped for that, where policy cuts it off so.
    pub halted: bool,
    /// No rollout begins here.
    pub frozen: Option<Freeze>,
}

/// Who stopped something, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Who.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
}

/// A time without rollouts. Rollbacks pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it ends, Unix time in milliseconds: people mean the clock on the wall, and it outlasts
    /// restarts.
    pub until_wall_ms: i64,
}

/// A change of what is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopsChange {
    /// Traffic is stopped, or let go again.
    Drained(bool),
    /// The node is cut off, or let go again.
    Quarantined(bool),
    /// No rollout begins for so many milliseconds; unset: they may again.
    Frozen(Option<u64>),
}

impl Stops {
    /// The freeze that holds now.
    pub fn freeze_at(&self, wall_ms: i64) -> Option<&Freeze> {
        let frozen = self.frozen.as_ref();
        frozen.filter(|freeze| wall_ms < freeze.until_wall_ms)
    }
}
