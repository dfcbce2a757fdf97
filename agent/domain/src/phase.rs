//! Where a node stands between two releases.
//!
//! ```text
//! Steady ─prepare→ Prepared ─activate→ Switching ─started→ Probation ─decided→ Steady
//! Steady ─decided→ Switching ─checked→ Steady
//! Probation ─superseded→ Switching
//! Switching ─fails→ Reverting ─done→ Steady
//! Switching ─nothing stopped yet→ Steady
//! Probation ─check fails, deadline, told to→ Reverting
//! Reverting ─fails, no way back→ Stuck ─decided→ Switching
//! Prepared ─lease ends→ Steady
//! Prepared ─decided→ Switching
//! Steady ─trigger→ Reverting
//! ```
//!
//! One step may take two of these, by way of Steady. The drawing is compared with what the
//! simulation sees happen.

use crate::generation::{Fallback, GenerationNumber};
use crate::id::NodeName;
use crate::register::{Answer, Epoch};
use crate::release::Release;
use crate::time::Deadline;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a node stands between two releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// A committed generation runs, or nothing yet.
    Steady {
        /// What runs; unset on a node that never got a release.
        running: Option<GenerationNumber>,
    },
    /// The same still runs; the next release is here, verified, and promised to a rollout.
    Prepared {
        /// What runs.
        running: Option<GenerationNumber>,
        /// What comes next.
        next: Release,
    },
    /// The node is being stopped and started again with another generation.
    Switching(Switch),
    /// An activated generation that is not yet committed.
    Probation(Probation),
    /// The node is going back.
    Reverting(Revert),
    /// Going back failed: the node is stopped and a person is needed.
    Stuck {
        /// What failed, and why the node was going back.
        cause: String,
        /// What to do next.
        remedy: String,
        /// The highest decided epoch at that time; a later record is tried again.
        since: Epoch,
    },
}

/// A switch under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// What ran before, or what a superseded probation would have fallen back to.
    pub from: Fallback,
    /// The uncommitted generation that runs until the stop, where a probation was superseded.
    #[serde(default)]
    pub supersedes: Option<GenerationNumber>,
    /// What is being activated.
    pub to: GenerationNumber,
    /// Why.
    pub purpose: Purpose,
    /// The step whose effect is awaited.
    pub at: SwitchStep,
    /// The snapshot to restore on the way.
    pub restore: Option<String>,
    /// The snapshot that holds the state from right after the stop, once taken.
    pub taken: Option<String>,
    /// Set when the client orders the way back while an effect is awaited.
    pub abandoned: Option<String>,
}

/// Why a node switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A rollout activates it; probation follows.
    Rollout {
        /// The rollout.
        epoch: Epoch,
        /// How long probation lasts unless renewed, in milliseconds.
        probation_ms: u64,
    },
    /// A decided record orders it; a local smoke check follows.
    Converge {
        /// The record.
        epoch: Epoch,
    },
    /// A person asked for a snapshot to be restored; the release stays.
    Restore,
}

/// The steps of a switch, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SwitchStep {
    /// Get the build from a peer, unless it is here. Nothing has stopped yet.
    Fetch,
    /// Stop the node's writers and let its events reach its peers.
    Drain,
    /// Stop the node.
    Stop,
    /// Take a verified snapshot of its database.
    Snapshot,
    /// Put an earlier snapshot in the database's place.
    Restore,
    /// Point `current` to the build.
    Point,
    /// Start the node.
    Start,
    /// Check that it is ready; only where no probation follows.
    Check,
}

/// Probation: commit confirmed, durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probation {
    /// What runs.
    pub running: GenerationNumber,
    /// What it goes back to.
    pub fallback: Fallback,
    /// The rollout.
    pub epoch: Epoch,
    /// When it ends unless renewed or decided.
    pub deadline: Deadline,
    /// True once the local checks have been healthy for long enough.
    pub clean: bool,
    /// Set once the deadline has passed: the voters are being asked (rule 9).
    pub asking: Option<Asking>,
}

/// The questions to the voters at the end of a probation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// When to stop waiting for answers.
    pub until: Deadline,
    /// The answers so far, this node's own included.
    pub answers: BTreeMap<NodeName, Answer>,
}

/// A way back under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revert {
    /// What ran before the generation being left.
    pub from: Fallback,
    /// Where to; unset when no committed, unrevoked generation is left.
    pub to: Option<Fallback>,
    /// The generation being left.
    pub left: GenerationNumber,
    /// Why.
    pub cause: Cause,
    /// The step whose effect is awaited.
    pub at: RevertStep,
    /// The snapshot to restore on the way.
    pub restore: Option<String>,
    /// How often the present step has failed.
    pub failures: u32,
    /// Generations that it was to lead to and that `current` could not be pointed to: their builds are
    /// damaged.
    #[serde(default)]
    pub unusable: Vec<GenerationNumber>,
}

/// The steps of a revert, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RevertStep {
    /// Stop the writers and let events reach the peers; only where the node served for a while.
    Drain,
    /// Stop what runs.
    Stop,
    /// Put a snapshot back; the state being replaced is kept.
    Restore,
    /// Point `current` back.
    Point,
    /// Start the node.
    Start,
    /// Check that it is ready.
    Check,
}

/// Why a node goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// What kind of cause it is.
    pub kind: CauseKind,
    /// The cause in a sentence.
    pub text: String,
}

/// The kinds of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CauseKind {
    /// A step of the switch failed.
    StepFailed,
    /// A check on this node failed.
    CheckFailed,
    /// The rollout's client ordered it.
    Ordered,
    /// Probation ended, and a majority of the voters never will vote for the rollout.
    Aborted,
    /// Probation ended, and too few voters answered.
    InDoubt,
    /// The agent was interrupted in the middle of a switch.
    Interrupted,
    /// A later record, or a revocation, overtook the switch.
    Superseded,
    /// A trigger was set off after the commit.
    Triggered,
}

impl CauseKind {
    /// The stable word for machines.
    pub fn word(self) -> &'static str {
        match self {
            Self::StepFailed => "step_failed",
            Self::CheckFailed => "check_failed",
            Self::Ordered => "ordered",
            Self::Aborted => "aborted",
            Self::InDoubt => "in_doubt",
            Self::Interrupted => "interrupted",
            Self::Superseded => "superseded",
            Self::Triggered => "triggered",
        }
    }
}

impl Phase {
    /// The stable word for machines and tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Steady { .. } => "steady",
            Self::Prepared { .. } => "prepared",
            Self::Switching(_) => "switching",
            Self::Probation(_) => "probation",
            Self::Reverting(_) => "reverting",
            Self::Stuck { .. } => "stuck",
        }
    }

    /// The generation whose process runs or is meant to run now, outside of switches.
    pub fn running(&self) -> Option<GenerationNumber> {
        match self {
            Self::Steady { running } | Self::Prepared { running, .. } => *running,
            Self::Probation(probation) => Some(probation.running),
            Self::Switching(_) | Self::Reverting(_) | Self::Stuck { .. } => None,
        }
    }
}
