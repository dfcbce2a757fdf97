//! What is signed never changes by accident, and says everything.

use crate::build::{BuildRef, Digest};
use crate::id::NodeName;
use crate::register::{Epoch, Record, RecordKind, vote_signing_bytes};
use crate::release::{Release, SetRef};
use std::collections::{BTreeMap, BTreeSet};

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

fn set(text: &str) -> SetRef {
    SetRef {
        id: text.parse().expect("a name"),
        digest: Digest::of(text.as_bytes()),
    }
}

fn release(text: &str) -> Release {
    Release::of_build(BuildRef {
        id: text.parse().expect("a name"),
        digest: Digest::of(text.as_bytes()),
    })
}

fn full() -> Record {
    Record {
        epoch: Epoch {
            counter: 7,
            nonce: 255,
        },
        kind: RecordKind::Rollback,
        release: Some(Release {
            config: Some(set("shop@3")),
            ..release("cbddc@1")
        }),
        exceptions: [(name("till-2"), release("cbddc@2"))].into(),
        voters: ["till-1", "till-2"].map(name).into(),
        previous: Some([name("till-1")].into()),
        forced: false,
        revokes: [(Digest::of(b"3"), "it loses\norders".to_owned())].into(),
        lifts: [(Digest::of(b"4"), "100 % fine".to_owned())].into(),
        restores: [name("till-1")].into(),
        proposed_by: "ana".into(),
        reason: "zurück".into(),
    }
}

const GOLDEN: &str = "cbddc-record 1
mesh shop
epoch 7-00000000000000ff
kind rollback
forced false
release cbddc@1 3f232b1b5258e29a23510c3b6042d139a94af6d47bfc8c9f275c80df58b4d469 shop@3 b003e07ff4d9c0ad83576c82f222a64dd71243fe9d14fc2d4322d6ff7c074905 - -
exception till-2 cbddc@2 bb9b0d1dd93dbbdf368924ba13d6fca96c07de6fb31f646bd826bc124fa217f0 - - - -
voter till-1
voter till-2
changes-voters
previous till-1
revokes 4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce it%20loses%0aorders
lifts 4b227777d4dd1fc61c6f884f48641d02b4d121d3fd328cb08b5531fcacdabf8a 100%20%25%20fine
restores till-1
proposed-by ana
reason zur%c3%bcck
";

#[test]
fn golden_bytes() {
    let text = String::from_utf8(full().signing_bytes("shop")).expect("ASCII");
    assert_eq!(text, GOLDEN);
    let vote = String::from_utf8(vote_signing_bytes("shop", &full())).expect("ASCII");
    let digest = Digest::of(GOLDEN.as_bytes());
    let expected = format!("cbddc-vote 1\nmesh shop\nepoch 7-00000000000000ff\nrecord {digest}\n");
    assert_eq!(vote, expected);
}

type Change = fn(&mut Record);

/// One for each thing that two records can differ in, and those that a careless form would confuse.
const CHANGES: [Change; 36] = [
    |_| {},
    |r| r.epoch.counter = 8,
    |r| r.epoch.nonce = 254,
    |r| r.kind = RecordKind::Rollout,
    |r| r.kind = RecordKind::Voters,
    |r| r.kind = RecordKind::Trust,
    |r| r.forced = true,
    |r| r.release = None,
    |r| r.release = Some(release("cbddc@1")),
    |r| r.release.as_mut().expect("set").build.digest = Digest::of(b"x"),
    |r| r.release.as_mut().expect("set").build.id = "cbddc@9".parse().expect("a name"),
    |r| r.release.as_mut().expect("set").secrets = Some(set("shop@3")),
    |r| {
        let release = r.release.as_mut().expect("set");
        release.secrets = release.config.take();
    },
    |r| r.exceptions.clear(),
    |r| r.exceptions = [(name("till-3"), release("cbddc@2"))].into(),
    |r| r.exceptions = [(name("till-2"), release("cbddc@3"))].into(),
    |r| drop(r.exceptions.insert(name("a"), release("cbddc@2"))),
    |r| r.voters.clear(),
    |r| r.voters = [name("till-1")].into(),
    |r| r.voters.extend([name("till-3")]),
    |r| r.previous = None,
    |r| r.previous = Some(BTreeSet::new()),
    |r| r.previous = Some([name("till-2")].into()),
    |r| {
        r.voters = [name("till-1")].into();
        r.previous = Some(["till-1", "till-2"].map(name).into());
    },
    |r| r.revokes.clear(),
    |r| drop(r.revokes.insert(Digest::of(b"3"), "it loses orders".into())),
    |r| {
        drop(
            r.revokes
                .insert(Digest::of(b"3"), "it loses%0aorders".into()),
        )
    },
    |r| drop(r.revokes.insert(Digest::of(b"5"), String::new())),
    |r| std::mem::swap(&mut r.revokes, &mut r.lifts),
    |r| r.lifts = BTreeMap::new(),
    |r| drop(r.lifts.insert(Digest::of(b"4"), "100 %25 fine".into())),
    |r| r.restores.clear(),
    |r| r.restores.extend([name("till-2")]),
    |r| r.proposed_by = "ana\nreason x".into(),
    |r| r.proposed_by = "an".into(),
    |r| r.reason = "zuruck".into(),
];

#[test]
fn no_two_records_give_the_same_bytes() {
    let (mut seen, mut votes) = (BTreeMap::new(), BTreeSet::new());
    // Every pair of changes: what one hides, the other must not bring out.
    for one in CHANGES {
        for other in CHANGES {
            let mut record = full();
            other(&mut record);
            // A change of what another change has taken away says nothing.
            if record.release.is_none() {
                continue;
            }
            one(&mut record);
            let bytes = record.signing_bytes("shop");
            assert!(bytes.is_ascii() && bytes.ends_with(b"\n"));
            votes.insert(vote_signing_bytes("shop", &record));
            let before = seen.insert(bytes, record.clone());
            assert!(
                before.is_none_or(|before| before == record),
                "{record:?} has the bytes of another record"
            );
        }
    }
    assert!(seen.len() > 400, "{}", seen.len());
    assert_eq!(votes.len(), seen.len());
}

#[test]
fn another_mesh_has_other_bytes() {
    let record = full();
    assert_ne!(record.signing_bytes("shop"), record.signing_bytes("shop2"));
    let injected = record.signing_bytes("shop\nepoch 1-1");
    let line = injected.split(|byte| *byte == b'\n').nth(1);
    assert_eq!(line, Some(&b"mesh shop%0aepoch%201-1"[..]));
    assert_ne!(
        vote_signing_bytes("shop", &record),
        vote_signing_bytes("shop2", &record)
    );
}
