//! What an agent costs that has nothing to do: a mesh of three with running nodes and the intervals
//! that an agent has by default.

use cbddc_tests::figures::bounded;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use cbddc_tests::usage;
use std::thread::sleep;
use std::time::Duration;

/// How long the agents are left alone before they are measured.
const WARM_UP: Duration = Duration::from_secs(15);

/// How long they are measured.
const MEASURED: Duration = Duration::from_secs(30);

/// How long the nodes may take to be there.
const LIMIT: Duration = Duration::from_secs(60);

/// Resident memory in MiB, and CPU in percent of one core.
const GOALS: (f64, f64) = (20.0, 0.2);

pub(crate) fn measure() {
    let mesh = TestMesh::start(MeshOptions {
        sync_interval: Duration::from_secs(2),
        health_interval: Duration::from_secs(5),
        peers_poll: Duration::from_secs(10),
        peers_probe: Duration::from_secs(2),
        ask_limit: Duration::from_secs(10),
        ..MeshOptions::default()
    });
    mesh.make_build("1.0", "");
    mesh.cbctl(&mesh.rollout("1.0")).expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    sleep(WARM_UP);

    let agents = mesh.nodes().iter().filter_map(|node| node.agent_process());
    let agents: Vec<u32> = agents.map(|process| process.pid).collect();
    assert_eq!(agents.len(), mesh.len(), "an agent ended");
    let percent = usage::cpu_percent(&agents, MEASURED);
    let resident = agents.iter().map(|agent| usage::resident_mib(*agent));
    let resident = resident.fold(0.0, f64::max);
    bounded("idle agent, memory", resident, "MiB", GOALS.0);
    bounded("idle agent, CPU", percent, "% of a core", GOALS.1);
}
