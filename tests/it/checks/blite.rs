//! What can be told of a BLite database from outside: its files and their sizes.

use cbagent::adapters::checks::{BliteSettings, look_at_blite};
use cbagent::adapters::node_logs::{bytes, of_blite};
use cbddc_domain::health::Status;
use std::fs;
use tempfile::TempDir;

#[tokio::test]
async fn a_large_log_is_told_and_a_missing_file() {
    let folder = TempDir::new().unwrap();
    let settings = BliteSettings {
        path: folder.path().join("shop.blite"),
        max_log_bytes: 1_000,
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
