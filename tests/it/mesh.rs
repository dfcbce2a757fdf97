//! A real mesh, end to end: agents, nodes and the client as an admin meets them.

use cbddc_tests::mesh::{MeshOptions, TestMesh, Writer};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn of_node(nodes: &Value, name: &str) -> Value {
    let nodes = nodes["nodes"].as_array().expect("a list of nodes");
    let found = nodes.iter().find(|node| node["node"] == name);
    found.expect("the node is listed").clone()
}

#[test]
fn an_empty_mesh_answers_and_takes_builds() {
    let mesh = TestMesh::start(MeshOptions::default());
    let status = mesh.cbctl(&["status", "-o", "json"]).expect(0).json();
    for node in ["n1", "n2", "n3"] {
        let node = of_node(&status, node);
        assert_eq!(node["outcome"], "ok");
        assert_eq!(node["result"]["phase"], "steady");
        assert_eq!(node["result"]["generation"], Value::Null);
    }

    mesh.make_build("1.0", "");
    let again = mesh.pack_build("1.1", "drop-every=1");
    let again = again.to_string_lossy();
    let pushed = mesh.cbctl(&["build", "push", &again, "--node", "n2"]);
    assert!(pushed.expect(0).stdout.contains("stored"));
    let pushed = mesh.cbctl(&["build", "push", &again, "--node", "n2"]);
    assert!(pushed.expect(0).stdout.contains("was there"));
    let builds = mesh
        .cbctl(&["build", "list", "-o", "json"])
        .expect(0)
        .json();
    for (node, expected) in [("n1", 1), ("n2", 2), ("n3", 1)] {
        let node = of_node(&builds, node);
        let builds = node["result"]["builds"].as_array().expect("a list");
        assert_eq!(builds.len(), expected, "{node}");
        assert!(builds.iter().all(|build| build["current"] == false));
    }

    // Nothing runs, and the commands that only look say so.
    let history = mesh.cbctl(&["node", "history", "n1", "-o", "json"]);
    history.expect(0);
    let health = mesh.cbctl(&["health", "show"]);
    assert_eq!(health.code, 8, "{health}");
    mesh.cbctl(&["snapshot", "list"]).expect(0);
    mesh.cbctl(&["release", "list"]).expect(0);
    let journal = mesh.cbctl(&["journal", "list"]).expect(0);
    assert!(journal.stdout.contains("cbddc@1.0"), "{journal}");
    assert!((0..3).all(|index| mesh.node_pid(index).is_none()));
}
