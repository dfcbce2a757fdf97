//! What the fixture node does of its own, like the nodes of three releases.

use crate::fixture::{SOON, dump, joined, node, peer, rows};
use anyhow::{Context as _, Result};
use cbddc_domain::hlc::Hlc;
use cbddc_domain::oplog::{HashCheck, check_hash};
use cbddc_tests::fixture::ask::ask;
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::fixture::process::{FixtureNode, FixtureSpec};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const REAL: [Dialect; 3] = [Dialect::V2_3, Dialect::V1_1, Dialect::V0_9];

/// A node like some release whose next round never comes.
fn roundless(id: &str, folder: &Path, like: Dialect) -> FixtureSpec {
    let spec = node(id, folder).like(like);
    spec.with(&["--interval-ms", "3600000"])
}

async fn documents(node: &FixtureNode) -> Result<(Value, Value)> {
    let stats = node.stats().await?;
    Ok((stats["documents"].clone(), stats["oplog_rows"].clone()))
}

/// 2.3 loses by any stop what waits for its round, and keeps the documents; the others write both at once.
#[tokio::test]
async fn acknowledged_documents_without_events_outlive_a_stop_of_2_3() -> Result<()> {
    for like in REAL {
        for killed in [false, true] {
            let folder = tempfile::tempdir()?;
            let spec = roundless("a", folder.path(), like);
            let a = spec.start().await?;
            a.put("users", "1", "{}").await?;
            assert_eq!(a.request("PUT", "/doc/users/2", "{}").await?.0, 200);
            let waiting = u8::from(like == Dialect::V2_3);
            assert_eq!(a.stats().await?["pending"], waiting, "{like:?}");
            if killed {
                a.kill().await?;
            } else {
                assert!(a.stop().await?.success());
            }
            let a = spec.start().await?;
            let held = documents(&a).await?;
            assert_eq!(
                held,
                (json!(2), json!(2 - waiting)),
                "{like:?}, killed: {killed}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn clocks_are_empty_after_a_start_of_2_3_and_of_0_9_again() -> Result<()> {
    for like in REAL {
        let folder = tempfile::tempdir()?;
        let spec = node("a", folder.path()).like(like);
        let a = spec.start().await?;
        a.put("users", "1", "{}").await?;
        assert!(!joined(&a).await?.vector_clock().await?.0.is_empty());
        a.stop().await?;
        let a = spec.start().await?;
        let mut client = joined(&a).await?;
        let empty = client.vector_clock().await?.0.is_empty();
        assert_eq!(empty, like != Dialect::V1_1, "{like:?}");
        assert_eq!(dump(&a).await?.len(), 1, "the event is there all the same");
        a.put("users", "2", "{}").await?;
        let mut emptied = 0;
        for _ in 0..60 {
            emptied += u32::from(client.vector_clock().await?.0.is_empty());
        }
        assert_eq!(emptied > 0, like == Dialect::V0_9, "{like:?}: {emptied}");
    }
    Ok(())
}

/// A peer that was away too long takes a snapshot, and a chain's first event once more each time.
#[tokio::test]
async fn rows_of_a_snapshot_are_exchanged_but_on_0_9() -> Result<()> {
    for like in REAL {
        let folder = tempfile::tempdir()?;
        let a = node("a", folder.path()).like(like).start().await?;
        a.put("users", "1", "{}").await?;
        let spec = node("b", folder.path())
            .like(like)
            .with(&["--peer", &peer("a", &a)]);
        let b = spec.start().await?;
        rows(&b, 1).await?;
        // An event whose predecessor nobody knows is no part of any chain range.
        a.fault("rehash-break=1").await?;
        a.put("users", "2", "{}").await?;
        let exchanges = like != Dialect::V0_9;
        rows(&b, if exchanges { 3 } else { 2 }).await?;
        let mut found: Vec<HashCheck> = dump(&b).await?.iter().map(check_hash).collect();
        found.sort_by_key(|check| *check == HashCheck::Swapped);
        let swapped = found.iter().filter(|it| **it == HashCheck::Swapped).count();
        assert_eq!(
            swapped,
            if exchanges { 2 } else { 0 },
            "{like:?}: {found:?}"
        );
        assert_eq!(b.get("users", "2").await?.as_deref(), Some("{}"));
        // Its chain goes on, also after a start.
        b.stop().await?;
        let b = spec.start().await?;
        a.put("users", "3", "{}").await?;
        rows(&b, if exchanges { 4 } else { 3 }).await?;
        let last = dump(&b).await?.pop().context("a row")?;
        assert_eq!(check_hash(&last), HashCheck::Matches);
    }
    Ok(())
}

#[tokio::test]
async fn a_filtered_node_gets_its_collections_from_each_release() -> Result<()> {
    for like in REAL {
        let folder = tempfile::tempdir()?;
        let a = node("a", folder.path()).like(like).start().await?;
        let b = node("b", folder.path()).like(like);
        let b = b.with(&["--peer", &peer("a", &a), "--interest", "users"]);
        let b = b.start().await?;
        a.put("todos", "1", "{}").await?;
        a.put("users", "2", "{}").await?;
        rows(&b, 1).await?;
        let declared = like != Dialect::V0_9;
        let mut client = joined(&a).await?;
        let filter = ["users".to_owned()];
        let named = client.pull(&Hlc::default(), &filter).await?.len();
        let expected = [0, 1, 2][REAL.iter().position(|it| *it == like).context("one")?];
        assert_eq!(named, expected, "{like:?}");
        let interests = client.handshake().await?.interests;
        assert_eq!(
            interests.contains(&"Users".to_owned()),
            declared,
            "{like:?}"
        );
    }
    Ok(())
}

/// 2.3 leaves its log as it is, and a start takes as long as that is.
#[tokio::test]
async fn a_start_of_2_3_takes_as_long_as_its_log_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("a.db-wal");
    for like in REAL {
        let spec = node("a", folder.path()).like(like);
        let spec = spec.with(&["--replay-ms-per-mib", "1500"]);
        let a = spec.start().await?;
        let long = format!("\"{}\"", "x".repeat(200_000));
        for key in ["1", "2", "3"] {
            a.put("users", key, &long).await?;
        }
        assert!(a.stop().await?.success());
        let log = std::fs::metadata(&database).map_or(0, |data| data.len());
        assert_eq!(log > 1 << 20, like == Dialect::V2_3, "{like:?}: {log}");
        let begun = Instant::now();
        let a = spec.start().await?;
        let slow = begun.elapsed() > Duration::from_millis(1500);
        assert!(slow || like != Dialect::V2_3, "{:?}", begun.elapsed());
        assert_eq!(documents(&a).await?.0, 3);
        a.stop().await?;
        for file in ["a.db", "a.db-wal", "a.db-shm"] {
            let _ = std::fs::remove_file(folder.path().join(file));
        }
    }
    Ok(())
}

#[tokio::test]
async fn only_2_3_is_healthy_over_a_lost_database() -> Result<()> {
    for like in REAL {
        let folder = tempfile::tempdir()?;
        let a = node("a", folder.path()).like(like).start().await?;
        a.put("users", "1", "{}").await?;
        // The first page names the tables, so that nothing can be read any more.
        let file = folder.path().join("a.db");
        let db = rusqlite::Connection::open(&file)?;
        db.execute_batch("DROP TABLE Oplog")?;
        let (status, said) = a.request("GET", "/health", "").await?;
        let healthy = (status, said.as_str()) == (200, "Healthy");
        assert_eq!(healthy, like == Dialect::V2_3, "{like:?}: {said}");
        assert_ne!(a.request("GET", "/stats", "").await?.0, 200);
    }
    Ok(())
}

/// After a snapshot 0.9 holds no lock on its file any more: whoever opens it to write may delete its log.
/// (SQLite since 3.51 looks twice before it does.)
#[tokio::test]
async fn the_locks_of_0_9_go_by_themselves() -> Result<()> {
    for like in REAL {
        let folder = tempfile::tempdir()?;
        let a = node("a", folder.path()).like(like).start().await?;
        a.put("users", "1", "{}").await?;
        let b = node("b", folder.path()).like(like);
        let b = b.with(&["--peer", &peer("a", &a)]).start().await?;
        rows(&b, 1).await?;
        a.fault("rehash-break=1").await?;
        a.put("users", "2", "{}").await?;
        b.wait_until(SOON, "the document", |stats| stats["documents"] == 2)
            .await?;
        let inode = std::fs::metadata(folder.path().join("a.db"))?.ino();
        let (pid, inode) = (a.pid().context("it runs")?, format!(":{inode}"));
        // NUMBER: POSIX ADVISORY READ PID MAJOR:MINOR:INODE FIRST LAST
        let locks = std::fs::read_to_string("/proc/locks")?;
        let locks = locks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let held = locks.filter(|it| it[4] == pid.to_string() && it[5].ends_with(&inode));
        assert_eq!(held.count() > 0, like != Dialect::V0_9, "{like:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_metrics_and_the_database_lie_beside_the_program_where_asked() -> Result<()> {
    let (folder, base) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let place = base.path().display().to_string();
    let spec = node("a", folder.path()).with(&["--base", &place, "--metrics-ms", "20"]);
    let a = spec.with(&["--data-beside"]).start().await?;
    a.put("users", "1", "{}").await?;
    let end = Instant::now() + SOON;
    while !base.path().join("entgldb_metrics.bin").exists() {
        assert!(Instant::now() < end, "there are no metrics");
        tokio::task::yield_now().await;
    }
    assert!(base.path().join("data/node-a.db").exists());
    assert!(!folder.path().join("a.db").exists());
    Ok(())
}

#[tokio::test]
async fn a_drained_node_takes_no_writes_and_has_nothing_left_to_flush() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = roundless("a", folder.path(), Dialect::V2_3).start().await?;
    a.request("PUT", "/doc/users/1", "{}").await?;
    assert_eq!(a.stats().await?["pending"], 1);
    let http = a.http;
    let say = async |word: &'static str| {
        tokio::task::spawn_blocking(move || ask(word, http))
            .await
            .expect("no panic")
    };
    let told: Value = serde_json::from_str(&say("drain").await?)?;
    assert_eq!(told, json!({ "draining": true, "pending": 0 }));
    assert_eq!(a.request("PUT", "/doc/users/2", "{}").await?.0, 503);
    assert_eq!(a.request("DELETE", "/doc/users/1", "").await?.0, 503);
    assert_eq!(documents(&a).await?, (json!(1), json!(1)));
    say("undrain").await?;
    assert_eq!(a.request("PUT", "/doc/users/2", "{}").await?.0, 200);
    a.stop().await?;
    assert_eq!(say("drain").await?, "nobody listens there");
    Ok(())
}

/// 0.9: the document is there, its event is not, and the clock names it.
#[tokio::test]
async fn forget_every_leaves_a_clock_that_is_ahead() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path()).with(&["--faults", "forget-every=2"]);
    let a = a.start().await?;
    a.put("users", "1", "{}").await?;
    a.put("users", "2", "{}").await?;
    assert_eq!(documents(&a).await?, (json!(2), json!(1)));
    let last = dump(&a).await?.pop().context("a row")?;
    let clock = joined(&a).await?.vector_clock().await?;
    assert!(clock.get("a") > Some(last.hlc.moment()));
    Ok(())
}
