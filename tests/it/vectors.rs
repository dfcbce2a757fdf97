//! The vectors of `tests/vectors/`, both ways: what we encode are their bytes, what we decode are
//! their values.

use cbagent::adapters::cbddc_wire::channel::{ChannelKeys, Role, encode_hello};
use cbagent::adapters::cbddc_wire::compression::decompress;
use cbagent::adapters::cbddc_wire::frame::{Frame, read_frame};
use cbagent::adapters::cbddc_wire::messages::{
    Ack, ChainRange, ChangeSet, Clock, Empty, Entry, GetChainRange, HandshakeRequest,
    HandshakeResponse, PullChanges, SecureEnvelope, SnapshotChunk, VectorClockEntry,
    VectorClockResponse, kind, to_domain,
};
use cbddc_domain::hlc::Hlc;
use cbddc_domain::oplog::{
    HashCheck, Operation, OplogEntry, canonical_text, check_hash, cluster_hash, expected_hash,
    is_swapped, legacy_hash,
};
use prost::Message;
use serde_json::Value;
use std::cmp::Ordering;
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(name)
}

fn load(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    digits
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
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

fn chain() -> Vec<OplogEntry> {
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

/// The messages of the frame vectors, in their order, as values of our own.
fn messages() -> Vec<(u8, Vec<u8>)> {
    let sent = |index: usize, payload: &str| -> Entry {
        let entry = chain().remove(index);
        OplogEntry {
            payload: payload.into(),
            ..entry
        }
        .into()
    };
    let (alice, bob, todo) = (
        sent(0, "{\"name\":\"Alice\"}"),
        sent(1, "{\"name\":\"Bob\"}"),
        sent(2, "{\"done\":false}"),
    );
    let clock = |node: &str, wall, logic| VectorClockEntry {
        node_id: node.into(),
        hlc_wall: wall,
        hlc_logic: logic,
    };
    let empty = Empty {}.encode_to_vec();
    let request = HandshakeRequest {
        node_id: "probe".into(),
        auth_token: "Test-Cluster-Key".into(),
        supported_compression: vec!["brotli".into()],
        interesting_collections: vec![],
    };
    let response = HandshakeResponse {
        node_id: "node-a".into(),
        accepted: true,
        selected_compression: "brotli".into(),
        interesting_collections: vec!["Users".into(), "TodoLists".into()],
    };
    let rejected = HandshakeResponse {
        node_id: "node-a".into(),
        ..HandshakeResponse::default()
    };
    let latest = Clock::from(Hlc::new(1_700_000_000_009, 1, "node-a"));
    let vector = VectorClockResponse {
        entries: vec![
            clock("node-a", 1_700_000_000_009, 1),
            clock("node-b", 1_700_000_000_003, 0),
        ],
    };
    let since = PullChanges {
        since_wall: 1_700_000_000_000,
        since_logic: 1,
        since_node: "node-a".into(),
        collections: vec!["users".into()],
    };
    let range = GetChainRange {
        start_hash: chain().remove(0).hash,
        end_hash: chain().remove(2).hash,
    };
    let required = ChainRange {
        entries: vec![],
        snapshot_required: true,
    };
    vec![
        (kind::HANDSHAKE_REQUEST, request.encode_to_vec()),
        (kind::HANDSHAKE_RESPONSE, response.encode_to_vec()),
        (kind::HANDSHAKE_RESPONSE, rejected.encode_to_vec()),
        (kind::GET_CLOCK, empty.clone()),
        (kind::CLOCK, latest.encode_to_vec()),
        (kind::CLOCK, Clock::from(Hlc::default()).encode_to_vec()),
        (kind::GET_VECTOR_CLOCK, empty.clone()),
        (kind::VECTOR_CLOCK, vector.encode_to_vec()),
        (kind::PULL_CHANGES, PullChanges::default().encode_to_vec()),
        (kind::PULL_CHANGES, since.encode_to_vec()),
        (
            kind::CHANGE_SET,
            ChangeSet {
                entries: vec![alice, bob.clone()],
            }
            .encode_to_vec(),
        ),
        (kind::GET_CHAIN_RANGE, range.encode_to_vec()),
        (
            kind::CHAIN_RANGE,
            ChainRange {
                entries: vec![bob, todo],
                snapshot_required: false,
            }
            .encode_to_vec(),
        ),
        (kind::CHAIN_RANGE, required.encode_to_vec()),
        (
            kind::ACK,
            Ack {
                success: true,
                snapshot_required: false,
            }
            .encode_to_vec(),
        ),
        (kind::GET_SNAPSHOT, empty.clone()),
        (
            kind::SNAPSHOT_CHUNK,
            SnapshotChunk {
                data: vec![],
                is_last: true,
            }
            .encode_to_vec(),
        ),
        (kind::NODE_STATUS_REQUEST, empty),
    ]
}

#[tokio::test]
async fn frames_are_those_bytes() {
    let vectors = load("dotnet-derived-frames.json");
    let expected = vectors["frames"].as_array().unwrap();
    let ours = messages();
    assert_eq!(ours.len(), expected.len());
    for ((kind, payload), vector) in ours.into_iter().zip(expected) {
        let name = &vector["name"];
        assert_eq!(u64::from(kind), vector["type"].as_u64().unwrap(), "{name}");
        assert_eq!(hex(&payload), vector["payload_hex"], "{name}");
        let frame = Frame {
            kind,
            compression: 0,
            payload,
        };
        assert_eq!(hex(&frame.encode().unwrap()), vector["frame_hex"], "{name}");
        let bytes = unhex(vector["frame_hex"].as_str().unwrap());
        assert_eq!(
            read_frame(&mut bytes.as_slice(), 1024).await.unwrap(),
            Some(frame),
            "{name}"
        );
    }
}

#[test]
fn frames_hold_those_values() {
    let vectors = load("dotnet-derived-frames.json");
    let payload = |i: usize| unhex(vectors["frames"][i]["payload_hex"].as_str().unwrap());
    let request = HandshakeRequest::decode(payload(0).as_slice()).unwrap();
    assert_eq!(
        (request.node_id.as_str(), request.auth_token.as_str()),
        ("probe", "Test-Cluster-Key")
    );
    assert!(
        !format!("{request:?}").contains("Test-Cluster-Key"),
        "the token is in the debug output"
    );
    assert!(
        !HandshakeResponse::decode(payload(2).as_slice())
            .unwrap()
            .accepted
    );
    let clock = Hlc::from(Clock::decode(payload(4).as_slice()).unwrap());
    assert_eq!(clock, Hlc::new(1_700_000_000_009, 1, "node-a"));
    let set = ChangeSet::decode(payload(10).as_slice()).unwrap();
    let entries = to_domain(set.entries).unwrap();
    assert_eq!(entries[1].payload, "{\"name\":\"Bob\"}");
    let bare = |entry: &OplogEntry| OplogEntry {
        payload: String::new(),
        ..entry.clone()
    };
    assert_eq!(entries.iter().map(bare).collect::<Vec<_>>(), chain()[..2]);
    assert!(
        ChainRange::decode(payload(13).as_slice())
            .unwrap()
            .snapshot_required
    );
}

#[tokio::test]
async fn the_secure_channel_seals_and_opens_those_bytes() {
    let vectors = load("dotnet-derived-secure-channel.json");
    let field = |name: &str| unhex(vectors[name].as_str().unwrap());
    let initiator = p256::SecretKey::from_slice(&field("initiator_scalar_hex")).unwrap();
    let responder = p256::SecretKey::from_slice(&field("responder_scalar_hex")).unwrap();
    assert_eq!(
        encode_hello(&initiator).unwrap(),
        field("initiator_hello_hex")
    );
    assert_eq!(
        encode_hello(&responder).unwrap(),
        field("responder_hello_hex")
    );
    let sending = ChannelKeys::agree(&initiator, &responder.public_key(), Role::Initiator);
    let receiving = ChannelKeys::agree(&responder, &initiator.public_key(), Role::Responder);

    let inner = field("inner_plaintext_hex");
    let envelope = sending.seal_with_nonce(
        field("iv_hex").try_into().unwrap(),
        inner[0],
        inner[1],
        &inner[2..],
    );
    assert_eq!(envelope.ciphertext, field("ciphertext_hex"));
    assert_eq!(envelope.auth_tag, field("hmac_tag_hex"));
    let frame = Frame {
        kind: kind::SECURE_ENVELOPE,
        compression: 0,
        payload: envelope.encode_to_vec(),
    };
    assert_eq!(frame.encode().unwrap(), field("secure_frame_hex"));

    let read = read_frame(&mut field("secure_frame_hex").as_slice(), 1024)
        .await
        .unwrap()
        .unwrap();
    let mut received = SecureEnvelope::decode(read.payload.as_slice()).unwrap();
    assert_eq!(
        receiving.open(&received).unwrap(),
        (inner[0], inner[1], inner[2..].to_vec())
    );
    let back = receiving.seal(4, 0, b"answer").unwrap();
    assert_eq!(sending.open(&back).unwrap(), (4, 0, b"answer".to_vec()));
    assert!(
        sending.open(&received).is_err(),
        "each direction has its own key"
    );
    *received.ciphertext.last_mut().unwrap() ^= 1;
    assert!(
        receiving.open(&received).is_err(),
        "a changed frame was accepted"
    );
}

#[tokio::test]
async fn the_captured_exchanges_decode() {
    let vectors = load("nodejs-captured-exchanges.json");
    let mut pulls = 0;
    for exchange in vectors["exchanges"].as_array().unwrap() {
        let Some(response) = exchange["response_hex"].as_str() else {
            continue;
        };
        let frame = read_frame(&mut unhex(response).as_slice(), 1 << 20)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            u64::from(frame.kind),
            exchange["response_type"].as_u64().unwrap()
        );
        let payload = match frame.compression {
            0 => frame.payload,
            _ => decompress(&frame.payload, 1 << 20).unwrap(),
        };
        if frame.kind == kind::HANDSHAKE_RESPONSE {
            let answer = HandshakeResponse::decode(payload.as_slice()).unwrap();
            let accepted = exchange["name"] != "handshake wrong token";
            assert_eq!(
                (answer.node_id.as_str(), answer.accepted),
                ("node-a", accepted)
            );
        } else {
            let set = ChangeSet::decode(payload.as_slice()).unwrap();
            let entries = to_domain(set.entries).unwrap();
            assert!(
                entries
                    .iter()
                    .all(|entry| check_hash(entry) == HashCheck::NoHash)
            );
            let carol = entries
                .iter()
                .any(|entry| entry.key == "carol" && entry.payload.len() == 1526);
            pulls += usize::from(carol && entries[0].payload == "{\"name\":\"Alice\",\"age\":30}");
        }
    }
    assert_eq!(
        pulls, 4,
        "three plain pulls and one compressed one hold the events"
    );
}

#[tokio::test]
async fn the_tapped_traffic_decodes() {
    let lines = std::fs::read_to_string(path("nodejs-tap-node-b-to-node-a.jsonl")).unwrap();
    let mut seen = 0;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let bytes = unhex(line["hex"].as_str().unwrap());
        let mut rest = bytes.as_slice();
        while let Some(frame) = read_frame(&mut rest, 1 << 20).await.unwrap() {
            let payload = match frame.compression {
                0 => frame.payload,
                _ => decompress(&frame.payload, 1 << 20).unwrap(),
            };
            let decoded = match frame.kind {
                kind::HANDSHAKE_REQUEST => HandshakeRequest::decode(payload.as_slice()).map(drop),
                kind::HANDSHAKE_RESPONSE => HandshakeResponse::decode(payload.as_slice()).map(drop),
                kind::PULL_CHANGES => PullChanges::decode(payload.as_slice()).map(drop),
                kind::CHANGE_SET | kind::PUSH_CHANGES => {
                    ChangeSet::decode(payload.as_slice()).map(|set| {
                        let entries = to_domain(set.entries).unwrap();
                        assert!(
                            entries
                                .iter()
                                .all(|entry| check_hash(entry) == HashCheck::NoHash)
                        );
                    })
                }
                kind::ACK => Ack::decode(payload.as_slice()).map(drop),
                other => panic!("type {other} was never captured"),
            };
            decoded.unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 20, "only {seen} frames were seen");
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
    let heads = cbddc_tests::fixture::store::heads(&opened).unwrap();
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
