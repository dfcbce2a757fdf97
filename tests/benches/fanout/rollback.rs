//! `cbctl rollback --mesh` over 30 nodes, beside the time that one node takes to stop, start and be
//! healthy when nobody supervises it; and over one node, as a host does that has its processors and
//! its disk for itself: 30 agents and 30 nodes on one machine wait for each other. What that costs is
//! processor time, and does not grow with the time that a node takes to begin, so 30 are measured with a
//! node that begins at once and with one that takes its time. The wait for two sync cycles before the
//! stop is subtracted: it is there on purpose.

use crate::restart::Alone;
use cbddc_tests::figures::{compare, median, timed};
use cbddc_tests::mesh::{MeshOptions, TestMesh, Timing, build};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How many nodes, and how long each takes before it begins: a small service on a fast machine, and a
/// large one on a till.
const JOBS: [(usize, &str); 3] = [(1, "0.25"), (30, "0.25"), (30, "2.5")];

/// How often a release is rolled out and back; the first time only warms up.
const ROUNDS: u32 = 5;

/// What the rollback may take of one node's own time.
const GOAL: f64 = 1.3;

/// The sync cycle that the agents wait out twice.
const SYNC: Duration = Duration::from_millis(1);

/// What an agent waits beyond the two cycles.
const MARGIN: Duration = Duration::from_millis(500);

/// The sync cycle of the nodes themselves. They have no peers here: 30 nodes that replicate to each
/// other on one machine would be all that is measured.
const NODE_SYNC_MS: u64 = 5_000;

pub(crate) fn measure() {
    for (nodes, begins) in JOBS {
        measure_with(nodes, begins);
    }
}

fn measure_with(nodes: usize, begins: &str) {
    let mut mesh = TestMesh::prepare(MeshOptions {
        nodes,
        sync_interval: SYNC,
        health_interval: Duration::from_secs(5),
        peers_poll: Duration::from_secs(10),
        peers_probe: Duration::from_secs(2),
        timing: Timing {
            verify: Duration::from_secs(60),
            probation: Duration::from_secs(30),
            renew: Duration::from_secs(5),
            ..Timing::default()
        },
        ..MeshOptions::default()
    });
    take_peers_out(&mesh);
    (0..nodes).for_each(|index| mesh.start_agent(index));
    roll_out(&mesh, "1.0", begins);

    let program = mesh.root().join("builds/1.0/bin/cbddc");
    let mut alone: Vec<Alone> = (0..nodes)
        .map(|number| Alone::start(&mesh, &program, number))
        .collect();
    let (mut ours, mut one, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // A build that was rolled back is revoked, so each round has its own.
        roll_out(&mesh, &format!("1.{}", round + 1), begins);
        let at_once = timed(|| Alone::restart_all(&mut alone));
        let restart = timed(|| alone[0].restart());
        let rollback = timed(|| drop(mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(0)));
        if round > 0 {
            all.push(at_once);
            one.push(restart);
            ours.push(rollback.saturating_sub(2 * SYNC + MARGIN));
        }
    }
    let (ours, one, all) = (median(&ours), median(&one), median(&all));
    let job = format!("rollback of {nodes} ({begins} s)");
    compare(&job, "one node's own restart", ours, one, Some(GOAL));
    if nodes > 1 {
        let peer = format!("{nodes} nodes' own restarts at once");
        compare(&job, &peer, ours, all, None);
    }
}

fn take_peers_out(mesh: &TestMesh) {
    for node in mesh.nodes() {
        let path = node.folder.join("appsettings.json");
        let mut settings: Value = read_json(&path);
        settings["EntglDb"]["KnownPeers"] = json!([]);
        settings["Fixture"]["IntervalMs"] = json!(NODE_SYNC_MS);
        settings["Fixture"]["MaxBackoffMs"] = json!(NODE_SYNC_MS);
        fs::write(path, settings.to_string()).expect("the settings can be written");
        let text = fs::read_to_string(node.config()).expect("a configuration");
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some(("expected_peers", _)) => "expected_peers = []",
            Some(_) | None => line,
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        fs::write(node.config(), text).expect("the configuration can be written");
    }
}

pub(crate) fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

fn roll_out(mesh: &TestMesh, version: &str, begins: &str) {
    let folder = build::write(&mesh.root().join("builds").join(version), version, "");
    let program = folder.join("bin/cbddc");
    let text = fs::read_to_string(&program).expect("a program");
    fs::write(
        &program,
        text.replace("exec ", &format!("sleep {begins}\nexec ")),
    )
    .expect("the program can be written");
    let bundle = mesh.root().join(format!("{version}.cbundle"));
    let (folder, bundle) = (folder.to_string_lossy(), bundle.to_string_lossy());
    let id = format!("cbddc@{version}");
    mesh.cbctl(&["build", "pack", &folder, "--build", &id, "--out", &bundle])
        .expect(0);
    mesh.cbctl(&["build", "push", &bundle]).expect(0);
    mesh.cbctl(&mesh.rollout(version)).expect(0);
    mesh.wait_until_all_run(version, Duration::from_secs(60));
}
