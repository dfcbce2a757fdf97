//! Database files are compared without a mesh: both schemas, and what they show alone.

use cbddc_domain::hlc::Hlc;
use cbddc_domain::oplog::{Operation, OplogEntry};
use cbddc_tests::bins::binary;
use cbddc_tests::fixture::store;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn vector(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    folder.join(name)
}

/// Exit code and JSON of an audit of these files.
#[expect(clippy::disallowed_methods, reason = "runs the client")]
fn audit(files: &[PathBuf]) -> (Option<i32>, Value) {
    // Copies: opening a database with a write-ahead log leaves files beside it.
    let folder = tempfile::tempdir().expect("a folder");
    let copies = files.iter().map(|file| {
        let copy = folder.path().join(file.file_name().expect("a name"));
        std::fs::copy(file, &copy).expect("a copy");
        copy
    });
    let copies: Vec<PathBuf> = copies.collect();
    let mut command = Command::new(binary("cbctl"));
    command.args(["replication", "audit", "-o", "json", "--db"]);
    let output = command.args(copies).output().expect("cbctl can be started");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    // Every event is accounted for in every file.
    for file in json["files"].as_object().into_iter().flatten() {
        let parts = ["held", "missed", "behind", "not_wanted", "pruned"];
        let parts = parts.map(|part| file.1[part].as_u64().expect("a number"));
        assert_eq!(Some(parts.iter().sum()), json["events"].as_u64(), "{json}");
    }
    (output.status.code(), json)
}

#[test]
fn the_sample_databases_agree() {
    let files = ["efcore", "sqlite-v0.9.1"];
    let files = files.map(|name| vector(&format!("dotnet-derived-{name}.db")));
    let (code, json) = audit(&files);
    assert_eq!(code, Some(0), "{json}");
    assert_eq!(
        (&json["events"], &json["everywhere"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(json["counts"], json!({}));
}

#[test]
fn what_is_no_oplog_is_refused_in_words() {
    let (code, _) = audit(&[vector("README.md")]);
    assert_eq!(code, Some(1));
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty.db");
    drop(rusqlite::Connection::open(&empty).expect("a database"));
    assert_eq!(audit(&[empty]).0, Some(1));
}

/// Two databases with the same ten events, written by `change` in the second one.
fn pair(change: impl FnOnce(&rusqlite::Connection)) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let files = ["one.db", "two.db"].map(|name| folder.path().join(name));
    let mut change = Some(change);
    for (number, file) in files.iter().enumerate() {
        let db = store::open(file).expect("a database");
        let mut previous_hash = String::new();
        for moment in 0..10 {
            let event = OplogEntry {
                collection: "orders".into(),
                key: format!("k{moment}"),
                operation: Operation::Put,
                payload: "{}".into(),
                hlc: Hlc::new(1_700_000_000_000 + moment, 0, "a"),
                hash: String::new(),
                previous_hash: previous_hash.clone(),
            }
            .seal();
            previous_hash.clone_from(&event.hash);
            store::insert_row(&db, &event).expect("a row");
        }
        if number == 1
            && let Some(change) = change.take()
        {
            change(&db);
        }
    }
    audit(&files)
}

#[test]
fn files_show_what_is_wrong_with_them() {
    let run =
        |sql: &'static str| move |db: &rusqlite::Connection| db.execute_batch(sql).expect("SQL");
    let (code, json) = pair(run(r#"DELETE FROM "Oplog" WHERE "Key" = 'k3'"#));
    assert_eq!(code, Some(8));
    assert_eq!(json["counts"], json!({ "missed": 1, "chain-gap": 1 }));
    assert_eq!(json["findings"][0]["key"], "k3");
    let double = r#"INSERT INTO "Oplog" SELECT NULL, "Collection", "Key", "Operation", "PayloadJson",
        "TimestampPhysicalTime", "TimestampLogicalCounter", "TimestampNodeId", "Hash", "PreviousHash"
        FROM "Oplog" WHERE "Key" = 'k3'"#;
    assert_eq!(pair(run(double)).1["counts"], json!({ "duplicate": 1 }));
    let altered = r#"UPDATE "Oplog" SET "Collection" = 'other' WHERE "Key" = 'k3'"#;
    assert_eq!(pair(run(altered)).1["counts"], json!({ "tampered": 1 }));
    // An older copy only lacks the end.
    let (code, json) = pair(run(r#"DELETE FROM "Oplog" WHERE "Key" > 'k6'"#));
    assert_eq!((code, &json["counts"]), (Some(0), &json!({})), "{json}");
    let files = json["files"].as_object().expect("files");
    let mut behind: Vec<&Value> = files.values().map(|file| &file["behind"]).collect();
    behind.sort_by_key(|count| count.as_u64());
    assert_eq!(behind, [&json!(0), &json!(3)]);
}

/// Node B of the captured traffic knows no hashes: an old dialect, and no tampering.
#[test]
fn rows_without_hash_are_told_as_such() {
    let (code, json) = pair(|db| {
        let sql = r#"UPDATE "Oplog" SET "Hash" = NULL, "PreviousHash" = NULL"#;
        db.execute_batch(sql).expect("SQL");
    });
    assert_eq!(
        (code, &json["counts"]),
        (Some(0), &json!({ "no-hash": 10 }))
    );
}
