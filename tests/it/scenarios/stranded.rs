//! Documents that a node acknowledged and lost the events of when it was stopped: they are named, by the
//! rollout that stopped it and by the audit, until somebody writes them again.

use super::{LIMIT, all_agree_on, mesh_on_1_0, options};
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::mesh::{MeshOptions, TestMesh, Writer, Written};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How long what is on its way may take.
const ARRIVES: Duration = Duration::from_secs(10);

/// A mesh on 1.0 in which nobody keeps writers away.
fn undrained(like: Dialect) -> TestMesh {
    let usual = options(Duration::from_secs(8), Duration::from_secs(30));
    let mut mesh = mesh_on_1_0(MeshOptions {
        // Long enough that each stop finds something that has no event yet.
        sync_interval: Duration::from_millis(700),
        ..usual.like(like)
    });
    for index in 0..mesh.nodes().len() {
        mesh.stop_agent(index);
        let config = mesh.node(index).config();
        let text = fs::read_to_string(&config).expect("its configuration");
        let others = |line: &&str| !line.starts_with("drain =") && !line.starts_with("undrain =");
        let text: Vec<&str> = text.lines().filter(others).collect();
        fs::write(&config, text.join("\n")).expect("it can be written");
        mesh.start_agent(index);
    }
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh
}

/// Rolls a build out while clients take the nodes' word; what they wrote, and what the rollout says.
fn roll_out_among_writers(mesh: &TestMesh, version: &str) -> (Written, Value) {
    mesh.make_build(version, "");
    let nodes = mesh.nodes().iter().map(|node| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.http_port));
        (node.name.clone(), address)
    });
    let writer = Writer::start_unflushed_at(nodes.collect(), "orders", || ());
    let mut start = mesh.rollout(version);
    start.extend(["-o", "json"].map(str::to_owned));
    let ran = mesh.cbctl(&start).expect(0);
    (writer.stop(), ran.json())
}

/// The acknowledged documents that are not on every node, by what the databases hold.
fn missing(mesh: &TestMesh, written: &Written) -> BTreeSet<String> {
    let count = mesh.count_documents(written, ARRIVES);
    let key = |lost: &String| lost.split_once(": ").expect("NODE: KEY").1.to_owned();
    count.lost.iter().map(key).collect()
}

fn keys(documents: &Value) -> BTreeSet<String> {
    let documents = documents.as_array().expect("a list").iter();
    let key = |document: &Value| document["key"].as_str().expect("a key").to_owned();
    documents.map(key).collect()
}

fn without_event(mesh: &TestMesh, code: i32) -> Value {
    let ran = mesh
        .cbctl(&["replication", "audit", "-o", "json"])
        .expect(code);
    let findings = ran.json()["findings"].as_array().cloned().expect("a list");
    let is_it = |finding: &Value| finding["kind"] == "document-without-event";
    findings.into_iter().filter(is_it).collect()
}

#[test]
fn what_a_stop_has_cost_is_named_with_the_node_that_has_it() {
    let mesh = undrained(Dialect::V2_3);
    let (written, ended) = roll_out_among_writers(&mesh, "1.1");
    let lost = missing(&mesh, &written);
    assert!(!lost.is_empty(), "no stop has cost anything: {ended}");
    let named = keys(&ended["stranded"]);
    assert_eq!(named, lost, "{ended}");
    for document in ended["stranded"].as_array().expect("a list") {
        let key = document["key"].as_str().expect("a key");
        let (node, _) = key.split_once('-').expect("NODE-NUMBER");
        assert_eq!(document["on"], json!([node]), "{document}");
    }
    for node in ["n1", "n2", "n3"] {
        let uncovered = ended["uncovered_ms"][node].as_u64();
        assert!(uncovered.is_some_and(|ms| ms >= 700), "{ended}");
    }
    // The audit names them at any later time.
    assert_eq!(keys(&without_event(&mesh, 8)), lost);
    // Written again, they get events and arrive.
    for key in &lost {
        let index = mesh
            .nodes()
            .iter()
            .position(|node| key.starts_with(&node.name));
        let index = index.expect("who wrote it");
        assert!(mesh.put(index, "orders", key, &json!({ "again": true }), true));
    }
    assert_eq!(missing(&mesh, &written), BTreeSet::new());
    assert_eq!(without_event(&mesh, 0), json!([]));
    // The next rollout does not name what an earlier one has cost.
    mesh.make_build("1.2", "");
    let mut start = mesh.rollout("1.2");
    start.extend(["-o", "json"].map(str::to_owned));
    let ended = mesh.cbctl(&start).expect(0).json();
    assert_eq!(ended["stranded"], json!([]), "{ended}");
    all_agree_on(&mesh, "1.2");
}

/// Nodes of 1.x write document and event together: nothing is named that is not lost.
#[test]
fn where_nothing_is_lost_nothing_is_named() {
    let mesh = undrained(Dialect::V1_1);
    let (written, ended) = roll_out_among_writers(&mesh, "1.1");
    assert_eq!(missing(&mesh, &written), BTreeSet::new());
    assert_eq!(ended["stranded"], json!([]), "{ended}");
    assert_eq!(without_event(&mesh, 0), json!([]));
}
