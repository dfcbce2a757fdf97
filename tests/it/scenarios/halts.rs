//! A node whose quarantine stops it, on a real mesh.

use super::{LIMIT, mesh_on_1_0, options, refused, roll_out, text};
use cbddc_tests::mesh::{MeshOptions, TestMesh, Writer};
use std::time::Duration;

const QUARANTINE: [&str; 7] = [
    "node",
    "quarantine",
    "--node",
    "n2",
    "--reason",
    "it forks",
    "--yes",
];

/// Whether the node of the second host is stopped, and its agent says so.
fn is_halted(mesh: &TestMesh) -> bool {
    let status = mesh.status_of(1);
    let says = text(&status["result"]["phase_text"]).contains("stopped for its quarantine");
    says && mesh.node_pid(1).is_none()
}

#[test]
fn a_node_that_a_quarantine_stops_starts_once_it_is_let_go_and_loses_nothing() {
    let mut mesh = mesh_on_1_0(MeshOptions {
        extra_config: "[quarantine]\nby = \"stop\"\n".into(),
        ..options(Duration::from_secs(3), Duration::from_secs(20))
    });
    roll_out(&mesh, "1.1");
    mesh.make_build("1.2", "");
    let writer = Writer::start(&mesh, "orders");
    mesh.wait_for("documents", LIMIT, |_| {
        (writer.acknowledged() > 100).then_some(())
    });
    // Whoever asked hears once it is stopped.
    mesh.cbctl(&QUARANTINE).expect(0);
    assert!(is_halted(&mesh));
    mesh.kill_agent(1);
    mesh.start_agent(1);
    mesh.wait_for("it stays stopped", LIMIT, |mesh| {
        is_halted(mesh).then_some(())
    });
    refused(&mesh.cbctl(&mesh.rollout("1.2")), 2, "it forks");
    assert!(is_halted(&mesh));

    // A rollback passes: what it orders is what starts once the node is let go.
    mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
    assert!(is_halted(&mesh));
    let stats = [0, 2].map(|index| mesh.stats(index).expect("it serves"));
    assert!(stats.iter().all(|stats| stats["version"] == "1.0"));
    let release = [
        "node", "release", "--node", "n2", "--reason", "mended", "--yes",
    ];
    mesh.cbctl(&release).expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    let count = mesh.count_documents(&writer.stop(), LIMIT);
    assert!(count.acknowledged > 100 && count.is_clean(), "{count:?}");
    let journal = mesh.journal(1);
    let halts: Vec<usize> = (0..journal.len())
        .filter(|line| journal[*line]["kind"] == "halt")
        .collect();
    assert_eq!(halts.len(), 2, "when asked, and when the agent was back");
    // Its events were given their time.
    let note = text(&journal[halts[0] + 1]["text"]);
    assert!(note.contains("for two sync cycles"), "{note}");
}
