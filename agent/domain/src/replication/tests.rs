//! One case per finding and per known false alarm, on three nodes that write in turn.

use super::{
    Accepted, CLOCK_AHEAD_ROUNDS, FINDINGS_TOLD_MAX, FindingKind, MeshWatch, PeerView, Round,
    STALLED_ROUNDS,
};
use crate::hlc::Hlc;
use crate::id::NodeName;
use crate::oplog::{Operation, OplogEntry, legacy_hash};
use crate::proposer::MeshVerdict;
use FindingKind::*;
use std::collections::BTreeMap;

const SINCE: i64 = 1_700_000_000_000;

type Views = BTreeMap<NodeName, PeerView>;

fn name(number: usize) -> NodeName {
    format!("n{number}").parse().unwrap()
}

fn event(origin: usize, at: i64, collection: &str, previous: &str) -> OplogEntry {
    OplogEntry {
        collection: collection.into(),
        key: at.to_string(),
        operation: Operation::Put,
        payload: String::new(),
        hlc: Hlc::new(SINCE + at, 0, format!("node-{origin}")),
        hash: String::new(),
        previous_hash: previous.into(),
    }
    .seal()
}

/// `each` events per origin, in two collections by turns, each chain with a predecessor outside.
fn events(nodes: usize, each: usize) -> Vec<OplogEntry> {
    let mut heads = vec!["before-the-window".to_owned(); nodes + 1];
    let mut all = Vec::new();
    for number in 0..each {
        for (origin, head) in heads.iter_mut().enumerate().skip(1) {
            let at = i64::try_from(number * 100 + origin).unwrap();
            let collection = if number % 2 == 0 { "orders" } else { "users" };
            let event = event(origin, at, collection, head);
            head.clone_from(&event.hash);
            all.push(event);
        }
    }
    all
}

fn view(number: usize, events: &[OplogEntry]) -> PeerView {
    let mut view = PeerView {
        origin: format!("node-{number}"),
        token_accepted: true,
        events: events.to_vec(),
        ..PeerView::default()
    };
    for event in events {
        view.clock_before.observe(&event.hlc);
    }
    view.clock_after = view.clock_before.clone();
    view
}

fn mesh(nodes: usize, each: usize) -> Views {
    let events = events(nodes, each);
    (1..=nodes).map(|n| (name(n), view(n, &events))).collect()
}

fn rows(views: &mut Views, node: usize) -> &mut Vec<OplogEntry> {
    &mut views.get_mut(&name(node)).unwrap().events
}

fn none() -> BTreeMap<NodeName, String> {
    BTreeMap::new()
}

fn look(watch: &mut MeshWatch, views: &Views) -> Round {
    watch.observe(views, &none())
}

/// The time between two rounds.
const ROUND_MS: u64 = 500;

/// The round after as many with the same views, by a watch whose patience lasts for three.
fn after(rounds: usize, views: &Views) -> Round {
    last_round(MeshWatch::new(SINCE), rounds, views)
}

fn last_round(watch: MeshWatch, rounds: usize, views: &Views) -> Round {
    let mut watch = watch.with_patience(2 * ROUND_MS);
    let look = |round| {
        watch.at(ROUND_MS * round);
        look(&mut watch, views)
    };
    (0..=rounds as u64).map(look).last().unwrap()
}

/// The same where what is unproven is accepted.
fn accepting(rounds: usize, views: &Views) -> Round {
    let watch = MeshWatch::new(SINCE).accepting_unproven(true);
    last_round(watch, rounds, views)
}

#[test]
fn the_time_until_events_are_everywhere_is_measured() {
    let (all, mut watch) = (mesh(3, 4), MeshWatch::new(SINCE));
    let mut views = all.clone();
    let late: Vec<OplogEntry> = [1, 2, 3]
        .map(|node| rows(&mut views, node).pop().unwrap())
        .into();
    watch.at(1000);
    look(&mut watch, &views);
    assert_eq!(
        watch.arrivals().percentile(50),
        None,
        "seen too late to tell"
    );
    rows(&mut views, 1).push(late[0].clone());
    watch.at(1400);
    look(&mut watch, &views);
    watch.at(1800);
    look(&mut watch, &all);
    let arrivals = watch.arrivals();
    assert_eq!((arrivals.count(), arrivals.percentile(99)), (1, Some(800)));
}

fn kinds(round: &Round) -> Vec<(FindingKind, &str)> {
    let found = round.findings.iter();
    found
        .map(|found| (found.kind, found.node.as_str()))
        .collect()
}

fn is_pending(round: &Round) -> bool {
    matches!(round.verdict(), MeshVerdict::Pending(_))
}

/// A change to the views, and what it is found to be at once and in the second round.
type Case = (
    &'static str,
    fn(&mut Views),
    &'static [(FindingKind, &'static str)],
    &'static [(FindingKind, &'static str)],
);

fn cases() -> Vec<Case> {
    vec![
        ("nothing wrong", |_| {}, &[], &[]),
        (
            "missed in the middle",
            |views| drop(rows(views, 1).remove(7)),
            &[],
            &[(Missed, "n1"), (ChainGap, "n1")],
        ),
        (
            "the first event of the window missed: the gap is one although it is the first here",
            |views| drop(rows(views, 1).remove(1)),
            &[],
            &[(Missed, "n1"), (ChainGap, "n1")],
        ),
        (
            "the sender keeps it to itself",
            |views| {
                // The last of n3, so that nothing follows it.
                rows(views, 1).remove(11);
                rows(views, 2).remove(11);
            },
            &[],
            &[(NotPassedOn, "n3")],
        ),
        (
            "a duplicate row",
            |views| {
                let again = rows(views, 2)[3].clone();
                rows(views, 2).push(again);
            },
            &[(Duplicate, "n2")],
            &[(Duplicate, "n2")],
        ),
        (
            "two rows of one moment",
            |views| {
                let again = event(1, 1, "other", "x");
                rows(views, 2).push(again);
            },
            &[(Duplicate, "n2"), (Fork, "n2")],
            &[(Duplicate, "n2"), (Fork, "n2")],
        ),
        (
            "a fork of its own",
            |views| {
                let previous = rows(views, 1)[0].hash.clone();
                let fork = event(1, 999, "orders", &previous);
                for node in 1..=3 {
                    rows(views, node).push(fork.clone());
                }
            },
            &[(Fork, "n1")],
            &[(Fork, "n1")],
        ),
        (
            "a chain that begins again",
            |views| {
                let fresh = event(1, 999, "orders", "");
                for node in 1..=3 {
                    rows(views, node).push(fresh.clone());
                }
            },
            &[(Fork, "n1")],
            &[(Fork, "n1")],
        ),
        (
            "another event at the same moment, with a hash of its own",
            |views| rows(views, 2)[9] = event(1, 301, "users", "made-up"),
            &[(Fork, "n2")],
            &[(Fork, "n2"), (ChainGap, "n2")],
        ),
        (
            "tampered where it was received",
            |views| rows(views, 2)[4].previous_hash = "made-up".into(),
            &[(Tampered, "n2")],
            &[(Tampered, "n2")],
        ),
        (
            "tampered where it was written, and taken over by the others",
            |views| {
                for node in 1..=3 {
                    rows(views, node)[4].key = "other".into();
                }
            },
            &[(Tampered, "n2")],
            &[(Tampered, "n2")],
        ),
        (
            "a predecessor that nobody has, blamed on the writer",
            |views| {
                for node in 1..=3 {
                    rows(views, node).push(event(2, 999, "orders", "made-up"));
                }
            },
            &[],
            &[(ChainGap, "n2")],
        ),
        (
            "exchanged hashes are a note and no gap, no tampering, nothing missed",
            |views| {
                for row in rows(views, 3).iter_mut() {
                    std::mem::swap(&mut row.hash, &mut row.previous_hash);
                }
            },
            &[(SnapshotSwapped, "n3")],
            &[(SnapshotSwapped, "n3")],
        ),
        (
            "a dialect without hashes is a note",
            |views| {
                for row in rows(views, 3).iter_mut() {
                    row.hash.clear();
                    row.previous_hash.clear();
                }
            },
            &[(NoHash, "n3")],
            &[(NoHash, "n3")],
        ),
        (
            "hashes that need payloads everywhere are a note",
            |views| {
                for node in 1..=3 {
                    for row in rows(views, node).iter_mut() {
                        row.hash.insert(0, '0');
                        row.previous_hash.insert(0, '0');
                    }
                }
            },
            &[
                (UnknownHash, "n1"),
                (UnknownHash, "n2"),
                (UnknownHash, "n3"),
            ],
            &[
                (UnknownHash, "n1"),
                (UnknownHash, "n2"),
                (UnknownHash, "n3"),
            ],
        ),
        (
            "a refused token",
            |views| {
                let refusing = PeerView::default();
                views.insert(name(1), refusing);
            },
            &[(AuthRefused, "n1")],
            &[(AuthRefused, "n1")],
        ),
        (
            "one id twice",
            |views| views.get_mut(&name(2)).unwrap().origin = "node-1".into(),
            &[(SharedId, "n1")],
            &[(SharedId, "n1")],
        ),
        (
            "a filtered node lacks what it does not want, and has gaps by right",
            |views| {
                views.get_mut(&name(1)).unwrap().interests = vec!["orders".into()];
                rows(views, 1).retain(|event| event.collection == "orders");
            },
            &[],
            &[],
        ),
        (
            "a filtered node that lacks what it wants",
            |views| {
                views.get_mut(&name(1)).unwrap().interests = vec!["orders".into()];
                rows(views, 1).retain(|event| event.collection == "orders");
                rows(views, 1).remove(1);
            },
            &[],
            &[(Missed, "n1")],
        ),
        (
            "a truncated view proves no absence",
            |views| {
                views.get_mut(&name(1)).unwrap().truncated = true;
                rows(views, 1).remove(7);
            },
            &[],
            &[],
        ),
        (
            "an event that the clock, read before, does not cover",
            |views| {
                let view = views.get_mut(&name(1)).unwrap();
                view.events.truncate(11);
                view.clock_before
                    .0
                    .insert("node-3".into(), (SINCE + 203, 0));
            },
            &[],
            &[],
        ),
        (
            "a fork that one node alone shows is that node's",
            |views| {
                let previous = rows(views, 1)[0].hash.clone();
                rows(views, 2).push(event(1, 999, "orders", &previous));
            },
            &[(Fork, "n2")],
            &[(Fork, "n2")],
        ),
        (
            "what the others made of the writer's event is theirs, however many they are",
            |views| {
                let made_up = event(1, 301, "users", &rows(views, 1)[6].hash.clone());
                let made_up = OplogEntry {
                    key: "other".into(),
                    ..made_up
                }
                .seal();
                for node in 2..=3 {
                    rows(views, node)[9] = made_up.clone();
                }
            },
            &[(Fork, "n2"), (Fork, "n3")],
            &[(Fork, "n2"), (Fork, "n3")],
        ),
        (
            "an altered hash is no other event",
            |views| rows(views, 2)[9].hash = "made-up".into(),
            &[(Tampered, "n2")],
            &[(Tampered, "n2")],
        ),
        (
            "an altered link to what another event follows is no fork",
            |views| {
                let link = rows(views, 2)[3].previous_hash.clone();
                rows(views, 2)[6].previous_hash = link;
            },
            &[(Tampered, "n2")],
            &[(Tampered, "n2")],
        ),
        (
            "a hash that stands at two moments",
            |views| {
                let mut again = rows(views, 2)[9].clone();
                again.hlc.wall += 7;
                rows(views, 2).push(again);
            },
            &[(Duplicate, "n2"), (Tampered, "n2")],
            &[(Duplicate, "n2"), (Tampered, "n2")],
        ),
        (
            "one row without hash: its chain cannot be followed there",
            |views| {
                let row = &mut rows(views, 3)[4];
                row.hash.clear();
                row.previous_hash.clear();
            },
            &[(NoHash, "n3")],
            &[(NoHash, "n3")],
        ),
        (
            "an event that one other node lacks, and of which the third has not heard",
            |views| {
                rows(views, 1).pop();
                rows(views, 2).pop();
                let clock = &mut views.get_mut(&name(2)).unwrap().clock_before;
                clock.0.insert("node-3".into(), (SINCE + 203, 0));
            },
            &[],
            &[(Missed, "n1")],
        ),
        (
            "of two nodes nobody can tell whether it was sent",
            |views| {
                views.remove(&name(3));
                rows(views, 1).pop();
            },
            &[],
            &[(Missed, "n1")],
        ),
        (
            "nodes that do not tell their ids share none",
            |views| {
                for node in 1..=2 {
                    views.get_mut(&name(node)).unwrap().origin.clear();
                }
            },
            &[],
            &[],
        ),
        (
            "an empty clock after a restart",
            |views| {
                let view = views.get_mut(&name(1)).unwrap();
                view.events.clear();
                view.clock_before.0.clear();
                view.clock_after.0.clear();
            },
            &[],
            &[],
        ),
        (
            "events before the window",
            |views| rows(views, 1).push(event(2, -5, "orders", "x")),
            &[],
            &[],
        ),
    ]
}

#[test]
fn each_fault_is_found_and_no_false_alarm_is_raised() {
    for (what, spoil, at_once, confirmed) in cases() {
        let mut views = mesh(3, 4);
        spoil(&mut views);
        let mut watch = MeshWatch::new(SINCE);
        let first = look(&mut watch, &views);
        assert_eq!(dedup(kinds(&first)), at_once, "{what}, at once");
        assert!(!matches!(first.verdict(), MeshVerdict::Passed), "{what}");
        let second = look(&mut watch, &views);
        assert_eq!(dedup(kinds(&second)), confirmed, "{what}: {second:#?}");
        let failed = matches!(second.verdict(), MeshVerdict::Failed(_));
        let definite = confirmed.iter().any(|(kind, _)| kind.is_definite());
        assert_eq!(failed, definite, "{what}: {:?}", second.verdict());
    }
}

fn dedup(mut kinds: Vec<(FindingKind, &str)>) -> Vec<(FindingKind, &str)> {
    kinds.dedup();
    kinds
}

#[test]
fn sentences_say_what_is_where() {
    let mut views = mesh(3, 4);
    rows(&mut views, 1).remove(7);
    rows(&mut views, 1).remove(5);
    let round = after(1, &views);
    assert_eq!(
        round.findings[0].text,
        "n1 missed users/103 written on n3 at 2023-11-14T22:13:20.103Z (n2 and n3 have it)"
    );
    assert_eq!(
        round.verdict(),
        MeshVerdict::Failed(
            "n1 missed 2 events, first users/103 written on n3 at 2023-11-14T22:13:20.103Z \
             (n2 and n3 have it)"
                .into()
        )
    );
}

#[test]
fn an_absence_that_is_not_seen_twice_in_a_row_does_not_count() {
    let whole = mesh(3, 4);
    let mut torn = whole.clone();
    rows(&mut torn, 1).remove(7);
    let mut watch = MeshWatch::new(SINCE);
    for views in [&torn, &whole, &torn] {
        let round = look(&mut watch, views);
        assert_eq!(round.findings, []);
    }
    assert!(is_pending(&look(&mut MeshWatch::new(SINCE), &torn)));
    assert!(!look(&mut watch, &torn).findings.is_empty());
}

#[test]
fn an_event_that_was_there_and_is_nowhere_is_lost() {
    let whole = mesh(3, 4);
    let mut views = whole.clone();
    (1..=3).for_each(|node| drop(rows(&mut views, node).pop()));
    let mut watch = MeshWatch::new(SINCE);
    look(&mut watch, &whole);
    assert_eq!(kinds(&look(&mut watch, &views)), []);
    assert_eq!(kinds(&look(&mut watch, &views)), [(Lost, "n3")]);
}

#[test]
fn what_a_node_that_was_not_asked_may_have_is_not_lost() {
    let whole = mesh(3, 4);
    let mut torn = whole.clone();
    (1..=2).for_each(|node| drop(rows(&mut torn, node).remove(9)));
    let away: Views = torn.clone().into_iter().take(2).collect();
    let why: BTreeMap<_, _> = [(name(3), "no answer".to_owned())].into();
    let mut watch = MeshWatch::new(SINCE);
    look(&mut watch, &whole);
    for _ in 0..3 {
        let round = watch.observe(&away, &why);
        assert!(
            kinds(&round).iter().all(|(kind, _)| *kind != Lost),
            "{round:?}"
        );
    }
    let mut part = torn;
    let third = part.get_mut(&name(3)).unwrap();
    third.events.remove(9);
    third.truncated = true;
    let mut watch = MeshWatch::new(SINCE);
    look(&mut watch, &whole);
    for _ in 0..3 {
        let round = look(&mut watch, &part);
        assert!(
            kinds(&round).iter().all(|(kind, _)| *kind != Lost),
            "{round:?}"
        );
    }
}

#[test]
fn a_fork_that_nobody_shows_any_more_is_none() {
    let whole = mesh(3, 4);
    let mut forked = whole.clone();
    let previous = rows(&mut forked, 1)[0].hash.clone();
    rows(&mut forked, 2).push(event(1, 999, "orders", &previous));
    let mut watch = MeshWatch::new(SINCE);
    assert_eq!(kinds(&look(&mut watch, &forked)), [(Fork, "n2")]);
    let round = look(&mut watch, &whole);
    assert!(
        kinds(&round).iter().all(|(kind, _)| *kind != Fork),
        "{round:?}"
    );
}

#[test]
fn only_what_is_everywhere_once_and_as_written_has_moved() {
    let moved = |spoil: fn(&mut Views)| {
        let mut views = mesh(3, 4);
        spoil(&mut views);
        after(1, &views).moved.values().sum::<u64>()
    };
    assert_eq!(moved(|_| {}), 12);
    assert_eq!(moved(|views| drop(rows(views, 1).pop())), 11);
    let doubled = |views: &mut Views| {
        let again = rows(views, 1)[4].clone();
        rows(views, 1).push(again);
    };
    assert_eq!(moved(doubled), 11);
    assert_eq!(moved(|views| rows(views, 1)[4].key = "other".into()), 11);
    // What nobody but its writer wants proves nothing.
    let unwanted = |views: &mut Views| {
        for node in 2..=3 {
            views.get_mut(&name(node)).unwrap().interests = vec!["orders".into()];
            rows(views, node).retain(|event| event.collection == "orders");
        }
    };
    assert_eq!(moved(unwanted), 6);
    // A node alone has nobody to send to.
    let alone = |views: &mut Views| views.retain(|node, _| *node == name(1));
    assert_eq!(moved(alone), 12);
}

#[test]
fn what_was_not_read_is_waited_for() {
    let mut views = mesh(3, 4);
    views.get_mut(&name(2)).unwrap().truncated = true;
    let round = after(5, &views);
    let MeshVerdict::Pending(text) = round.verdict() else {
        panic!("{round:?}");
    };
    assert!(
        text.starts_with("n2 has more events since the wave began"),
        "{text}"
    );
}

#[test]
fn a_slow_node_is_measured_against_what_was_there_before() {
    let all = events(3, 60);
    let mut watch = MeshWatch::new(SINCE);
    let mut passed = 0;
    for round in 3..=30 {
        // The third one is three rounds behind the others, in every round.
        let behind = |node| if node == 3 { 15 } else { 0 };
        let views: Views = (1..=3)
            .map(|node| (name(node), view(node, &all[..round * 5 - behind(node)])))
            .collect();
        passed += usize::from(look(&mut watch, &views).verdict() == MeshVerdict::Passed);
    }
    assert!(passed > 3, "passed {passed} times");
}

#[test]
fn a_clock_that_moves_is_never_stalled() {
    let all = events(3, 60);
    let mut watch = MeshWatch::new(SINCE).with_stalled_rounds(3);
    for round in 3..=20 {
        // Each round it is further behind, and a little further on.
        let reached = |node| if node == 3 { round * 3 } else { round * 6 };
        let views: Views = (1..=3)
            .map(|node| (name(node), view(node, &all[..reached(node)])))
            .collect();
        let round = look(&mut watch, &views);
        assert_eq!(kinds(&round), [], "{round:?}");
    }
}

#[test]
fn arrivals_count_once_and_only_where_everybody_was_asked() {
    let all = mesh(3, 4);
    let mut before = all.clone();
    (1..=3).for_each(|node| drop(rows(&mut before, node).pop()));
    let mut watch = MeshWatch::new(SINCE);
    watch.at(1_000);
    look(&mut watch, &before);
    watch.at(2_000);
    let why = [(name(4), "no answer".to_owned())].into();
    watch.observe(&all, &why);
    assert_eq!(watch.arrivals().count(), 0);
    for now_ms in [5_000, 9_000] {
        watch.at(now_ms);
        look(&mut watch, &all);
        let arrivals = watch.arrivals();
        assert_eq!(
            (arrivals.count(), arrivals.percentile(50)),
            (1, Some(4_000))
        );
    }
}

#[test]
fn hashes_of_an_old_rule_are_no_proof_of_tampering() {
    let mut views = mesh(3, 4);
    for node in 1..=3 {
        for row in rows(&mut views, node).iter_mut() {
            // Of node 1 one row is small enough to be checked, and follows the old rule.
            if row.hlc.node == "node-1" {
                row.hash = match row.hlc.wall - SINCE {
                    1 => legacy_hash(row),
                    _ => format!("0{}", &row.hash[1..]),
                };
            }
        }
    }
    let round = after(1, &views);
    let of_hashes: Vec<_> = kinds(&round);
    assert!(
        of_hashes.iter().all(|(kind, _)| *kind != Tampered),
        "{round:?}"
    );
    assert!(of_hashes.contains(&(UnknownHash, "n1")), "{round:?}");
}

#[test]
fn it_passes_once_an_earlier_round_has_arrived_everywhere() {
    let views = mesh(3, 4);
    let mut watch = MeshWatch::new(SINCE);
    assert!(is_pending(&look(&mut watch, &views)));
    let round = look(&mut watch, &views);
    assert_eq!(round.verdict(), MeshVerdict::Passed, "{round:?}");
    assert_eq!(
        round.moved,
        BTreeMap::from([("orders".into(), 6), ("users".into(), 6)])
    );
    assert!(round.unproven.is_empty());
}

#[test]
fn continuous_writes_do_not_keep_it_from_passing() {
    let all = events(3, 30);
    let mut watch = MeshWatch::new(SINCE);
    let mut passed = 0;
    for round in 1..=20 {
        // Each node is some events behind the next, in every round; the writer never is.
        let views: Views = (1..=3)
            .map(|n| (name(n), view(n, &all[..round * 4 - n])))
            .collect();
        let seen = look(&mut watch, &views);
        assert_eq!(seen.findings, [], "round {round}");
        passed += usize::from(seen.verdict() == MeshVerdict::Passed);
    }
    assert!(passed > 5, "passed {passed} times");
}

#[test]
fn a_lagging_node_is_waited_for_and_in_the_end_stalled() {
    let mut views = mesh(3, 4);
    let short = views[&name(1)].events[..6].to_vec();
    views.insert(name(1), view(1, &short));
    let round = after(5, &views);
    let MeshVerdict::Pending(text) = round.verdict() else {
        panic!("{round:?}");
    };
    assert!(
        text.contains("n1 does not have orders/201 written on n1"),
        "{text}"
    );
    assert!(
        round
            .waiting
            .iter()
            .any(|text| text.contains("n1 lags: its clock of n2 stands at"))
    );
    let rounds = usize::try_from(STALLED_ROUNDS).unwrap();
    assert!(is_pending(&after(rounds - 2, &views)));
    let round = after(rounds, &views);
    assert_eq!(dedup(kinds(&round)), [(Stalled, "n1")]);
}

#[test]
fn an_empty_clock_is_what_the_events_say() {
    let mut views = mesh(3, 4);
    let clear = |view: &mut PeerView| {
        view.clock_before.0.clear();
        view.clock_after.0.clear();
    };
    clear(views.get_mut(&name(1)).unwrap());
    let round = after(3, &views);
    assert_eq!(round.verdict(), MeshVerdict::Passed, "{round:?}");
    // An event that it lacks, while it holds later ones, is missed.
    rows(&mut views, 1).remove(7);
    let round = after(3, &views);
    assert_eq!(dedup(kinds(&round)), [(Missed, "n1"), (ChainGap, "n1")]);
    // A node that holds nothing at all has seen nothing.
    rows(&mut views, 1).clear();
    assert!(is_pending(&after(3, &views)));
    let round = after(usize::try_from(STALLED_ROUNDS).unwrap() + 1, &views);
    assert_eq!(dedup(kinds(&round)), [(Stalled, "n1")]);
}

#[test]
fn empty_clocks_everywhere_on_a_quiet_mesh_are_no_reason_to_wait() {
    let mut views: Views = (1..=3).map(|n| (name(n), view(n, &[]))).collect();
    let clock = &mut views.get_mut(&name(1)).unwrap().clock_before;
    clock.advance("node-1", (SINCE - 5, 0));
    assert_eq!(after(3, &views).verdict(), MeshVerdict::Passed);
}

#[test]
fn a_clock_that_names_what_nobody_holds_is_the_fault_of_its_own_node() {
    let mut views = mesh(3, 4);
    let clock = &mut views.get_mut(&name(2)).unwrap().clock_before;
    clock.advance("node-2", (SINCE + 900, 0));
    let rounds = usize::try_from(CLOCK_AHEAD_ROUNDS).unwrap();
    assert_eq!(after(rounds - 2, &views).findings, []);
    let round = after(usize::try_from(STALLED_ROUNDS).unwrap() + 5, &views);
    assert_eq!(kinds(&round), [(ClockAhead, "n2")], "and nobody is stalled");
    assert!(
        round.headlines[0].starts_with(
            "n2 has a clock that is ahead of its oplog: it names an event of n2 at 2023-"
        ),
        "{round:?}"
    );
    // Somebody holds it: then it is on its way, or missed.
    rows(&mut views, 3).push(event(2, 900, "orders", "x"));
    let round = after(rounds + 2, &views);
    assert!(!kinds(&round).contains(&(ClockAhead, "n2")), "{round:?}");
    // A node that could not be asked may hold it.
    rows(&mut views, 3).pop();
    views.get_mut(&name(3)).unwrap().truncated = true;
    assert_eq!(after(rounds + 2, &views).findings, []);
}

/// What a round came to, taken as it is for a minute.
fn taken(round: Round) -> Option<Accepted> {
    Some(Accepted {
        reason: "known".into(),
        window_ms: 60_000,
        found: round.totals,
        late: round.late,
    })
}

#[test]
fn what_was_accepted_before_does_not_count_again_and_what_is_more_does() {
    let mut views = mesh(3, 4);
    rows(&mut views, 1).remove(7);
    let accepted = taken(after(3, &views));
    let look = |views: &Views| {
        let watch = MeshWatch::new(SINCE).with_accepted(accepted.clone());
        last_round(watch, 3, views)
    };
    let round = look(&views);
    assert_eq!(round.verdict(), MeshVerdict::Passed, "{round:?}");
    assert_eq!(dedup(kinds(&round)), [(Missed, "n1"), (ChainGap, "n1")]);
    // One more, and the same on another node, and another kind.
    let mut more = views.clone();
    rows(&mut more, 1).remove(3);
    assert!(matches!(look(&more).verdict(), MeshVerdict::Failed(_)));
    let mut other = views.clone();
    rows(&mut other, 2).remove(7);
    assert!(matches!(look(&other).verdict(), MeshVerdict::Failed(_)));
    let again = rows(&mut views, 1)[3].clone();
    rows(&mut views, 1).push(again);
    let MeshVerdict::Failed(why) = look(&views).verdict() else {
        panic!("a duplicate was accepted");
    };
    assert!(why.starts_with("n1 holds an event more than once"), "{why}");
}

#[test]
fn a_node_that_lacked_events_before_is_not_waited_for_and_nothing_is_said_of_it() {
    let mut views = mesh(3, 4);
    let short = views[&name(1)].events[..6].to_vec();
    views.insert(name(1), view(1, &short));
    let before = after(5, &views);
    assert!(is_pending(&before));
    let watch = MeshWatch::new(SINCE).with_accepted(taken(before));
    let rounds = usize::try_from(STALLED_ROUNDS).unwrap() + 5;
    let round = last_round(watch, rounds, &views);
    assert_eq!(round.verdict(), MeshVerdict::Passed, "{round:?}");
    assert_eq!(round.moved.values().sum::<u64>(), 12, "on the others");
    let proof = round.proof();
    assert!(
        proof.contains("not asked of n1, as accepted before"),
        "{proof}"
    );
}

/// All nodes declare collections, as they do since 1.0.
fn declaring(nodes: usize, each: usize, collections: &[&str]) -> Views {
    let mut views = mesh(nodes, each);
    for view in views.values_mut() {
        view.interests = collections.iter().map(|name| (*name).to_owned()).collect();
    }
    views
}

#[test]
fn nodes_that_declare_all_that_is_written_are_judged_like_any_other() {
    for (what, spoil, _, confirmed) in cases() {
        // Where everything is declared, nothing but the filter's own cases changes.
        if what.contains("filtered") {
            continue;
        }
        let mut views = declaring(3, 4, &["orders", "users", "other"]);
        spoil(&mut views);
        let round = after(1, &views);
        assert_eq!(dedup(kinds(&round)), confirmed, "{what}: {round:#?}");
    }
    // One that lags is waited for, and stalled in the end.
    let mut views = declaring(3, 4, &["orders", "users"]);
    let short = views[&name(1)].events[..6].to_vec();
    let interests = vec!["orders".into(), "users".into()];
    let lags = PeerView {
        interests,
        ..view(1, &short)
    };
    views.insert(name(1), lags);
    let round = after(usize::try_from(STALLED_ROUNDS).unwrap(), &views);
    assert_eq!(dedup(kinds(&round)), [(Stalled, "n1")]);
}

#[test]
fn a_chain_is_owed_where_all_that_its_writer_writes_is_wanted() {
    // An event that no node shows, before the last one of node 2.
    let hidden = |views: &mut Views| {
        for node in 1..=3 {
            rows(views, node).push(event(2, 999, "orders", "made-up"));
        }
    };
    let mut views = declaring(3, 4, &["orders", "users"]);
    hidden(&mut views);
    assert_eq!(dedup(kinds(&after(1, &views))), [(ChainGap, "n2")]);
    // Who wants less than was written may lack it by right; the writer itself may not.
    let mut views = declaring(3, 4, &["orders", "users"]);
    hidden(&mut views);
    for node in 1..=3 {
        let view = views.get_mut(&name(node)).unwrap();
        if node != 2 {
            view.interests = vec!["orders".into()];
            view.events.retain(|event| event.collection == "orders");
        }
    }
    assert_eq!(dedup(kinds(&after(1, &views))), [(ChainGap, "n2")]);
    // A writer that is no node of the mesh may write what nobody here wants.
    let mut views = declaring(3, 4, &["orders", "users"]);
    hidden(&mut views);
    views.remove(&name(2));
    assert_eq!(after(1, &views).findings, []);
}

#[test]
fn a_clock_need_not_show_what_the_node_holds() {
    let mut views = mesh(3, 4);
    let view = views.get_mut(&name(1)).unwrap();
    view.clock_before.0.remove("node-2");
    assert_eq!(after(3, &views).verdict(), MeshVerdict::Passed);
}

#[test]
fn a_filtered_node_need_only_have_seen_what_it_wants() {
    let mut views = mesh(3, 4);
    let mut wanted = views[&name(1)].events.clone();
    wanted.retain(|event| event.collection == "orders");
    let filtered = PeerView {
        interests: vec!["orders".into()],
        ..view(1, &wanted)
    };
    views.insert(name(1), filtered);
    let round = after(3, &views);
    assert_eq!(round.verdict(), MeshVerdict::Passed, "{round:?}");
}

#[test]
fn a_quiet_mesh_passes_unproven_after_patience() {
    let mut views: Views = (1..=3).map(|n| (name(n), view(n, &[]))).collect();
    for view in views.values_mut() {
        view.clock_before.advance("node-1", (SINCE - 1, 0));
        view.target_collections = vec!["orders".into()];
    }
    assert!(is_pending(&after(1, &views)));
    let round = accepting(2, &views);
    assert_eq!(round.verdict(), MeshVerdict::Passed);
    assert!(round.unproven.contains("orders"));
    assert_eq!(
        round.proof(),
        "no event was seen to move: replication is unproven; unproven, as nothing moved there: orders"
    );
}

#[test]
fn a_target_collection_that_stays_quiet_is_unproven() {
    let mut views = mesh(3, 4);
    views.get_mut(&name(2)).unwrap().target_collections = vec!["orders".into(), "rare".into()];
    let MeshVerdict::Pending(why) = after(50, &views).verdict() else {
        panic!("it passed although nothing was seen");
    };
    assert_eq!(why, "unproven: no event of rare has arrived everywhere yet");
    assert!(is_pending(&accepting(1, &views)), "it is given time");
    let round = accepting(3, &views);
    assert_eq!(round.verdict(), MeshVerdict::Passed);
    assert!(round.unproven.iter().eq(["rare"]));
}

#[test]
fn unreachable_nodes_and_peers_not_joined_are_waited_for() {
    let mut views = mesh(3, 4);
    let gone = views
        .remove(&name(3))
        .map(|_| (name(3), "timed out".to_owned()));
    let gone: BTreeMap<_, _> = gone.into_iter().collect();
    let mut watch = MeshWatch::new(SINCE).with_patience(ROUND_MS);
    for round in 0..6 {
        watch.at(ROUND_MS * round);
        let round = watch.observe(&views, &gone);
        assert!(is_pending(&round), "{round:?}");
        assert!(round.waiting[0].contains("n3 could not be asked: timed out"));
        assert!(round.moved.is_empty(), "not everywhere");
    }
    let mut views = mesh(3, 4);
    let view = views.get_mut(&name(1)).unwrap();
    view.expected = vec!["h2:1".into(), "h3:1".into()];
    assert_eq!(
        after(3, &views).verdict(),
        MeshVerdict::Passed,
        "it does not tell"
    );
    views.get_mut(&name(1)).unwrap().joined = Some(vec!["h2:1".into()]);
    let round = after(3, &views);
    assert_eq!(round.waiting, ["n1 has not joined h3:1"]);
    let round = after(usize::try_from(STALLED_ROUNDS).unwrap(), &views);
    assert_eq!(kinds(&round), [(NotJoined, "n1")]);
}

#[test]
fn nobody_at_all_is_never_a_pass() {
    assert!(is_pending(&after(20, &Views::new())));
}

#[test]
fn findings_are_bounded_and_the_rest_is_counted() {
    let mut views = mesh(3, 100);
    let clock = views[&name(1)].clock_before.clone();
    let kept = rows(&mut views, 1).split_off(280);
    *rows(&mut views, 1) = kept;
    assert_eq!(views[&name(1)].clock_before, clock);
    let round = after(1, &views);
    let missed: Vec<_> = round
        .findings
        .iter()
        .filter(|found| found.kind == Missed)
        .collect();
    assert_eq!(missed.len(), FINDINGS_TOLD_MAX + 1);
    let rest = &missed[FINDINGS_TOLD_MAX].text;
    assert_eq!(rest, "n1: 260 more findings of this kind (missed)");
}

#[test]
fn hostile_rows_of_one_moment_cost_no_quadratic_time() {
    let mut views = mesh(3, 4);
    for number in 0..20_000 {
        let row = event(1, 1, &format!("c{number}"), "x");
        rows(&mut views, 2).push(row);
    }
    let round = after(1, &views);
    assert!(kinds(&round).contains(&(Duplicate, "n2")));
}

#[test]
fn large_meshes_are_judged() {
    let mut views = mesh(30, 667);
    let mut watch = MeshWatch::new(SINCE);
    for what in ["first round", "second round"] {
        let round = look(&mut watch, &views);
        assert_eq!(round.findings, [], "{what}");
    }
    let rest = rows(&mut views, 1).split_off(20_000);
    *rows(&mut views, 1) = rest;
    look(&mut watch, &views);
    let round = look(&mut watch, &views);
    assert!(!round.findings.is_empty());
}
