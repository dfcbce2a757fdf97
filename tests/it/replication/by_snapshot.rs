//! Documents of a node whose database cannot be read from outside, by the snapshot that it sends.

use super::{LIMIT, audit, findings, kinds};
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use serde_json::json;
use std::fs;
use std::time::Duration;

/// A mesh whose second agent cannot see its node's database, with a document of n1 that n2 has altered.
fn mesh_with_a_closed_database(like: Dialect) -> TestMesh {
    let mut mesh = TestMesh::start(MeshOptions::default().like(like));
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    mesh.stop_agent(1);
    let config = mesh.node(1).config();
    let text = fs::read_to_string(&config).expect("its configuration");
    let text: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("databases ="))
        .collect();
    fs::write(&config, text.join("\n")).expect("it can be written");
    mesh.start_agent(1);
    mesh.wait_until_all_run("1.0", LIMIT);
    for number in 0..40 {
        let value = json!({ "number": number });
        assert!(mesh.put(0, "orders", &format!("k{number}"), &value, true));
    }
    mesh.wait_for("all of it is on n2", LIMIT, |mesh| {
        (0..40)
            .all(|number| mesh.has_document(1, "orders", &format!("k{number}")))
            .then_some(())
    });
    let db = rusqlite::Connection::open(mesh.node(1).database()).expect("a database");
    db.busy_timeout(Duration::from_secs(5)).expect("a limit");
    let sql = r#"UPDATE "Documents" SET "JsonData" = '{"number":7.5}' WHERE "Key" = 'k7'"#;
    assert_eq!(db.execute(sql, []).expect("SQL"), 1);
    mesh
}

fn compared_by_snapshot(like: Dialect) {
    let mesh = mesh_with_a_closed_database(like);
    let ran = audit(&mesh, &[]);
    assert_eq!((ran.code, kinds(&ran)), (0, vec![]), "{ran}");
    assert!(
        ran.stderr.contains("n2: documents are not compared"),
        "{ran}"
    );
    let ran = audit(&mesh, &["--documents"]);
    assert_eq!(
        (ran.code, kinds(&ran)),
        (8, vec!["payload-differs".to_owned()]),
        "{ran}"
    );
    let found = &findings(&ran, "payload-differs")[0];
    assert_eq!(
        (&found["key"], &found["on"]),
        (&json!("k7"), &json!(["n2"]))
    );
    let from = |node: &str| ran.json()["documents_from"][node].to_string();
    assert!(
        from("n2").contains("a snapshot that the node sent: "),
        "{ran}"
    );
    assert!(from("n2").contains("ms of its processor time"), "{ran}");
    assert!(!from("n1").contains("snapshot"), "{ran}");
    // Nothing of it stays.
    let received = mesh.node(1).folder.join("state/received/0");
    let left = fs::read_dir(&received).expect("its folder").count();
    assert_eq!(left, 0);
    // What was asked for and cannot be had changes the exit code.
    fs::remove_dir_all(received.parent().expect("a folder")).expect("a removal");
    fs::write(mesh.node(1).folder.join("state/received"), "in the way").expect("a file");
    let line = ["replication", "audit", "--settle", "1s", "--documents"];
    let ran = mesh.cbctl(&line).expect(3);
    assert!(
        ran.stderr.contains("n2: documents are not compared: "),
        "{ran}"
    );
}

#[test]
fn the_documents_of_a_2_3_node_are_compared_by_what_it_sends() {
    compared_by_snapshot(Dialect::V2_3);
}

#[test]
fn the_documents_of_a_0_9_node_are_compared_by_what_it_sends() {
    compared_by_snapshot(Dialect::V0_9);
}

/// A document whose event a stop has cost is found where only snapshots tell of it, too.
#[test]
fn a_document_without_event_is_found_by_snapshot() {
    let mesh = mesh_with_a_closed_database(Dialect::V2_3);
    assert!(mesh.put(1, "orders", "alone", &json!({ "number": 1 }), false));
    mesh.node(1).node_process().expect("it runs").kill();
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh.wait_for("it serves again", LIMIT, |mesh| {
        mesh.has_document(1, "orders", "alone").then_some(())
    });
    let ran = audit(&mesh, &["--documents"]);
    let found = findings(&ran, "document-without-event");
    assert_eq!(found.len(), 1, "{ran}");
    assert_eq!(
        (&found[0]["key"], &found[0]["on"]),
        (&json!("alone"), &json!(["n2"]))
    );
}
