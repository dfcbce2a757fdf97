//! Documents are compared by content, with kilobytes.

use super::{audit, findings, kinds, mesh_of};
use cbddc_domain::documents::{Comparison, DocumentRow, DocumentTable, content_digest};
use cbddc_proto::convert::replication::{part_from_proto, part_to_proto};
use cbddc_tests::mesh::Writer;
use prost::Message as _;
use serde_json::json;
use std::time::Duration;

/// What may travel when two sets of 5 MB differ in one document.
const BYTES_MAX: usize = 16 * 1024;

fn documents(differing: usize) -> (DocumentTable, usize) {
    let mut bytes = 0;
    let rows = (0..5000).map(|number| {
        let version = usize::from(number == differing);
        let text = format!(
            r#"{{"n":{number},"v":{version},"text":"{}"}}"#,
            "x".repeat(1000)
        );
        bytes += text.len();
        DocumentRow {
            collection: "orders".into(),
            key: format!("order-{number:08}"),
            version: (1_700_000_000_000, 0),
            origin: "n1".into(),
            digest: Some(content_digest(&text)),
        }
    });
    (rows.collect(), bytes)
}

#[test]
fn one_document_of_megabytes_is_found_with_kilobytes() {
    let ((one, size), (other, _)) = (documents(usize::MAX), documents(4711));
    assert!(size > 5_000_000);
    let (mut comparison, mut travelled) = (Comparison::default(), 0);
    while let Some(path) = comparison.next_part() {
        let parts = [("n1", &one), ("n2", &other)].map(|(name, table)| {
            let message = part_to_proto(table.part(&path));
            travelled += message.encoded_len() + path.len();
            (name.to_owned(), part_from_proto(message).expect("a part"))
        });
        comparison.tell(&path, &parts);
    }
    let found = comparison.finish();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, "order-00004711");
    assert!(travelled < BYTES_MAX, "{travelled} bytes");
}

#[test]
fn an_altered_document_is_found_and_another_spelling_is_not() {
    let mesh = mesh_of(3);
    let writer = Writer::start(&mesh, "orders");
    cbddc_tests::mesh::wait_for("documents", Duration::from_secs(20), || {
        (writer.acknowledged() > 60).then_some(())
    });
    let db = rusqlite::Connection::open(mesh.node(1).database()).expect("a database");
    db.busy_timeout(Duration::from_secs(5)).expect("a limit");
    let write = |text: &str| {
        let sql = r#"UPDATE "Documents" SET "JsonData" = ? WHERE "Key" = 'n3-000003'"#;
        assert_eq!(db.execute(sql, [text]).expect("SQL"), 1);
    };
    write(r#"{ "written_at" : "n3", "number": 3.0 }"#);
    let ran = audit(&mesh, &[]);
    assert_eq!((ran.code, kinds(&ran)), (0, vec![]), "{ran}");
    write(r#"{ "written_at" : "n3", "number": 4 }"#);
    let ran = audit(&mesh, &[]);
    assert_eq!(
        (ran.code, kinds(&ran)),
        (8, vec!["payload-differs".to_owned()]),
        "{ran}"
    );
    let found = &findings(&ran, "payload-differs")[0];
    assert_eq!(
        (&found["key"], &found["on"]),
        (&json!("n3-000003"), &json!(["n2"]))
    );
    assert!(!ran.json()["documents_from"]["n1"].is_null(), "{ran}");
}
