//! What can be told of a BLite database from outside: its files and their sizes.

use cbagent::adapters::checks::{BliteSettings, look_at_blite};
use cbagent::adapters::file_sync::{FileSync, blite_files};
use cbagent::adapters::node_logs::{bytes, of_blite};
use cbddc_domain::health::Status;
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

#[tokio::test]
async fn a_large_log_is_told_and_a_missing_file() {
    let folder = TempDir::new().unwrap();
    let settings = BliteSettings {
        path: folder.path().join("shop.blite"),
        max_log_bytes: 1_000,
        sync: None,
    };
    let found = look_at_blite(&settings).await;
    assert_eq!(found.status, Status::Unhealthy, "{found:?}");
    fs::write(&settings.path, [0; 10]).unwrap();
    let found = look_at_blite(&settings).await;
    assert_eq!(found.status, Status::Healthy, "{found:?}");
    fs::write(folder.path().join("shop.blite.wal"), [0; 600]).unwrap();
    fs::write(folder.path().join("shop.wal"), vec![0; 40 << 20]).unwrap();
    let found = look_at_blite(&settings).await;
    assert_eq!(found.status, Status::Degraded, "{found:?}");
    let words = "its log has 40.0MiB, and no stop empties it: a start reads it, which may take 18s";
    assert_eq!(found.detail, words);
}

#[test]
fn logs_are_found_beside_their_databases() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let blite = [at("shop.blite")];
    assert_eq!(of_blite(&blite[0]), [at("shop.wal"), at("shop.blite.wal")]);
    fs::write(at("shop.wal"), [0; 7]).unwrap();
    fs::write(at("shop.blite.wal"), [0; 5]).unwrap();
    fs::write(at("a.db-wal"), [0; 100]).unwrap();
    let sqlite = [at("a.db"), at("b.db")];
    assert_eq!(bytes(&sqlite, &blite), Some(112));
    assert_eq!(bytes(&sqlite, &[]), Some(100));
    assert_eq!(bytes(&[], &[]), None);
}

#[tokio::test]
async fn what_changed_is_synced_and_nothing_is_done_while_nothing_changes() {
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("shop.blite");
    let names = blite_files(&database);
    let names: Vec<_> = names.iter().filter_map(|path| path.file_name()).collect();
    let expected = [
        "shop.blite",
        "shop.wal",
        "shop.blite.meta",
        "shop.blite.wal",
    ];
    assert_eq!(names, expected);
    let sync = FileSync::new(blite_files(&database), Duration::from_millis(100));
    let done = async || {
        sync.sync().await.expect("it works");
        sync.told().syncs
    };
    assert_eq!(done().await, 0, "nothing is there");
    fs::write(&database, "data").unwrap();
    // What is written in the same tick of the clock does not show: once more.
    assert_eq!([done().await, done().await, done().await], [1, 2, 2]);
    fs::write(folder.path().join("shop.wal"), "log").unwrap();
    assert_eq!([done().await, done().await, done().await], [3, 4, 4]);

    let settings = BliteSettings {
        path: database.clone(),
        max_log_bytes: 1_000,
        sync: Some(sync.clone()),
    };
    let found = look_at_blite(&settings).await;
    assert_eq!(found.status, Status::Healthy, "{found:?}");
    assert!(found.detail.contains("synced every 100ms"), "{found:?}");
    assert!(sync.told().waits.is_zero(), "{:?}", sync.told());
}
