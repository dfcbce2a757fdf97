//! A host that boots, and a service that is taken over or let go.

use super::*;

/// The host has started, the node does not run, and the voters are waited for.
fn booted() -> At {
    On(Event::Started {
        node_runs: false,
        wait_ms: 60_000,
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

fn adopt(version: u64) -> Event {
    Event::Adopt {
        release: Box::new(release(version)),
        by: "ana".into(),
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
