//! What goes wrong on a real mesh: bad builds, killed clients, killed agents, ways back.

mod bad_builds;
mod data_inside;
mod deleted_logs;
mod dialects;
mod halts;
mod killed_agents;
mod killed_clients;
mod kinds;
mod long_starts;
mod random_order;
mod state_folder;
mod stops;
mod stranded;
mod triggers;
mod unneeded_builds;
mod ways_back;

use cbddc_tests::mesh::{MeshOptions, Ran, TestMesh, Timing};
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A mesh that runs the good build 1.0.
fn mesh_on_1_0(options: MeshOptions) -> TestMesh {
    let mesh = TestMesh::start(options);
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh
}

/// Short times with this probation and this limit for a wave.
fn options(probation: Duration, verify: Duration) -> MeshOptions {
    let timing = Timing {
        probation,
        verify,
        ..Timing::default()
    };
    MeshOptions {
        timing,
        ..MeshOptions::default()
    }
}

/// The phase of a host's node.
fn phase(mesh: &TestMesh, index: usize) -> String {
    text(&mesh.status_of(index)["result"]["phase"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Waits until a host is in this phase.
fn wait_for_phase(mesh: &TestMesh, index: usize, wanted: &str) {
    mesh.wait_for(wanted, LIMIT, |mesh| {
        (phase(mesh, index) == wanted).then_some(())
    });
}

/// It failed with this code, and says so with these words.
#[track_caller]
fn refused(ran: &Ran, code: i32, words: &str) {
    assert_eq!(ran.code, code, "{ran}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains(words), "no `{words}` in {ran}");
}

/// Lets a build that was left be rolled out again.
#[track_caller]
fn trust(mesh: &TestMesh, build: &str) {
    let line = [
        "release",
        "trust",
        build,
        "--reason",
        "it is sound",
        "--yes",
    ];
    mesh.cbctl(&line).expect(0);
}

/// Asserts that the agents have caused no error in a node's log, and at most one warning per start of
/// it: the refused token.
#[track_caller]
fn logs_are_quiet(mesh: &TestMesh) {
    for node in mesh.nodes() {
        let log = std::fs::read_to_string(node.node_log()).expect("a log");
        let count = |word: &str| log.lines().filter(|line| line.starts_with(word)).count();
        let (errors, warnings, starts) = (count("fail:"), count("warn:"), count("ready "));
        assert!(
            errors == 0 && warnings <= starts,
            "{}: {errors} errors, {warnings} warnings in {starts} starts",
            node.name
        );
    }
}

/// Brings a mesh to a new good release.
#[track_caller]
fn roll_out(mesh: &TestMesh, version: &str) {
    mesh.make_build(version, "");
    mesh.roll_out(version);
    mesh.wait_until_all_run(version, LIMIT);
}

/// Asserts that each node runs the version that its agent names and that `current` points to.
#[track_caller]
fn all_agree_on(mesh: &TestMesh, version: &str) {
    mesh.wait_until_all_run(version, LIMIT);
    for (index, node) in mesh.nodes().iter().enumerate() {
        let current = node.folder.join("state/store/current/version");
        let current = std::fs::read_to_string(current).expect("`current` points to a build");
        assert_eq!(current.trim(), version, "`current` of {}", node.name);
        let stats: Value = mesh.stats(index).expect("the node answers");
        assert_eq!(stats["version"], version, "what runs on {}", node.name);
    }
}
