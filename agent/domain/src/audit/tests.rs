//! The rules on small chains of three nodes, each with its exception.

use super::{
    Audit, AuditReport, Boundaries, EventFinding, FINDINGS_KEPT_MAX, FeedError, Lacks, Link, Page,
    Source,
};
use crate::hlc::{Hlc, VectorClock};
use crate::oplog::{Operation, OplogEntry};
use crate::replication::FindingKind;

const BEGAN: i64 = 1_700_000_000_000;

fn event(collection: &str, number: i64, origin: &str, previous: &str) -> OplogEntry {
    OplogEntry {
        collection: collection.into(),
        key: format!("k{number}"),
        operation: Operation::Put,
        payload: String::new(),
        hlc: Hlc::new(BEGAN + number, 0, origin),
        hash: String::new(),
        previous_hash: previous.into(),
    }
    .seal()
}

/// `count` events of one origin, one after the other.
fn chain(origin: &str, count: i64) -> Vec<OplogEntry> {
    let mut events: Vec<OplogEntry> = Vec::new();
    for number in 0..count {
        let previous = events.last().map_or("", |event| &event.hash).to_owned();
        events.push(event("orders", number, origin, &previous));
    }
    events
}

struct Node {
    events: Vec<OplogEntry>,
    interests: Vec<String>,
    boundaries: Option<Boundaries>,
    clock: Option<VectorClock>,
}

/// Three nodes with the same 20 events, ten each of two origins.
fn mesh() -> Vec<Node> {
    let events = [chain("a", 10), chain("b", 10)].concat();
    let node = || Node {
        events: events.clone(),
        interests: Vec::new(),
        boundaries: Some(Boundaries::new()),
        clock: None,
    };
    vec![node(), node(), node()]
}

fn clock_of(events: &[OplogEntry]) -> VectorClock {
    let mut clock = VectorClock::default();
    events.iter().for_each(|event| clock.observe(&event.hlc));
    clock
}

fn audit(nodes: &[Node]) -> AuditReport {
    audit_since(nodes, 0)
}

fn audit_since(nodes: &[Node], since_wall_ms: i64) -> AuditReport {
    let sources = nodes.iter().zip(1_usize..).map(|(node, number)| Source {
        name: format!("n{number}"),
        origin: ["a", "b", "c"][number - 1].to_owned(),
        interests: node.interests.clone(),
        clock: node
            .clock
            .clone()
            .unwrap_or_else(|| clock_of(&nodes[0].events)),
        boundaries: node.boundaries.clone(),
    });
    let mut audit = Audit::new(sources.collect(), since_wall_ms);
    let mut left: Vec<Vec<OplogEntry>> = nodes.iter().map(|node| node.events.clone()).collect();
    for events in &mut left {
        events.retain(|event| event.hlc.wall >= since_wall_ms);
        events.sort_by(|a, b| (a.hlc.moment(), &a.hlc.node).cmp(&(b.hlc.moment(), &b.hlc.node)));
    }
    while let Some(hungry) = audit.hungry() {
        if left[hungry].is_empty() {
            audit.end(hungry, nodes[hungry].boundaries.clone());
            continue;
        }
        // Pages of three rows, so that events straddle pages.
        let cut = left[hungry].len().min(3);
        let rest = left[hungry].split_off(cut);
        let page = Page::of_events(&std::mem::replace(&mut left[hungry], rest));
        audit.feed(hungry, page).expect("a page in order");
    }
    let report = audit.finish();
    assert_sums(&report);
    report
}

/// Every event is accounted for on every node.
#[track_caller]
fn assert_sums(report: &AuditReport) {
    for (name, node) in &report.nodes {
        let lacks = node.lacks;
        let lacked = lacks.missed + lacks.behind + lacks.unwanted + lacks.pruned;
        assert_eq!(node.held + lacked, report.events(), "{name}: {node:?}");
    }
}

/// Kind, key, where it is, where it is not.
fn found(report: &AuditReport) -> Vec<(FindingKind, &str, String, String)> {
    let told = report.findings.iter();
    told.map(|it| {
        let (on, not_on) = (it.on.join(","), it.not_on.join(","));
        (it.kind, it.key.as_str(), on, not_on)
    })
    .collect()
}

#[track_caller]
fn check(change: impl FnOnce(&mut Vec<Node>), expected: &[(FindingKind, &str, &str, &str)]) {
    let mut nodes = mesh();
    change(&mut nodes);
    let report = audit(&nodes);
    let expected: Vec<_> = expected
        .iter()
        .map(|(kind, key, on, not_on)| (*kind, *key, (*on).to_owned(), (*not_on).to_owned()))
        .collect();
    assert_eq!(found(&report), expected);
    assert_eq!(
        report.is_bad(),
        expected.iter().any(|it| it.0.is_definite())
    );
}

#[test]
fn a_sound_mesh_is_counted() {
    let report = audit(&mesh());
    assert_eq!(found(&report), []);
    assert_eq!((report.events(), report.everywhere()), (20, 20));
    assert_eq!(report.nodes["n2"].rows, 20);
    assert_eq!(report.nodes["n2"].oldest_ms, Some(BEGAN));
}

#[test]
fn missed_events_leave_a_gap() {
    use FindingKind::{ChainGap, Missed};
    let drop = |nodes: &mut Vec<Node>| drop(nodes[1].events.remove(4));
    check(
        drop,
        &[(Missed, "k4", "n1,n3", "n2"), (ChainGap, "k5", "n2", "")],
    );
}

#[test]
fn what_the_clock_does_not_cover_is_on_its_way() {
    check(
        |nodes| {
            nodes[1].events.remove(9);
            nodes[1].clock = Some(VectorClock::default());
        },
        &[],
    );
}

#[test]
fn a_clock_that_names_no_origin_is_what_the_rows_say() {
    use FindingKind::{ChainGap, Missed};
    check(
        |nodes| {
            nodes[1].events.remove(4);
            nodes[1].clock = Some(VectorClock::default());
        },
        &[(Missed, "k4", "n1,n3", "n2"), (ChainGap, "k5", "n2", "")],
    );
    // What comes after its last row is yet to come, and counted.
    let mut nodes = mesh();
    nodes[1].events.truncate(7);
    nodes[1].clock = Some(VectorClock::default());
    let report = audit(&nodes);
    assert_eq!(found(&report), []);
    let n2 = &report.nodes["n2"];
    assert_eq!((n2.held, n2.lacks.behind), (7, 13));
    assert_eq!(n2.latest.get("a"), Some((BEGAN + 6, 0)));
    assert_eq!(n2.owed.get("a"), Some((BEGAN + 9, 0)));
    assert_eq!(n2.owed.get("b"), Some((BEGAN + 9, 0)));
}

#[test]
fn what_a_node_lacks_is_counted_by_its_reason() {
    let mut nodes = mesh();
    let users = event("users", 20, "a", &nodes[0].events[9].hash.clone());
    nodes[0].events.push(users);
    let n2 = &mut nodes[1];
    n2.interests = vec!["orders".into()];
    // Of b one is missed; of a two were pruned, and two are yet to come.
    n2.events.remove(12);
    n2.events.drain(8..10);
    let boundary = (n2.events[1].hlc.moment(), Link::NONE);
    n2.events.drain(0..2);
    n2.boundaries = Some([("a".to_owned(), boundary)].into());
    n2.clock = Some(clock_of(&n2.events));
    let report = audit(&nodes);
    let n2 = &report.nodes["n2"];
    let lacks = Lacks {
        missed: 1,
        behind: 2,
        unwanted: 1,
        pruned: 2,
    };
    assert_eq!((n2.held, n2.lacks), (15, lacks));
    assert_eq!((report.events(), report.everywhere()), (21, 15));
}

#[test]
fn a_clock_that_names_what_nobody_holds_is_its_own_nodes_fault() {
    use FindingKind::ClockAhead;
    let mut nodes = mesh();
    let mut clock = clock_of(&nodes[0].events);
    clock.advance("a", (BEGAN + 500, 0));
    nodes[1].clock = Some(clock);
    let report = audit(&nodes);
    assert_eq!(
        found(&report),
        [(ClockAhead, "", "n2".into(), String::new())]
    );
    // Before the window, and of a writer that is not known to a node that filters, nothing is said.
    assert_eq!(found(&audit_since(&nodes, BEGAN + 501)), []);
    let mut clock = clock_of(&nodes[0].events);
    clock.advance("client", (BEGAN + 500, 0));
    nodes[1].clock = Some(clock);
    nodes[1].interests = vec!["orders".into()];
    assert_eq!(found(&audit(&nodes)), []);
    // Nor of what was not read to its end.
    let clock = clock_of(&chain("a", 3));
    let source = Source {
        clock,
        ..Source::default()
    };
    for early in [false, true] {
        let mut audit = Audit::new(vec![source.clone()], 0);
        audit.feed(0, Page::of_events(&chain("a", 2))).unwrap();
        match early {
            true => audit.end_early(0, Some(Boundaries::new())),
            false => audit.end(0, Some(Boundaries::new())),
        }
        assert_eq!(audit.finish().is_bad(), !early);
    }
}

#[test]
fn the_chain_of_a_writer_that_is_no_source_is_owed_where_it_declares_to_write_no_more() {
    let alone = |declared: &[&str]| {
        let mut events = chain("far", 6);
        events.remove(3);
        let source = Source {
            interests: vec!["orders".into()],
            ..Source::default()
        };
        let declared = declared.iter().map(|name| (*name).to_owned());
        let writers = [("far".to_owned(), declared.collect())].into();
        let mut audit = Audit::new(vec![source], 0).with_writers(&writers);
        audit.feed(0, Page::of_events(&events)).unwrap();
        audit.end(0, None);
        let report = audit.finish();
        report.counts.get(&FindingKind::ChainGap).copied()
    };
    assert_eq!(alone(&["orders"]), Some(1));
    assert_eq!(alone(&["orders", "users"]), None);
    assert_eq!(alone(&[]), None, "it is not known what it writes");
}

#[test]
fn interests_excuse_absence_and_gaps() {
    let other = |nodes: &mut Vec<Node>| {
        let last = nodes[0].events[9].hash.clone();
        let seen = event("users", 11, "a", &last);
        let after = event("orders", 12, "a", &seen.hash);
        nodes
            .iter_mut()
            .for_each(|node| node.events.push(after.clone()));
        for node in [0, 2] {
            nodes[node].events.push(seen.clone());
        }
    };
    check(
        |nodes| {
            other(nodes);
            nodes[1].interests = vec!["orders".into()];
        },
        &[],
    );
    use FindingKind::{ChainGap, Missed};
    check(
        other,
        &[(Missed, "k11", "n1,n3", "n2"), (ChainGap, "k12", "n2", "")],
    );
}

#[test]
fn pruning_excuses_what_is_older() {
    check(
        |nodes| {
            let node = &mut nodes[1];
            let boundary = |events: &[OplogEntry]| {
                let last = &events[3];
                (last.hlc.moment(), Link::parse(&last.hash).unwrap())
            };
            let of = [("a", 0), ("b", 10)];
            let bounds = of.map(|(o, at)| (o.to_owned(), boundary(&node.events[at..])));
            node.boundaries = Some(bounds.into());
            node.events.retain(|event| event.hlc.wall > BEGAN + 3);
        },
        &[],
    );
    // A snapshot was taken over: something older stayed, and the chain goes on from the boundary.
    check(
        |nodes| {
            for node in nodes {
                let last = node.events[5].clone();
                let hash = Link::parse(&last.hash).unwrap();
                let boundary = ("a".to_owned(), (last.hlc.moment(), hash));
                node.boundaries = Some([boundary].into());
                node.events.drain(3..6);
            }
        },
        &[],
    );
    // Over the wire no boundary is seen.
    check(
        |nodes| {
            nodes[1].boundaries = None;
            nodes[1].events.retain(|event| event.hlc.wall > BEGAN + 3);
        },
        &[],
    );
}

#[test]
fn boundaries_that_move_while_rows_are_read() {
    let mut nodes = mesh();
    let last = nodes[1].events[4].clone();
    let hash = Link::parse(&last.hash).unwrap();
    nodes[1].events.drain(2..5);
    let sources = nodes.iter().zip(1_usize..).map(|(node, number)| Source {
        name: format!("n{number}"),
        boundaries: node.boundaries.clone(),
        clock: clock_of(&nodes[0].events),
        ..Source::default()
    });
    let mut audit = Audit::new(sources.collect(), 0);
    for (place, node) in nodes.iter_mut().enumerate() {
        node.events
            .sort_by(|a, b| (a.hlc.moment(), &a.hlc.node).cmp(&(b.hlc.moment(), &b.hlc.node)));
        audit.feed(place, Page::of_events(&node.events)).unwrap();
        let after: Boundaries = match place {
            1 => [("a".to_owned(), (last.hlc.moment(), hash))].into(),
            _ => Boundaries::new(),
        };
        audit.end(place, Some(after));
    }
    assert_eq!(found(&audit.finish()), []);
}

#[test]
fn what_pruning_left_of_old_events_has_gaps_by_right() {
    check(
        |nodes| {
            for node in nodes {
                let last = node.events[5].clone();
                let hash = Link::parse(&last.hash).unwrap();
                node.boundaries = Some([("a".to_owned(), (last.hlc.moment(), hash))].into());
                // An event that was kept, as the newest of its document, and nothing around it.
                node.events.drain(4..6);
                node.events.drain(1..3);
            }
        },
        &[],
    );
}

#[test]
fn over_the_wire_what_is_older_than_the_oldest_event_went() {
    use FindingKind::{ChainGap, Missed};
    // All of it: nothing can be told.
    check(
        |nodes| {
            nodes[1].boundaries = None;
            nodes[1].events.clear();
        },
        &[],
    );
    // As old as the oldest one, by another origin.
    check(
        |nodes| {
            nodes[1].boundaries = None;
            nodes[1].events.retain(|event| event.hlc.wall > BEGAN + 3);
            nodes[1].events.remove(0);
        },
        &[],
    );
    check(
        |nodes| {
            nodes[1].boundaries = None;
            nodes[1].events.retain(|event| event.hlc.wall > BEGAN + 3);
            nodes[1].events.remove(2);
        },
        &[(Missed, "k6", "n1,n3", "n2"), (ChainGap, "k7", "n2", "")],
    );
}

#[test]
fn before_the_window_nothing_is_missed() {
    let mut nodes = mesh();
    nodes[1].events.retain(|event| event.hlc.wall > BEGAN + 3);
    let since = audit_since(&nodes, BEGAN + 4);
    assert_eq!(found(&since), []);
    assert!(audit(&nodes).is_bad());
}

#[test]
fn only_what_is_everywhere_once_and_alike_is_counted_as_such() {
    let everywhere = |change: fn(&mut Vec<Node>)| {
        let mut nodes = mesh();
        change(&mut nodes);
        let report = audit(&nodes);
        (report.events(), report.everywhere())
    };
    assert_eq!(
        everywhere(|nodes| drop(nodes[1].events.remove(4))),
        (20, 19)
    );
    let on_its_way = |nodes: &mut Vec<Node>| {
        nodes[1].events.remove(9);
        nodes[1].clock = Some(VectorClock::default());
    };
    assert_eq!(everywhere(on_its_way), (20, 19));
    let doubled = |nodes: &mut Vec<Node>| {
        let again = nodes[1].events[2].clone();
        nodes[1].events.push(again);
    };
    assert_eq!(everywhere(doubled), (20, 19));
    let forked = |nodes: &mut Vec<Node>| {
        let other = event("orders", 50, "a", &nodes[0].events[3].hash);
        nodes
            .iter_mut()
            .for_each(|node| node.events.push(other.clone()));
    };
    assert_eq!(everywhere(forked), (21, 20));
}

#[test]
fn an_event_after_one_that_nobody_has() {
    use FindingKind::{ChainGap, NoHash};
    let follow = |nodes: &mut Vec<Node>| {
        let stray = event("orders", 60, "a", &"ab".repeat(32));
        nodes
            .iter_mut()
            .for_each(|node| node.events.push(stray.clone()));
    };
    check(follow, &[(ChainGap, "k60", "n1,n2,n3", "")]);
    // A node that declares all that was written owes the chain as any other does.
    check(
        |nodes| {
            follow(nodes);
            nodes[1].interests = vec!["orders".into(), "unused".into()];
        },
        &[(ChainGap, "k60", "n1,n2,n3", "")],
    );
    // One that wants less than was written, or whose rows lack hashes, has gaps by right.
    check(
        |nodes| {
            let users = event("users", 59, "a", &nodes[0].events[9].hash.clone());
            nodes[0].events.push(users.clone());
            nodes[2].events.push(users);
            follow(nodes);
            nodes[1].interests = vec!["orders".into()];
        },
        &[(ChainGap, "k60", "n1,n3", "")],
    );
    check(
        |nodes| {
            follow(nodes);
            let row = &mut nodes[2].events[9];
            (row.hash, row.previous_hash) = (String::new(), String::new());
        },
        &[(ChainGap, "k60", "n1,n2", ""), (NoHash, "k9", "n3", "")],
    );
}

#[test]
fn doubled_rows() {
    use FindingKind::Duplicate;
    check(
        |nodes| {
            let again = nodes[1].events[2].clone();
            nodes[1].events.push(again);
        },
        &[(Duplicate, "k2", "n2", "")],
    );
}

/// As a snapshot import writes it.
fn exchanged(event: &OplogEntry) -> OplogEntry {
    OplogEntry {
        hash: event.previous_hash.clone(),
        previous_hash: event.hash.clone(),
        ..event.clone()
    }
}

#[test]
fn rows_of_snapshot_imports_are_no_doubled_ones() {
    use FindingKind::{Duplicate, SnapshotSwapped};
    // Once more in the other form, and the first of a chain any number of times.
    check(
        |nodes| {
            let again = exchanged(&nodes[1].events[2]);
            nodes[1].events.push(again);
            let first = exchanged(&nodes[1].events[0]);
            nodes[1]
                .events
                .extend([first.clone(), first.clone(), first]);
        },
        &[
            (SnapshotSwapped, "k0", "n2", ""),
            (SnapshotSwapped, "k2", "n2", ""),
        ],
    );
    // Twice in the other form is twice.
    check(
        |nodes| {
            let again = exchanged(&nodes[1].events[2]);
            nodes[1].events.extend([again.clone(), again]);
        },
        &[
            (Duplicate, "k2", "n2", ""),
            (SnapshotSwapped, "k2", "n2", ""),
        ],
    );
    let mut nodes = mesh();
    let again = exchanged(&nodes[1].events[2]);
    nodes[1].events.push(again);
    let report = audit(&nodes);
    assert_eq!((report.events(), report.everywhere()), (20, 20));
}

#[test]
fn forks() {
    use FindingKind::Fork;
    check(
        |nodes| {
            let follows = nodes[0].events[3].hash.clone();
            let other = event("orders", 50, "a", &follows);
            nodes[2].events.push(other);
        },
        &[(Fork, "k50", "n3", "")],
    );
    // Another event at the same moment: the version that the fewest show.
    check(
        |nodes| {
            let follows = nodes[0].events[8].hash.clone();
            nodes[2].events[9] = event("users", 9, "a", &follows);
        },
        &[(Fork, "k9", "n3", "")],
    );
    check(
        |nodes| {
            let anew = event("orders", 50, "a", "");
            nodes[2].events.push(anew);
        },
        &[(Fork, "k50", "n3", "")],
    );
}

#[test]
fn altered_rows_swapped_rows_and_rows_without_hash() {
    use FindingKind::{NoHash, SnapshotSwapped, Tampered, UnknownHash};
    check(
        |nodes| nodes[1].events[4].previous_hash = "0".repeat(64),
        &[(Tampered, "k4", "n2", "")],
    );
    check(
        |nodes| nodes[1].events[4].hash = "no hash".into(),
        &[(Tampered, "k4", "n2", "")],
    );
    check(
        |nodes| {
            let row = &mut nodes[1].events[4];
            std::mem::swap(&mut row.hash, &mut row.previous_hash);
        },
        &[(SnapshotSwapped, "k4", "n2", "")],
    );
    // One row without hash: its chain cannot be followed there.
    check(
        |nodes| {
            let row = &mut nodes[1].events[4];
            (row.hash, row.previous_hash) = (String::new(), String::new());
        },
        &[(NoHash, "k4", "n2", "")],
    );
    // A row whose former text is a hash, and its link is none.
    check(
        |nodes| {
            for node in nodes {
                let row = &mut node.events[0];
                row.previous_hash = "from elsewhere".into();
                *row = row.clone().seal();
                let hash = row.hash.clone();
                node.events[1].previous_hash = hash;
                node.events.truncate(2);
                node.events[1] = node.events[1].clone().seal();
            }
        },
        &[],
    );
    // Hashes of a rule that takes payloads cannot be checked.
    let mut nodes = mesh();
    for node in &mut nodes {
        for row in &mut node.events {
            for hash in [&mut row.hash, &mut row.previous_hash] {
                let first = if hash.starts_with('0') { "1" } else { "0" };
                if !hash.is_empty() {
                    hash.replace_range(..1, first);
                }
            }
        }
    }
    let report = audit(&nodes);
    assert_eq!(report.counts, [(UnknownHash, 20)].into());
    let mut nodes = mesh();
    for node in &mut nodes {
        for row in &mut node.events {
            (row.hash, row.previous_hash) = (String::new(), String::new());
        }
    }
    let report = audit(&nodes);
    assert_eq!(report.counts, [(NoHash, 20)].into());
    assert!(!report.is_bad(), "an old dialect is no fault");
}

#[test]
fn a_second_look_takes_back_what_was_on_its_way() {
    let mut nodes = mesh();
    nodes[1].events.remove(4);
    let (first, mut second) = (audit(&nodes), audit(&nodes));
    let mut clean = first.clone();
    assert!(first.has_suspicions());
    second.confirmed_by(&first);
    assert_eq!(second, first);
    clean.confirmed_by(&audit(&mesh()));
    assert!(!clean.is_bad() && clean.counts.is_empty(), "{clean:?}");
}

#[test]
fn a_second_look_keeps_what_the_first_had_no_room_to_tell() {
    let missing = |from: usize| {
        let mut report = AuditReport::default();
        let lacks = from..FINDINGS_KEPT_MAX + 500;
        let finding = |number: usize| EventFinding {
            kind: FindingKind::Missed,
            origin: "a".into(),
            collection: "orders".into(),
            key: format!("k{number}"),
            wall: BEGAN + i64::try_from(number).unwrap(),
            logic: 0,
            on: vec!["n1".into()],
            not_on: vec!["n2".into()],
            detail: String::new(),
        };
        report.add_all(lacks.map(finding).collect());
        report
    };
    // All that the first look told has arrived; the rest is missing still.
    let mut second = missing(FINDINGS_KEPT_MAX);
    second.confirmed_by(&missing(0));
    assert_eq!(second.counts, [(FindingKind::Missed, 500)].into());
    let mut none = missing(FINDINGS_KEPT_MAX);
    none.confirmed_by(&AuditReport::default());
    assert!(!none.is_bad());
}

#[test]
fn rows_out_of_order_are_refused_and_a_moment_is_judged_whole() {
    let mut audit = Audit::new(vec![Source::default()], 0);
    let events = chain("a", 3);
    let turned = [events[1].clone(), events[0].clone()];
    let refused = audit.feed(0, Page::of_events(&turned));
    assert!(matches!(refused, Err(FeedError::OutOfOrder(_))));
    // The second row of one moment comes with the next page.
    let mut audit = Audit::new(vec![Source::default()], 0);
    for page in [&events[..2], &events[1..]] {
        audit.feed(0, Page::of_events(page)).unwrap();
    }
    audit.end(0, None);
    let report = audit.finish();
    let expected = (FindingKind::Duplicate, "k1", String::new(), String::new());
    assert_eq!(found(&report), [expected]);
}
