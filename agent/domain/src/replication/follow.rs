//! What an agent makes of its own node's recent events and of its peers' clocks, look after look.
//!
//! It says a finding while it sees it, and tells each kind and origin once in a while, so that a
//! journal does not fill with one fault.

use super::{Finding, FindingKind, Grade, of_cluster};
use crate::audit::AuditReport;
use crate::hlc::VectorClock;
use crate::id::NodeName;
use std::collections::BTreeMap;

/// How long a finding that was told is not told again: ten minutes, in milliseconds.
pub const TOLD_AGAIN_MS: u64 = 600_000;

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

/// The memory between two looks.
#[derive(Debug)]
pub struct Follower {
    node: NodeName,
    cluster: String,
    critical: Vec<String>,
    stalled_after_ms: u64,
    before: Option<AuditReport>,
    /// Per origin: the clock that stands still although peers are ahead, and since when.
    standing: BTreeMap<String, ((i64, i32), u64)>,
    told_ms: BTreeMap<(FindingKind, String, Grade), u64>,
}

impl Follower {
    /// Nothing was seen yet.
    pub fn new(node: NodeName, stalled_after_ms: u64) -> Self {
        Self {
            node,
            cluster: String::new(),
            critical: Vec::new(),
            stalled_after_ms,
            before: None,
            standing: BTreeMap::new(),
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

    /// Judges one look: the audit of the node's own recent events, its clock, and the latest moments
    /// of its peers' clocks. Returns what is found now, and what of it is to be told.
    pub fn look(
        &mut self,
        now_ms: u64,
        mut report: AuditReport,
        clock: &VectorClock,
        peers: &VectorClock,
    ) -> (Vec<Finding>, Vec<Finding>) {
        let seen = report.clone();
        report.confirmed_by(&self.before.take().unwrap_or_default());
        self.before = Some(seen);
        let mut current = self.of_events(&report);
        current.extend(self.of_clocks(now_ms, clock, peers));
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

    fn of_events(&self, report: &AuditReport) -> Vec<Finding> {
        type Key<'a> = (FindingKind, &'a str, Grade);
        let mut by_origin: BTreeMap<Key<'_>, (String, usize)> = BTreeMap::new();
        for found in &report.findings {
            let grade = Grade::of(&self.critical, &found.collection);
            let place = by_origin.entry((found.kind, &found.origin, grade));
            let first = || (format!("{}/{}", found.collection, found.key), 0);
            place.or_insert_with(first).1 += 1;
        }
        let found = by_origin.into_iter();
        found
            .map(|((kind, origin, grade), (first, count))| {
                let text = format!("{} {}{first}", self.node, kind.verb(count));
                self.finding(kind, origin, grade, &text)
            })
            .collect()
    }

    fn finding(&self, kind: FindingKind, origin: &str, grade: Grade, text: &str) -> Finding {
        Finding {
            kind,
            node: self.node.clone(),
            origin: origin.to_owned(),
            cluster: self.cluster.clone(),
            grade,
            text: of_cluster(&self.cluster, text),
        }
    }

    /// Clocks that are behind their peers' and do not move.
    fn of_clocks(&mut self, now_ms: u64, clock: &VectorClock, peers: &VectorClock) -> Vec<Finding> {
        let (mut standing, mut found) = (BTreeMap::new(), Vec::new());
        for (origin, wanted) in &peers.0 {
            // A clock that is empty after a restart says nothing.
            let Some(is) = clock.get(origin).filter(|is| is < wanted) else {
                continue;
            };
            let since = match self.standing.get(origin) {
                Some((then, since)) if *then == is => *since,
                Some(_) | None => now_ms,
            };
            let stands_ms = now_ms.saturating_sub(since);
            if stands_ms >= self.stalled_after_ms {
                let detail = format!(
                    "its clock of node \"{}\" has not moved for {} s although peers are ahead",
                    super::words::plain(origin),
                    stands_ms / 1000
                );
                let kind = FindingKind::Stalled;
                let text = format!("{} {}{detail}", self.node, kind.verb(1));
                found.push(self.finding(kind, origin, Grade::Unranked, &text));
            }
            standing.insert(origin.clone(), (is, since));
        }
        self.standing = standing;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{Findings, Follower, TOLD_AGAIN_MS};
    use crate::audit::{AuditReport, EventFinding};
    use crate::hlc::VectorClock;
    use crate::replication::{FindingKind, Grade};

    fn report(kind: FindingKind) -> AuditReport {
        AuditReport {
            counts: [(kind, 1)].into(),
            findings: vec![EventFinding {
                kind,
                origin: "b".into(),
                collection: "orders".into(),
                key: "k1".into(),
                wall: 5,
                logic: 0,
                on: vec!["n1".into()],
                not_on: Vec::new(),
                detail: String::new(),
            }],
            ..AuditReport::default()
        }
    }

    #[test]
    fn a_finding_is_told_once_in_a_while() {
        let mut follower = Follower::new("n1".parse().unwrap(), 90_000);
        let clock = VectorClock::default();
        let mut look = |now, kind| {
            let (current, told) = follower.look(now, report(kind), &clock, &clock);
            (current.len(), told.len())
        };
        assert_eq!(look(0, FindingKind::Duplicate), (1, 1));
        assert_eq!(look(15_000, FindingKind::Duplicate), (1, 0));
        assert_eq!(look(TOLD_AGAIN_MS, FindingKind::Duplicate), (1, 1));
        // A gap may be an event on its way: it takes two looks.
        assert_eq!(look(TOLD_AGAIN_MS + 1, FindingKind::ChainGap), (0, 0));
        assert_eq!(look(TOLD_AGAIN_MS + 2, FindingKind::ChainGap), (1, 1));
    }

    #[test]
    fn a_finding_has_the_grade_of_its_collection() {
        let clock = VectorClock::default();
        let look = |critical: &[&str]| {
            let follower = Follower::new("n1".parse().unwrap(), 90_000).of_cluster("west");
            let critical = critical.iter().map(|name| (*name).to_owned());
            let mut follower = follower.with_critical(critical.collect());
            follower
                .look(0, report(FindingKind::Fork), &clock, &clock)
                .0
        };
        assert_eq!(look(&[])[0].grade, Grade::Unranked);
        assert_eq!(look(&["orders"])[0].grade, Grade::Critical);
        let other = &look(&["stock"])[0];
        assert_eq!(
            (other.grade, other.cluster.as_str()),
            (Grade::Ordinary, "west")
        );
        assert!(other.text.starts_with("cluster west: n1 holds a fork"));
    }

    #[test]
    fn a_cluster_takes_back_only_its_own_findings() {
        let clock = VectorClock::default();
        let found = |name: &str| {
            let follower = Follower::new("n1".parse().unwrap(), 90_000);
            let mut follower = follower.of_cluster(name);
            follower
                .look(0, report(FindingKind::Fork), &clock, &clock)
                .0
        };
        let mut all = Findings::default();
        all.take("east", found("east"), 1);
        all.take("west", found("west"), 2);
        assert_eq!(all.current.len(), 2);
        all.take("west", Vec::new(), 3);
        let left: Vec<&str> = all.current.iter().map(|it| it.cluster.as_str()).collect();
        assert_eq!(left, ["east"]);
    }

    #[test]
    fn a_clock_that_stands_still_behind_its_peers_is_stalled() {
        let mut follower = Follower::new("n1".parse().unwrap(), 90_000);
        let clock = |wall: i64| VectorClock([("b".to_owned(), (wall, 0))].into());
        let mut look = |now, own: i64, peers: i64| {
            let none = AuditReport::default();
            follower.look(now, none, &clock(own), &clock(peers)).0.len()
        };
        assert_eq!(look(0, 1, 9), 0);
        assert_eq!(look(60_000, 2, 9), 0, "it moves");
        assert_eq!(look(120_000, 2, 9), 0, "not for long enough");
        assert_eq!(look(150_000, 2, 9), 1);
        assert_eq!(look(160_000, 9, 9), 0);
    }

    #[test]
    fn a_clock_that_is_empty_after_a_restart_is_not_stalled() {
        let mut follower = Follower::new("n1".parse().unwrap(), 90_000);
        let peers = VectorClock([("b".to_owned(), (9, 0))].into());
        for now_ms in [0, 100_000, 200_000] {
            let none = (AuditReport::default(), VectorClock::default());
            let (found, _) = follower.look(now_ms, none.0, &none.1, &peers);
            assert_eq!(found, []);
        }
    }

    #[test]
    fn many_findings_are_told_some_at_a_time() {
        let mut follower = Follower::new("n1".parse().unwrap(), 0);
        let origins = (0..20).map(|number| format!("b{number:02}"));
        let clock = |wall: i64| {
            let origins = origins.clone();
            VectorClock(origins.map(|origin| (origin, (wall, 0))).collect())
        };
        let mut look = |now| {
            let none = AuditReport::default();
            let (current, told) = follower.look(now, none, &clock(1), &clock(9));
            (current.len(), told.len())
        };
        assert_eq!(
            [look(0), look(1), look(2), look(3)],
            [(20, 8), (20, 8), (20, 4), (20, 0)]
        );
    }
}
