//! Who votes, what is forced or lifted, and an agent that lost its memory (rules 13 to 16).

use super::*;
use crate::node::Refusal;
use crate::register::merge_revocations;
use crate::starts::{Start, Starts};

fn change(counter: u64, voters: &[&str]) -> Record {
    Record {
        kind: RecordKind::Voters,
        voters: voters.iter().map(|voter| name(voter)).collect(),
        previous: Some(["a", "b", "c"].map(name).into()),
        ..record(counter, 1)
    }
}

fn forced(counter: u64, version: u64) -> Record {
    Record {
        kind: RecordKind::Rollback,
        forced: true,
        ..record(counter, version)
    }
}

/// Node `a` runs version 1, decided in epoch 1.
fn tell(node: &mut Node, event: Event) -> Result<Vec<Action>, Refusal> {
    tell_at(node, event, 1_000)
}

fn tell_at(node: &mut Node, event: Event, at_ms: u64) -> Result<Vec<Action>, Refusal> {
    let context = Context {
        name: name("a"),
        voters: ["a", "b", "c"].map(name).into(),
        ask_limit_ms: 5_000,
        policy: Default::default(),
    };
    let now = Now {
        boot: BootId("boot 1".into()),
        since_boot_ms: at_ms,
        wall_ms: 0,
    };
    let step = step(&context, node, event, &now)?;
    *node = step.node;
    Ok(step.actions)
}

fn word(node: &mut Node, event: Event) -> &'static str {
    tell(node, event).map_or_else(|refusal| refusal.word(), |_| "ok")
}

#[test]
fn rule_15_a_change_of_voters_needs_both_majorities_and_changes_nothing_else() {
    let mut node = steady().node;
    let moved = Record {
        release: Some(release(2)),
        ..change(2, &["c", "d", "e"])
    };
    assert_eq!(word(&mut node, vote(moved)), "changes_more");
    let hidden = Record {
        voters: ["c", "d", "e"].map(name).into(),
        ..record(2, 1)
    };
    assert_eq!(word(&mut node, vote(hidden)), "other_voters");
    let elsewhere = Record {
        previous: Some(["a", "b"].map(name).into()),
        ..change(2, &["c", "d", "e"])
    };
    assert_eq!(word(&mut node, vote(elsewhere)), "other_voters");
    let plain = Record {
        previous: Some(["a", "b", "c"].map(name).into()),
        ..record(2, 1)
    };
    assert_eq!(word(&mut node, vote(plain)), "changes_more");
    let new = change(2, &["c", "d", "e"]);
    assert_eq!(word(&mut node, vote(new.clone())), "ok");
    // A majority of one set alone decides nothing; an outsider counts for nothing.
    for voter in ["b", "d", "x"] {
        assert_eq!(word(&mut node, hear(voter, new.clone())), "ok");
        assert_eq!(node.register.decided_epoch(), epoch(1), "after {voter}");
    }
    assert_eq!(word(&mut node, hear("e", new.clone())), "ok");
    assert_eq!(node.register.decided, Some(new.clone()));
    // From now on the others decide, and the same change may be proposed again.
    assert_eq!(word(&mut node, vote(record(3, 1))), "other_voters");
    let again = Record {
        epoch: epoch(3),
        ..new
    };
    assert_eq!(word(&mut node, vote(again)), "ok");
}

#[test]
fn rule_13_what_is_forced_acts_at_once_and_never_says_who_votes() {
    let mut node = steady().node;
    let new = change(2, &["c", "d", "e"]);
    assert_eq!(word(&mut node, vote(new.clone())), "ok");
    let force = |record| Event::Force(Box::new(record));
    assert_eq!(word(&mut node, force(forced(2, 4))), "epoch_behind");
    assert_eq!(word(&mut node, force(record(9, 4))), "unknown");
    assert_eq!(word(&mut node, vote(forced(9, 4))), "forced");
    assert_eq!(word(&mut node, force(forced(9, 4))), "ok");
    assert_eq!(node.register.decided_epoch(), epoch(9));
    assert_eq!(node.register.promised, epoch(9));
    // It is still known who may vote: the change is not forgotten, and what is heard of it counts.
    assert!(node.register.votes.contains_key(&epoch(2)));
    let genesis: BTreeSet<NodeName> = ["a", "b", "c"].map(name).into();
    assert_eq!(node.register.voters(&genesis), &genesis);
    assert_eq!(node.register.electorates(&genesis).len(), 2);
    for voter in ["b", "d", "e"] {
        assert_eq!(word(&mut node, hear(voter, new.clone())), "ok");
    }
    assert_eq!(node.register.voters(&genesis), &new.voters);
    assert_eq!(node.register.decided_epoch(), epoch(9));
    assert_eq!(node.register.view(&genesis).elected(), Some(&new));
}

#[test]
fn rule_13_what_is_forced_is_never_committed() {
    let mut bench = steady();
    bench.take(On(Event::Force(Box::new(forced(9, 2)))));
    for _ in 0..10 {
        bench.take(Done);
    }
    let running = bench.node.phase.running().expect("it runs");
    let generation = bench.node.history.get(running).expect("it is known");
    assert_eq!(generation.release, release(2));
    assert_eq!(
        (generation.committed, generation.forced),
        (None, Some(epoch(9)))
    );
    assert!(!generation.known_good && bench.node.bake.is_none());
    // Votes for the same release commit it.
    bench.take(On(learn(record(10, 2))));
    let generation = bench.node.history.get(running).expect("it is known");
    assert_eq!(generation.committed, Some(epoch(10)));
}

#[test]
fn rule_14_only_votes_lift_a_revocation() {
    let digest = release(2).build.digest;
    let lifting = |counter, forced| Record {
        kind: RecordKind::Trust,
        forced,
        lifts: [(digest, "mended".to_owned())].into(),
        ..record(counter, 1)
    };
    let mut node = steady().node;
    assert_eq!(word(&mut node, learn(revoking(2, 1, 2))), "ok");
    assert_eq!(word(&mut node, vote(record(3, 2))), "build_revoked");
    assert_eq!(word(&mut node, learn(lifting(4, true))), "ok");
    assert!(node.register.revoked(&digest).is_some());
    assert_eq!(word(&mut node, vote(lifting(5, false))), "ok");
    assert_eq!(word(&mut node, hear("b", lifting(5, false))), "ok");
    assert!(node.register.revoked(&digest).is_none());
    // Revoked wins ties, whoever comes first.
    let mut known = node.register.revocations.clone();
    let mut other = known.clone();
    other.get_mut(&digest).expect("it is known").lifted = false;
    assert!(
        merge_revocations(&mut known, &other)
            && !merge_revocations(&mut other, &node.register.revocations)
    );
    let rollout = Record {
        lifts: [(digest, "mended".to_owned())].into(),
        ..record(6, 1)
    };
    assert_eq!(word(&mut node, vote(rollout)), "changes_more");
}

#[test]
fn rule_9_no_majority_of_one_set_says_no_while_the_voters_change() {
    let answers = [("b", Answer::No), ("c", Answer::No)];
    let ended = |mut bench: Bench| {
        bench.take(After(LEASE_MS));
        for (voter, answer) in answers {
            bench.take(On(answered(voter, 2, answer)));
        }
        bench.node.phase.word()
    };
    assert_eq!(ended(probation()), "reverting");
    let mut changing = probation();
    // Heard of before the rollout began: it may be decided, and then others decide about the rollout.
    let mut open = change(2, &["d", "e", "f"]);
    open.epoch.nonce = 1;
    changing.take(On(hear("b", open)));
    assert_eq!(ended(changing), "probation");
}

fn restored() -> Node {
    let mut node = steady().node;
    node.starts = Starts::default();
    let started = Event::Started {
        node_runs: true,
        wait_ms: 0,
        nonce: 5,
    };
    tell(&mut node, started).expect("it starts");
    node
}

fn recalled(peer: &str, start: Option<(u64, u64)>) -> Event {
    Event::Recalled {
        peer: name(peer),
        remembered: start.map(|(number, nonce)| Start { number, nonce }),
    }
}

#[test]
fn rule_16_a_start_is_proven_by_a_majority_before_anything_is_promised() {
    let mut node = restored();
    let resume = prepare_as(4, 0, ProposalKind::Resume);
    assert_eq!(word(&mut node, resume.clone()), "starting");
    assert_eq!(word(&mut node, vote(record(4, 1))), "starting");
    assert_eq!(word(&mut node, Event::Ask(epoch(4))), "forgotten");
    assert_eq!(word(&mut node, Event::Fence(epoch(4))), "starting");
    assert_eq!(word(&mut node, recalled("x", None)), "ok");
    assert_eq!(
        word(&mut node, resume.clone()),
        "starting",
        "x does not vote"
    );
    assert_eq!(word(&mut node, recalled("b", None)), "ok");
    assert_eq!(word(&mut node, resume), "ok");
}

#[test]
fn rule_16_lost_memory_is_copied_from_the_others_before_anything_is_promised() {
    let mut node = restored();
    let actions = tell(&mut node, recalled("b", Some((3, 9)))).expect("it is told");
    let Some(Action::Recover(fresh, others)) = actions.last().cloned() else {
        panic!("{actions:?}");
    };
    assert_eq!(others, ["b", "c"].map(name).into());
    let resume = |counter| prepare_as(counter, 0, ProposalKind::Resume);
    assert_eq!(word(&mut node, recalled("c", None)), "ok");
    assert_eq!(word(&mut node, resume(4)), "memory_lost");
    assert_eq!(word(&mut node, hear("b", record(4, 2))), "ok");
    for (peer, then) in [
        ("b", "memory_lost"),
        ("b", "memory_lost"),
        ("c", "epoch_behind"),
    ] {
        let event = fenced(peer, fresh, fresh);
        assert_eq!(word(&mut node, event), "ok");
        assert_eq!(word(&mut node, resume(5)), then);
    }
    // It shows what it may have voted for, and denies nothing that is older than its recovery.
    let view = node.register.view(&BTreeSet::new());
    assert_eq!(view.heard[0].record, record(4, 2));
    assert_eq!(word(&mut node, Event::Ask(epoch(5))), "forgotten");
    assert_eq!(word(&mut node, Event::Ask(fresh.next(1))), "ok");
    assert_eq!(word(&mut node, resume(fresh.counter + 1)), "ok");
    // Who remembers what was lost finds it told.
    assert_eq!(word(&mut node, recalled("b", Some((3, 9)))), "ok");
    assert!(node.starts.is_sound());
}

/// Where nobody can be asked but the other one of two, who tells all that they decided together.
#[test]
fn rule_16_lost_memory_comes_back_while_a_change_to_two_voters_is_undecided() {
    let recovers = |voters: &[&str], promising: &[&str]| {
        let mut node = restored();
        let actions = tell(&mut node, recalled("b", Some((3, 9)))).expect("it is told");
        let Some(Action::Recover(fresh, _)) = actions.last().cloned() else {
            panic!("{actions:?}");
        };
        for voter in ["b", "c"] {
            assert_eq!(word(&mut node, hear(voter, change(2, voters))), "ok");
        }
        for peer in promising {
            assert_eq!(word(&mut node, fenced(peer, fresh, fresh)), "ok");
        }
        // It shows the change as one that it may have voted for: a client finishes it first.
        let shown = node.register.view(&BTreeSet::new());
        assert_eq!(shown.heard[0].record, change(2, voters));
        node.starts.is_sound()
    };
    assert!(recovers(&["a", "c"], &["b", "c"]));
    assert!(!recovers(&["a", "c"], &["c"]), "not enough of those before");
    assert!(!recovers(&["a", "d"], &["b", "c"]), "not the other one");
    // What it decided alone, nobody else can tell.
    assert!(!recovers(&["a"], &["b", "c"]));
    assert!(!recovers(&["a", "c", "d"], &["b", "c"]));
}

fn fenced(peer: &str, epoch: Epoch, promised: Epoch) -> Event {
    let peer = name(peer);
    Event::Fenced {
        peer,
        epoch,
        promised,
    }
}

/// What is asked of whom at each second from `begin_ms` on, where `others` are heard of meanwhile.
fn asked(
    node: &mut Node,
    begin_ms: u64,
    seconds: u64,
    others: &[&str],
) -> Vec<(u64, Epoch, usize)> {
    let mut asked = Vec::new();
    for second in 0..seconds {
        let at_ms = begin_ms + second * 1000;
        let heard = others.iter().map(|peer| recalled(peer, None));
        for event in heard.chain([Event::Tick]) {
            for action in tell_at(node, event, at_ms).expect("it is told") {
                if let Action::Recover(epoch, others) = action {
                    asked.push((second, epoch, others.len()));
                }
            }
        }
    }
    asked
}

#[test]
fn rule_16_who_recovers_takes_the_mesh_from_nobody_again_and_again() {
    let mut node = restored();
    let actions = tell(&mut node, recalled("b", Some((3, 9)))).expect("it is told");
    let Some(Action::Recover(fresh, _)) = actions.last().cloned() else {
        panic!("{actions:?}");
    };
    // Nobody answers: one epoch in a whole day, and fewer and fewer questions.
    let day = asked(&mut node, 1_000, 24 * 3600, &[]);
    assert!(day.iter().all(|(_, epoch, _)| *epoch == fresh), "{day:?}");
    assert!((280..=320).contains(&day.len()), "{} questions", day.len());
    let gaps = day.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert_eq!(gaps.max(), Some(300));
    // Who is heard of is asked at once, and once it has promised no more.
    let begin_ms = 24 * 3_600_000;
    assert_eq!(asked(&mut node, begin_ms, 3, &["b"]), [(0, fresh, 2)]);
    let told = tell_at(&mut node, fenced("b", fresh, fresh), begin_ms + 3_000);
    assert_eq!(told, Ok(vec![]));
    assert_eq!(asked(&mut node, begin_ms + 60_000, 200, &["b"]), []);
    assert_eq!(
        asked(&mut node, begin_ms + 260_000, 1, &["c"]),
        [(0, fresh, 1)]
    );
    // Another command has taken c: this agent may have voted for it, so that takes a fresh epoch.
    let beyond = fresh.next(7);
    let told = tell_at(&mut node, fenced("c", fresh, beyond), begin_ms + 261_000);
    assert_eq!(told, Ok(vec![]));
    let again = asked(&mut node, begin_ms + 270_000, 1, &["c"]);
    let [(0, newer, 2)] = again[..] else {
        panic!("{again:?}");
    };
    assert!(newer.counter > beyond.counter && newer.counter <= beyond.counter + (1 << 10));
    // What was promised before counts for nothing now.
    let words = [("b", fresh), ("c", newer), ("b", newer)];
    let sound = words.map(|(peer, epoch)| {
        tell_at(&mut node, fenced(peer, epoch, epoch), begin_ms + 271_000).expect("it is told");
        node.starts.is_sound()
    });
    assert_eq!(sound, [false, false, true]);
}

#[test]
fn rule_16_what_contradicts_a_peers_starts_is_remembered() {
    let mut node = steady().node;
    let starts = |starts: &[(u64, u64)]| Event::PeerStarts {
        peer: name("b"),
        starts: starts
            .iter()
            .map(|(number, nonce)| Start {
                number: *number,
                nonce: *nonce,
            })
            .collect(),
    };
    let remembered = |node: &Node| {
        node.peers
            .get(&name("b"))
            .map(|start| (start.number, start.nonce))
    };
    for (told, expected) in [
        (starts(&[(1, 7), (2, 8)]), (2, 8)),
        (starts(&[(1, 7), (2, 8), (3, 9)]), (3, 9)),
        (starts(&[(1, 7), (2, 4)]), (3, 9)),
        (starts(&[(1, 7), (3, 9), (2, 4), (4, 4)]), (4, 4)),
    ] {
        assert_eq!(word(&mut node, told), "ok");
        assert_eq!(remembered(&node), Some(expected));
    }
}
