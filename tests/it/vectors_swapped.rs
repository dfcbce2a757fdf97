//! What real nodes hold after snapshot imports: events in both forms, which are no duplicates.

use crate::vectors::load;
use cbddc_domain::audit::{Audit, Page, Source};
use cbddc_domain::hlc::{Hlc, VectorClock};
use cbddc_domain::id::NodeName;
use cbddc_domain::oplog::{HashCheck, Operation, OplogEntry, check_hash};
use cbddc_domain::replication::{FindingKind, MeshWatch, PeerView};
use serde_json::Value;
use std::collections::BTreeMap;

const FILE: &str = "dotnet-captured-swapped-rows.json";

fn entry(row: &Value) -> OplogEntry {
    let text = |at: usize| row[at].as_str().expect("a text").to_owned();
    let number = |at: usize| row[at].as_i64().expect("a number");
    let logic = i32::try_from(number(4)).expect("a small number");
    OplogEntry {
        collection: text(0),
        key: text(1),
        operation: match text(2).as_str() {
            "Put" => Operation::Put,
            "Delete" => Operation::Delete,
            other => panic!("what is {other}?"),
        },
        payload: String::new(),
        hlc: Hlc::new(number(3), logic, text(5)),
        hash: text(6),
        previous_hash: text(7),
    }
}

/// What each node holds, in the order of moments.
fn oplogs() -> BTreeMap<NodeName, Vec<OplogEntry>> {
    let vectors = load(FILE);
    let oplogs = vectors["oplogs"].as_object().expect("oplogs");
    let oplog = |(node, rows): (&String, &Value)| {
        let mut rows: Vec<OplogEntry> = rows.as_array().expect("rows").iter().map(entry).collect();
        rows.sort_by(|a, b| (a.hlc.moment(), &a.hlc.node).cmp(&(b.hlc.moment(), &b.hlc.node)));
        (node.parse().expect("a name"), rows)
    };
    oplogs.iter().map(oplog).collect()
}

fn clock_of(events: &[OplogEntry]) -> VectorClock {
    let mut clock = VectorClock::default();
    events.iter().for_each(|event| clock.observe(&event.hlc));
    clock
}

#[test]
fn rows_in_both_forms_are_recognised() {
    let expected = &load(FILE)["expected"];
    for (node, rows) in oplogs() {
        let expected = &expected[node.as_str()];
        let count = |check| rows.iter().filter(|row| check_hash(row) == check).count();
        assert_eq!(expected["rows"], rows.len());
        assert_eq!(expected["intact"], count(HashCheck::Matches), "{node}");
        assert_eq!(expected["swapped"], count(HashCheck::Swapped), "{node}");
    }
}

#[test]
fn the_mesh_check_takes_them_for_no_duplicates() {
    let views: BTreeMap<NodeName, PeerView> = oplogs()
        .into_iter()
        .map(|(node, events)| {
            let clock = clock_of(&events);
            let view = PeerView {
                origin: node.to_string(),
                token_accepted: true,
                clock_before: clock.clone(),
                clock_after: clock,
                events,
                ..PeerView::default()
            };
            (node, view)
        })
        .collect();
    let mut watch = MeshWatch::new(0);
    for round in 0..3 {
        watch.at(round * 500);
        let kinds = watch.observe(&views, &BTreeMap::new()).findings;
        let kinds: Vec<FindingKind> = kinds.iter().map(|finding| finding.kind).collect();
        assert!(!kinds.contains(&FindingKind::Duplicate), "{kinds:?}");
        assert!(kinds.contains(&FindingKind::SnapshotSwapped), "{kinds:?}");
    }
}

#[test]
fn the_audit_takes_them_for_no_duplicates() {
    let oplogs = oplogs();
    let source = |(node, events): (&NodeName, &Vec<OplogEntry>)| Source {
        origin: String::new(),
        name: node.to_string(),
        interests: Vec::new(),
        clock: clock_of(events),
        boundaries: None,
    };
    let mut audit = Audit::new(oplogs.iter().map(source).collect(), 0);
    let mut left: Vec<Vec<OplogEntry>> = oplogs.into_values().collect();
    while let Some(hungry) = audit.hungry() {
        match std::mem::take(&mut left[hungry]) {
            none if none.is_empty() => audit.end(hungry, None),
            events => audit.feed(hungry, Page::of_events(&events)).expect("order"),
        }
    }
    let report = audit.finish();
    let kinds: Vec<FindingKind> = report.findings.iter().map(|it| it.kind).collect();
    assert!(!kinds.contains(&FindingKind::Duplicate), "{kinds:?}");
    assert!(kinds.contains(&FindingKind::SnapshotSwapped), "{kinds:?}");
}
