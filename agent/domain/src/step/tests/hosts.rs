//! A host that boots, and a service that is taken over or let go.

use super::*;

/// The host has started, the node does not run, and the voters are waited for.
fn booted() -> At {
    On(Event::Started {
        node_runs: false,
        wait_ms: 60_000,
        nonce: 1,
    })
}

#[test]
fn rule_17_a_host_that_has_just_started_hears_the_voters_first() {
    check(
        steady(),
        [
            (booted(), "steady 1"),
            (On(Event::Exited { how: "gone".into() }), "steady 1"),
            (After(59_999), "steady 1"),
            (After(1), "steady 1 start"),
        ],
    );
    check(
        steady(),
        [
            (booted(), "steady 1"),
            (On(Event::Met), "steady 1 start"),
            (Done, "steady 1"),
            (On(Event::Met), "steady 1"),
        ],
    );
}

#[test]
fn rule_17_what_was_decided_meanwhile_is_what_starts() {
    check(
        steady(),
        [
            (booted(), "steady 1"),
            (On(learn(record(2, 2))), "switching 2 fetch"),
            (On(Event::Met), "switching 2 fetch"),
        ],
    );
    check(
        steady(),
        [
            (booted(), "steady 1"),
            (On(revocation(1)), "steady 1"),
            (On(Event::Met), "steady 1"),
            (After(120_000), "steady 1"),
        ],
    );
}

/// The same node after a power cut.
fn cut(mut node: Bench) -> Bench {
    node.boot += 1;
    node
}

#[test]
fn rule_17_a_host_that_went_down_on_its_way_hears_the_voters_first() {
    for way in [
        switching(),
        switching().after([Done, Done, Done]),
        reverting(),
    ] {
        let waits = shown(&cut(way.clone()).after([booted()]).node);
        assert!(
            !waits.ends_with("start") && !waits.ends_with("stop"),
            "{waits}"
        );
        // What it fell back to was left by a later record.
        let bench = cut(way.clone()).after([booted(), On(learn(record(3, 3))), On(Event::Met)]);
        let bench = bench.after((0..6).map(|_| Done));
        let started = shown(&bench.node);
        assert!(started.starts_with("switching 3"), "{started}");
        // Nobody can be asked: what it fell back to starts in the end.
        let bench = cut(way).after([booted(), After(60_000)]);
        let bench = bench.after((0..5).map(|_| Done));
        assert_eq!(shown(&bench.node), "steady 1");
    }
}

#[test]
fn rule_17_a_probation_that_a_power_cut_ended_goes_back_only_once_the_voters_are_heard() {
    check(
        cut(probation()),
        [
            (booted(), "probation 2, asks"),
            (On(Event::Exited { how: "gone".into() }), "probation 2"),
            (After(5_000), "reverting 2 stop"),
            (Done, "reverting 2 point"),
            (Done, "reverting 2"),
            (After(54_999), "reverting 2"),
            (On(revocation(1)), "reverting 2"),
            (On(learn(record(3, 3))), "reverting 2"),
            // There is nothing left to go back to; but what was decided is there.
            (On(Event::Met), "reverting 2 stop"),
            (Done, "stuck stop"),
            (Done, "switching 3 fetch"),
        ],
    );
    check(
        cut(probation()),
        [
            (booted(), "probation 2, asks"),
            (After(5_000), "reverting 2 stop"),
            (Done, "reverting 2 point"),
            (Done, "reverting 2"),
            (After(55_000), "reverting 2 start"),
            (Done, "reverting 2 check"),
            (Done, "steady 1"),
            (After(60_000), "steady 1"),
        ],
    );
}

#[test]
fn rule_17_what_is_decided_is_made_ready_and_starts_once_the_voters_are_heard() {
    check(
        cut(steady()),
        [
            (booted(), "steady 1"),
            (On(learn(record(2, 2))), "switching 2 fetch"),
            (Done, "switching 2 drain"),
            (Done, "switching 2 stop"),
            (Done, "switching 2 snapshot"),
            (Done, "switching 2 point"),
            (Done, "switching 2"),
            (On(learn(record(3, 1))), "switching 2"),
            (On(Event::Met), "reverting 2 stop"),
            (Done, "reverting 2 point"),
            (Done, "reverting 2 start"),
        ],
    );
}

fn adopt(version: u64) -> Event {
    Event::Adopt {
        release: Box::new(release(version)),
        by: "ana".into(),
        may_switch: false,
    }
}

#[test]
fn what_runs_is_taken_over_once_and_can_be_gone_back_to() {
    let bench = check(
        Bench::new(),
        [
            (On(adopt(1)), "steady 1"),
            (On(adopt(1)), "steady 1"),
            (On(adopt(2)), "refused unknown"),
            (On(prepare(2, 2)), "prepared"),
            (On(adopt(1)), "refused locked"),
            (On(activate(2, 2)), "switching 2 drain"),
            (Done, "switching 2 stop"),
            (Done, "switching 2 snapshot"),
            (Done, "switching 2 point"),
            (Failed, "reverting 2 stop"),
        ],
    );
    let adopted = bench.node.history.get(1).expect("it was taken over");
    assert!(adopted.known_good && adopted.committed.is_some());
    check(
        bench,
        [
            (Done, "reverting 2 point"),
            (Done, "reverting 2 start"),
            (Done, "reverting 2 check"),
            (Done, "steady 1"),
        ],
    );
}

#[test]
fn a_node_that_the_mesh_would_switch_at_once_is_not_taken_over() {
    let mut bench = Bench::new();
    bench.node.register.decided = Some(record(1, 1));
    check(bench, [(On(adopt(2)), "refused unknown")]);
}

#[test]
fn a_replaced_host_is_taken_over_and_switches_where_that_is_said() {
    let may_switch = || Event::Adopt {
        release: Box::new(release(2)),
        by: "ana".into(),
        may_switch: true,
    };
    let bench = check(
        Bench::new(),
        [
            // The unit is not the agent's yet.
            (On(learn(record(1, 1))), "switching 1 fetch"),
            (Failed, "steady 0"),
            (On(adopt(2)), "refused unknown"),
            // Nothing that failed before holds it back.
            (On(may_switch()), "switching 3 fetch"),
            (Done, "switching 3 drain"),
            (Done, "switching 3 stop"),
            (Done, "switching 3 snapshot"),
            (Done, "switching 3 point"),
            (Done, "switching 3 start"),
            (Done, "switching 3 check"),
            (Done, "steady 3"),
        ],
    );
    let adopted = bench.node.history.get(2).expect("it was taken over");
    assert_eq!(adopted.release, release(2));
}

#[test]
fn a_node_that_was_let_go_is_left_alone() {
    let unadopt = || On(Event::Unadopt { by: "ana".into() });
    let bench = check(
        steady(),
        [
            (unadopt(), "steady 0"),
            (unadopt(), "steady 0"),
            (After(120_000), "steady 0"),
            (On(learn(record(1, 1))), "steady 0"),
            (
                On(Event::Started {
                    node_runs: true,
                    wait_ms: 0,
                    nonce: 1,
                }),
                "steady 0",
            ),
            // What it runs now is taken over again.
            (On(adopt(1)), "steady 2"),
        ],
    );
    assert_eq!(bench.node.history.iter().count(), 2);
    check(probation(), [(unadopt(), "refused locked")]);
}
