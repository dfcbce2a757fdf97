//! How fixture nodes catch up with each other: gaps, snapshots, filters, restored databases.

use crate::fixture::{SOON, TOKEN, dump, node, options, peer, rows};
use anyhow::Result;
use cbagent::adapters::cbddc_wire::link::Link;
use cbagent::adapters::cbddc_wire::messages::{
    ChainRange, ChangeSet, Clock, Entry, GetChainRange, HandshakeResponse, VectorClockResponse,
    kind,
};
use cbagent::adapters::cbddc_wire::{Security, WireClient};
use cbddc_domain::hlc::{Hlc, VectorClock};
use cbddc_domain::oplog::{Operation, OplogEntry};
use serde_json::json;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Three chained events of origin `far`.
fn three_events() -> Vec<OplogEntry> {
    let mut events: Vec<OplogEntry> = Vec::new();
    for key in ["1", "2", "3"] {
        let event = OplogEntry {
            collection: "users".into(),
            key: key.into(),
            operation: Operation::Put,
            payload: "{}".into(),
            hlc: Hlc::new(
                1_700_000_000_000,
                i32::try_from(events.len()).unwrap_or(0),
                "far",
            ),
            hash: String::new(),
            previous_hash: events
                .last()
                .map(|last| last.hash.clone())
                .unwrap_or_default(),
        };
        events.push(event.seal());
    }
    events
}

/// A peer that leaves the middle event out of its first two pulls, one with the first event and one
/// with the last, but gives it when asked for the range.
async fn serve_with_a_hole(stream: TcpStream, events: Vec<OplogEntry>) -> Result<()> {
    let wire = |wanted: &[OplogEntry]| wanted.iter().cloned().map(Entry::from).collect::<Vec<_>>();
    let mut link = Link::plain(stream, 1 << 20);
    let mut shown = 1;
    while let Some(request) = link.receive().await? {
        let mut clock = VectorClock::default();
        clock.observe(&events[shown - 1].hlc);
        match request.kind {
            kind::HANDSHAKE_REQUEST => {
                let accepted = HandshakeResponse {
                    node_id: "far".into(),
                    accepted: true,
                    ..Default::default()
                };
                link.send(kind::HANDSHAKE_RESPONSE, &accepted).await?;
            }
            kind::GET_CLOCK => link.send(kind::CLOCK, &Clock::default()).await?,
            kind::GET_VECTOR_CLOCK => {
                link.send(kind::VECTOR_CLOCK, &VectorClockResponse::from(&clock))
                    .await?;
            }
            kind::PULL_CHANGES => {
                let entries = wire(&events[shown - 1..shown]);
                link.send(kind::CHANGE_SET, &ChangeSet { entries }).await?;
                shown = 3;
            }
            kind::GET_CHAIN_RANGE => {
                let asked: GetChainRange = request.decode()?;
                assert_eq!(
                    (asked.start_hash, asked.end_hash),
                    (events[0].hash.clone(), events[1].hash.clone())
                );
                let range = ChainRange {
                    entries: wire(&events[1..2]),
                    snapshot_required: false,
                };
                link.send(kind::CHAIN_RANGE, &range).await?;
            }
            other => panic!("type {other} was not expected"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_gap_is_filled_by_chain_range() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let far = format!("far={}", listener.local_addr()?);
    let events = three_events();
    let served = events.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("the node connects");
        serve_with_a_hole(stream, served).await
    });
    let a = node("a", folder.path())
        .with(&["--plaintext", "--peer", &far])
        .start()
        .await?;
    rows(&a, 3).await?;
    let mut client = WireClient::connect(a.tcp, options(Security::Plaintext, TOKEN)).await?;
    assert!(client.handshake().await?.accepted);
    assert_eq!(client.pull(&Hlc::default(), &[]).await?, events);
    Ok(())
}

#[tokio::test]
async fn a_chain_that_does_not_link_at_its_origin_is_taken_by_snapshot() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path()).start().await?;
    a.put("users", "old", "{}").await?;
    let b = node("b", folder.path())
        .with(&["--peer", &peer("a", &a)])
        .start()
        .await?;
    rows(&b, 1).await?;
    a.fault("break-chain=1").await?;
    a.put("users", "new", "{\"a\":1}").await?;
    rows(&b, 2).await?;
    a.put("users", "newer", "{}").await?;
    rows(&b, 3).await?;
    assert_eq!(dump(&b).await?, dump(&a).await?);
    assert_eq!(b.get("users", "new").await?.as_deref(), Some("{\"a\":1}"));
    Ok(())
}

#[tokio::test]
async fn the_holes_of_one_node_do_not_spread_to_a_third() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path()).start().await?;
    let to_a = peer("a", &a);
    let b = node("b", folder.path()).with(&["--peer", &to_a, "--faults", "drop-every=2"]);
    let b = b.start().await?;
    let c = node("c", folder.path()).with(&["--peer", &peer("b", &b), "--peer", &to_a]);
    let c = c.start().await?;
    a.put("users", "1", "{}").await?;
    rows(&b, 1).await?;
    rows(&c, 1).await?;
    c.fault("stall-sync").await?;
    a.put("users", "2", "{}").await?;
    a.put("users", "3", "{}").await?;
    rows(&b, 2).await?;
    a.fault("refuse-auth").await?;
    c.fault("clear").await?;
    // Between two failures at a lie many rounds with b, which offers the third event only.
    let twice = |stats: &serde_json::Value| stats["peers"]["a"]["failures"].as_u64() >= Some(2);
    c.wait_until(SOON, "two failures", twice).await?;
    assert_eq!(c.stats().await?["oplog_rows"], 1);
    a.fault("clear").await?;
    rows(&c, 3).await?;
    assert_eq!(dump(&c).await?, dump(&a).await?);
    Ok(())
}

#[tokio::test]
async fn a_restored_node_learns_its_own_later_events_from_its_peer_and_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let spec = node("a", folder.path());
    let a = spec.start().await?;
    a.put("users", "1", "{}").await?;
    let backup = folder.path().join("backup.db");
    let file = folder.path().join("a.db");
    rusqlite::Connection::open(&file)?.execute("VACUUM INTO ?", [backup.to_str()])?;
    a.put("users", "2", "{}").await?;
    let b = node("b", folder.path())
        .with(&["--peer", &peer("a", &a)])
        .start()
        .await?;
    rows(&b, 2).await?;
    let (tcp, http) = (a.tcp.port(), a.http.port());
    a.stop().await?;
    std::fs::rename(&backup, &file)?;
    let a = spec
        .on_ports(tcp, http)
        .with(&["--peer", &peer("b", &b)])
        .start()
        .await?;
    assert_eq!(a.get("users", "1").await?.as_deref(), Some("{}"));
    rows(&a, 2).await?;
    a.put("users", "3", "{}").await?;
    rows(&b, 3).await?;
    let entries = dump(&b).await?;
    assert!(
        entries
            .windows(2)
            .all(|pair| pair[1].previous_hash == pair[0].hash)
    );
    Ok(())
}

#[tokio::test]
async fn a_peer_that_was_away_too_long_catches_up_by_snapshot() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path()).start().await?;
    a.put("users", "1", "{}").await?;
    let b = node("b", folder.path())
        .with(&["--peer", &peer("a", &a)])
        .start()
        .await?;
    rows(&b, 1).await?;
    b.fault("stall-sync").await?;
    for key in ["2", "3"] {
        // Another millisecond, so that pruning can part them.
        tokio::time::sleep(Duration::from_millis(3)).await;
        a.put("users", key, "{}").await?;
    }
    let entries = dump(&a).await?;
    a.request("POST", "/prune", &entries[1].hlc.wall.to_string())
        .await?;
    b.fault("clear").await?;
    rows(&b, 2).await?;
    let stats = b.stats().await?;
    assert_eq!(
        (&stats["documents"], &stats["clock"]),
        (&json!(3), &a.stats().await?["clock"])
    );
    Ok(())
}

#[tokio::test]
async fn a_pruned_peer_is_joined_by_snapshot_and_its_boundary_comes_along() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path()).start().await?;
    for key in ["1", "2", "3"] {
        a.put("users", key, "{}").await?;
        // Another millisecond, so that pruning can part them.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let entries = dump(&a).await?;
    a.request("POST", "/prune", &entries[1].hlc.wall.to_string())
        .await?;
    let b = node("b", folder.path())
        .with(&["--peer", &peer("a", &a)])
        .start()
        .await?;
    rows(&b, 1).await?;
    let stats = b.stats().await?;
    assert_eq!(
        stats["documents"], 3,
        "documents of pruned events come with the snapshot"
    );
    let db = rusqlite::Connection::open(folder.path().join("b.db"))?;
    let boundary: String = db.query_row(r#"SELECT "Hash" FROM "SnapshotMetadata""#, [], |row| {
        row.get(0)
    })?;
    assert_eq!(boundary, entries[1].hash);
    assert_eq!(dump(&b).await?[0].previous_hash, boundary);
    Ok(())
}

#[tokio::test]
async fn a_filtered_node_takes_only_its_collections_and_does_not_lag() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path()).start().await?;
    let b = node("b", folder.path())
        .with(&["--peer", &peer("a", &a), "--interest", "users"])
        .start()
        .await?;
    for (collection, key) in [
        ("users", "1"),
        ("todos", "2"),
        ("users", "3"),
        ("todos", "4"),
    ] {
        a.put(collection, key, "{}").await?;
    }
    rows(&b, 2).await?;
    let clock = a.stats().await?["clock"].clone();
    b.wait_until(SOON, "the clock of a", |stats| stats["clock"] == clock)
        .await?;
    let outcome = WireClient::connect(b.tcp, options(Security::Secure, TOKEN))
        .await?
        .handshake()
        .await?;
    assert_eq!(outcome.interests, ["users"]);
    Ok(())
}
