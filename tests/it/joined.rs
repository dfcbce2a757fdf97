//! Whole meshes of nodes that do not tell which peers they joined, as no real node does.

use cbddc_tests::mesh::{MeshOptions, TestMesh, Timing};
use serde_json::Value;
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Changes the settings that a node reads at its next start.
fn change_settings(mesh: &TestMesh, index: usize, change: impl FnOnce(&mut Value)) {
    let path = mesh.node(index).folder.join("appsettings.json");
    let text = fs::read_to_string(&path).expect("the settings are there");
    let mut settings: Value = serde_json::from_str(&text).expect("they are JSON");
    change(&mut settings);
    fs::write(&path, settings.to_string()).expect("they can be written");
}

fn mesh(key: &str) -> TestMesh {
    let timing = Timing {
        verify: Duration::from_secs(12),
        ..Timing::default()
    };
    let mesh = TestMesh::start(MeshOptions {
        timing,
        ..MeshOptions::default()
    });
    for index in 0..mesh.len() {
        change_settings(&mesh, index, |settings| {
            settings["Fixture"][key] = true.into()
        });
    }
    mesh.make_build("1.0", "");
    mesh
}

/// What `cbctl health show` says of the `cbddc` check of a host.
fn cbddc_check(mesh: &TestMesh, index: usize) -> String {
    let name = &mesh.node(index).name;
    let shown = mesh
        .cbctl(&["health", "show", "--node", name, "-o", "json"])
        .json();
    let checks = shown["nodes"][0]["result"]["checks"].as_array().cloned();
    let checks = checks.unwrap_or_default();
    let one = checks.iter().find(|check| check["check"] == "cbddc");
    one.map(ToString::to_string)
        .unwrap_or_else(|| shown.to_string())
}

#[test]
fn a_node_that_leaves_a_peer_out_is_found_and_one_that_does_not_passes() {
    let mesh = mesh("SilentNodeStatus");
    mesh.first_release("1.0");
    mesh.wait_until_all_run("1.0", LIMIT);
    wait_until_joined(&mesh);
    let check = mesh.cbctl(&["replication", "check"]).expect(0);
    assert!(!check.stdout.contains("not-joined"), "{check}");

    // It is refused by its peers, which go on pulling from it.
    mesh.fault(0, "wrong-token");
    let check = mesh.cbctl(&["replication", "check", "--wait", "30s", "--quiesce", "2s"]);
    assert_eq!(check.code, 8, "{check}");
    assert!(check.stdout.contains("not-joined"), "{check}");
    mesh.wait_for("its own check says so, too", LIMIT, |mesh| {
        let check = cbddc_check(mesh, 0);
        let words = ["not joined with", "the other way round, it was joined"];
        words
            .iter()
            .all(|words| check.contains(words))
            .then_some(())
    });
    mesh.fault(0, "clear");
    wait_until_joined(&mesh);

    // Its settings no longer name n3, which goes on pulling from it.
    mesh.make_build("1.1", "");
    change_settings(&mesh, 0, |settings| {
        let peers = settings["EntglDb"]["KnownPeers"].as_array_mut();
        peers
            .expect("it has peers")
            .retain(|peer| peer["NodeId"] != "n3");
    });
    let ran = mesh.cbctl(&mesh.rollout("1.1"));
    // The settings are not the build's: the way back has them, too.
    assert!([4, 5].contains(&ran.code), "{ran}");
    let address = format!("127.0.0.1:{}", mesh.node(2).sync_port);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    // By the mesh check, or by the node's own, whichever is first.
    let words = ["n1 has not joined", "not joined with"].map(|words| format!("{words} {address}"));
    assert!(words.iter().any(|words| said.contains(words)), "{ran}");
}

/// A check that passed is not made again for 30 s, and the first node was up before its peers.
fn wait_until_joined(mesh: &TestMesh) {
    mesh.wait_for("every node has joined both peers", LIMIT, |mesh| {
        let mut all = (0..mesh.len()).map(|index| cbddc_check(mesh, index));
        all.all(|check| check.contains("joined 2 peers"))
            .then_some(())
    });
}

#[test]
fn watching_makes_nodes_log_no_error_and_one_warning_at_most() {
    let mut mesh = mesh("NoNodeStatus");
    mesh.first_release("1.0");
    mesh.wait_until_all_run("1.0", LIMIT);
    let mut pids = Vec::new();
    let mut look = |mesh: &TestMesh| {
        for index in 0..mesh.len() {
            let stats = mesh.stats(index).expect("the node answers");
            let logged = &stats["logged"];
            assert_eq!(logged["bare_connections"], 0, "n{}: {stats}", index + 1);
            assert_eq!(logged["unknown_questions"], 0, "n{}: {stats}", index + 1);
            assert_eq!(logged["refused_tokens"], 1, "n{}: {stats}", index + 1);
            pids.push(stats["pid"].as_u64());
        }
    };
    for _ in 0..5 {
        mesh.cbctl(&["health", "show"]).expect(0);
    }
    mesh.cbctl(&["replication", "check"]).expect(0);
    mesh.cbctl(&["replication", "audit"]).expect(0);
    look(&mesh);
    // The wrong token is tried once for each process of the node, not of the agent.
    mesh.kill_agent(1);
    mesh.start_agent(1);
    mesh.wait_for("n2's agent has looked again", LIMIT, |mesh| {
        cbddc_check(mesh, 1)
            .contains("refuses a wrong one")
            .then_some(())
    });
    look(&mesh);
    mesh.make_build("1.1", "");
    mesh.roll_out("1.1");
    mesh.wait_until_all_run("1.1", LIMIT);
    mesh.cbctl(&["health", "show"]).expect(0);
    mesh.cbctl(&["replication", "audit"]).expect(0);
    look(&mesh);
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 2 * mesh.len(), "each node was started twice");
}
