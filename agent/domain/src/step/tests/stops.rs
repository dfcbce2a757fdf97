//! What a person stops, and lets go.

use super::{After, At, Bench, On, check, prepare, prepare_as, probation, shown, steady};
use crate::node::{Event, ProposalKind};
use crate::stops::StopsChange;

fn change(change: StopsChange) -> At {
    On(Event::ChangeStops {
        change,
        reason: "the till is sold".into(),
        by: "ana".into(),
    })
}

#[test]
fn a_freeze_ends_by_the_clock_or_by_a_person() {
    let frozen = |lasts_ms| change(StopsChange::Frozen(Some(lasts_ms)));
    let bench = check(
        steady(),
        [
            (frozen(5_000), "steady 1"),
            (On(prepare(2, 2)), "refused frozen"),
            (After(4_999), "steady 1"),
            (On(prepare(3, 2)), "refused frozen"),
        ],
    );
    let back = On(prepare_as(2, 0, ProposalKind::Rollback));
    check(bench.clone(), [(back, "steady 1")]);
    let lease_over = bench.clone().after([After(60_000)]);
    check(lease_over, [(On(prepare(3, 2)), "prepared")]);
    let freeze = bench.node.stops.frozen.clone().expect("it is kept");
    assert_eq!(freeze.by, "ana");
    let until = freeze.until_wall_ms;
    assert!(bench.node.stops.freeze_at(until - 1).is_some());
    assert!(bench.node.stops.freeze_at(until).is_none());
    let thawed = bench.after([change(StopsChange::Frozen(None)), After(60_000)]);
    assert_eq!((thawed.told("frozen"), thawed.told("thawed")), (1, 1));
    check(thawed, [(On(prepare(3, 2)), "prepared")]);
}

#[test]
fn how_long_a_freeze_lasts_is_said_in_whole_seconds() {
    let mut bench = steady();
    bench.take(change(StopsChange::Frozen(Some(4_100))));
    let event = prepare(2, 2);
    let refusal = bench.refusal(event).expect("it is frozen").to_string();
    assert!(refusal.contains("5 s"), "{refusal}");
    assert!(refusal.contains("the till is sold"), "{refusal}");
}

#[test]
fn who_stopped_it_first_is_remembered_and_told_once() {
    let drained = |by: &str, drained| {
        On(Event::ChangeStops {
            change: StopsChange::Drained(drained),
            reason: String::new(),
            by: by.into(),
        })
    };
    let bench = steady().after([drained("ana", true), drained("bob", true)]);
    assert_eq!(bench.told("drained"), 1);
    let by = bench.node.stops.drained.as_ref().map(|stop| &*stop.by);
    assert_eq!(by, Some("ana"));
    let bench = bench.after([drained("bob", false), drained("bob", false)]);
    assert_eq!(
        (bench.told("undrained"), &bench.node.stops.drained),
        (1, &None)
    );
}

#[test]
fn stops_outlast_a_probation_and_a_restart() {
    let quarantined = change(StopsChange::Quarantined(true));
    let bench: Bench = probation().after([quarantined, At::Crash { host: false }]);
    assert_eq!(shown(&bench.node), "probation 2");
    assert!(bench.node.stops.quarantined.is_some());
}
