//! What an agent makes of its own node's recent events and of its peers' clocks, look after look.
//!
//! It says a finding while it sees it, and tells each kind and origin once in a while, so that a
//! journal does not fill with one fault.
//!
//! A clock that stands still behind its peers' is a fault only where a peer holds events that this
//! node wants and has not: the rest may be in collections that are none of its own, or on no node at
//! all. So whoever looks is told what to ask the peers, once per moment.
//!
//! What was there before the running release was activated is told like anything else, and is marked:
//! it is not this release's doing.

use super::accepted::as_before;
use super::sights::Moment;
use super::{Finding, FindingKind, Grade, of_cluster};
use crate::audit::{AuditReport, EventFinding};
use crate::generation::GenerationNumber;
use crate::hlc::VectorClock;
use crate::id::NodeName;
use crate::oplog::OplogEntry;
use std::collections::{BTreeMap, BTreeSet};

/// How far back the node's own events are looked at: five minutes, in milliseconds.
pub const WINDOW_MS: u64 = 300_000;

/// How long a finding that was told is not told again: ten minutes, in milliseconds.
pub const TOLD_AGAIN_MS: u64 = 600_000;

/// How long a node may take to get its own events back from its peers before it has forgotten them, in
/// milliseconds: it asks them every two seconds (`NODE.md`, section 3).
pub const FORGOTTEN_AFTER_MS: u64 = 10_000;

/// Findings told in one look at most; the rest comes with the next ones.
const TOLD_AT_ONCE_MAX: usize = 8;

/// What an agent finds now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// One per cluster, kind, origin and grade, the worst first.
    pub current: Vec<Finding>,
    /// When the agent looked, Unix milliseconds; zero: not yet.
    pub looked_wall_ms: i64,
}

impl Findings {
    /// Takes what is found now in one cluster, instead of what was.
    pub fn take(&mut self, cluster: &str, current: Vec<Finding>, looked_wall_ms: i64) {
        self.current.retain(|finding| finding.cluster != cluster);
        self.current.extend(current);
        self.current.sort_by_key(|finding| finding.kind);
        self.looked_wall_ms = looked_wall_ms;
    }
}

/// What is to be asked of a peer: does it hold events of the origin after the moment that this node
/// wants?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Whose events.
    pub origin: String,
    /// How far this node is; unset: it has seen nothing of it.
    pub after: Option<(i64, i32)>,
}

impl Question {
    /// Whether a peer's events answer it with yes. `since_wall_ms` is the beginning of the window: of an
    /// origin of which nothing was seen, what is older is not asked for.
    pub fn is_owed(&self, events: &[OplogEntry], interests: &[String], since_wall_ms: i64) -> bool {
        let after = self.asked_after(since_wall_ms);
        events.iter().any(|event| {
            event.hlc.node == self.origin
                && event.hlc.moment() > after
                && (interests.is_empty() || interests.contains(&event.collection))
        })
    }

    /// The moment after which the peer's events are asked for.
    pub fn asked_after(&self, since_wall_ms: i64) -> (i64, i32) {
        self.after.unwrap_or((since_wall_ms, 0))
    }
}

/// An origin of which peers have seen more.
#[derive(Debug, Clone)]
struct Standing {
    /// How far this node is.
    is: Option<Moment>,
    /// Since when it has not moved.
    since_ms: u64,
    /// How far peers are.
    wanted: Moment,
    /// Whether a peer holds what this node wants; unset: that was not asked yet.
    is_owed: Option<bool>,
}

/// What was found in the last look before the running generation was activated.
#[derive(Debug, Default)]
struct Before {
    generation: Option<GenerationNumber>,
    /// When the change was noticed.
    since_ms: u64,
    /// Each event of which something was found.
    events: BTreeSet<(FindingKind, String, Moment)>,
    /// How many of each kind and origin there were in the window.
    counts: BTreeMap<(FindingKind, String, Grade), u64>,
    /// Origins at which this node was stalled, and is still.
    stalled: BTreeSet<String>,
}

/// The memory between two looks.
#[derive(Debug)]
pub struct Follower {
    node: NodeName,
    /// The id under which the node writes; empty: not known yet.
    own: String,
    cluster: String,
    critical: Vec<String>,
    stalled_after_ms: u64,
    before: Option<AuditReport>,
    /// Per origin of which peers have seen more.
    standing: BTreeMap<String, Standing>,
    before_release: Before,
    told_ms: BTreeMap<(FindingKind, String, Grade), u64>,
}

impl Follower {
    /// Nothing was seen yet.
    pub fn new(node: NodeName, stalled_after_ms: u64) -> Self {
        Self {
            node,
            own: String::new(),
            cluster: String::new(),
            critical: Vec::new(),
            stalled_after_ms,
            before: None,
            standing: BTreeMap::new(),
            before_release: Before::default(),
            told_ms: BTreeMap::new(),
        }
    }

    /// Sets the name of the cluster that is followed.
    pub fn of_cluster(mut self, name: &str) -> Self {
        name.clone_into(&mut self.cluster);
        self
    }

    /// Sets the collections in which anything that is found is critical.
    pub fn with_critical(mut self, collections: Vec<String>) -> Self {
        self.critical = collections;
        self
    }

    /// Tells which generation runs. What was found in the look before it came is not its doing, and may
    /// go on at the same rate: see [`Finding::is_old`].
    pub fn runs(&mut self, now_ms: u64, generation: GenerationNumber) {
        if self.before_release.generation == Some(generation) {
            return;
        }
        let mut now = Before {
            generation: Some(generation),
            since_ms: now_ms,
            ..Before::default()
        };
        // An agent that has just started has seen nothing before.
        if self.before_release.generation.is_some() {
            let stalled = self.standing.iter().filter(|(_, it)| {
                it.is_owed == Some(true)
                    && now_ms.saturating_sub(it.since_ms) >= self.stalled_after_ms
            });
            now.stalled = stalled.map(|(origin, _)| origin.clone()).collect();
            for found in self.before.iter().flat_map(|report| &report.findings) {
                let grade = Grade::of(&self.critical, &found.collection);
                let key = (found.kind, found.origin.clone(), grade);
                *now.counts.entry(key).or_default() += 1;
                now.events.insert(event(found));
            }
        }
        self.before_release = now;
    }

    /// Tells under which id the node writes: where peers are ahead with that, it has forgotten.
    pub fn writes_as(&mut self, id: &str) {
        id.clone_into(&mut self.own);
    }

    /// Whether the node holds all of its own events that peers are known to hold.
    pub fn remembers(&self) -> bool {
        let own = self.standing.get(&self.own);
        own.is_none_or(|own| own.is_owed == Some(false))
    }

    /// Compares the node's clock with the latest moments of its peers' clocks; returns what to ask a
    /// peer before [`Self::look`] can say whether it is stalled.
    pub fn compare(
        &mut self,
        now_ms: u64,
        clock: &VectorClock,
        peers: &VectorClock,
    ) -> Vec<Question> {
        let mut standing = BTreeMap::new();
        for (origin, wanted) in &peers.0 {
            let is = clock.get(origin);
            if is >= Some(*wanted) {
                continue;
            }
            let fresh = Standing {
                is,
                since_ms: now_ms,
                wanted: *wanted,
                is_owed: None,
            };
            let known = self.standing.remove(origin).filter(|known| known.is == is);
            let mut now = known.unwrap_or(fresh);
            // What is owed stays owed; what was not may have come since.
            if now.wanted != *wanted && now.is_owed == Some(false) {
                now.is_owed = None;
            }
            now.wanted = *wanted;
            standing.insert(origin.clone(), now);
        }
        self.standing = standing;
        let standing = &self.standing;
        let stalled = &mut self.before_release.stalled;
        stalled.retain(|origin| standing.contains_key(origin));
        let doubted = self.standing.iter().filter(|(origin, it)| {
            let is_due =
                **origin == self.own || now_ms.saturating_sub(it.since_ms) >= self.stalled_after_ms;
            it.is_owed.is_none() && is_due
        });
        let questions = doubted.map(|(origin, it)| Question {
            origin: origin.clone(),
            after: match **origin == self.own {
                // However old it is: does anybody hold it?
                true => Some((it.wanted.0, it.wanted.1.saturating_sub(1))),
                false => it.is,
            },
        });
        questions.collect()
    }

    /// The answer to a [`Question`].
    pub fn is_owed(&mut self, origin: &str, is_owed: bool) {
        if let Some(standing) = self.standing.get_mut(origin) {
            standing.is_owed = Some(is_owed);
        }
    }

    /// Judges one look: the audit of the node's own recent events, and the clocks that were compared.
    /// Returns what is found now, and what of it is to be told.
    pub fn look(&mut self, now_ms: u64, mut report: AuditReport) -> (Vec<Finding>, Vec<Finding>) {
        let seen = report.clone();
        report.confirmed_by(&self.before.take().unwrap_or_default());
        self.before = Some(seen);
        let mut current = self.of_events(now_ms, &report);
        current.extend(self.of_clocks(now_ms));
        current.sort_by(|a, b| (a.kind, &a.origin).cmp(&(b.kind, &b.origin)));
        let mut to_tell = Vec::new();
        for finding in &current {
            let key = (finding.kind, finding.origin.clone(), finding.grade);
            let is_new = self
                .told_ms
                .get(&key)
                .is_none_or(|told| now_ms.saturating_sub(*told) >= TOLD_AGAIN_MS);
            if is_new && to_tell.len() < TOLD_AT_ONCE_MAX {
                self.told_ms.insert(key, now_ms);
                to_tell.push(finding.clone());
            }
        }
        (current, to_tell)
    }

    fn of_events(&self, now_ms: u64, report: &AuditReport) -> Vec<Finding> {
        let before = &self.before_release;
        let mut by_origin: BTreeMap<(FindingKind, &str, Grade), Group> = BTreeMap::new();
        for found in &report.findings {
            let grade = Grade::of(&self.critical, &found.collection);
            let place = by_origin.entry((found.kind, &found.origin, grade));
            let group = place.or_insert_with(|| Group::of(found));
            group.count += 1;
            group.fresh += u64::from(!before.events.contains(&event(found)));
        }
        let found = by_origin.into_iter();
        let found = found.map(|((kind, origin, grade), group)| {
            let key = (kind, origin.to_owned(), grade);
            let rate = before.counts.get(&key).copied().unwrap_or_default();
            // A look reaches no further back than the window.
            let ran_ms = now_ms.saturating_sub(before.since_ms).min(WINDOW_MS);
            let is_old = group.fresh <= as_before(rate, WINDOW_MS, ran_ms);
            let verb = kind.verb(usize::try_from(group.count).unwrap_or(usize::MAX));
            let text = format!("{} {verb}{}", self.node, group.first);
            self.finding(kind, origin, grade, &text, is_old)
        });
        found.collect()
    }

    fn finding(
        &self,
        kind: FindingKind,
        origin: &str,
        grade: Grade,
        text: &str,
        is_old: bool,
    ) -> Finding {
        Finding {
            kind,
            node: self.node.clone(),
            origin: origin.to_owned(),
            cluster: self.cluster.clone(),
            grade,
            text: of_cluster(&self.cluster, text),
            is_old,
            generation: self.before_release.generation,
        }
    }

    /// Clocks that stand still although peers hold what this node wants.
    fn of_clocks(&self, now_ms: u64) -> Vec<Finding> {
        let stalled = self.standing.iter().filter_map(|(origin, it)| {
            let stands_ms = now_ms.saturating_sub(it.since_ms);
            if *origin == self.own {
                return self.of_own(it, stands_ms);
            }
            if it.is_owed != Some(true) || stands_ms < self.stalled_after_ms {
                return None;
            }
            let detail = format!(
                "its clock of node \"{}\" has not moved for {} s although peers hold later events that it wants",
                super::words::plain(origin),
                stands_ms / 1000
            );
            let kind = FindingKind::Stalled;
            let text = format!("{} {}{detail}", self.node, kind.verb(1));
            let is_old = self.before_release.stalled.contains(origin);
            Some(self.finding(kind, origin, Grade::Unranked, &text, is_old))
        });
        stalled.collect()
    }

    /// Events of the node's own that only its peers hold. It has a while to get them back.
    fn of_own(&self, own: &Standing, stands_ms: u64) -> Option<Finding> {
        if own.is_owed != Some(true) || stands_ms < FORGOTTEN_AFTER_MS {
            return None;
        }
        let kind = FindingKind::Forgotten;
        let text = format!(
            "{0} {1}its peers hold later ones than it has, and its next write would begin its history anew: \
             `cbctl node reseed {0}` has it take everything from its peers, `cbctl snapshot restore` goes back to \
             an earlier state",
            self.node,
            kind.verb(1)
        );
        Some(self.finding(kind, &self.own, Grade::Critical, &text, false))
    }
}

/// Findings of one kind and origin.
struct Group {
    first: String,
    count: u64,
    /// How many of them were not found before the running release came.
    fresh: u64,
}

impl Group {
    fn of(found: &EventFinding) -> Self {
        let first = if found.collection.is_empty() && found.key.is_empty() {
            found.detail.clone()
        } else {
            format!("{}/{}", found.collection, found.key)
        };
        Self {
            first,
            count: 0,
            fresh: 0,
        }
    }
}

fn event(found: &EventFinding) -> (FindingKind, String, Moment) {
    (found.kind, found.origin.clone(), (found.wall, found.logic))
}

#[cfg(test)]
mod tests;
