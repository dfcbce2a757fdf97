//! Starts that take long, because the node replays a log that no stop empties.

use super::{LIMIT, options};
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::mesh::http::request;
use cbddc_tests::mesh::processes::Process;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use serde_json::json;
use std::time::Duration;

/// How long the node takes for each MiB of its log: as long as was measured on a real one.
const MS_PER_MIB: u64 = 450;

/// A mesh of one whose node has so many MiB of log, more than `ready_timeout`, 10 s, is enough for.
/// Nothing may take longer than 11 s to be healthy.
fn mesh_with_log(mebibytes: u64) -> TestMesh {
    let mesh = TestMesh::start(MeshOptions {
        nodes: 1,
        ..options(Duration::from_secs(60), Duration::from_secs(11)).like(Dialect::V2_3)
    });
    mesh.node(0).set("ReplayMsPerMib", json!(MS_PER_MIB));
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    let body = json!({ "text": "x".repeat(1 << 20) }).to_string();
    let log = mesh.node(0).database().with_extension("db-wal");
    mesh.wait_for("a large log", LIMIT, |mesh| {
        let size = std::fs::metadata(&log).map_or(0, |log| log.len());
        let put = || {
            request(
                mesh.node(0).http_port,
                "PUT",
                "/doc/orders/1?flush=1",
                &body,
            )
            .ok()
        };
        (size >= mebibytes << 20)
            .then_some(())
            .or_else(|| put().and(None))
    });
    mesh
}

/// Status lines of the only node that were seen until the client ended.
fn said_while(mesh: &TestMesh, version: &str) -> (i32, String, Vec<String>) {
    let mut client = mesh.cbctl_spawn(&mesh.rollout(version));
    let mut seen = Vec::new();
    mesh.wait_for("the client ends", LIMIT, |mesh| {
        let status = mesh.status_of(0);
        seen.push(status["result"]["phase_text"].to_string());
        (!client.lives()).then_some(())
    });
    let ran = client.wait(LIMIT);
    (ran.code, ran.stderr, seen)
}

#[test]
fn a_rollout_waits_for_a_node_that_replays_its_log_and_warns_before() {
    let mut mesh = mesh_with_log(28);
    mesh.make_build("1.1", "");
    mesh.wait_for("a warning", LIMIT, |mesh| {
        let status = mesh.status_of(0);
        let notes = status["result"]["notes"].to_string();
        notes
            .contains("a start of the node, which reads a log of")
            .then_some(())
    });
    let plan = ["rollout", "plan", "--build", "cbddc@1.1", "--mesh"];
    let planned = mesh.cbctl(&plan).expect(0);
    let warned = "note: n1: a start of the node, which reads a log of";
    assert!(planned.stderr.contains(warned), "{planned}");
    assert!(
        planned.stderr.contains("`ready_timeout` is 10s"),
        "{planned}"
    );

    let (code, said, seen) = said_while(&mesh, "1.1");
    assert_eq!(code, 0, "{said}");
    let starting = "starting, replaying its log of ";
    assert!(seen.iter().any(|text| text.contains(starting)), "{seen:#?}");
    let last = mesh.status_of(0)["result"]["phase_text"].to_string();
    assert!(!last.contains("starting"), "{last}");

    // The service manager starts it again: nobody takes it for unhealthy meanwhile.
    let pid = mesh.node_pid(0).expect("it runs");
    Process::of(pid).expect("it runs").kill();
    mesh.wait_for("it is back", LIMIT, |mesh| {
        mesh.node_pid(0).filter(|now| *now != pid)
    });
    let mut seen = Vec::new();
    mesh.wait_for("it is healthy", LIMIT, |mesh| {
        let health = mesh.status_of(0)["result"]["health"].to_string();
        seen.push(health.trim_matches('"').to_owned());
        seen.last()
            .is_some_and(|health| health == "healthy")
            .then_some(())
    });
    // That it was gone was told; that it takes time to come back is no fault.
    let starts = seen.iter().skip_while(|health| *health == "unhealthy");
    assert!(starts.clone().count() > 20, "{seen:?}");
    assert!(
        !starts.into_iter().any(|health| health == "unhealthy"),
        "{seen:?}"
    );

    // The agent remembers, also over its own restart.
    mesh.kill_agent(0);
    mesh.start_agent(0);
    mesh.wait_for("it warns again", LIMIT, |mesh| {
        let notes = mesh.status_of(0)["result"]["notes"].to_string();
        notes.contains("which reads a log of").then_some(())
    });
}
