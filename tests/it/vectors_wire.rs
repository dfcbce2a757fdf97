//! The vectors of frames, of the secure channel and of captured traffic, both ways.

use crate::vectors::{chain, hex, load, path};
use cbagent::adapters::cbddc_wire::channel::{ChannelKeys, Role, encode_hello};
use cbagent::adapters::cbddc_wire::compression::decompress;
use cbagent::adapters::cbddc_wire::frame::{Frame, read_frame};
use cbagent::adapters::cbddc_wire::messages::{
    Ack, ChainRange, ChangeSet, Clock, Empty, Entry, GetChainRange, HandshakeRequest,
    HandshakeResponse, PullChanges, SecureEnvelope, SnapshotChunk, VectorClockEntry,
    VectorClockResponse, kind, to_domain,
};
use cbddc_domain::audit::{Audit, Page, Source};
use cbddc_domain::hlc::Hlc;
use cbddc_domain::oplog::{HashCheck, OplogEntry, check_hash};
use cbddc_domain::replication::FindingKind;
use prost::Message;
use serde_json::Value;

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits = text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    digits
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
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

/// An audit of these events finds that they have no hashes, and nothing worse.
fn audit_says_no_hash(entries: &[OplogEntry]) {
    let mut entries = entries.to_vec();
    entries.sort_by(|a, b| (a.hlc.moment(), &a.hlc.node).cmp(&(b.hlc.moment(), &b.hlc.node)));
    let mut audit = Audit::new(vec![Source::default()], 0);
    audit.feed(0, Page::of_events(&entries)).unwrap();
    audit.end(0, None);
    let report = audit.finish();
    let kinds: Vec<FindingKind> = report.counts.keys().copied().collect();
    assert!(kinds.iter().all(|kind| *kind == FindingKind::NoHash) && !report.is_bad());
    assert_eq!(kinds.is_empty(), entries.is_empty());
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
            audit_says_no_hash(&entries);
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
                        audit_says_no_hash(&entries);
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
