//! `cbctl replication` on real meshes: what each fault leads to, and that nothing else is found.

mod by_snapshot;
mod calm;
mod contents;
mod damaged;
mod faults;
mod following;
mod forgotten;
mod hosted;
mod interests;
mod offline;
mod unproven;

use cbddc_tests::mesh::{MeshOptions, Ran, TestMesh};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A number from the environment, for long runs.
fn setting(name: &str, usual: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(usual, |text| text.parse().expect("a number"))
}

/// A mesh of that many nodes on a good build, with writes on each node now and then.
fn mesh_of(nodes: usize) -> TestMesh {
    mesh_with(nodes, "")
}

/// What nodes here declare to hold, as every node since 1.0 declares something.
const DECLARED: [&str; 2] = ["orders", "stock"];

/// The same with a build that has these faults from its start.
fn mesh_with(nodes: usize, faults: &str) -> TestMesh {
    let options = MeshOptions {
        nodes,
        ..MeshOptions::default()
    };
    let mesh = TestMesh::start(options.with_odd_rows());
    mesh.make_build("1.0", faults);
    mesh.first_release("1.0");
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh
}

/// Lets the agents follow replication fast, and starts them anew.
fn follow_fast(mesh: &mut TestMesh) {
    for index in 0..mesh.len() {
        let path = mesh.node(index).config();
        let config = fs::read_to_string(&path).expect("a configuration");
        let keys = "[cbddc]\nfollow_interval = \"500ms\"\nstalled_after = \"3s\"";
        fs::write(&path, config.replace("[cbddc]", keys)).expect("written");
        mesh.stop_agent(index);
        mesh.start_agent(index);
    }
}

/// How many findings of a kind an agent has told in its journal.
fn told(mesh: &TestMesh, index: usize, kind: &str) -> usize {
    let lines = mesh.journal(index);
    let of_kind = lines.iter().filter(|line| {
        let text = line["text"].as_str().unwrap_or_default();
        line["kind"] == "replication" && text.starts_with(kind)
    });
    of_kind.count()
}

/// Kills a node, and waits until its agent has started it again.
fn restart(mesh: &TestMesh, index: usize) {
    let before = mesh.node_pid(index);
    let process = mesh.node(index).node_process();
    process.expect("the node runs").kill();
    mesh.wait_for("the node is back", LIMIT, |mesh| {
        let back = mesh.node_pid(index).is_some_and(|pid| Some(pid) != before);
        (back && mesh.stats(index).is_some()).then_some(())
    });
}

/// An audit of everything, with the short times of tests.
fn audit(mesh: &TestMesh, more: &[&str]) -> Ran {
    // Below the limit of a command here, so that a node that never catches up is told by its name.
    let quiesce = ["--quiesce", "45s"];
    let quiesce = if more.contains(&"--quiesce") {
        &[]
    } else {
        &quiesce[..]
    };
    let line = ["replication", "audit", "-o", "json", "--settle", "1s"];
    let line = [&line[..], quiesce, more].concat();
    // A node that was killed by the test may be away once more until its agent is content with it: the
    // audit says so, and proves nothing.
    let ran = mesh.wait_for("an audit meets every node", LIMIT, |mesh| {
        let ran = mesh.cbctl(&line);
        (ran.code != 3).then_some(ran)
    });
    let json = ran.json();
    let nodes = json["nodes"].as_array().expect("nodes").iter();
    assert_sums(nodes.map(|row| &row["result"]), &json["events"], &ran);
    ran
}

/// Every event is accounted for on every node.
#[track_caller]
fn assert_sums<'a>(nodes: impl Iterator<Item = &'a Value>, events: &Value, ran: &Ran) {
    for node in nodes {
        // Events are counted over all clusters.
        if node["cluster"]
            .as_str()
            .is_some_and(|name| !name.is_empty())
        {
            continue;
        }
        let parts = ["held", "missed", "behind", "not_wanted", "pruned"];
        let parts = parts.map(|part| node[part].as_u64().expect("a number"));
        assert_eq!(Some(parts.iter().sum()), events.as_u64(), "{ran}");
    }
}

/// How many findings of each kind there are.
fn counts(ran: &Ran) -> BTreeMap<String, u64> {
    let json = ran.json();
    let counts = json["counts"].as_object().expect("counts");
    let counts = counts.iter();
    counts
        .map(|(kind, count)| (kind.clone(), count.as_u64().expect("a number")))
        .collect()
}

/// The kinds that were found, in the order of their words.
fn kinds(ran: &Ran) -> Vec<String> {
    counts(ran).into_keys().collect()
}

/// The findings of a kind.
fn findings(ran: &Ran, kind: &str) -> Vec<Value> {
    let json = ran.json();
    let all = json["findings"].as_array().expect("findings").iter();
    all.filter(|finding| finding["kind"] == kind)
        .cloned()
        .collect()
}
