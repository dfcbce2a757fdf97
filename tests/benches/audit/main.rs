//! An audit of a million events on each of three nodes: how long it takes, and what it holds in memory.
//!
//! ```text
//! cargo build --release --workspace --bins
//! cargo bench -p cbddc-tests --bench audit        # CBDDC_AUDIT_EVENTS=100000 for fewer
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark starts programs and reads the clock"
)]

use cbddc_domain::hlc::Hlc;
use cbddc_domain::oplog::{Operation, OplogEntry};
use cbddc_tests::figures::{bounded, heading};
use cbddc_tests::fixture::store;
use cbddc_tests::mesh::{MeshOptions, TestMesh, http, wait_for};
use cbddc_tests::usage::{cpu_percent, peak_mib};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What an audit may take, in seconds.
const SECONDS_MAX: f64 = 10.0;

/// What the client, and each agent, may hold, in MiB.
const MIB_MAX: f64 = 200.0;

/// What following may cost an idle mesh, in percent of a core, with all else that an agent does.
const IDLE_PERCENT_MAX: f64 = 0.5;

/// How long a node may take to start with its database.
const START_LIMIT: Duration = Duration::from_secs(120);

/// When the first events were written.
const BEGAN_MS: i64 = 1_700_000_000_000;

fn main() {
    let events = std::env::var("CBDDC_AUDIT_EVENTS").ok();
    let events: i64 = events.map_or(1_000_000, |text| text.parse().expect("a number"));
    let mesh = TestMesh::start(MeshOptions {
        health_interval: Duration::from_secs(5),
        peers_poll: Duration::from_secs(10),
        peers_probe: Duration::from_secs(2),
        ..MeshOptions::default()
    });
    mesh.make_build("1.0", "");
    mesh.cbctl(&mesh.rollout("1.0")).expect(0);
    heading();
    let agents = mesh.nodes().iter().filter_map(|node| node.agent_process());
    let agents: Vec<u32> = agents.map(|agent| agent.pid).collect();
    let idle = cpu_percent(&agents, Duration::from_secs(60));
    bounded("an idle agent", idle, "%", IDLE_PERCENT_MAX);
    for node in mesh.nodes() {
        write_events(&node.database(), events);
    }
    begin_anew(&mesh, events);
    let began = Instant::now();
    let line = ["replication", "audit", "--no-documents", "-o", "json"];
    let mut command = mesh.cbctl_command(&line);
    let mut audit = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("cbctl can be started");
    let mut peak: f64 = 0.0;
    while audit.try_wait().expect("it was started").is_none() {
        peak = peak.max(peak_mib(audit.id()).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = began.elapsed().as_secs_f64();
    let output = audit.wait_with_output().expect("its output");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success(), "{json:#}");
    assert!(json["everywhere"].as_i64() >= Some(events), "{json:#}");
    let job = format!("audit of 3 x {events}");
    bounded(&job, took, "s", SECONDS_MAX);
    bounded("  memory of the client", peak, "MiB", MIB_MAX);
    for agent in &agents {
        let peak = peak_mib(*agent).expect("the agent lives");
        bounded("  memory of an agent", peak, "MiB", MIB_MAX);
    }
}

/// Writes so many events of three origins, the same on every node.
fn write_events(path: &Path, events: i64) {
    let db = store::open(path).expect("the node's database");
    db.execute_batch("BEGIN").expect("SQL");
    let mut last: BTreeMap<i64, String> = BTreeMap::new();
    for number in 0..events {
        let origin = number % 3;
        let event = OplogEntry {
            collection: format!("collection-{}", number % 7),
            key: format!("document-{number:08}"),
            operation: Operation::Put,
            payload: format!(r#"{{"number":{number}}}"#),
            hlc: Hlc::new(BEGAN_MS + number / 3, 0, format!("n{}", origin + 1)),
            hash: String::new(),
            previous_hash: last.get(&origin).cloned().unwrap_or_default(),
        }
        .seal();
        last.insert(origin, event.hash.clone());
        store::insert_row(&db, &event).expect("SQL");
    }
    db.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("SQL");
}

/// Ends all nodes at once; their agents start them again, and they read their clocks from the
/// databases then. One after the other, they would fetch from each other what they have.
fn begin_anew(mesh: &TestMesh, events: i64) {
    for node in mesh.nodes() {
        node.node_process().expect("the node runs").kill();
    }
    for node in mesh.nodes() {
        wait_for("the node knows its events", START_LIMIT, || {
            let (_, stats) = http::request(node.http_port, "GET", "/stats", "").ok()?;
            let stats: serde_json::Value = serde_json::from_str(&stats).ok()?;
            (stats["oplog_rows"].as_i64() >= Some(events)).then_some(())
        });
        let size = fs::metadata(node.database()).expect("the database").len();
        eprintln!("{}: {} MiB", node.name, size >> 20);
    }
}
