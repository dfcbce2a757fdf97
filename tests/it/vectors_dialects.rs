//! What nodes of three releases answered, and the fixture node beside it, question by question.

use crate::fixture::node;
use crate::vectors::{hex, load};
use crate::vectors_wire::unhex;
use anyhow::{Context, Result, ensure};
use cbagent::adapters::cbddc_wire::channel::{ChannelKeys, Role, encode_hello, exchange_hellos};
use cbagent::adapters::cbddc_wire::compression::decompress;
use cbagent::adapters::cbddc_wire::frame::{Frame, read_frame, write_frame};
use cbagent::adapters::cbddc_wire::messages::{
    ChainRange, ChangeSet, Clock, HandshakeResponse, SecureEnvelope, SnapshotChunk,
    VectorClockResponse, kind, to_domain,
};
use cbagent::adapters::cbddc_wire::{CanaryWriter, Secret, Security, WireClient, WireOptions};
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::oplog::{HashCheck, OplogEntry, check_hash};
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::fixture::snapshot::Snapshot;
use p256::pkcs8::DecodePublicKey as _;
use prost::Message;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const LIMIT: usize = 1 << 20;
const TOKEN: &str = "a-long-enough-cluster-token";
const HELLO_BYTES: usize = 4 + 91;

const RELEASES: [(Dialect, &str); 3] = [
    (Dialect::V2_3, "dotnet-captured-v2.3.8.json"),
    (Dialect::V1_1, "dotnet-captured-v1.1.7.json"),
    (Dialect::V0_9, "dotnet-captured-v0.9.1.json"),
];

/// One answer as it went over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    kind: u8,
    compression: u8,
    payload: Vec<u8>,
}

impl Answer {
    fn plain(&self) -> Vec<u8> {
        match self.compression {
            0 => self.payload.clone(),
            _ => decompress(&self.payload, LIMIT).expect("Brotli"),
        }
    }

    fn decode<M: Message + Default>(&self) -> M {
        M::decode(self.plain().as_slice()).expect("it decodes")
    }
}

/// One question, and what became of it.
struct Exchange {
    name: String,
    kind: u8,
    payload: Vec<u8>,
    outcome: String,
    cut: bool,
    answers: Vec<Answer>,
}

fn byte(value: &Value) -> u8 {
    value
        .as_u64()
        .and_then(|n| n.try_into().ok())
        .expect("a byte")
}

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().expect("hex"))
}

fn exchanges(file: &str) -> Vec<Exchange> {
    let answer = |answer: &Value| Answer {
        kind: byte(&answer["type"]),
        compression: byte(&answer["compression"]),
        payload: bytes(&answer["payload_hex"]),
    };
    let exchange = |it: &Value| {
        let responses = it["responses"].as_array().expect("a list");
        Exchange {
            name: it["name"].as_str().expect("a name").to_owned(),
            kind: byte(&it["request_type"]),
            payload: bytes(&it["request_payload_hex"]),
            outcome: it["outcome"].as_str().expect("an outcome").to_owned(),
            cut: responses.iter().any(|answer| answer["cut"] == true),
            answers: responses.iter().map(answer).collect(),
        }
    };
    let vectors = load(file);
    let all = vectors["exchanges"].as_array().expect("exchanges");
    all.iter().map(exchange).collect()
}

/// The events that the real node gave for the pull of everything.
fn events(exchanges: &[Exchange]) -> Vec<OplogEntry> {
    let all = exchanges.iter().find(|it| it.name == "pull all");
    let set: ChangeSet = all.expect("it was asked").answers[0].decode();
    to_domain(set.entries).expect("known operations")
}

/// What its clock said: 0.9.1 names an event which it does not hold.
fn told_clock(exchanges: &[Exchange]) -> VectorClock {
    let asked = exchanges.iter().find(|it| it.name == "get vector clock");
    let told: VectorClockResponse = asked.expect("it was asked").answers[0].decode();
    VectorClock::from(told)
}

#[test]
fn what_real_nodes_answered_decodes() {
    for (dialect, file) in RELEASES {
        let name = dialect.name();
        let exchanges = exchanges(file);
        let events = events(&exchanges);
        assert_eq!(events.len(), if name == "0.9" { 1 } else { 12 });
        let clock = told_clock(&exchanges);
        for event in &events {
            assert_eq!(check_hash(event), HashCheck::Matches, "{name}: {event:?}");
        }
        let last = events.last().map(|event| event.hlc.moment());
        let is_ahead = clock.get("n1") > last;
        assert_eq!(
            (is_ahead, clock.get("n1") == last),
            (name == "0.9", name != "0.9")
        );
        for exchange in exchanges.iter().filter(|it| !it.cut) {
            for answer in &exchange.answers {
                match answer.kind {
                    kind::HANDSHAKE_RESPONSE => {
                        let told: HandshakeResponse = answer.decode();
                        let wrong = exchange.name == "handshake wrong token";
                        assert_eq!((told.node_id.as_str(), told.accepted), ("n1", !wrong));
                        let declares = !wrong && name != "0.9";
                        assert_eq!(!told.interesting_collections.is_empty(), declares);
                    }
                    kind::CLOCK => {
                        let latest = answer.decode::<Clock>().into();
                        assert_eq!(Some(latest), clock.latest());
                    }
                    kind::VECTOR_CLOCK => {
                        let told = VectorClock::from(answer.decode::<VectorClockResponse>());
                        assert_eq!(told, clock);
                    }
                    kind::CHANGE_SET => {
                        let set: ChangeSet = answer.decode();
                        let set = to_domain(set.entries).expect("known operations");
                        assert!(events.ends_with(&set), "{name}: {}", exchange.name);
                    }
                    kind::CHAIN_RANGE => {
                        let range: ChainRange = answer.decode();
                        let never = exchange.name.ends_with("unknown hash") || name == "2.3";
                        assert_eq!(range.snapshot_required, never, "{name}: {}", exchange.name);
                    }
                    kind::SNAPSHOT_CHUNK => drop(answer.decode::<SnapshotChunk>()),
                    other => panic!("type {other} was never captured"),
                }
            }
        }
    }
}

#[tokio::test]
async fn the_raw_sessions_of_real_nodes_decrypt() -> Result<()> {
    for (dialect, file) in RELEASES {
        let session = &load(file)["raw_session"];
        let secret = p256::SecretKey::from_slice(&bytes(&session["initiator_private_scalar_hex"]))?;
        assert_eq!(
            encode_hello(&secret)?,
            bytes(&session["initiator_hello_hex"])
        );
        let received = bytes(&session["received_hex"]);
        let (hello, frames) = received.split_at(HELLO_BYTES);
        let theirs = p256::PublicKey::from_public_key_der(&hello[4..])?;
        let keys = ChannelKeys::agree(&secret, &theirs, Role::Initiator);
        let (mut frames, mut kinds) = (frames, Vec::new());
        while let Some(answer) = read_answer(&mut frames, &keys).await? {
            kinds.push(answer.kind);
            if answer.kind == kind::HANDSHAKE_RESPONSE {
                assert!(answer.decode::<HandshakeResponse>().accepted);
            } else {
                let clock = VectorClock::from(answer.decode::<VectorClockResponse>());
                assert_eq!(clock, told_clock(&exchanges(file)), "{dialect:?}");
            }
        }
        assert_eq!(kinds, [kind::HANDSHAKE_RESPONSE, kind::VECTOR_CLOCK]);
    }
    Ok(())
}

async fn read_answer<R>(stream: &mut R, keys: &ChannelKeys) -> Result<Option<Answer>>
where
    R: tokio::io::AsyncRead + Unpin,
{
    let Some(frame) = read_frame(stream, LIMIT).await? else {
        return Ok(None);
    };
    ensure!(frame.kind == kind::SECURE_ENVELOPE, "it is not encrypted");
    let envelope = SecureEnvelope::decode(frame.payload.as_slice())?;
    let (kind, compression, payload) = keys.open(&envelope)?;
    Ok(Some(Answer {
        kind,
        compression,
        payload,
    }))
}

/// A connection that sends what it is told, and looks at bytes.
struct Raw {
    stream: TcpStream,
    keys: ChannelKeys,
}

impl Raw {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let keys = exchange_hellos(&mut stream, Role::Initiator).await?;
        Ok(Self { stream, keys })
    }

    async fn send(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        let frame = Frame {
            kind: kind::SECURE_ENVELOPE,
            compression: 0,
            payload: self.keys.seal(kind, 0, payload)?.encode_to_vec(),
        };
        Ok(write_frame(&mut self.stream, &frame).await?)
    }

    async fn answer(&mut self) -> Result<Option<Answer>> {
        read_answer(&mut self.stream, &self.keys).await
    }

    /// Sends a question that may be the last one: what comes, or nothing where the node hangs up.
    async fn ask(&mut self, kind: u8, payload: &[u8]) -> Option<Answer> {
        self.send(kind, payload).await.ok()?;
        self.answer().await.ok()?
    }
}

#[tokio::test]
async fn the_fixture_answers_as_real_nodes_did() -> Result<()> {
    for (dialect, file) in RELEASES {
        let folder = tempfile::tempdir()?;
        let exchanges = exchanges(file);
        let node = node("n1", folder.path()).like(dialect).with(&[
            "--token",
            TOKEN,
            "--collection",
            "Users",
            "--collection",
            "TodoLists",
        ]);
        let node = node.start().await?;
        let events = events(&exchanges);
        give(node.tcp, &events).await?;
        if let Some(ahead) = ahead(&exchanges, &events) {
            node.fault("drop-every=1").await?;
            give(node.tcp, &[ahead]).await?;
        }
        let mut raw = None;
        for exchange in &exchanges {
            let place = format!("{}: {}", dialect.name(), exchange.name);
            let anew =
                exchange.kind == kind::HANDSHAKE_REQUEST || place.ends_with("without handshake");
            if anew || raw.is_none() {
                raw = Some(Raw::connect(node.tcp).await?);
            }
            let link = raw.as_mut().context("just connected")?;
            let same = play(link, exchange).await;
            same.with_context(|| place)?;
            if exchange.outcome == "connection closed" && exchange.kind != kind::GET_VECTOR_CLOCK {
                // The next question goes to the same, closed connection, or to a new one.
                let rest = link.stream.read(&mut [0; 1]).await;
                ensure!(!matches!(rest, Ok(1..)), "it is open");
            }
        }
    }
    Ok(())
}

/// The event that the clock names and the node does not hold.
fn ahead(exchanges: &[Exchange], events: &[OplogEntry]) -> Option<OplogEntry> {
    let latest = told_clock(exchanges).latest()?;
    let last = events.last().filter(|last| last.hlc != latest)?;
    let next = OplogEntry {
        hlc: latest,
        previous_hash: last.hash.clone(),
        ..last.clone()
    };
    Some(next.seal())
}

/// Writes the events to the node as a peer does.
async fn give(address: SocketAddr, events: &[OplogEntry]) -> Result<()> {
    let options = WireOptions {
        security: Security::Secure,
        ..WireOptions::new("n0", Secret::new(TOKEN))
    };
    let mut client = WireClient::connect(address, options).await?;
    ensure!(client.handshake().await?.accepted, "the token was refused");
    let pushed = CanaryWriter::switched_on(&mut client)
        .push(events.to_vec())
        .await?;
    ensure!(pushed.accepted, "the events were refused");
    Ok(())
}

/// Asks what was asked, and compares.
async fn play(link: &mut Raw, exchange: &Exchange) -> Result<()> {
    match exchange.outcome.as_str() {
        "answered" => {
            link.send(exchange.kind, &exchange.payload).await?;
            let mut answers = Vec::new();
            for _ in &exchange.answers {
                answers.push(link.answer().await?.context("it hung up")?);
            }
            compare(exchange, &answers)
        }
        "connection closed" => {
            let said = link.ask(exchange.kind, &exchange.payload).await;
            ensure!(said.is_none(), "it answered {said:?}");
            Ok(())
        }
        "no answer within 3 s, connection open" => {
            link.send(exchange.kind, &exchange.payload).await?;
            let next = link.ask(kind::GET_VECTOR_CLOCK, &[]).await;
            let next = next.context("it hung up")?.kind;
            ensure!(next == kind::VECTOR_CLOCK, "it answered with type {next}");
            Ok(())
        }
        other => anyhow::bail!("what is {other:?}?"),
    }
}

fn compare(exchange: &Exchange, ours: &[Answer]) -> Result<()> {
    for (real, ours) in exchange.answers.iter().zip(ours) {
        let (a, b) = ((real.kind, real.compression), (ours.kind, ours.compression));
        ensure!(a == b, "type and compression are {b:?}, not {a:?}");
        if real.kind != kind::SNAPSHOT_CHUNK {
            let (real, ours) = (hex(&real.plain()), hex(&ours.plain()));
            ensure!(real == ours, "{ours} is not {real}");
            continue;
        }
        let ours = ours.decode::<SnapshotChunk>();
        let magic = b"SQLite format 3\0";
        if exchange.cut {
            // The length that the real one told is that of the whole file.
            let is_file = real.payload.len() > 2 && real.payload.windows(16).any(|it| it == magic);
            ensure!(ours.data.starts_with(magic) == is_file, "not that file");
            continue;
        }
        let real = real.decode::<SnapshotChunk>();
        ensure!(real.is_last == ours.is_last, "another end");
        if !real.data.is_empty() {
            let (real, ours) = (shape(&real.data)?, shape(&ours.data)?);
            ensure!(
                real == ours,
                "the snapshot is shaped {ours:?}, not {real:?}"
            );
        }
    }
    Ok(())
}

/// The names in a snapshot, of itself and of its first event, and what both hold.
fn shape(data: &[u8]) -> Result<(Vec<String>, Vec<String>, String, usize)> {
    let value: Value = serde_json::from_slice(data)?;
    let names = |value: &Value| -> Vec<String> {
        let fields = value.as_object().into_iter().flatten();
        fields.map(|(name, _)| name.clone()).collect()
    };
    let read: Snapshot = serde_json::from_slice(data)?;
    Ok((
        names(&value),
        names(&value["Oplog"][0]),
        read.node_id,
        read.oplog.len(),
    ))
}
