//! Findings over several looks.

use super::{FORGOTTEN_AFTER_MS, Findings, Follower, Question, TOLD_AGAIN_MS, WINDOW_MS};
use crate::audit::{AuditReport, EventFinding};
use crate::hlc::{Hlc, VectorClock};
use crate::oplog::{Operation, OplogEntry};
use crate::replication::{Finding, FindingKind, Grade};

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
    let mut look = |now, kind| {
        let (current, told) = follower.look(now, report(kind));
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
    let look = |critical: &[&str]| {
        let follower = Follower::new("n1".parse().unwrap(), 90_000).of_cluster("west");
        let critical = critical.iter().map(|name| (*name).to_owned());
        let mut follower = follower.with_critical(critical.collect());
        follower.look(0, report(FindingKind::Fork)).0
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
    let found = |name: &str| {
        let follower = Follower::new("n1".parse().unwrap(), 90_000);
        let mut follower = follower.of_cluster(name);
        follower.look(0, report(FindingKind::Fork)).0
    };
    let mut all = Findings::default();
    all.take("east", found("east"), 1);
    all.take("west", found("west"), 2);
    assert_eq!(all.current.len(), 2);
    all.take("west", Vec::new(), 3);
    let left: Vec<&str> = all.current.iter().map(|it| it.cluster.as_str()).collect();
    assert_eq!(left, ["east"]);
}

fn clock(origin: &str, wall: i64) -> VectorClock {
    VectorClock([(origin.to_owned(), (wall, 0))].into())
}

fn follower() -> Follower {
    Follower::new("n1".parse().unwrap(), 90_000)
}

/// Compares clocks; whoever is asked holds what is wanted, or not.
fn stalled(
    follower: &mut Follower,
    now_ms: u64,
    own: &VectorClock,
    peers: &VectorClock,
    holds: bool,
) -> (usize, Vec<Finding>) {
    let questions = follower.compare(now_ms, own, peers);
    for question in &questions {
        follower.is_owed(&question.origin, holds);
    }
    let found = follower.look(now_ms, AuditReport::default()).0;
    (questions.len(), found)
}

#[test]
fn a_clock_that_stands_still_behind_its_peers_is_stalled() {
    let mut follower = follower();
    let mut look = |now, own: i64, peers: i64| {
        let (own, peers) = (clock("b", own), clock("b", peers));
        let (asked, found) = stalled(&mut follower, now, &own, &peers, true);
        (asked, found.len())
    };
    assert_eq!(look(0, 1, 9), (0, 0));
    assert_eq!(look(60_000, 2, 9), (0, 0), "it moves");
    assert_eq!(look(120_000, 2, 9), (0, 0), "not for long enough");
    assert_eq!(look(150_000, 2, 9), (1, 1));
    assert_eq!(look(155_000, 2, 11), (0, 1), "what is owed stays owed");
    assert_eq!(look(160_000, 11, 11), (0, 0));
}

#[test]
fn a_clock_that_does_not_name_an_origin_is_stalled_where_it_wants_its_events() {
    let (own, peers) = (VectorClock::default(), clock("b", 9));
    for (holds, expected) in [(true, 1), (false, 0)] {
        let mut follower = follower();
        let mut look = |now| stalled(&mut follower, now, &own, &peers, holds);
        assert_eq!(look(0), (0, vec![]));
        let (asked, found) = look(100_000);
        assert_eq!((asked, found.len()), (1, expected));
        // It is not asked again and again.
        assert_eq!(look(115_000).0, 0);
    }
}

#[test]
fn nobody_is_stalled_by_a_clock_that_names_what_its_own_node_does_not_hold() {
    let mut follower = follower();
    let own = clock("b", 5);
    let mut look = |now, peers: i64, holds| {
        let (asked, found) = stalled(&mut follower, now, &own, &clock("b", peers), holds);
        (asked, found.len())
    };
    assert_eq!(look(0, 9, false), (0, 0));
    assert_eq!(look(90_000, 9, false), (1, 0));
    assert_eq!(look(105_000, 9, false), (0, 0));
    // The peer's clock moves: it may hold something now.
    assert_eq!(look(120_000, 10, true), (1, 1));
}

#[test]
fn what_was_there_before_a_release_is_not_its_doing() {
    let of = |walls: &[i64]| AuditReport {
        findings: walls
            .iter()
            .map(|wall| EventFinding {
                wall: *wall,
                ..report(FindingKind::Duplicate).findings.remove(0)
            })
            .collect(),
        ..report(FindingKind::Duplicate)
    };
    let mut follower = follower();
    let mut look = |now, generation, walls: &[i64]| {
        follower.runs(now, generation);
        let found = follower.look(now, of(walls)).0;
        found
            .iter()
            .map(|finding| finding.is_old)
            .collect::<Vec<_>>()
    };
    assert_eq!(look(0, 1, &[5]), [false], "the agent has just started");
    assert_eq!(look(15_000, 1, &[5]), [false]);
    // A new generation: the same event, and as many new ones as came before in the same time.
    assert_eq!(look(30_000, 2, &[5]), [true]);
    assert_eq!(look(30_000 + WINDOW_MS, 2, &[6, 7]), [true]);
    assert_eq!(
        look(31_000 + WINDOW_MS, 2, &[6, 7, 8]),
        [false],
        "more than before"
    );
    assert_eq!(
        look(32_000, 3, &[9, 10, 11, 12, 13]),
        [false],
        "much more, at once"
    );
}

#[test]
fn a_node_that_was_stalled_before_a_release_is_so_not_by_it() {
    let mut follower = follower();
    let mut look = |now, generation, own: i64| {
        follower.runs(now, generation);
        let found = stalled(&mut follower, now, &clock("b", own), &clock("b", 9), true).1;
        found
            .iter()
            .map(|finding| finding.is_old)
            .collect::<Vec<_>>()
    };
    assert!(look(0, 1, 1).is_empty());
    assert_eq!(look(90_000, 1, 1), [false]);
    assert_eq!(look(105_000, 2, 1), [true]);
    assert!(look(120_000, 2, 9).is_empty(), "it got there");
    assert!(look(135_000, 2, 2).is_empty());
    assert_eq!(look(225_000, 2, 2), [false], "and is stalled anew");
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
        for question in follower.compare(now, &clock(1), &clock(9)) {
            follower.is_owed(&question.origin, true);
        }
        let (current, told) = follower.look(now, AuditReport::default());
        (current.len(), told.len())
    };
    assert_eq!(
        [look(0), look(1), look(2), look(3)],
        [(20, 8), (20, 8), (20, 4), (20, 0)]
    );
}

#[test]
fn only_later_events_of_the_origin_in_wanted_collections_are_owed() {
    let event = |origin: &str, wall, collection: &str| OplogEntry {
        collection: collection.into(),
        key: "k".into(),
        operation: Operation::Put,
        payload: String::new(),
        hlc: Hlc::new(wall, 0, origin),
        hash: String::new(),
        previous_hash: String::new(),
    };
    let asks = |after| Question {
        origin: "b".into(),
        after,
    };
    let wants = ["orders".to_owned()];
    let is_owed = |after, event: OplogEntry| asks(after).is_owed(&[event], &wants, 100);
    assert!(is_owed(Some((5, 0)), event("b", 6, "orders")));
    assert!(!is_owed(Some((6, 0)), event("b", 6, "orders")), "it has it");
    assert!(!is_owed(Some((5, 0)), event("b", 6, "stock")), "not wanted");
    assert!(!is_owed(Some((5, 0)), event("c", 6, "orders")), "another's");
    // Nothing was seen of it: what is older than the window is not asked for.
    assert!(!is_owed(None, event("b", 99, "orders")));
    assert!(is_owed(None, event("b", 101, "orders")));
    let all = asks(Some((5, 0))).is_owed(&[event("b", 6, "stock")], &[], 100);
    assert!(all, "a node without interests wants everything");
}

/// What is found when peers' clocks show `theirs` of the node's own events, and it has `held`.
fn of_own(
    follower: &mut Follower,
    now_ms: u64,
    held: Option<i64>,
    theirs: i64,
    peers_hold_it: bool,
) -> Vec<FindingKind> {
    let own = held.map(|wall| clock("me", wall)).unwrap_or_default();
    for question in follower.compare(now_ms, &own, &clock("me", theirs)) {
        assert_eq!(question.after, Some((theirs, -1)));
        follower.is_owed(&question.origin, peers_hold_it);
    }
    let (current, _) = follower.look(now_ms, AuditReport::default());
    current.iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_node_whose_own_events_only_its_peers_hold_has_forgotten_them() {
    let mut follower = follower();
    follower.writes_as("me");
    for held in [None, Some(3)] {
        let began = held.map_or(0, |_| 100_000);
        assert!(of_own(&mut follower, began, held, 9, true).is_empty());
        assert!(!follower.remembers());
        let later = began + FORGOTTEN_AFTER_MS;
        assert!(of_own(&mut follower, later - 1, held, 9, true).is_empty());
        assert_eq!(
            of_own(&mut follower, later, held, 9, true),
            [FindingKind::Forgotten]
        );
    }
    // It gets them back, one after the other.
    assert!(of_own(&mut follower, 300_000, Some(5), 9, true).is_empty());
    assert!(!follower.remembers());
    assert!(of_own(&mut follower, 300_001, Some(9), 9, true).is_empty());
    assert!(follower.remembers());
}

#[test]
fn a_peer_whose_clock_alone_names_it_proves_nothing() {
    let mut follower = follower();
    follower.writes_as("me");
    for now_ms in [0, FORGOTTEN_AFTER_MS, 500_000] {
        assert!(of_own(&mut follower, now_ms, Some(3), 9, false).is_empty());
        assert!(follower.remembers());
    }
}
