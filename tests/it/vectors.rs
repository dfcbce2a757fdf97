//! The vectors of `tests/vectors/`, both ways: what we encode are their bytes, what we decode are
//! their values.

use cbddc_domain::hlc::Hlc;
use cbddc_domain::oplog::{
    HashCheck, Operation, OplogEntry, canonical_text, check_hash, cluster_hash, expected_hash,
    is_swapped, legacy_hash,
};
use serde_json::Value;
use std::cmp::Ordering;
use std::path::PathBuf;

pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(name)
}

pub(crate) fn load(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn entry(value: &Value) -> OplogEntry {
    let logic = i32::try_from(value["logic"].as_i64().unwrap()).unwrap();
    OplogEntry {
        collection: text(&value["collection"]),
        key: text(&value["key"]),
        operation: Operation::from_number(value["operation"].as_i64().unwrap()).unwrap(),
        payload: String::new(),
        hlc: Hlc::new(
            value["wall"].as_i64().unwrap(),
            logic,
            value["node"].as_str().unwrap(),
        ),
        hash: text(&value["hash"]),
        previous_hash: text(&value["previous_hash"]),
    }
}

pub(crate) fn chain() -> Vec<OplogEntry> {
    load("dotnet-derived-oplog-hash.json")["chain_one_origin"]
        .as_array()
        .unwrap()
        .iter()
        .map(entry)
        .collect()
}

#[test]
fn hashes_follow_the_canonical_text() {
    let vectors = load("dotnet-derived-oplog-hash.json");
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let entry = entry(case);
        assert_eq!(
            canonical_text(&entry),
            case["canonical_utf8"],
            "{}",
            case["name"]
        );
        assert_eq!(
            hex(canonical_text(&entry).as_bytes()),
            case["canonical_hex"]
        );
        assert_eq!(expected_hash(&entry), entry.hash, "{}", case["name"]);
    }
    let mut previous = String::new();
    for entry in chain() {
        assert_eq!(entry.previous_hash, previous);
        assert_eq!(check_hash(&entry), HashCheck::Matches);
        previous = entry.hash;
    }
}

#[test]
fn swapped_and_legacy_rows_are_recognised() {
    let vectors = load("dotnet-derived-oplog-hash.json");
    let swapped = &vectors["swapped_by_snapshot_import"];
    let row = OplogEntry {
        hash: text(&swapped["hash"]),
        previous_hash: text(&swapped["previous_hash"]),
        ..chain().remove(1)
    };
    assert!(is_swapped(&row));
    assert_eq!(check_hash(&row), HashCheck::Swapped);
    let legacy = OplogEntry {
        payload: "{\"name\":\"Alice\"}".into(),
        hash: text(&vectors["legacy_v0_8_3_and_v0_8_4"]["hash"]),
        ..chain().remove(0)
    };
    assert_eq!(legacy_hash(&legacy), legacy.hash);
    assert_eq!(check_hash(&legacy), HashCheck::MatchesLegacyRule);
}

#[test]
fn clocks_order_as_dotnet_does() {
    let vectors = load("dotnet-derived-hlc-order.json");
    for case in vectors["cases"].as_array().unwrap() {
        let hlc = |value: &Value| {
            let logic = i32::try_from(value[1].as_i64().unwrap()).unwrap();
            Hlc::new(
                value[0].as_i64().unwrap(),
                logic,
                value[2].as_str().unwrap(),
            )
        };
        let expected = case["cmp"].as_i64().unwrap().cmp(&0);
        assert_eq!(hlc(&case["a"]).cmp(&hlc(&case["b"])), expected, "{case}");
        assert_eq!(
            hlc(&case["b"]).cmp(&hlc(&case["a"])),
            expected.reverse(),
            "{case}"
        );
        assert_eq!(hlc(&case["a"]).cmp(&hlc(&case["a"])), Ordering::Equal);
    }
}

#[test]
fn cluster_hashes_name_tokens() {
    let vectors = load("dotnet-derived-discovery.json");
    for (token, hash) in vectors["cluster_hash"].as_object().unwrap() {
        assert_eq!(cluster_hash(token), hash.as_str().unwrap());
    }
}

#[test]
fn both_sample_databases_hold_the_chain() {
    let efcore = r#"SELECT "Collection","Key","Operation","TimestampPhysicalTime","TimestampLogicalCounter",
        "TimestampNodeId","Hash","PreviousHash" FROM "Oplog" ORDER BY "Id""#;
    let sqlite = r#"SELECT Collection, Key, Operation, HlcWall, HlcLogic, HlcNode, Hash, PreviousHash
        FROM Oplog ORDER BY Id"#;
    for (file, sql) in [
        ("dotnet-derived-efcore.db", efcore),
        ("dotnet-derived-sqlite-v0.9.1.db", sqlite),
    ] {
        // Immutable: SQLite then writes no file of its own beside the sample.
        let uri = format!("file:{}?immutable=1", path(file).display());
        let flags =
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
        let db = rusqlite::Connection::open_with_flags(uri, flags).unwrap();
        let mut statement = db.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            Ok(OplogEntry {
                collection: row.get(0)?,
                key: row.get(1)?,
                operation: Operation::from_number(row.get(2)?).unwrap(),
                payload: String::new(),
                hlc: Hlc {
                    wall: row.get(3)?,
                    logic: row.get(4)?,
                    node: row.get(5)?,
                },
                hash: row.get(6)?,
                previous_hash: row.get(7)?,
            })
        });
        let rows: Vec<OplogEntry> = rows.unwrap().map(Result::unwrap).collect();
        assert_eq!(rows, chain(), "{file}");
    }
}

#[test]
fn the_fixture_opens_the_sample_database_and_its_schema_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let sample = folder.path().join("sample.db");
    std::fs::copy(path("dotnet-derived-efcore.db"), &sample).unwrap();
    let opened = cbddc_tests::fixture::store::open(&sample).unwrap();
    let heads = cbddc_tests::fixture::store::heads(&opened, false).unwrap();
    assert_eq!(heads["node-a"].hash, chain().last().unwrap().hash);

    let fresh = cbddc_tests::fixture::store::open(&folder.path().join("fresh.db")).unwrap();
    let original = rusqlite::Connection::open(path("dotnet-derived-efcore.db")).unwrap();
    let columns = |db: &rusqlite::Connection, table: &str| -> Vec<(String, String, bool)> {
        let mut statement = db
            .prepare(&format!("PRAGMA table_info(\"{table}\")"))
            .unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(1)?, row.get(2)?, row.get(3)?)));
        rows.unwrap().map(Result::unwrap).collect()
    };
    for table in [
        "Oplog",
        "DocumentMetadata",
        "SnapshotMetadata",
        "RemotePeers",
    ] {
        assert!(!columns(&fresh, table).is_empty());
        assert_eq!(columns(&fresh, table), columns(&original, table), "{table}");
    }
}

#[test]
fn the_snapshot_stream_is_read() {
    let text = std::fs::read_to_string(path("dotnet-derived-snapshot-body.json")).unwrap();
    let snapshot: cbddc_tests::fixture::snapshot::Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(snapshot.oplog.len(), 5);
    let hashes: Vec<Option<String>> = snapshot
        .oplog
        .iter()
        .map(|entry| entry.hash.clone())
        .collect();
    assert_eq!(
        hashes,
        chain()
            .into_iter()
            .map(|entry| Some(entry.hash))
            .collect::<Vec<_>>()
    );
    let again: Value = serde_json::to_value(&snapshot).unwrap();
    assert_eq!(
        again,
        serde_json::from_str::<Value>(&text).unwrap(),
        "names or values changed on the way"
    );
}
