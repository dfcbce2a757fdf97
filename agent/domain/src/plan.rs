//! The plan of a rollout: targets, waves and how long things may take.

use crate::id::NodeName;
use crate::release::Release;
use crate::replication::Accepted;
use serde::{Deserialize, Serialize};

/// What a rollout is going to do. Every agent that takes part stores it, so that any client can go
/// on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// A short random name, for people.
    pub id: String,
    /// What is rolled out.
    pub release: Release,
    /// The nodes, wave by wave.
    pub waves: Vec<Vec<NodeName>>,
    /// Whether the targets are the whole mesh: then the release becomes what every node runs.
    pub whole_mesh: bool,
    /// How long things may take.
    pub timing: Timing,
    /// Who started it.
    pub started_by: String,
    /// Why.
    pub reason: String,
    /// What was wrong with replication before, where that is taken as it is.
    #[serde(default)]
    pub accepted: Option<Accepted>,
}

impl Plan {
    /// All targets, in the order of their waves.
    pub fn targets(&self) -> impl Iterator<Item = &NodeName> {
        self.waves.iter().flatten()
    }
}

/// How long the parts of a rollout may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// A wave must be healthy and pass the mesh check within this. Default 5 min.
    pub verify_ms: u64,
    /// How long a node must be healthy before it counts. Default 30 s.
    pub healthy_ms: u64,
    /// Probation, and the lock's lease, unless renewed. Default 60 s.
    pub probation_ms: u64,
    /// How often the client renews. Default 15 s.
    pub renew_ms: u64,
    /// Pause after each wave, with the checks armed. Default 0.
    pub soak_ms: u64,
    /// How long a committed generation must stay clean to be known-good. Default 0.
    pub bake_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            verify_ms: 300_000,
            healthy_ms: 30_000,
            probation_ms: 60_000,
            renew_ms: 15_000,
            soak_ms: 0,
            bake_ms: 0,
        }
    }
}
