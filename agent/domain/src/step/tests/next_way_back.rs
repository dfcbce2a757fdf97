//! A way back whose build cannot be used: the next one is tried before a person is needed.

use super::{
    Bench, Crash, Done, Failed, On, activate, check, learn, prepare, record, release, revert,
    revocation, shown,
};
use crate::generation::Fallback;
use crate::phase::Phase;

/// Generations 1 to `committed` run the releases of these numbers, committed; on the way back from the
/// next one, with the pointing to the last of them awaited.
fn going_back(committed: u64) -> Bench {
    let mut bench = Bench::new();
    for number in 1..=committed {
        let dones = (0..7).map(|_| Done);
        bench = bench.after([On(learn(record(number, number)))].into_iter().chain(dones));
        assert_eq!(shown(&bench.node), format!("steady {number}"));
    }
    let next = committed + 1;
    let events = [On(prepare(next, next)), On(activate(next, next))];
    let bench = bench.after(events.into_iter().chain((0..5).map(|_| Done)));
    let bench = bench.after([On(revert(next)), Done]);
    assert_eq!(shown(&bench.node), format!("reverting {next} point"));
    bench
}

fn leads_to(bench: &Bench) -> Option<u64> {
    match &bench.node.phase {
        Phase::Reverting(revert) => match revert.to {
            Some(Fallback::Generation(number)) => Some(number),
            Some(Fallback::Nothing) | None => None,
        },
        Phase::Steady { .. }
        | Phase::Prepared { .. }
        | Phase::Switching(_)
        | Phase::Probation(_)
        | Phase::Stuck { .. } => None,
    }
}

fn thrice(bench: Bench) -> Bench {
    bench.after([Failed, Failed, Failed])
}

#[test]
fn the_next_way_back_is_tried_before_a_person_is_needed() {
    let bench = thrice(going_back(2));
    assert_eq!(shown(&bench.node), "reverting 3 point");
    assert_eq!(leads_to(&bench), Some(1));
    assert!(bench.told.contains(&"next_way_back"), "{:?}", bench.told);
    // It goes on with it after a crash, and then to what is ordered, which may be had from a peer.
    let bench = check(
        bench,
        [
            (Crash { host: false }, "reverting 3 point"),
            (Done, "reverting 3 start"),
            (Done, "reverting 3 check"),
            (Done, "switching 4 fetch"),
        ],
    );
    assert_eq!(
        bench.node.history.get(4).map(|g| &g.release),
        Some(&release(2))
    );
}

#[test]
fn the_tries_have_an_end() {
    // Three ways back, however many there are.
    let bench = thrice(thrice(going_back(4)));
    assert_eq!(leads_to(&bench), Some(2));
    let bench = thrice(bench);
    assert_eq!(shown(&bench.node), "stuck stop");
    // Only one, and nothing else to try.
    assert_eq!(shown(&thrice(going_back(1)).node), "stuck stop");
}

#[test]
fn what_is_no_way_back_is_not_tried() {
    let stuck_after = |spoil: &dyn Fn(&mut Bench)| {
        let mut bench = going_back(2);
        spoil(&mut bench);
        shown(&thrice(bench).node)
    };
    let of = |bench: &mut Bench, number, changes: bool| {
        let generation = bench.node.history.get_mut(number);
        generation.expect("a generation").changes_persistence = changes;
    };
    assert_eq!(stuck_after(&|_| ()), "reverting 3 point");
    // Revoked.
    assert_eq!(
        stuck_after(&|bench| drop(bench.take(On(revocation(1))))),
        "stuck stop"
    );
    // Never committed.
    let uncommit = |bench: &mut Bench| {
        bench
            .node
            .history
            .get_mut(1)
            .expect("a generation")
            .committed = None;
    };
    assert_eq!(stuck_after(&uncommit), "stuck stop");
    // What lies before a change of the persistence format cannot read what came after it.
    assert_eq!(stuck_after(&|bench| of(bench, 2, true)), "stuck stop");
    assert_eq!(
        stuck_after(&|bench| of(bench, 1, true)),
        "reverting 3 point"
    );
    // What is left, or the same build again.
    for same in [2, 3] {
        let spoil = |bench: &mut Bench| {
            bench.node.history.get_mut(1).expect("a generation").release = release(same);
        };
        assert_eq!(stuck_after(&spoil), "stuck stop");
    }
}

#[test]
fn a_way_back_that_does_not_come_up_is_no_damaged_build() {
    let bench = check(going_back(2), [(Done, "reverting 3 start")]);
    assert_eq!(shown(&thrice(bench).node), "stuck stop");
}
