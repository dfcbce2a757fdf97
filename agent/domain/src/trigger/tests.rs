//! What is decided about a trigger, and what an agent may propose.

use super::{
    Decision, Observation, OwnRollback, Policy, Reaction, Standing, Surroundings, Trigger,
    check_back, decide, proposal,
};
use crate::build::{BuildRef, Digest};
use crate::health::{Check, Judgement, Measurement, Severity, Status};
use crate::id::NodeName;
use crate::mesh::Environment;
use crate::node::Node;
use crate::register::{Epoch, Record, RecordKind};
use crate::release::{Release, SetRef};
use crate::replication::{Finding, FindingKind, Grade};
use crate::rollback::Known;
use crate::time::{BootId, Deadline};
use std::collections::{BTreeMap, BTreeSet};

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

fn release(version: u64) -> Release {
    let text = format!("cbddc@{version}");
    let digest = Digest::of(text.as_bytes());
    let id = text.parse().expect("a build");
    Release::of_build(BuildRef { id, digest })
}

fn epoch(counter: u64) -> Epoch {
    Epoch { counter, nonce: 7 }
}

fn record(counter: u64, version: u64) -> Record {
    Record {
        epoch: epoch(counter),
        kind: RecordKind::Rollout,
        release: Some(release(version)),
        exceptions: BTreeMap::new(),
        voters: ["a", "b", "c"].map(name).into(),
        previous: None,
        forced: false,
        revokes: BTreeMap::new(),
        lifts: BTreeMap::new(),
        restores: BTreeSet::new(),
        proposed_by: "ana".into(),
        reason: "a test".into(),
    }
}

fn finding(kind: FindingKind, grade: Grade) -> Finding {
    Finding {
        kind,
        node: name("a"),
        origin: String::new(),
        cluster: "west".into(),
        grade,
        text: "it is so".into(),
        is_old: false,
        generation: None,
    }
}

#[test]
fn what_was_there_before_the_release_takes_nothing_back() {
    let found = finding(FindingKind::Fork, Grade::Critical);
    assert_eq!(Trigger::of_finding(&found), Some(Trigger::DataIntegrity));
    let old = Finding {
        is_old: true,
        ..found
    };
    assert_eq!(Trigger::of_finding(&old), None);
}

#[test]
fn a_critical_collection_makes_damage_of_whatever_is_found_in_it() {
    use Grade::{Critical, Ordinary, Unranked};
    use Trigger::{AuthOrConnectivity, DataIntegrity, SyncRegression};
    for (kind, grade, expected) in [
        (FindingKind::Fork, Unranked, Some(DataIntegrity)),
        (FindingKind::Fork, Critical, Some(DataIntegrity)),
        (FindingKind::Fork, Ordinary, Some(SyncRegression)),
        (FindingKind::Missed, Unranked, Some(SyncRegression)),
        (FindingKind::Missed, Critical, Some(DataIntegrity)),
        (FindingKind::Missed, Ordinary, Some(SyncRegression)),
        // About no event of a collection.
        (FindingKind::Stalled, Unranked, Some(SyncRegression)),
        (FindingKind::NotJoined, Unranked, Some(AuthOrConnectivity)),
        // A note stays a note.
        (FindingKind::SnapshotSwapped, Critical, None),
    ] {
        let trigger = Trigger::of_finding(&finding(kind, grade));
        assert_eq!(trigger, expected, "{kind} {grade:?}");
    }
    let critical = ["orders".to_owned()];
    assert_eq!(Grade::of(&critical, "orders"), Critical);
    assert_eq!(Grade::of(&critical, "stock"), Ordinary);
    assert_eq!(Grade::of(&critical, ""), Unranked);
    assert_eq!(Grade::of(&[], "orders"), Unranked);
}

#[test]
fn the_port_of_every_cluster_counts() {
    let port = |cluster: &str, status| Measurement {
        check: Check::Cbddc,
        name: format!("cbddc-{cluster}"),
        severity: Severity::Critical,
        status,
        detail: format!("cluster {cluster}: it is so"),
        took_ms: 1,
        figures: Vec::new(),
    };
    let observed = |west| {
        let ports = [port("east", Status::Healthy), port("west", west)];
        let judgement = Judgement {
            status: Status::Healthy,
            reasons: Vec::new(),
        };
        Observation::of(&name("a"), 1, &judgement, &ports, &[], BTreeMap::new()).found
    };
    let refused = observed(Status::Unhealthy);
    let cause = refused.get(&Trigger::AuthOrConnectivity);
    assert_eq!(cause.map(String::as_str), Some("cluster west: it is so"));
    // A peer that is not joined and not required makes it degraded.
    assert_eq!(observed(Status::Degraded), BTreeMap::new());
}

#[test]
fn what_each_trigger_leads_to() {
    use Decision::{Alarm, Ask, EndProbation, Hold, Nowhere, RevertMesh, RevertNode};
    use Standing::{Baked, Baking, Probation};
    use Trigger::{AuthOrConnectivity, DataIntegrity, PersistentUnhealthy, SyncRegression};
    let production = Policy::of(Environment::Production);
    let local = Policy::of(Environment::Local);
    let with = |trigger, reaction| {
        let mut policy = production.clone();
        policy.baking.insert(trigger, reaction);
        policy
    };
    let asks = with(DataIntegrity, Reaction::Ask);
    let tells = with(SyncRegression, Reaction::Alarm);
    let always = Policy {
        baked: Reaction::RevertMesh,
        ..production.clone()
    };
    // Policy, trigger, standing, went back before, has a way back.
    let cases = [
        (
            &production,
            DataIntegrity,
            Probation,
            false,
            true,
            EndProbation,
        ),
        (&asks, DataIntegrity, Probation, true, false, EndProbation),
        (&production, DataIntegrity, Baking, false, true, RevertMesh),
        (&production, SyncRegression, Baking, false, true, RevertMesh),
        (
            &production,
            AuthOrConnectivity,
            Baking,
            false,
            true,
            RevertNode,
        ),
        (
            &production,
            PersistentUnhealthy,
            Baking,
            false,
            true,
            RevertNode,
        ),
        (&local, SyncRegression, Baking, false, true, RevertNode),
        (&production, DataIntegrity, Baking, true, true, Hold),
        (&production, DataIntegrity, Baking, false, false, Nowhere),
        (&asks, DataIntegrity, Baking, false, true, Ask),
        (&asks, DataIntegrity, Baking, true, true, Ask),
        (&tells, SyncRegression, Baking, false, true, Alarm),
        (&production, DataIntegrity, Baked, false, true, Alarm),
        (&always, DataIntegrity, Baked, false, true, RevertMesh),
        (&always, DataIntegrity, Baked, true, true, Hold),
    ];
    for (policy, trigger, standing, went_back, has_way_back, expected) in cases {
        let decision = decide(policy, trigger, standing, went_back, has_way_back);
        assert_eq!(
            decision, expected,
            "{trigger} {standing:?} {went_back} {has_way_back}"
        );
    }
}

#[test]
fn each_finding_sets_off_its_own_trigger() {
    use FindingKind::{
        AuthRefused, ChainGap, ClockAhead, DocumentWithoutEvent, Duplicate, Forgotten, Fork,
        Lagging, Lost, Missed, NoHash, NotJoined, NotPassedOn, PayloadDiffers, SharedId,
        SnapshotSwapped, Stalled, Tampered, UnknownHash,
    };
    let table = [
        (
            Some(Trigger::DataIntegrity),
            &[
                Lost,
                Forgotten,
                Duplicate,
                Fork,
                Tampered,
                ChainGap,
                PayloadDiffers,
            ][..],
        ),
        (
            Some(Trigger::SyncRegression),
            &[Missed, NotPassedOn, Stalled],
        ),
        (
            Some(Trigger::AuthOrConnectivity),
            &[AuthRefused, SharedId, NotJoined],
        ),
        (None, &[Lagging, SnapshotSwapped, NoHash, UnknownHash]),
    ];
    for (trigger, kinds) in table {
        for kind in kinds {
            assert_eq!(Trigger::of(*kind), trigger, "{kind}");
            assert_eq!(kind.is_definite(), trigger.is_some(), "{kind}");
        }
    }
    // These are wrong, and to go back mends neither.
    for kind in [DocumentWithoutEvent, ClockAhead] {
        assert_eq!((Trigger::of(kind), kind.is_definite()), (None, true));
    }
}

#[test]
fn what_holds_where_nothing_is_configured() {
    let policy = Policy::default();
    let remediation = &policy.remediation;
    assert_eq!(
        (
            remediation.restarts,
            remediation.window_ms,
            remediation.backoff_ms
        ),
        (3, 600_000, 30_000)
    );
    let sustained = Trigger::ALL.map(|trigger| policy.sustain_ms(trigger));
    assert_eq!(sustained, [0, 60_000, 60_000, 60_000]);
    assert!(!policy.quarantine);
}

#[test]
fn what_an_observation_is_made_of() {
    let a = name("a");
    let judged = |status, reasons: &[&str]| Judgement {
        status,
        reasons: reasons.iter().map(ToString::to_string).collect(),
    };
    let healthy = judged(Status::Healthy, &[]);
    let finding = |kind, node: &str| Finding {
        kind,
        node: name(node),
        origin: "b".into(),
        text: format!("{node}: {kind}"),
        is_old: false,
        generation: None,
        cluster: String::new(),
        grade: Grade::Unranked,
    };
    let cbddc = |status| Measurement {
        check: Check::Cbddc,
        name: "cbddc".into(),
        severity: Severity::Critical,
        status,
        detail: "b is not joined".into(),
        took_ms: 1,
        figures: Vec::new(),
    };
    let of = |judgement: &Judgement, measured: &[Measurement], found: &[Finding]| {
        Observation::of(&a, 7, judgement, measured, found, BTreeMap::new())
    };
    assert!(of(&healthy, &[], &[]).is_clean());
    // What it found about another node is that node's own matter.
    let others = [finding(FindingKind::Fork, "b")];
    assert!(of(&healthy, &[], &others).is_clean());
    // Nor is what it found while another generation ran.
    for (generation, clean) in [(6, true), (7, false)] {
        let found = [Finding {
            generation: Some(generation),
            ..finding(FindingKind::Fork, "a")
        }];
        assert_eq!(of(&healthy, &[], &found).is_clean(), clean);
    }
    let found = [
        finding(FindingKind::Fork, "a"),
        finding(FindingKind::Tampered, "a"),
        finding(FindingKind::Lagging, "a"),
    ];
    let observed = of(&healthy, &[], &found);
    assert_eq!(
        observed.found,
        [(Trigger::DataIntegrity, "a: fork".to_owned())].into()
    );
    assert!(!observed.is_clean());
    for status in [Status::Healthy, Status::Degraded, Status::Unknown] {
        let judgement = judged(status, &["http: it warms up"]);
        assert!(of(&judgement, &[cbddc(status)], &[]).is_clean(), "{status}");
    }
    let observed = of(
        &judged(Status::Unhealthy, &["http: 503", "tcp: refused"]),
        &[cbddc(Status::Unhealthy)],
        &[],
    );
    assert!(!observed.is_clean());
    assert_eq!(
        observed.unhealthy.as_deref(),
        Some("http: 503; tcp: refused")
    );
    let joined = (Trigger::AuthOrConnectivity, "b is not joined".to_owned());
    assert_eq!(observed.found, [joined].into());
    // Unhealthy alone sets off no trigger at once, and is not clean.
    let only = of(&judged(Status::Unhealthy, &["http: 503"]), &[], &[]);
    assert!(only.found.is_empty() && !only.is_clean());
    // Somebody else's monitoring is heard, and its words first.
    let raised: BTreeMap<_, _> = [(Trigger::DataIntegrity, "seen by us".to_owned())].into();
    let observed = Observation::of(&a, 7, &healthy, &[], &found, raised.clone());
    assert_eq!(observed.found, raised);
}

/// Release 1 was committed and baked clean here, release 2 is decided and runs.
fn voter() -> Node {
    let mut node = Node::default();
    for (counter, good) in [(1, true), (2, false)] {
        let number = node.history.add(release(counter), epoch(counter), 0, &[]);
        let generation = node.history.get_mut(number).expect("it was added");
        (generation.committed, generation.known_good) = (Some(epoch(counter)), good);
    }
    node.register.decided = Some(record(2, 2));
    node
}

fn back() -> Record {
    Record {
        kind: RecordKind::Rollback,
        revokes: [(release(2).build.digest, "sync-regression".to_owned())].into(),
        proposed_by: "node b".into(),
        reason: "sync-regression: till-2 misses events".into(),
        ..record(3, 1)
    }
}

#[test]
fn an_agent_may_propose_nothing_but_the_way_back() {
    let node = voter();
    assert_eq!(check_back(&node, &back()), Ok(()));
    let lifts: BTreeMap<_, _> = [(release(1).build.digest, "fine".to_owned())].into();
    let revoke = |version: u64| [(release(version).build.digest, "no".to_owned())].into();
    let others = [
        Record {
            kind: RecordKind::Rollout,
            ..back()
        },
        Record {
            kind: RecordKind::Voters,
            ..back()
        },
        Record {
            kind: RecordKind::Trust,
            ..back()
        },
        Record {
            forced: true,
            ..back()
        },
        Record {
            previous: Some(BTreeSet::new()),
            ..back()
        },
        Record { lifts, ..back() },
        Record {
            restores: [name("a")].into(),
            ..back()
        },
        Record {
            reason: String::new(),
            ..back()
        },
        // Something new, and what no voter ever saw work.
        Record {
            release: Some(release(3)),
            ..back()
        },
        Record {
            exceptions: [(name("c"), release(3))].into(),
            ..back()
        },
        // A build that nobody is meant to run, and the one that the mesh goes back to.
        Record {
            revokes: revoke(9),
            ..back()
        },
        Record {
            revokes: revoke(1),
            ..back()
        },
    ];
    for record in others {
        assert!(check_back(&node, &record).is_err(), "{record:?}");
    }
    // A build that some of the mesh runs already, and that it goes back to.
    let mut mixed = voter();
    mixed.register.decided = Some(Record {
        exceptions: [(name("c"), release(1))].into(),
        ..record(2, 2)
    });
    let revokes_target = Record {
        revokes: revoke(1),
        ..back()
    };
    assert!(check_back(&mixed, &revokes_target).is_err());
    // What is decided meanwhile may be voted for again.
    let mut again = voter();
    again.register.decided = Some(back());
    assert_eq!(check_back(&again, &back()), Ok(()));
    let mut unproven = voter();
    unproven.history.get_mut(1).expect("release 1").known_good = false;
    assert!(check_back(&unproven, &back()).is_err());
    let mut never = voter();
    never.history.get_mut(1).expect("release 1").committed = None;
    assert!(check_back(&never, &back()).is_err());
}

fn own() -> OwnRollback {
    OwnRollback {
        trigger: Trigger::SyncRegression,
        cause: "till-2 misses events".into(),
        leaving: release(2),
        since: epoch(2),
        tries: 0,
        at: Deadline {
            boot: BootId("b".into()),
            at_ms: 0,
        },
    }
}

#[test]
fn what_an_agent_proposes() {
    let (b, members): (_, BTreeSet<_>) = (name("b"), ["a", "b", "c"].map(name).into());
    let knows = |version: u64| Known {
        release: release(version),
        committed: Some(epoch(version)),
        known_good: version == 1,
    };
    let known: BTreeMap<_, _> = members
        .iter()
        .map(|n| (n.clone(), vec![knows(1), knows(2)]))
        .collect();
    let around = Surroundings {
        name: &b,
        members: &members,
        genesis: &members,
        known: &known,
        highest: epoch(5),
        nonce: 9,
    };
    let node = voter();
    let whole = proposal(&own(), &node.register, &around).expect("a way back");
    assert_eq!(
        whole.epoch,
        Epoch {
            counter: 6,
            nonce: 9
        }
    );
    assert_eq!(
        (whole.draft.nodes.clone(), whole.based_on),
        (None, epoch(2))
    );
    let record = whole
        .draft
        .onto(node.register.decided.as_ref(), epoch(6), &members);
    assert_eq!(check_back(&node, &record), Ok(()));
    assert_eq!(record.release, Some(release(1)));
    assert!(record.revokes.contains_key(&release(2).build.digest));
    assert_eq!(record.proposed_by, "node b");
    assert!(
        record.reason.starts_with("sync-regression: "),
        "{}",
        record.reason
    );

    // A canary: the mesh runs release 1, and `a` alone is meant to run release 2; `c` runs 4.
    let mut canary = voter();
    let exceptions = [(name("a"), release(2)), (name("c"), release(4))].into();
    canary.register.decided = Some(Record {
        exceptions,
        ..record_of(1)
    });
    let part = proposal(&own(), &canary.register, &around).expect("a way back");
    assert_eq!(part.draft.nodes, Some([name("a")].into()));

    // What a few nodes run besides is left to them.
    let mut besides = voter();
    besides.register.decided = Some(Record {
        exceptions: [(name("c"), release(4))].into(),
        ..record_of(2)
    });
    let part = proposal(&own(), &besides.register, &around).expect("a way back");
    assert_eq!(part.draft.nodes, Some(["a", "b"].map(name).into()));

    // Another configuration of the same build: the build is not to blame.
    let set = SetRef {
        id: "shop@2".parse().expect("a set"),
        digest: Digest::of(b"shop@2"),
    };
    let configured = Release {
        config: Some(set),
        ..release(1)
    };
    let mut same_build = voter();
    same_build.register.decided = Some(Record {
        release: Some(configured.clone()),
        ..record_of(2)
    });
    let leaving = OwnRollback {
        leaving: configured,
        ..own()
    };
    let part = proposal(&leaving, &same_build.register, &around).expect("a way back");
    assert!(part.draft.revokes.is_empty());

    let nobody = BTreeMap::new();
    let around = Surroundings {
        known: &nobody,
        ..around
    };
    assert!(proposal(&own(), &node.register, &around).is_err());
}

fn record_of(version: u64) -> Record {
    record(2, version)
}

#[test]
fn when_there_is_nothing_left_to_propose() {
    let a = name("a");
    let mut register = voter().register;
    assert!(!own().is_needless(&register, &a));
    // A change of voters orders nothing new.
    register.decided = Some(Record {
        kind: RecordKind::Voters,
        ..record(3, 2)
    });
    assert!(!own().is_needless(&register, &a));
    // A rollback that brought it here before is no answer to what was found since.
    register.decided = Some(Record {
        kind: RecordKind::Rollback,
        ..record(2, 2)
    });
    assert!(!own().is_needless(&register, &a));
    register.decided = Some(record(3, 3));
    assert!(own().is_needless(&register, &a), "something new is ordered");
    register.decided = Some(Record {
        kind: RecordKind::Rollback,
        ..record(3, 2)
    });
    assert!(
        own().is_needless(&register, &a),
        "a person ordered just this"
    );
    register.decided = Some(back());
    assert!(own().is_needless(&register, &a));
}
