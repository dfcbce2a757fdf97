//! Logs that another program deleted under a node: what is in them is put back, or kept.

use super::database::grow;
use anyhow::Result;
use cbagent::adapters::deleted_logs::{DeletedLog, find};
use cbddc_tests::SmallDisk;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A database as its node has it open, which leaves the log as it is when it ends.
fn open(path: &Path) -> Result<Connection> {
    let node = Connection::open(path)?;
    node.pragma_update(None, "journal_mode", "WAL")?;
    node.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    node.execute_batch("CREATE TABLE IF NOT EXISTS t (text TEXT)")?;
    Ok(node)
}

fn log_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

/// What this process, which is the node here, writes into.
fn found(path: &Path) -> Vec<DeletedLog> {
    find(&[std::process::id()], &[path.to_owned()])
}

/// How many rows there are in a sound database.
fn count(path: &Path) -> Result<u64> {
    let database = Connection::open(path)?;
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    anyhow::ensure!(sound == "ok", "{sound}");
    Ok(database.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
}

/// A node that lost its own locks, as real ones do: another program deletes the log.
#[test]
fn a_log_that_another_program_deleted_is_found_and_put_back() -> Result<()> {
    let folder = TempDir::new()?;
    let (path, or_in) = (folder.path().join("a.db"), folder.path().join("kept"));
    let node_writes = open(&path)?;
    grow(&node_writes, 10);
    assert!(found(&path).is_empty(), "all is in its place");
    // As another program does that takes itself for the last.
    fs::remove_file(log_of(&path))?;
    grow(&node_writes, 7);
    let mut found = found(&path);
    assert_eq!(found.len(), 1, "{found:?}");
    drop(node_writes);
    let told = found[0].put_back(&or_in)?;
    assert!(told.contains("it was put back"), "{told}");
    assert_eq!(count(&path)?, 17);

    // Where another log lies in its place with something in it, nothing of either is lost, nor of what was
    // kept before.
    fs::write(log_of(&path), "something else")?;
    for kept in ["db-wal.of-the-node", "db-wal.of-the-node-2"] {
        let told = found[0].put_back(&or_in)?;
        assert!(told.contains("another one lies in its place"), "{told}");
        let kept = path.with_extension(kept);
        assert!(told.contains(&format!("{}:", kept.display())), "{told}");
        assert_eq!(fs::metadata(kept)?.len(), found[0].bytes);
    }
    assert_eq!(fs::read_to_string(log_of(&path))?, "something else");
    assert!(!or_in.exists());
    Ok(())
}

#[test]
fn a_log_that_is_deleted_again_is_put_back_again() -> Result<()> {
    let folder = TempDir::new()?;
    let path = folder.path().join("a.db");
    for round in 1..=3 {
        let node_writes = open(&path)?;
        grow(&node_writes, 10);
        fs::remove_file(log_of(&path))?;
        grow(&node_writes, 7);
        let mut found = found(&path);
        assert_eq!(found.len(), 1, "{found:?}");
        drop(node_writes);
        let told = found[0].put_back(folder.path())?;
        assert!(told.contains("it was put back"), "{told}");
        drop(found);
        assert_eq!(count(&path)?, round * 17);
    }
    Ok(())
}

/// Another connection of the node may have made a log anew, which was deleted, too.
#[test]
fn of_two_deleted_logs_of_one_database_neither_is_lost() -> Result<()> {
    let folder = TempDir::new()?;
    let path = folder.path().join("a.db");
    let node_writes = open(&path)?;
    grow(&node_writes, 10);
    fs::remove_file(log_of(&path))?;
    grow(&node_writes, 7);
    let later = "pages without the beginning of a log, written last";
    fs::write(log_of(&path), later)?;
    let held = File::open(log_of(&path))?;
    fs::remove_file(log_of(&path))?;
    let mut found = found(&path);
    assert_eq!(found.len(), 2, "{found:?}");
    drop((node_writes, held));
    // The one that SQLite can recover goes into the place.
    let told = found[0].put_back(folder.path())?;
    assert!(told.contains("it was put back"), "{told}");
    let told = found[1].put_back(folder.path())?;
    assert!(told.contains("another one lies in its place"), "{told}");
    let kept = path.with_extension("db-wal.of-the-node");
    assert_eq!(fs::read_to_string(&kept)?, later);
    assert_eq!(count(&path)?, 17);
    Ok(())
}

#[test]
fn a_log_for_which_the_disk_has_no_room_is_kept_elsewhere() -> Result<()> {
    let Some(disk) = SmallDisk::mount(1 << 20) else {
        return Ok(());
    };
    let (elsewhere, path) = (TempDir::new()?, disk.path().join("a.db"));
    let node_writes = open(&path)?;
    grow(&node_writes, 100);
    fs::remove_file(log_of(&path))?;
    grow(&node_writes, 100);
    let mut found = found(&path);
    let held = fs::read(&found[0].descriptor)?;
    fs::write(disk.path().join("fill"), vec![1; 2 << 20]).expect_err("the disk is full");
    drop(node_writes);

    let or_in = elsewhere.path().join("kept-logs");
    let told = found[0].put_back(&or_in)?;
    let kept = or_in.join("a.db-wal.of-the-node");
    for words in ["No space left", &kept.display().to_string()] {
        assert!(told.contains(words), "no `{words}` in {told}");
    }
    assert!(fs::read(&kept)? == held, "all of it is kept");
    let half = path.with_extension("db-wal.new");
    assert!(!half.exists(), "nothing is left half-way");

    // Where it cannot be kept at all, that is an error.
    let error = found[0].put_back(&disk.path().join("kept-logs"));
    let error = error.expect_err("there is no room").to_string();
    assert!(error.contains("No space left"), "{error}");

    // Once there is room, it goes back.
    fs::remove_file(disk.path().join("fill"))?;
    let told = found[0].put_back(&or_in)?;
    assert!(told.contains("it was put back"), "{told}");
    drop(found);
    assert_eq!(count(&path)?, 200);
    Ok(())
}
