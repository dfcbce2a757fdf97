//! A node whose write-ahead log is deleted under it, as a look with another program does.

use super::{LIMIT, mesh_on_1_0, options};
use cbddc_tests::mesh::{MeshOptions, Writer};
use std::time::Duration;

#[test]
fn what_a_node_wrote_into_a_deleted_log_is_put_back_when_it_is_stopped() {
    let mesh = mesh_on_1_0(MeshOptions {
        nodes: 1,
        ..options(Duration::from_secs(5), Duration::from_secs(20))
    });
    let writer = Writer::start(&mesh, "orders");
    let more = |count: usize| {
        mesh.wait_for("documents", LIMIT, |_| {
            (writer.acknowledged() >= count).then_some(())
        });
    };
    let log = mesh.node(0).database().with_extension("db-wal");
    // Twice: what was put back once is no less in danger.
    for round in 1..=2 {
        more(writer.acknowledged() + 20);
        std::fs::remove_file(&log).expect("the log lies beside the database");
        more(writer.acknowledged() + 40);
        // The check finds it, and has the agent stop the node and start it again.
        let told = mesh.wait_for("it is put back", LIMIT, |mesh| {
            let lines = mesh.journal(0);
            let texts: Vec<String> = lines.iter().map(|line| line["text"].to_string()).collect();
            let told = texts.join("\n");
            (told.matches("it was put back").count() == round).then_some(told)
        });
        let found = "database: the node writes into a log that was deleted, /proc/";
        assert!(told.contains(found), "{told}");
    }
    mesh.make_build("1.1", "");
    mesh.roll_out("1.1");
    let count = mesh.count_documents(&writer.stop(), LIMIT);
    assert!(count.acknowledged >= 120 && count.is_clean(), "{count:?}");
    let shown = mesh.cbctl(&["health", "show"]).expect(0);
    assert!(!shown.stdout.contains("deleted"), "{shown}");
}
