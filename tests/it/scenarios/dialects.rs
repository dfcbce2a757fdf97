//! The main job on nodes of each release: forward, a bad build, and back, with a writer at every node.
//! And nodes that drift apart, which all of them say are healthy.

use super::{LIMIT, all_agree_on, logs_are_quiet, mesh_on_1_0};
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::mesh::{MeshOptions, TestMesh, Timing, Writer};
use serde_json::Value;
use std::time::Duration;

fn more(mesh: &TestMesh, writer: &Writer, count: usize) {
    let until = writer.acknowledged() + count;
    mesh.wait_for("documents", LIMIT, |_| {
        (writer.acknowledged() >= until).then_some(())
    });
}

fn the_main_job_on(like: Dialect) {
    let options = MeshOptions {
        timing: Timing {
            probation: Duration::from_secs(5),
            ..Timing::default()
        },
        ..MeshOptions::default()
    };
    let mesh = mesh_on_1_0(options.like(like));
    let writer = Writer::start(&mesh, "orders");
    more(&mesh, &writer, 30);
    mesh.make_build("1.1", "");
    mesh.roll_out("1.1");
    mesh.make_build("1.2", "drop-every=1");
    let ran = mesh.cbctl(&mesh.rollout("1.2"));
    assert_eq!(ran.code, 4, "{like:?}: {ran}");
    all_agree_on(&mesh, "1.1");
    mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
    all_agree_on(&mesh, "1.0");
    more(&mesh, &writer, 30);
    let count = mesh.count_documents(&writer.stop(), LIMIT);
    assert!(count.acknowledged > 60, "{like:?}: {count:?}");
    let ran = mesh.cbctl(&["replication", "audit", "-o", "json", "--settle", "1s"]);
    assert_eq!(ran.code, 0, "{like:?}: {ran}");
    assert!(count.is_clean(), "{like:?}: {count:?}");
    logs_are_quiet(&mesh);
}

#[test]
fn the_main_job_on_2_3() {
    the_main_job_on(Dialect::V2_3);
}

#[test]
fn the_main_job_on_1_1() {
    the_main_job_on(Dialect::V1_1);
}

#[test]
fn the_main_job_on_0_9() {
    the_main_job_on(Dialect::V0_9);
}

/// Two writers are enough.
#[test]
fn nodes_that_drift_apart_are_found_though_each_is_healthy() {
    let mesh = mesh_on_1_0(MeshOptions::default().like(Dialect::V2_3));
    (0..mesh.len()).for_each(|index| mesh.fault(index, "drift"));
    let writer = Writer::start(&mesh, "orders");
    mesh.wait_for("they drift", LIMIT, |mesh| {
        let apart = |index| {
            let stats = mesh.stats(index)?;
            stats["apart"].as_array().map(|apart| !apart.is_empty())
        };
        (0..mesh.len())
            .all(|index| apart(index) == Some(true))
            .then_some(())
    });
    more(&mesh, &writer, 60);
    for node in mesh.nodes() {
        let said = cbddc_tests::mesh::http::request(node.http_port, "GET", "/health", "");
        assert_eq!(said.expect("it answers"), (200, "Healthy".to_owned()));
    }
    let ran = mesh.cbctl(&["replication", "check", "-o", "json"]);
    assert_eq!(ran.code, 8, "{ran}");
    drop(writer);
    let ran = mesh.cbctl(&["replication", "audit", "-o", "json", "--settle", "1s"]);
    let found: Value = ran.json();
    assert_eq!(ran.code, 8, "{ran}");
    for kind in ["missed", "snapshot-swapped"] {
        assert!(found["counts"][kind].as_u64() > Some(0), "{kind}: {ran}");
    }
}
