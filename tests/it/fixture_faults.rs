//! Each fault switch of the fixture node, with its effect as others see it.

use crate::fixture::{SOON, TOKEN, dump, joined, node, options, pair, peer, rows};
use anyhow::{Context, Result};
use cbagent::adapters::cbddc_wire::{Security, WireClient, WireError, WireOptions};
use cbddc_domain::oplog::{HashCheck, OplogEntry, check_hash};
use cbddc_tests::fixture::process::FixtureNode;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

async fn write_three(node: &FixtureNode) -> Result<()> {
    for key in ["1", "2", "3"] {
        node.put("users", key, "{}").await?;
    }
    Ok(())
}

/// Three events on a node with these faults, as the wire shows them.
async fn three_with(faults: &str) -> Result<Vec<OplogEntry>> {
    let folder = tempfile::tempdir()?;
    let node = node("a", folder.path())
        .with(&["--faults", faults])
        .start()
        .await?;
    write_three(&node).await?;
    dump(&node).await
}

fn checks(entries: &[OplogEntry]) -> Vec<HashCheck> {
    entries.iter().map(check_hash).collect()
}

fn integrity(path: &Path) -> Result<String> {
    let db = rusqlite::Connection::open(path)?;
    let check = db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    Ok(check.unwrap_or_else(|e| e.to_string()))
}

#[tokio::test]
async fn drop_every_loses_events_but_moves_the_clock() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, b) = pair(folder.path(), &["--faults", "drop-every=2"]).await?;
    for key in ["1", "2", "3", "4"] {
        a.put("users", key, "{}").await?;
    }
    let all = a.stats().await?["clock"].clone();
    b.wait_until(SOON, "the clock", |stats| {
        stats["clock"] == all && stats["dropped"] == 2
    })
    .await?;
    let (of_a, of_b) = (dump(&a).await?, dump(&b).await?);
    assert_eq!((of_a.len(), of_b.len()), (4, 2));
    let held: BTreeSet<_> = of_b.iter().map(|entry| &entry.hash).collect();
    assert!(
        of_b.iter()
            .any(|e| !e.previous_hash.is_empty() && !held.contains(&e.previous_hash)),
        "no gap"
    );
    Ok(())
}

#[tokio::test]
async fn dup_every_shows_one_hash_twice() -> Result<()> {
    let entries = three_with("dup-every=2").await?;
    let hashes: Vec<_> = entries.iter().map(|entry| &entry.hash).collect();
    assert_eq!(entries.len(), 4);
    assert_eq!(hashes[1], hashes[2]);
    Ok(())
}

#[tokio::test]
async fn a_healthy_peer_takes_each_duplicate_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, b) = pair(folder.path(), &["--faults", "dup-every=1"]).await?;
    write_three(&b).await?;
    rows(&b, 6).await?;
    rows(&a, 3).await?;
    Ok(())
}

#[tokio::test]
async fn break_chain_shows_as_tampered() -> Result<()> {
    let entries = three_with("break-chain=2").await?;
    assert_eq!(
        checks(&entries),
        [HashCheck::Matches, HashCheck::Differs, HashCheck::Matches]
    );
    Ok(())
}

#[tokio::test]
async fn rehash_break_shows_as_a_gap() -> Result<()> {
    let entries = three_with("rehash-break=2").await?;
    assert_eq!(checks(&entries), [HashCheck::Matches; 3]);
    assert!(
        entries
            .iter()
            .all(|entry| entry.hash != entries[1].previous_hash)
    );
    assert_eq!(entries[2].previous_hash, entries[1].hash);
    Ok(())
}

#[tokio::test]
async fn fork_at_shows_two_events_after_one() -> Result<()> {
    let entries = three_with("fork-at=3").await?;
    assert_eq!(checks(&entries), [HashCheck::Matches; 3]);
    assert_eq!(entries[2].previous_hash, entries[1].previous_hash);
    assert_ne!(entries[2].hash, entries[1].hash);
    Ok(())
}

#[tokio::test]
async fn swap_hash_exchanges_what_is_there_and_what_comes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, b) = pair(folder.path(), &[]).await?;
    write_three(&b).await?;
    b.fault("swap-hash").await?;
    b.fault("swap-hash").await?;
    assert_eq!(
        checks(&dump(&b).await?),
        [HashCheck::Swapped; 3],
        "twice is as once"
    );
    a.put("users", "4", "{}").await?;
    rows(&b, 4).await?;
    assert_eq!(checks(&dump(&b).await?)[3], HashCheck::Swapped);
    Ok(())
}

#[tokio::test]
async fn health_tells_and_lies() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path()).start().await?;
    let health = async |query: &str| a.request("GET", &format!("/health{query}"), "").await;
    assert_eq!(health("").await?, (200, "Healthy".into()));
    let (status, body) = health("?format=json").await?;
    let body: serde_json::Value = serde_json::from_str(&body)?;
    assert_eq!((status, body["status"].as_str()), (200, Some("Healthy")));
    a.fault("degraded-after=0").await?;
    assert_eq!(health("").await?, (200, "Degraded".into()));
    a.fault("unhealthy-after=0").await?;
    assert_eq!(health("").await?, (503, "Unhealthy".into()));
    a.fault("clear").await?;
    a.fault("unhealthy-after=3600").await?;
    assert_eq!(health("").await?, (200, "Healthy".into()));
    a.fault("slow-health=300").await?;
    let started = Instant::now();
    health("").await?;
    assert!(started.elapsed() >= Duration::from_millis(300));

    write_three(&a).await?;
    assert_eq!(integrity(&folder.path().join("a.db"))?, "ok");
    a.fault("health-lies").await?;
    assert_eq!(health("").await?, (200, "Healthy".into()));
    assert_ne!(integrity(&folder.path().join("a.db"))?, "ok");
    Ok(())
}

#[tokio::test]
async fn refuse_auth_and_wrong_token_part_the_peers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let refusing = node("a", folder.path())
        .with(&["--faults", "refuse-auth"])
        .start()
        .await?;
    let mut client = WireClient::connect(refusing.tcp, options(Security::Secure, TOKEN)).await?;
    assert!(!client.handshake().await?.accepted);
    let refused = node("b", folder.path())
        .with(&["--peer", &peer("a", &refusing)])
        .start()
        .await?;
    let failing = |stats: &serde_json::Value| stats["peers"]["a"]["failures"].as_u64() >= Some(1);
    let stats = refused.wait_until(SOON, "a failure", failing).await?;
    assert_eq!(stats["peers_joined"], json!([]));
    refusing.fault("clear").await?;
    refused
        .wait_until(SOON, "joining", |stats| {
            stats["peers_joined"] == json!(["a"])
        })
        .await?;
    refusing.fault("refuse-auth").await?;
    refused
        .wait_until(SOON, "parting", |stats| stats["peers_joined"] == json!([]))
        .await?;
    refusing.fault("clear").await?;
    refused.fault("wrong-token").await?;
    let refusal =
        |stats: &serde_json::Value| stats["peers"]["a"]["last_error"] == "a refused the token";
    refused.wait_until(SOON, "the refusal", refusal).await?;
    Ok(())
}

#[tokio::test]
async fn crashes_and_delays_at_start_and_stop() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let with = |faults: &str| node("a", folder.path()).with(&["--faults", faults]);
    let code = with("crash-on-start=7").spawn()?.wait().await?;
    assert_eq!(code.code(), Some(7));
    let mut crashing = with("crash-after=0").start().await?;
    assert_eq!(crashing.wait(SOON).await?.code(), Some(1));
    let started = Instant::now();
    let mut slow = with("slow-start=1,hang-on-stop").start().await?;
    assert!(started.elapsed() >= Duration::from_secs(1));
    slow.terminate()?;
    assert!(
        slow.wait(Duration::from_millis(300)).await.is_err(),
        "it ended though it should hang"
    );
    slow.fault("clear").await?;
    assert!(slow.stop().await?.success());
    let unknown = with("eat-lunch").start().await;
    assert!(unknown.is_err());
    Ok(())
}

#[tokio::test]
async fn corrupt_db_leaves_a_file_that_fails_its_check() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.db");
    let a = node("a", folder.path()).start().await?;
    write_three(&a).await?;
    assert!(a.stop().await?.success());
    assert_eq!(integrity(&path)?, "ok");
    let a = node("a", folder.path())
        .with(&["--faults", "corrupt-db"])
        .start()
        .await?;
    assert_eq!(integrity(&path)?, "ok");
    assert!(a.stop().await?.success());
    assert_ne!(integrity(&path)?, "ok");
    Ok(())
}

#[tokio::test]
async fn stall_sync_takes_nothing_in_but_answers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, b) = pair(folder.path(), &[]).await?;
    b.fault("stall-sync").await?;
    a.put("users", "1", "{}").await?;
    b.put("users", "2", "{}").await?;
    rows(&a, 2).await?;
    // Several rounds of a have passed by now; b has rounds of the same length.
    a.put("users", "3", "{}").await?;
    b.put("users", "4", "{}").await?;
    rows(&a, 4).await?;
    assert_eq!(b.stats().await?["oplog_rows"], 2);
    b.fault("clear").await?;
    rows(&b, 4).await?;
    Ok(())
}

#[tokio::test]
async fn slow_reply_runs_into_the_time_limit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path()).start().await?;
    let quick = WireOptions {
        read_timeout: Duration::from_secs(2),
        ..options(Security::Secure, TOKEN)
    };
    let mut client = WireClient::connect(a.tcp, quick).await?;
    assert!(client.handshake().await?.accepted);
    a.fault("slow-reply=60000").await?;
    let slow = client.clock().await;
    assert!(
        matches!(slow, Err(WireError::Timeout { step: "clock", .. })),
        "{slow:?}"
    );
    Ok(())
}

#[tokio::test]
async fn clock_skew_shows_in_the_events() -> Result<()> {
    let day = 86_400_000;
    let honest = three_with("").await?;
    let skewed = three_with(&format!("clock-skew={day}")).await?;
    let ahead = skewed[0].hlc.wall - honest[0].hlc.wall;
    assert!((day..day + 600_000).contains(&ahead), "{ahead} ms ahead");
    Ok(())
}

#[tokio::test]
async fn empty_clock_on_restart_fills_with_traffic() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let spec = node("a", folder.path()).with(&["--faults", "empty-clock-on-restart"]);
    let a = spec.start().await?;
    write_three(&a).await?;
    assert_eq!(joined(&a).await?.vector_clock().await?.0.len(), 1);
    a.stop().await?;
    let a = spec.start().await?;
    let mut client = joined(&a).await?;
    assert!(client.vector_clock().await?.0.is_empty());
    assert_eq!(client.clock().await?, None);
    a.put("users", "4", "{}").await?;
    let latest = dump(&a).await?.pop().context("a row")?;
    assert_eq!(
        client.vector_clock().await?.get("a"),
        Some(latest.hlc.moment())
    );
    Ok(())
}

#[tokio::test]
async fn faults_come_from_the_environment_and_are_listed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path())
        .with(&["--faults", "dup-every=3"])
        .start()
        .await?;
    write_three(&a).await?;
    assert_eq!(
        a.stats().await?["faults"],
        json!({ "dup-every": { "value": 3, "count": 3 } })
    );
    assert_eq!(a.request("POST", "/fault", "eat-lunch").await?.0, 400);
    a.fault("clear").await?;
    assert_eq!(a.stats().await?["faults"], json!({}));
    Ok(())
}

/// Two writers drift apart for good and are healthy; one writer and a reader do not.
#[tokio::test]
async fn drift_parts_nodes_that_write_at_the_same_time() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, b) = pair(folder.path(), &["--faults", "drift=3"]).await?;
    for key in 0..20 {
        a.put("users", &format!("alone-{key}"), "{}").await?;
        rows(&b, key + 1).await?;
    }
    assert_eq!(b.stats().await?["apart"], json!([]));
    for key in 0..40 {
        b.put("users", &format!("b-{key}"), "{}").await?;
        a.put("users", &format!("a-{key}"), "{}").await?;
        let clock = a.stats().await?["clock"]["a"].clone();
        // It refuses in one round what it takes in the next.
        b.wait_until(SOON, "the clock", |stats| stats["clock"]["a"] == clock)
            .await?;
    }
    assert_eq!(b.stats().await?["apart"], json!(["a"]));
    assert_eq!(
        b.request("GET", "/health", "").await?,
        (200, "Healthy".into())
    );
    let (of_a, of_b) = (dump(&a).await?, dump(&b).await?);
    let held = |entries: &[OplogEntry]| {
        let hashes = entries.iter().filter(|entry| entry.hlc.node == "a");
        hashes.map(|entry| entry.hlc.clone()).collect::<Vec<_>>()
    };
    let (written, taken) = (held(&of_a).len(), held(&of_b).len());
    assert!(
        (45..58).contains(&taken) && written == 60,
        "{taken} of {written}"
    );
    assert!(checks(&of_b).contains(&HashCheck::Swapped));
    let copies = of_b
        .iter()
        .filter(|it| it.hlc.node == "b" && it.key.starts_with("a-"));
    assert!(copies.count() > 5, "nobody wrote these events");
    Ok(())
}
