//! Each fault switch leads to its finding, on the node that has it, and to no other.

use super::{audit, counts, findings, kinds, mesh_of, mesh_with, restart, setting};
use cbddc_tests::mesh::{TestMesh, Writer, wait_for};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The node with the fault.
const BAD: usize = 1;

/// How long a fault may take to do its damage.
const DAMAGE: Duration = Duration::from_secs(20);

/// Lets a node of a fresh mesh do that under load, and shows what the audit makes of it.
#[track_caller]
fn with_fault(switch: &str, expected: &[&str], more: &[&str], then: impl Fn(&TestMesh, &Writer)) {
    for _ in 0..setting("CBDDC_FAULT_RUNS", 1) {
        let mesh = mesh_of(setting("CBDDC_FAULT_NODES", 3));
        let writer = start_writer(&mesh, switch);
        wait_for("the first events", DAMAGE, || {
            (writer.acknowledged() > 30).then_some(())
        });
        mesh.fault(BAD, switch);
        if switch == "swap-hash" {
            // What a snapshot import leaves; what comes later links to it as before.
            mesh.fault(BAD, "clear");
        }
        let before = writer.acknowledged();
        wait_for("events under the fault", DAMAGE, || {
            (writer.acknowledged() > before + 60).then_some(())
        });
        // While everything goes on: nothing but the fault may be found.
        let ran = audit(&mesh, more);
        assert_eq!(kinds(&ran), expected, "{switch}: {ran}");
        then(&mesh, &writer);
    }
}

/// Faults that alter what a node passes on. Altered rows of its own, which nobody has as they were,
/// keep its peers from going on, which is a finding by itself: under these, the others write.
const ALTERING: [&str; 4] = ["swap-hash", "break-chain", "rehash-break", "fork-at"];

/// Writes on every node, or on all but the one with the fault.
fn start_writer(mesh: &TestMesh, switch: &str) -> Writer {
    let alters = ALTERING.iter().any(|name| switch.starts_with(name));
    let nodes = mesh.nodes().iter().enumerate();
    let nodes = nodes.filter(|(index, _)| !alters || *index != BAD);
    let places = nodes.map(|(_, node)| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.http_port));
        (node.name.clone(), address)
    });
    Writer::start_at(places.collect(), "orders", || ())
}

/// Where the findings of a kind are, and where they are not.
#[track_caller]
fn only_on_the_bad_node(mesh: &TestMesh, kind: &str, place: &str, more: &[&str]) {
    let ran = audit(mesh, more);
    assert_eq!(ran.code, 8, "{ran}");
    let found = findings(&ran, kind);
    assert!(!found.is_empty(), "{ran}");
    for finding in found {
        assert_eq!(finding[place], json!(["n2"]), "{ran}");
        assert!(
            finding["key"]
                .as_str()
                .is_some_and(|key| key.starts_with('n'))
        );
    }
}

#[test]
fn dropped_events_are_missed_and_leave_gaps() {
    with_fault("drop-every=7", &["chain-gap", "missed"], &[], |mesh, _| {
        only_on_the_bad_node(mesh, "missed", "not_on", &[]);
        only_on_the_bad_node(mesh, "chain-gap", "on", &[]);
    });
}

#[test]
fn doubled_rows_are_duplicates() {
    with_fault("dup-every=7", &["duplicate"], &[], |mesh, _| {
        only_on_the_bad_node(mesh, "duplicate", "on", &[]);
    });
}

#[test]
fn broken_chains_are_tampered_with_or_have_gaps() {
    // One event, whose hash nobody believes.
    with_fault("break-chain=5", &["tampered"], &[], |mesh, _| {
        let ran = audit(mesh, &[]);
        assert_eq!((ran.code, counts(&ran)["tampered"]), (8, 1), "{ran}");
    });
    with_fault("rehash-break=5", &["chain-gap", "fork"], &[], |mesh, _| {
        only_found(mesh, 8)
    });
    with_fault("fork-at=5", &["fork"], &[], |mesh, _| only_found(mesh, 8));
}

#[test]
fn exchanged_hashes_are_told_apart() {
    with_fault("swap-hash", &["snapshot-swapped"], &[], |mesh, _| {
        let ran = audit(mesh, &[]);
        assert_eq!(ran.code, 0, "a note: {ran}");
        let found = findings(&ran, "snapshot-swapped");
        assert!(found.iter().all(|finding| finding["on"] == json!(["n2"])));
        // What is alike is shown together: one line for each origin.
        let ran = mesh.cbctl(&["replication", "audit"]).expect(0);
        let lines = ran.stdout.lines();
        let alike =
            lines.filter(|line| line.starts_with("snapshot-swapped") && line.contains("n2"));
        assert!(found.len() > 3 && alike.count() <= 3, "{ran}");
        assert!(ran.stdout.contains("`-o json`"), "{ran}");
    });
}

#[test]
fn a_node_that_takes_nothing_in_is_stalled() {
    let short = ["--quiesce", "4s"];
    with_fault("stall-sync", &["stalled"], &short, |mesh, _| {
        let ran = audit(mesh, &short);
        assert_eq!(ran.code, 8, "{ran}");
        for finding in findings(&ran, "stalled") {
            assert_eq!(finding["not_on"], json!(["n2"]), "{ran}");
        }
    });
}

#[test]
fn a_node_that_refuses_the_token_says_so() {
    with_fault("refuse-auth", &["auth-refused"], &[], |mesh, _| {
        only_found(mesh, 8);
    });
}

#[test]
fn quirks_of_other_stores_are_no_findings() {
    let quirks = "empty-clock-on-restart,chain-range-snapshot";
    let mesh = mesh_with(3, quirks);
    let writer = Writer::start(&mesh, "orders");
    for round in 0..3 {
        restart(&mesh, round);
        mesh.fault(2 - round, "clock-skew=3600000");
        only_found(&mesh, 0);
    }
    assert!(writer.stop().acknowledged.len() > 30);
}

#[track_caller]
fn only_found(mesh: &TestMesh, code: i32) {
    let ran = audit(mesh, &[]);
    assert_eq!(
        (ran.code, kinds(&ran).is_empty()),
        (code, code == 0),
        "{ran}"
    );
}
