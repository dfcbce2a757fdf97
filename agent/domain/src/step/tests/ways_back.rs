//! The way back after the commit: where it leads, and what holds after it.

use super::triggers::{BAKE_MS, baking, found, policy, well, went_back};
use super::{
    After, Bench, Done, On, activate, check, epoch, hear, learn, name, prepare, record, release,
    revocation, shown, steady, vote,
};
use crate::generation::Generation;
use crate::node::Event;
use crate::register::{Record, RecordKind};
use crate::trigger::{Decision, Reaction, Trigger};
use Trigger::{AuthOrConnectivity, DataIntegrity, SyncRegression};

#[test]
fn a_way_back_is_what_was_committed_and_baked_clean_before_and_is_not_revoked() {
    let spoilt = |spoil: fn(&mut Bench)| {
        let mut bench = baking(policy(0));
        spoil(&mut bench);
        let bench = bench.after([On(found(2, DataIntegrity))]);
        let decision = bench.node.vigil.alarms[&DataIntegrity].decision;
        (shown(&bench.node), decision)
    };
    let stays = ("steady 2".to_owned(), Decision::Nowhere);
    for spoil in [
        (|bench| first_of(bench).known_good = false) as fn(&mut Bench),
        |bench| first_of(bench).committed = None,
        |bench| first_of(bench).reverted = Some("it failed".into()),
        |bench| {
            bench.take(On(revocation(1)));
        },
    ] {
        assert_eq!(spoilt(spoil), stays);
    }
    // What came later is no way back, however good it is.
    let later = spoilt(|bench| {
        first_of(bench).known_good = false;
        let number = bench.node.history.add(release(3), epoch(3), 0, &[]);
        let later = bench.node.history.get_mut(number).expect("it was added");
        (later.committed, later.known_good) = (Some(epoch(3)), true);
    });
    assert_eq!(later, stays);
}

#[test]
fn what_it_went_back_for_stands_until_something_new_is_committed() {
    let bench = went_back();
    assert!(bench.node.bake.is_none(), "nothing bakes any more");
    let bench = check(bench, [(On(well(1)), "steady 1")]);
    assert!(bench.node.vigil.alarms.contains_key(&DataIntegrity));
    let fresh = On(learn(record(3, 3)));
    let bench = check(bench, [(fresh, "switching 3 fetch")]);
    let bench = bench.after((0..7).map(|_| Done));
    assert_eq!(shown(&bench.node), "steady 3");
    assert_eq!(bench.node.vigil.guard, None);
    assert!(bench.node.vigil.alarms.is_empty());
}

#[test]
fn a_rollout_may_bring_again_what_a_node_left() {
    let bench = went_back().after([On(prepare(4, 2)), On(activate(4, 2))]);
    let bench = bench.after((0..5).map(|_| Done));
    assert_eq!(shown(&bench.node), "probation 3");
    let bench = bench.after([On(vote(record(4, 2))), On(hear("b", record(4, 2)))]);
    assert_eq!(shown(&bench.node), "steady 3");
    assert_eq!((bench.node.held, bench.node.vigil.guard), (None, None));
}

#[test]
fn a_node_that_would_spread_damage_is_cut_off_where_policy_says_so() {
    let cut = |quarantine, trigger| {
        let mut bench = went_back();
        bench.policy.baked = Reaction::RevertMesh;
        bench.policy.quarantine = quarantine;
        bench.policy.sustain_ms = 0;
        let bench = bench.after([On(found(1, trigger))]);
        let by = bench.node.stops.quarantined.map(|stop| stop.by);
        (by, bench.told.contains(&"quarantined"))
    };
    let own = (Some("agent".to_owned()), true);
    assert_eq!(cut(true, DataIntegrity), own);
    assert_eq!(cut(true, SyncRegression), own);
    assert_eq!(cut(true, AuthOrConnectivity), (None, false));
    assert_eq!(cut(false, DataIntegrity), (None, false));
}

#[test]
fn a_node_that_went_back_holds() {
    let mut bench = went_back();
    bench.policy.baked = Reaction::RevertMesh;
    let bench = check(bench, [(On(found(1, DataIntegrity)), "steady 1")]);
    assert_eq!(
        bench.node.vigil.alarms[&DataIntegrity].decision,
        Decision::Hold
    );
    // Records about something else do not bring back what it left.
    let voters = ["a", "b"].map(name).into();
    let change = Record {
        kind: RecordKind::Voters,
        previous: Some(["a", "b", "c"].map(name).into()),
        voters,
        ..record(3, 2)
    };
    let bench = check(bench, [(On(learn(change)), "steady 1")]);
    assert_eq!(
        bench.node.held.as_ref().map(|held| held.epoch),
        Some(epoch(3))
    );
    let other = Record {
        exceptions: [(name("c"), release(4))].into(),
        voters: ["a", "b"].map(name).into(),
        ..record(4, 2)
    };
    let bench = check(bench, [(On(learn(other)), "steady 1")]);
    // A person who names it does.
    let meant = Record {
        kind: RecordKind::Rollback,
        voters: ["a", "b"].map(name).into(),
        ..record(5, 2)
    };
    check(bench, [(On(learn(meant)), "switching 3 fetch")]);
}

#[test]
fn what_a_rollback_brought_holds_too() {
    let back = Record {
        kind: RecordKind::Rollback,
        ..record(3, 1)
    };
    let mut bench = baking(policy(0)).after([On(learn(back))]);
    bench.policy.baked = Reaction::RevertNode;
    let bench = bench.after((0..7).map(|_| Done));
    let bench = check(bench, [(On(found(3, DataIntegrity)), "steady 3")]);
    assert_eq!(
        bench.node.vigil.alarms[&DataIntegrity].decision,
        Decision::Hold
    );
}

#[test]
fn the_way_back_never_leads_to_what_was_left() {
    // Restored meanwhile: generation 3 is the same release as generation 2.
    let restore = Event::Restore {
        snapshot: "s".into(),
        by: "ana".into(),
    };
    let mut bench = baking(policy(0)).after([After(BAKE_MS), On(restore)]);
    bench.policy.baked = Reaction::RevertNode;
    let bench = bench.after((0..7).map(|_| Done));
    assert_eq!(shown(&bench.node), "steady 3");
    check(
        bench,
        [
            (On(found(3, DataIntegrity)), "reverting 3 drain"),
            (Done, "reverting 3 stop"),
            (Done, "reverting 3 point"),
            (Done, "reverting 3 start"),
            (Done, "reverting 3 check"),
            (Done, "steady 1"),
        ],
    );
}

#[test]
fn without_a_way_back_it_stays_and_says_so() {
    let mut bench = steady();
    bench.policy.baked = Reaction::RevertNode;
    let bench = check(bench, [(On(found(1, DataIntegrity)), "steady 1")]);
    assert_eq!(
        bench.node.vigil.alarms[&DataIntegrity].decision,
        Decision::Nowhere
    );
    check(bench, [(On(prepare(2, 2)), "prepared")]);
}

fn first_of(bench: &mut Bench) -> &mut Generation {
    bench.node.history.get_mut(1).expect("generation 1")
}
