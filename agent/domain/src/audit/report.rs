//! What an audit says in the end: counts, and findings that name events and nodes.

use crate::hlc::VectorClock;
use crate::replication::FindingKind;
use std::collections::{BTreeMap, BTreeSet};

/// How many findings of one kind are told; the rest is counted.
pub const FINDINGS_KEPT_MAX: usize = 20_000;

/// An event with which something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFinding {
    /// What.
    pub kind: FindingKind,
    /// The node that wrote the event, by its CBDDC id.
    pub origin: String,
    /// The document's collection.
    pub collection: String,
    /// The document's key.
    pub key: String,
    /// When it was written: Unix milliseconds.
    pub wall: i64,
    /// Counter within the millisecond.
    pub logic: i32,
    /// The nodes that show it: for `missed` those that have the event.
    pub on: Vec<String>,
    /// The nodes that should have the event and do not.
    pub not_on: Vec<String>,
    /// What else is to be said.
    pub detail: String,
}

/// What one node showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeCount {
    /// Its rows.
    pub rows: u64,
    /// Its oldest event, Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Its newest.
    pub newest_ms: Option<i64>,
    /// Different events that it holds. With those that it lacks these are all events of the audit.
    pub held: u64,
    /// What it lacks.
    pub lacks: Lacks,
    /// How far it is, per origin: the last event that it holds.
    pub latest: VectorClock,
    /// The last event, per origin, that it has yet to get: of those counted as [`Lacks::behind`].
    pub owed: VectorClock,
}

/// How many events a node lacks, by the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lacks {
    /// It has seen later ones of the same origin, so that it will never ask for these.
    pub missed: u64,
    /// It has not got so far yet.
    pub behind: u64,
    /// They are in no collection that it is interested in.
    pub unwanted: u64,
    /// They are older than what pruning has left, or than where the audit begins there.
    pub pruned: u64,
}

/// What was counted of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectionCount {
    /// Different events, on whatever node.
    pub events: u64,
    /// Those that are wherever they are wanted, exactly once, and the same everywhere.
    pub everywhere: u64,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditReport {
    /// Per node.
    pub nodes: BTreeMap<String, NodeCount>,
    /// Per collection.
    pub collections: BTreeMap<String, CollectionCount>,
    /// How many there are of each kind, the told ones included.
    pub counts: BTreeMap<FindingKind, u64>,
    /// The findings, by kind, then in the order of time; at most [`FINDINGS_KEPT_MAX`] per kind.
    pub findings: Vec<EventFinding>,
}

impl AuditReport {
    /// Different events in all.
    pub fn events(&self) -> u64 {
        self.collections.values().map(|count| count.events).sum()
    }

    /// Events that are everywhere exactly once.
    pub fn everywhere(&self) -> u64 {
        let counts = self.collections.values();
        counts.map(|count| count.everywhere).sum()
    }

    /// True when something was found that is wrong; notes do not count.
    pub fn is_bad(&self) -> bool {
        self.counts.keys().any(|kind| kind.is_definite())
    }

    /// True when there are findings that a second look may take back, because events travel while
    /// nodes are read one after the other.
    pub fn has_suspicions(&self) -> bool {
        self.counts.keys().any(|kind| is_suspicion(*kind))
    }

    /// Leaves of what may be a matter of time only what an earlier look at the same nodes found, too.
    pub fn confirmed_by(&mut self, earlier: &Self) {
        type Event<'a> = (FindingKind, &'a str, i64, i32);
        fn event(finding: &EventFinding) -> Event<'_> {
            let origin = finding.origin.as_str();
            (finding.kind, origin, finding.wall, finding.logic)
        }
        let mut before: BTreeMap<Event<'_>, BTreeSet<&String>> = BTreeMap::new();
        for finding in &earlier.findings {
            let nodes = finding.on.iter().chain(&finding.not_on);
            before.entry(event(finding)).or_default().extend(nodes);
        }
        let untold = earlier.untold();
        let mut gone: BTreeMap<FindingKind, u64> = BTreeMap::new();
        let nodes = &mut self.nodes;
        self.findings.retain_mut(|finding| {
            if !is_suspicion(finding.kind) {
                return true;
            }
            let last = untold.get(&finding.kind);
            if last.is_some_and(|last| (finding.wall, finding.logic) >= *last) {
                return true;
            }
            let same = before.get(&event(finding)).cloned();
            let is_missed = finding.kind == FindingKind::Missed;
            let place = if is_missed {
                &mut finding.not_on
            } else {
                &mut finding.on
            };
            place.retain(|node| {
                let stays = same.as_ref().is_some_and(|nodes| nodes.contains(node));
                // What is not missed after all is still to come.
                if let Some(count) = nodes.get_mut(node).filter(|_| is_missed && !stays) {
                    count.lacks.missed = count.lacks.missed.saturating_sub(1);
                    count.lacks.behind += 1;
                }
                stays
            });
            let stays = !place.is_empty();
            *gone.entry(finding.kind).or_default() += u64::from(!stays);
            stays
        });
        for (kind, gone) in gone {
            let left = self.findings.iter().filter(|finding| finding.kind == kind);
            if left.count() == 0 {
                self.counts.remove(&kind);
            } else if let Some(count) = self.counts.get_mut(&kind) {
                *count = count.saturating_sub(gone);
            }
        }
    }

    /// The kinds of which more was found than is told, with the moment of the last one that is. Who
    /// compares with them cannot tell what was found after it.
    fn untold(&self) -> BTreeMap<FindingKind, (i64, i32)> {
        let mut told: BTreeMap<FindingKind, (u64, (i64, i32))> = BTreeMap::new();
        for finding in &self.findings {
            let (count, last) = told.entry(finding.kind).or_default();
            *count += 1;
            *last = (*last).max((finding.wall, finding.logic));
        }
        told.retain(|kind, (count, _)| self.counts.get(kind) > Some(count));
        told.into_iter()
            .map(|(kind, (_, last))| (kind, last))
            .collect()
    }

    /// Adds what was found otherwise.
    pub fn add_all(&mut self, findings: Vec<EventFinding>) {
        findings.into_iter().for_each(|finding| self.add(finding));
        self.sort();
    }

    pub(super) fn add(&mut self, finding: EventFinding) {
        let count = self.counts.entry(finding.kind).or_default();
        *count += 1;
        if *count <= FINDINGS_KEPT_MAX as u64 {
            self.findings.push(finding);
        }
    }

    pub(super) fn sort(&mut self) {
        self.findings.sort_by_key(|it| (it.kind, it.wall, it.logic));
    }
}

fn is_suspicion(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::Missed | FindingKind::ChainGap | FindingKind::ClockAhead
    )
}
