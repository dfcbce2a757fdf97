//! The audit: every event of every node, compared while it streams by.
//!
//! Each node gives its rows in the order of (wall, logic, origin), page by page. The audit merges
//! them, so that the same event of all nodes is looked at together, once, and forgotten: what stays
//! in memory is a few bytes per hash, to know which links of chains are there. A row's hash is
//! computed once, however many nodes show it.
//!
//! What may be a matter of time (an event that is missed, a gap) is decided at the end, when all
//! hashes and the boundaries of pruning are known; whoever audits nodes that run looks twice and
//! keeps what both looks found, see [`AuditReport::confirmed_by`].
//!
//! Every node since 1.0 declares collections. It is judged by the events in those, and owes the whole
//! chain of an origin where they cover all that the origin writes.
//!
//! Deliberately absent: reading rows, convergence of clocks (the mesh check watches those over time),
//! and payloads, which no hash covers.

mod judge;
mod merge;
mod report;
mod row;
#[cfg(test)]
mod tests;

pub use merge::{Audit, FeedError};
pub use report::{AuditReport, CollectionCount, EventFinding, FINDINGS_KEPT_MAX, Lacks, NodeCount};
pub use row::{Link, OddLinks, Page, PageRow, RowText};

use crate::hlc::VectorClock;
use std::collections::BTreeMap;

/// Where pruning has left one origin's chain: the moment and the hash of the last event that went.
pub type Boundaries = BTreeMap<String, ((i64, i32), Link)>;

/// One node, or one database, before its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// What it is called in findings.
    pub name: String,
    /// The CBDDC id under which it writes events; empty: not known, as of a file.
    pub origin: String,
    /// The collections it is interested in; empty: all.
    pub interests: Vec<String>,
    /// Its vector clock before its rows were read: what it covers and has not is missed. Where it does
    /// not name an origin, as after some restarts, its rows say how far it has seen that one.
    pub clock: VectorClock,
    /// The boundaries of pruning before its rows were read. Unset: they cannot be seen, as over the
    /// wire; then what is older than its oldest row counts as pruned.
    pub boundaries: Option<Boundaries>,
}
