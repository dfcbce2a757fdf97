//! Triggers after the commit: starts before the way back, one way back, and then a hold.

use super::{
    After, Bench, Crash, Done, Failed, On, check, epoch, hear, learn, prepare, probation, record,
    release, revocation, shown, steady, vote,
};
use crate::node::{Event, RolloutEntry};
use crate::plan::{Plan, Timing};
use crate::register::{Record, RecordKind};
use crate::stops::StopsChange;
use crate::trigger::{Decision, Observation, Policy, Reaction, Remediation, Trigger};
use Trigger::{AuthOrConnectivity, DataIntegrity, PersistentUnhealthy, SyncRegression};

pub(super) const BAKE_MS: u64 = 1_000_000;

pub(super) fn found(generation: u64, trigger: Trigger) -> Event {
    let observation = Observation {
        unhealthy: None,
        found: [(trigger, "it is so".to_owned())].into(),
    };
    Event::Observed {
        generation,
        observation,
    }
}

fn unhealthy(generation: u64) -> Event {
    let observation = Observation {
        unhealthy: Some("http: answered 503".into()),
        ..Observation::default()
    };
    Event::Observed {
        generation,
        observation,
    }
}

pub(super) fn well(generation: u64) -> Event {
    let observation = Observation::default();
    Event::Observed {
        generation,
        observation,
    }
}

pub(super) fn policy(restarts: u32) -> Policy {
    Policy {
        remediation: Remediation {
            restarts,
            window_ms: 600_000,
            backoff_ms: 10_000,
        },
        sustain_ms: 5_000,
        ..Policy::default()
    }
}

/// Generation 2 is committed and bakes.
pub(super) fn baking(policy: Policy) -> Bench {
    let mut bench = probation();
    bench.policy = policy;
    bench.node.rollouts.push(RolloutEntry {
        epoch: epoch(2),
        plan: Plan {
            id: "r".into(),
            release: release(2),
            waves: Vec::new(),
            whole_mesh: true,
            timing: Timing {
                bake_ms: BAKE_MS,
                ..Timing::default()
            },
            started_by: "ana".into(),
            reason: "a test".into(),
            accepted: None,
        },
        started_wall_ms: 0,
        outcome: None,
    });
    let bench = bench.after([On(vote(record(2, 2))), On(hear("b", record(2, 2)))]);
    assert_eq!(shown(&bench.node), "steady 2");
    assert!(bench.node.bake.is_some());
    bench
}

fn is_known_good(bench: &Bench, number: u64) -> bool {
    let generation = bench.node.history.get(number);
    generation.expect("it is remembered").known_good
}

#[test]
fn an_unhealthy_node_is_started_anew_before_it_goes_back() {
    let bench = check(
        baking(policy(2)),
        [
            (On(unhealthy(2)), "steady 2 restart"),
            // Nothing else while the start is under way, and no second one.
            (On(unhealthy(2)), "steady 2 restart"),
            (Done, "steady 2"),
            (On(unhealthy(2)), "steady 2"),
            (After(10_000), "steady 2"),
            (On(unhealthy(2)), "steady 2 restart"),
            (Failed, "steady 2"),
            (After(1_000), "steady 2 start"),
            (Done, "steady 2"),
            (On(unhealthy(2)), "steady 2"),
            // The second pause is twice as long.
            (After(19_000 - 1), "steady 2"),
            (On(unhealthy(2)), "steady 2"),
            (After(1), "steady 2"),
            (On(unhealthy(2)), "reverting 2 drain"),
            // What it cannot do on the way is left out.
            (Failed, "reverting 2 stop"),
            (Done, "reverting 2 point"),
            (Done, "reverting 2 start"),
            (Done, "reverting 2 check"),
            (Done, "steady 1"),
            // The record orders generation 2 again and again: it holds.
            (After(10_000), "steady 1"),
        ],
    );
    let alarm = &bench.node.vigil.alarms[&PersistentUnhealthy];
    assert_eq!(alarm.decision, Decision::RevertNode);
    assert!(bench.node.vigil.rollback.is_none());
    let held = bench.node.held.as_ref().expect("it is held");
    assert_eq!(held.epoch, epoch(2));
    assert!(
        held.cause.starts_with("persistent-unhealthy: "),
        "{}",
        held.cause
    );
}

#[test]
fn starts_are_forgotten_after_their_window() {
    check(
        baking(policy(1)),
        [
            (On(unhealthy(2)), "steady 2 restart"),
            (Done, "steady 2"),
            (On(well(2)), "steady 2"),
            (After(600_000), "steady 2"),
            (On(unhealthy(2)), "steady 2 restart"),
        ],
    );
}

#[test]
fn a_node_that_ends_again_and_again_goes_back() {
    let exited = || {
        On(Event::Exited {
            how: "exit code 3".into(),
        })
    };
    check(
        baking(policy(1)),
        [
            (exited(), "steady 2"),
            (On(unhealthy(2)), "steady 2"),
            (After(1_000), "steady 2 start"),
            (Done, "steady 2"),
            (exited(), "steady 2"),
            (On(unhealthy(2)), "reverting 2 drain"),
        ],
    );
}

#[test]
fn a_start_that_was_interrupted_is_finished() {
    check(
        baking(policy(1)),
        [
            (On(unhealthy(2)), "steady 2 restart"),
            (Crash { host: true }, "steady 2 start"),
        ],
    );
}

#[test]
fn what_is_found_has_to_last_and_damage_does_not_wait() {
    check(
        baking(policy(0)),
        [
            (On(found(2, SyncRegression)), "steady 2"),
            (After(4_000), "steady 2"),
            (On(well(2)), "steady 2"),
            (On(found(2, SyncRegression)), "steady 2"),
            (After(4_000), "steady 2"),
            (On(found(2, SyncRegression)), "steady 2"),
            (After(1_000), "steady 2"),
            (On(found(2, SyncRegression)), "reverting 2 drain"),
        ],
    );
    let bench = check(
        baking(policy(0)),
        [(On(found(2, DataIntegrity)), "reverting 2 drain")],
    );
    let own = bench
        .node
        .vigil
        .rollback
        .expect("it proposes that the mesh goes back");
    assert_eq!((own.leaving, own.since), (release(2), epoch(2)));
}

#[test]
fn what_was_found_about_another_generation_counts_for_nothing() {
    let bench = check(
        baking(policy(0)),
        [
            (On(found(1, DataIntegrity)), "steady 2"),
            (On(unhealthy(1)), "steady 2"),
        ],
    );
    assert!(bench.node.vigil.alarms.is_empty());
    // A bake time is one generation's own.
    let mut other = bench;
    other.node.bake.as_mut().expect("it bakes").generation = 1;
    let other = other.after([On(found(2, DataIntegrity))]);
    let decision = other.node.vigil.alarms[&DataIntegrity].decision;
    assert_eq!(decision, Decision::Alarm);
}

#[test]
fn in_probation_a_trigger_is_a_failed_check() {
    let bench = check(
        probation(),
        [
            (On(unhealthy(2)), "probation 2"),
            (On(found(2, DataIntegrity)), "reverting 2 stop"),
        ],
    );
    assert!(bench.node.register.closed.contains(&epoch(2)));
}

#[test]
fn once_baked_it_is_only_told() {
    let bench = check(
        baking(policy(0)),
        [
            (After(BAKE_MS), "steady 2"),
            (On(found(2, DataIntegrity)), "steady 2"),
        ],
    );
    assert!(is_known_good(&bench, 2));
    let decision = |bench: &Bench, trigger| bench.node.vigil.alarms[&trigger].decision;
    assert_eq!(decision(&bench, DataIntegrity), Decision::Alarm);
    let bench = check(bench, [(On(unhealthy(2)), "steady 2")]);
    assert_eq!(decision(&bench, PersistentUnhealthy), Decision::Alarm);
    let mut bench = check(bench, [(On(well(2)), "steady 2")]);
    assert!(bench.node.vigil.alarms.is_empty());
    bench.policy.baked = Reaction::RevertNode;
    check(bench, [(On(found(2, DataIntegrity)), "reverting 2 drain")]);
}

#[test]
fn it_bakes_clean_or_begins_anew() {
    let mut told = policy(0);
    told.baking.insert(AuthOrConnectivity, Reaction::Alarm);
    let bench = check(
        baking(told),
        [
            (After(BAKE_MS / 2), "steady 2"),
            (On(found(2, AuthOrConnectivity)), "steady 2"),
            (After(BAKE_MS), "steady 2"),
        ],
    );
    assert!(
        !is_known_good(&bench, 2),
        "its bake time ended while something was wrong"
    );
    let bench = check(
        bench,
        [(On(well(2)), "steady 2"), (After(BAKE_MS - 1), "steady 2")],
    );
    assert!(!is_known_good(&bench, 2), "its bake time began anew");
    assert!(is_known_good(&check(bench, [(After(1), "steady 2")]), 2));
}

#[test]
fn nothing_is_done_while_an_effect_is_awaited() {
    check(
        baking(policy(1)),
        [
            (On(unhealthy(2)), "steady 2 restart"),
            (On(found(2, DataIntegrity)), "steady 2 restart"),
            (Done, "steady 2"),
            (On(found(2, DataIntegrity)), "reverting 2 drain"),
        ],
    );
}

#[test]
fn what_was_told_is_told_once_and_does_not_keep_a_start_from_being_tried() {
    let both = || {
        On(Event::Observed {
            generation: 2,
            observation: Observation {
                unhealthy: Some("http: answered 503".into()),
                found: [(DataIntegrity, "it is so".to_owned())].into(),
            },
        })
    };
    let bench = check(
        baking(policy(1)),
        [
            (After(BAKE_MS), "steady 2"),
            (both(), "steady 2"),
            (both(), "steady 2 restart"),
            (Done, "steady 2"),
            (After(10_000), "steady 2"),
            (both(), "steady 2"),
            (both(), "steady 2"),
        ],
    );
    // One of each kind of trigger.
    assert_eq!((bench.told("triggered"), bench.told("remedied")), (2, 1));
    let bench = check(
        bench,
        [(On(unhealthy(2)), "steady 2"), (On(well(2)), "steady 2")],
    );
    assert_eq!(bench.told("trigger_over"), 2);
}

#[test]
fn a_revoked_build_is_not_started_anew() {
    let bench = baking(policy(2)).after([On(revocation(2))]);
    assert_eq!(bench.told("remedied"), 0);
    // Revoked before it was found out: it goes back by the revocation or by the trigger, never by a start.
    let bench = bench.after([On(unhealthy(2))]);
    assert_eq!(bench.told("remedied"), 0);
}

/// Back on generation 1, by a trigger.
pub(super) fn went_back() -> Bench {
    let bench = baking(policy(0)).after([On(found(2, DataIntegrity))]);
    let bench = bench.after((0..5).map(|_| Done));
    assert_eq!(shown(&bench.node), "steady 1");
    bench
}

#[test]
fn where_a_person_is_asked_no_rollout_begins() {
    let mut bench = steady();
    bench.policy.baked = Reaction::Ask;
    check(
        bench,
        [
            (On(found(1, DataIntegrity)), "steady 1"),
            (On(prepare(2, 2)), "refused alarmed"),
            (On(well(1)), "steady 1"),
            (On(prepare(2, 2)), "prepared"),
        ],
    );
    let mut bench = steady();
    bench.policy.baked = Reaction::Ask;
    let thaw = Event::ChangeStops {
        change: StopsChange::Frozen(None),
        reason: "known, and harmless".into(),
        by: "ana".into(),
    };
    let bench = check(
        bench,
        [
            (On(found(1, DataIntegrity)), "steady 1"),
            (On(prepare(2, 2)), "refused alarmed"),
            (On(thaw), "steady 1"),
            (On(found(1, DataIntegrity)), "steady 1"),
            (On(prepare(2, 2)), "prepared"),
        ],
    );
    assert_eq!(bench.told("triggered"), 1);
}

#[test]
fn the_own_proposal_ends_with_the_decision() {
    let tried = |nowhere| {
        On(Event::RollbackTried {
            why: "no majority".into(),
            nowhere,
            jitter_ms: 5,
        })
    };
    let bench = check(went_back(), [(tried(false), "steady 1")]);
    let own = bench.node.vigil.rollback.clone().expect("it tries again");
    assert_eq!(own.tries, 1);
    let left = own.at.at_ms - bench.since_boot_ms;
    assert_eq!(left, 1_000 + 5, "a pause that grows, and its jitter");
    let back = Record {
        kind: RecordKind::Rollback,
        ..record(3, 1)
    };
    let bench = check(
        bench,
        [(On(learn(back)), "steady 1"), (After(1), "steady 1")],
    );
    assert_eq!(bench.node.vigil.rollback, None);
    assert!(bench.node.vigil.alarms.is_empty());
    let bench = check(went_back(), [(tried(true), "steady 1")]);
    assert_eq!(bench.node.vigil.rollback, None);
}

#[test]
fn an_agent_gets_votes_for_the_way_back_only() {
    let back = Record {
        kind: RecordKind::Rollback,
        ..record(3, 1)
    };
    let by_agent = |record: Record| On(Event::VoteBack(Box::new(record)));
    check(
        baking(policy(0)),
        [
            (by_agent(record(3, 1)), "refused not_back"),
            (
                by_agent(Record {
                    release: Some(release(9)),
                    ..back.clone()
                }),
                "refused not_back",
            ),
            (by_agent(back.clone()), "steady 2"),
            (by_agent(back), "steady 2"),
        ],
    );
}
