//! What goes wrong on a real mesh: bad builds, killed clients, killed agents, ways back.

mod bad_builds;
mod killed_agents;
mod killed_clients;
mod ways_back;

use cbddc_tests::mesh::{MeshOptions, TestMesh, Timing};
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);

/// A mesh that runs the good build 1.0.
fn mesh_on_1_0(options: MeshOptions) -> TestMesh {
    let mesh = TestMesh::start(options);
    mesh.make_build("1.0", "");
    mesh.cbctl(&mesh.rollout("1.0")).expect(0);
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
