//! A table: from what runs and what is decided to the reason that is shown.

use crate::build::{BuildRef, Digest};
use crate::generation::Fallback;
use crate::id::NodeName;
use crate::node::{Context, Held, Node, Retry};
use crate::phase::{Phase, Probation};
use crate::register::{Epoch, Record, RecordKind, Revocation};
use crate::release::Release;
use crate::time::{BootId, Now};
use crate::trigger::Policy;
use std::collections::{BTreeMap, BTreeSet};

fn name(text: &str) -> NodeName {
    text.parse().expect("a valid name")
}

fn epoch(counter: u64) -> Epoch {
    Epoch { counter, nonce: 7 }
}

fn now() -> Now {
    Now {
        boot: BootId("one".into()),
        since_boot_ms: 0,
        wall_ms: 0,
    }
}

fn release(version: u64) -> Release {
    let text = format!("cbddc@{version}");
    let digest = Digest::of(text.as_bytes());
    let id = text.parse().expect("a valid build name");
    Release::of_build(BuildRef { id, digest })
}

/// A node that runs version 1, where version `ordered` is decided in epoch 5; 0: nothing is.
fn node(ordered: u64) -> Node {
    let mut node = Node::default();
    let number = node.history.add(release(1), epoch(1), 0, &[]);
    node.phase = Phase::Steady {
        running: Some(number),
    };
    node.register.decided = (ordered > 0).then(|| Record {
        epoch: epoch(5),
        kind: RecordKind::Rollout,
        release: Some(release(ordered)),
        exceptions: BTreeMap::new(),
        voters: ["a", "b", "c"].map(name).into(),
        previous: None,
        forced: false,
        revokes: BTreeMap::new(),
        lifts: BTreeMap::new(),
        restores: BTreeSet::new(),
        proposed_by: "ana".into(),
        reason: "a test".into(),
    });
    node
}

fn revoke(node: &mut Node, version: u64, lifted: bool) {
    let revocation = Revocation {
        epoch: epoch(4),
        lifted,
        reason: "it loses orders".into(),
    };
    let build = release(version).build.digest;
    node.register.revocations.insert(build, revocation);
}

fn hold(node: &mut Node, counter: u64) {
    node.held = Some(Held {
        epoch: epoch(counter),
        cause: "no answer at its port".into(),
    });
}

fn retry(node: &mut Node) {
    node.fetch_retry = Some(Retry {
        at: now().deadline(1000),
        failures: 2,
        cause: "no peer has it".into(),
        under_way: false,
    });
}

/// What is shown has all of these words, in this order; with none of them nothing is shown.
#[track_caller]
fn check(ordered: u64, change: impl FnOnce(&mut Node), words: &[&str]) {
    let mut node = node(ordered);
    change(&mut node);
    let context = Context {
        name: name("a"),
        voters: ["a", "b", "c"].map(name).into(),
        ask_limit_ms: 1000,
        policy: Policy::default(),
    };
    let shown = node.drift(&context).unwrap_or_default();
    assert_eq!(shown.is_empty(), words.is_empty(), "{shown}");
    let mut rest = shown.as_str();
    for word in words {
        let at = rest.find(word);
        let at = at.unwrap_or_else(|| panic!("no `{word}` in its place in `{shown}`"));
        rest = &rest[at + word.len()..];
    }
    if let (Some(first), true) = (words.first(), words.len() > 1) {
        assert!(shown.starts_with(first), "{shown}");
    }
}

#[test]
fn what_runs_as_ordered_does_not_drift() {
    check(0, |_| {}, &[]);
    check(1, |_| {}, &[]);
    // What failed for an epoch that is over does not matter any more, nor what was forgiven.
    check(1, |node| hold(node, 4), &[]);
    check(1, |node| revoke(node, 1, true), &[]);
    check(1, |node| revoke(node, 9, false), &[]);
    // Nobody orders anything of this node.
    check(
        2,
        |node| {
            let record = node.register.decided.as_mut().expect("a record");
            record.release = None;
        },
        &[],
    );
    check(
        2,
        |node| {
            let record = node.register.decided.as_mut().expect("a record");
            record.exceptions.insert(name("a"), release(1));
        },
        &[],
    );
}

#[test]
fn what_failed_is_held_until_a_higher_epoch() {
    check(2, |_| {}, &["pending", "cbddc@2"]);
    check(2, |node| hold(node, 4), &["pending", "cbddc@2"]);
    let held = [
        "held",
        "cbddc@2",
        "not tried again",
        "no answer at its port",
    ];
    check(2, |node| hold(node, 5), &held);
    check(2, |node| hold(node, 6), &held);
    check(
        2,
        retry,
        &["pending", "cbddc@2", "could not be got", "no peer has it"],
    );
    check(
        2,
        |node| {
            retry(node);
            hold(node, 5);
        },
        &held,
    );
}

#[test]
fn an_unlifted_revocation_beats_any_record() {
    let blocked = ["blocked, needs a person", "cbddc@2", "it loses orders"];
    check(2, |node| revoke(node, 2, false), &blocked);
    check(
        2,
        |node| {
            revoke(node, 2, false);
            hold(node, 5);
        },
        &blocked,
    );
    check(2, |node| revoke(node, 2, true), &["pending", "cbddc@2"]);
    let blocked = ["blocked, needs a person", "cbddc@1", "yet it is ordered"];
    check(1, |node| revoke(node, 1, false), &blocked);
    let revoked = ["revoked", "cbddc@1", "no record orders another"];
    check(0, |node| revoke(node, 1, false), &revoked);
    // What must not run and runs all the same is told beside the reason for it.
    let until = [
        "until then it runs what must not run",
        "cbddc@1",
        "it loses orders",
    ];
    for (change, first) in [
        (hold as fn(&mut Node, u64), "held"),
        (|node, _| retry(node), "pending"),
        (|node, _| revoke(node, 2, false), "blocked"),
    ] {
        let both = |node: &mut Node| {
            revoke(node, 1, false);
            change(node, 5);
        };
        check(2, both, &[&[first, "cbddc@2"][..], &until].concat());
    }
}

#[test]
fn probation_and_stuck_say_so() {
    let probation = |counter: u64| {
        move |node: &mut Node| {
            let running = node.phase.running().expect("it runs");
            node.phase = Phase::Probation(Probation {
                running,
                fallback: Fallback::Nothing,
                epoch: epoch(counter),
                deadline: now().deadline(1000),
                clean: false,
                asking: None,
            });
        }
    };
    check(
        2,
        probation(6),
        &["probation", "cbddc@1", "cbddc@2", "is decided"],
    );
    // Superseded: what is decided now is on its way.
    check(2, probation(4), &["pending", "cbddc@2"]);
    let stuck = |counter: u64| {
        move |node: &mut Node| {
            node.phase = Phase::Stuck {
                cause: "the old build does not start either".into(),
                remedy: "look at its log".into(),
                since: epoch(counter),
            };
        }
    };
    let words = [
        "stuck, needs a person",
        "cbddc@2",
        "does not start",
        "look at",
    ];
    check(2, stuck(5), &words);
    // A record that was decided since is tried.
    check(2, stuck(4), &["pending", "cbddc@2"]);
}
