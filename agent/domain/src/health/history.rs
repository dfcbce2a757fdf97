//! What is kept of the past: each change of a status, and from time to time how often a check said
//! what.

use super::{Measurement, Status};

/// The name of the verdict over all checks, where entries name a check.
pub(super) const ALL: &str = "all";

/// Why there is an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthEntryKind {
    /// The judged status changed.
    Change,
    /// Results of a while, counted.
    Summary,
}

impl HealthEntryKind {
    /// The word for people and machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Summary => "summary",
        }
    }
}

/// One entry of a node's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthEntry {
    /// When, Unix time in milliseconds.
    pub wall_ms: i64,
    /// The check, or `all`.
    pub check: String,
    /// Why it was written.
    pub kind: HealthEntryKind,
    /// The judged status from then on.
    pub status: Status,
    /// Why, in a sentence.
    pub reason: String,
    /// The results of the while that a summary is of.
    pub tally: Option<Tally>,
}

/// How often a check said what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Results that were healthy.
    pub healthy: u32,
    /// Results that were degraded.
    pub degraded: u32,
    /// Results that said nothing.
    pub unknown: u32,
    /// Results that were unhealthy.
    pub unhealthy: u32,
    /// The longest that a run took, in milliseconds.
    pub took_ms_max: u64,
}

impl Tally {
    /// Counts a result.
    pub fn count(&mut self, measurement: &Measurement) {
        let counter = match measurement.counts() {
            Status::Healthy => &mut self.healthy,
            Status::Degraded => &mut self.degraded,
            Status::Unknown => &mut self.unknown,
            Status::Unhealthy => &mut self.unhealthy,
        };
        *counter = counter.saturating_add(1);
        self.took_ms_max = self.took_ms_max.max(measurement.took_ms);
    }
}
