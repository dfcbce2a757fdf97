//! A node that is stopped for as long as it is quarantined.

use super::{
    After, At, Bench, Crash, Done, Failed, On, activate, check, learn, prepare, prepare_as,
    prepared, probation, record, reverting, revocation, shown, steady, switching,
};
use crate::node::{Event, ProposalKind};
use crate::stops::StopsChange;
use crate::trigger::Observation;

fn quarantine(on: bool) -> At {
    On(Event::ChangeStops {
        change: StopsChange::Quarantined(on),
        reason: "it forks".into(),
        by: "ana".into(),
    })
}

/// The same node, where a quarantine stops it.
fn stopping(mut bench: Bench) -> Bench {
    bench.policy.quarantine_stops = true;
    bench
}

fn halted() -> Bench {
    let bench = stopping(steady()).after([quarantine(true), Done]);
    assert!(bench.node.stops.halted);
    bench
}

fn ended() -> At {
    On(Event::Exited {
        how: "exit code 0".into(),
    })
}

#[test]
fn it_is_stopped_and_started_again_once_it_is_let_go() {
    let bench = check(
        stopping(steady()),
        [
            (quarantine(true), "steady 1 halt"),
            (quarantine(true), "steady 1 halt"),
            (Done, "steady 1"),
            (ended(), "steady 1"),
            (After(600_000), "steady 1"),
            (quarantine(false), "steady 1 start"),
            (Done, "steady 1"),
            (After(600_000), "steady 1"),
        ],
    );
    assert!(!bench.node.stops.halted);
    assert_eq!((bench.told("halt"), bench.told("start")), (1, 2));
    assert_eq!(bench.told("node_ended"), 0, "it was stopped on purpose");
}

#[test]
fn where_its_ports_are_blocked_instead_it_runs_on() {
    check(
        steady(),
        [(quarantine(true), "steady 1"), (After(1), "steady 1")],
    );
}

#[test]
fn let_go_while_it_is_being_stopped_it_is_started_after_that() {
    check(
        stopping(steady()),
        [
            (quarantine(true), "steady 1 halt"),
            (quarantine(false), "steady 1 halt"),
            (Done, "steady 1 start"),
        ],
    );
}

#[test]
fn what_did_not_stop_is_stopped_again_after_a_growing_pause() {
    check(
        stopping(steady()),
        [
            (quarantine(true), "steady 1 halt"),
            (Failed, "steady 1"),
            (After(999), "steady 1"),
            (After(1), "steady 1 halt"),
            (Failed, "steady 1"),
            (After(1_999), "steady 1"),
            (After(1), "steady 1 halt"),
            (Done, "steady 1"),
            (After(600_000), "steady 1"),
        ],
    );
}

#[test]
fn a_start_that_was_due_is_not_made() {
    let crashed = stopping(steady()).after([ended()]);
    check(
        crashed,
        [
            (quarantine(true), "steady 1 halt"),
            (Done, "steady 1"),
            (After(600_000), "steady 1"),
        ],
    );
}

#[test]
fn it_stays_stopped_over_a_start_of_the_agent_and_a_boot() {
    // The agent makes sure of it: systemd may have started the node while it was away.
    for host in [false, true] {
        check(
            halted(),
            [
                (Crash { host }, "steady 1 halt"),
                (Done, "steady 1"),
                (quarantine(false), "steady 1 start"),
            ],
        );
    }
    check(
        stopping(steady()),
        [
            (quarantine(true), "steady 1 halt"),
            (Crash { host: false }, "steady 1 halt"),
        ],
    );
}

#[test]
fn no_rollout_begins_on_it() {
    check(halted(), [(On(prepare(2, 2)), "refused quarantined")]);
    let blocked = steady().after([quarantine(true)]);
    check(blocked, [(On(prepare(2, 2)), "refused quarantined")]);
    // It votes on what is for others.
    check(halted(), [(On(prepare(2, 0)), "steady 1")]);
    check(
        stopping(prepared()),
        [
            (quarantine(true), "prepared halt"),
            (Done, "prepared"),
            (On(activate(2, 2)), "refused quarantined"),
        ],
    );
}

#[test]
fn a_rollback_passes_without_a_start() {
    let bench = check(
        halted(),
        [
            (On(prepare_as(2, 2, ProposalKind::Rollback)), "prepared"),
            (On(learn(record(2, 2))), "switching 2 fetch"),
            (Done, "switching 2 drain"),
            (Done, "switching 2 stop"),
            (Done, "switching 2 snapshot"),
            (Done, "switching 2 point"),
            (Done, "steady 2"),
            (After(600_000), "steady 2"),
            (quarantine(false), "steady 2 start"),
        ],
    );
    assert_eq!(bench.told("start"), 2);
}

#[test]
fn a_rollout_that_was_on_its_way_ends() {
    check(
        stopping(switching()),
        [
            (quarantine(true), "switching 2 drain"),
            (Done, "steady 1 halt"),
        ],
    );
    check(
        stopping(switching()).after([Done]),
        [
            (quarantine(true), "switching 2 stop"),
            (Done, "reverting 2 stop"),
            (Done, "reverting 2 point"),
            (Done, "steady 1 halt"),
            (Done, "steady 1"),
        ],
    );
    let bench = check(
        stopping(probation()),
        [
            (quarantine(true), "reverting 2 stop"),
            (Done, "reverting 2 point"),
            (Done, "steady 1 halt"),
            (Done, "steady 1"),
        ],
    );
    assert_eq!(bench.node.held, None, "nothing failed");
}

#[test]
fn a_way_back_that_had_started_the_node_stops_it_at_its_end() {
    check(
        stopping(reverting()),
        [
            (quarantine(true), "reverting 2 start"),
            (Done, "steady 1 halt"),
        ],
    );
}

#[test]
fn its_health_moves_nothing_while_it_is_stopped() {
    let mut bench = halted();
    let unhealthy = || {
        On(Event::Observed {
            generation: 1,
            observation: Observation {
                unhealthy: Some("it does not run".into()),
                ..Observation::default()
            },
        })
    };
    for _ in 0..10 {
        assert_eq!(bench.take(unhealthy()), "steady 1");
        bench.take(After(120_000));
    }
    assert_eq!(bench.told("remedied") + bench.told("triggered"), 0);
}

#[test]
fn a_revoked_build_is_not_started_when_it_is_let_go() {
    let bench = halted().after([On(revocation(1)), quarantine(false), After(600_000)]);
    assert_eq!(shown(&bench.node), "steady 1");
}
