//! Snapshots of SQLite databases: of one moment, verified, and never the end of what they replace.

use crate::builds::{chain, picture};
use cbagent::adapters::snapshots::{
    FileState, NewSnapshot, Snapshot, SnapshotError, SnapshotStore,
};
use cbddc_domain::build::Digest;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: SnapshotStore,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = SnapshotStore::open(&folder.path().join("snapshots")).expect("a store");
        // Characters that mean something in a URI.
        fs::create_dir(folder.path().join("node %41?#")).expect("a folder");
        Self { folder, store }
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.folder.path().join("node %41?#")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.node().join("node.db")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("snapshots")
    }

    pub(crate) fn take(&self, id: &str) -> Result<Snapshot, SnapshotError> {
        self.store.create(&[self.database()], &new(id, 1))
    }
}

pub(crate) fn new(id: &str, taken_at_ms: i64) -> NewSnapshot {
    let labels = BTreeMap::from([("generation".to_owned(), "3".to_owned())]);
    NewSnapshot {
        id: id.to_owned(),
        taken_at_ms,
        reason: "a test".to_owned(),
        labels,
    }
}

/// A bank: whatever moves between its accounts, they add up to 100,000.
pub(crate) fn bank(path: &Path, journal_mode: &str) -> Connection {
    let connection = Connection::open(path).expect("a database");
    connection
        .busy_timeout(std::time::Duration::from_secs(20))
        .expect("a timeout");
    connection
        .pragma_update(None, "journal_mode", journal_mode)
        .expect("a journal mode");
    connection
        .pragma_update(None, "synchronous", "OFF")
        .expect("a setting");
    connection
        .execute_batch(
            "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, filler BLOB);
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
             INSERT INTO account SELECT i, 100, randomblob(2000) FROM n;",
        )
        .expect("a schema");
    connection
}

pub(crate) fn transfer(connection: &mut Connection, number: i64) {
    let transaction = connection.transaction().expect("a transaction");
    let (from, to) = (number % 1000, (number * 7 + 1) % 1000);
    for (account, amount) in [(from, -1), (to, 1)] {
        transaction
            .execute(
                "UPDATE account SET balance = balance + ?1 WHERE id = ?2",
                (amount, account),
            )
            .expect("an update");
    }
    transaction.commit().expect("a commit");
}

pub(crate) fn one<T: rusqlite::types::FromSql>(path: &Path, query: &str) -> T {
    let connection = Connection::open(path).expect("a database");
    connection
        .busy_timeout(std::time::Duration::from_secs(20))
        .expect("a timeout");
    connection
        .query_row(query, [], |row| row.get(0))
        .expect("a row")
}

/// Reads a copy of a snapshot's file, so that reading leaves nothing beside the original.
fn read_copy<T: rusqlite::types::FromSql>(path: &Path, query: &str) -> T {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("copy.db");
    fs::copy(path, &copy).expect("a copy");
    one(&copy, query)
}

/// The digest of a file: unlike its content, it can be printed when a test fails.
pub(crate) fn digest(path: &Path) -> Digest {
    Digest::of(&fs::read(path).expect("a file"))
}

pub(crate) const SUM: &str = "SELECT sum(balance) FROM account";

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// Ends the writer also when the test fails, which would otherwise wait for it.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_snapshot_while_a_writer_commits_is_of_one_moment() {
    for journal_mode in ["wal", "delete"] {
        let place = Place::new();
        let mut connection = bank(&place.database(), journal_mode);
        let (stop, commits) = (AtomicBool::new(false), AtomicI64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = commits.fetch_add(1, Ordering::Relaxed);
                    transfer(&mut connection, number);
                }
            });
            let _stop = StopOnDrop(&stop);
            for number in 0..10 {
                // The writer commits before and after every snapshot.
                let seen = commits.load(Ordering::Relaxed);
                while commits.load(Ordering::Relaxed) < seen + 20 {
                    std::thread::yield_now();
                }
                let id = format!("s{number}");
                let snapshot = place.take(&id).expect("a snapshot");
                let FileState::Copied {
                    copy,
                    journal_mode: mode,
                } = &snapshot.files[0].state
                else {
                    panic!("not copied: {snapshot:?}");
                };
                assert_eq!(mode, journal_mode);
                let folder = place.root().join(&id);
                assert_eq!(names(&folder), ["0.db", "snapshot.json"]);
                let path = folder.join(&copy.name);
                assert_eq!(read_copy::<String>(&path, "PRAGMA integrity_check"), "ok");
                assert_eq!(read_copy::<i64>(&path, SUM), 100_000);
                // What a node sets only when it makes its database must survive.
                assert_eq!(
                    read_copy::<String>(&path, "PRAGMA journal_mode"),
                    journal_mode
                );
                assert_eq!(
                    place.store.verify(&id).expect("an intact snapshot"),
                    snapshot
                );
            }
        });
        assert_eq!(place.store.list().expect("a list").len(), 10);
    }
}

#[test]
fn the_newest_commits_of_a_killed_node_are_in_the_snapshot() {
    for journal_mode in ["wal", "delete"] {
        let place = Place::new();
        let live = place.folder.path().join("live.db");
        let mut connection = bank(&live, journal_mode);
        connection
            .pragma_update(None, "wal_autocheckpoint", 0)
            .expect("a setting");
        transfer(&mut connection, 3);
        connection
            .pragma_update(None, "cache_size", 1)
            .expect("a setting");
        connection
            .pragma_update(None, "synchronous", "FULL")
            .expect("a setting");
        // An open transaction that has spilled to disk; then the power goes, which copying the
        // files under it amounts to.
        connection
            .execute_batch(
                "BEGIN; UPDATE account SET balance = balance + 1, filler = randomblob(2000);",
            )
            .expect("an update");
        for suffix in ["", "-wal", "-journal"] {
            let from = format!("{}{suffix}", live.display());
            if Path::new(&from).exists() {
                fs::copy(from, format!("{}{suffix}", place.database().display())).expect("a copy");
            }
        }
        drop(connection);
        let hot = names(&place.node());
        assert_eq!(hot.len(), 2, "{hot:?}");
        let before = digest(&place.database());
        place.take("s").expect("a snapshot");
        assert_eq!(names(&place.root().join("s")), ["0.db", "snapshot.json"]);
        let copy = place.root().join("s/0.db");
        assert_eq!(read_copy::<i64>(&copy, SUM), 100_000);
        assert_eq!(
            read_copy::<i64>(&copy, "SELECT balance FROM account WHERE id = 3"),
            99
        );
        assert_eq!(digest(&place.database()), before, "the original changed");
    }
}

#[test]
fn restoring_keeps_what_it_replaces_and_can_be_done_again() {
    let place = Place::new();
    let mut connection = bank(&place.database(), "wal");
    place.take("good").expect("a snapshot");
    transfer(&mut connection, 5);
    // A `-wal` that must not be applied to the restored database.
    std::mem::forget(connection);
    assert!(names(&place.node()).contains(&"node.db-wal".to_owned()));
    let balance = "SELECT balance FROM account WHERE id = 5";

    let kept = place
        .store
        .restore("good", "replaced-1", 2)
        .expect("a restore");
    assert_eq!((kept.id.as_str(), kept.taken_at_ms), ("replaced-1", 2));
    assert_eq!(names(&place.node()), ["node.db"]);
    let restored = digest(&place.database());
    assert_eq!(restored, digest(&place.root().join("good/0.db")));
    // The same call again, as after a crash of the caller: nothing changes, nothing is lost.
    let again = place
        .store
        .restore("good", "replaced-1", 3)
        .expect("the restore again");
    assert_eq!(again, kept);
    assert_eq!(
        read_copy::<i64>(&place.root().join("replaced-1/0.db"), balance),
        99
    );

    // A crash in the middle: what was kept stays, and the rest is done.
    fs::remove_file(place.root().join("replaced-1/restore-finished")).expect("a mark");
    fs::write(place.database(), b"half written").expect("a file");
    fs::write(place.node().join("node.db-wal"), b"stale").expect("a file");
    fs::write(place.node().join("node.db.restoring"), b"left over").expect("a file");
    place
        .store
        .restore("good", "replaced-1", 4)
        .expect("the restore continued");
    assert_eq!(digest(&place.database()), restored);
    assert_eq!(names(&place.node()), ["node.db"]);
    assert_eq!(
        read_copy::<i64>(&place.root().join("replaced-1/0.db"), balance),
        99
    );

    // After the node wrote again, the old name would not keep what is there now.
    let mut connection = Connection::open(place.database()).expect("a database");
    transfer(&mut connection, 6);
    drop(connection);
    let before = picture(place.folder.path());
    let error = place
        .store
        .restore("good", "replaced-1", 5)
        .expect_err("a refusal");
    assert!(matches!(error, SnapshotError::Exists(_)), "{error}");
    assert_eq!(picture(place.folder.path()), before);
    // Nor does the name of any other snapshot do.
    let error = place
        .store
        .restore("good", "good", 5)
        .expect_err("a refusal");
    assert!(matches!(error, SnapshotError::Exists(_)), "{error}");
    assert_eq!(picture(place.folder.path()), before);

    // And back again to what the first restore replaced.
    place
        .store
        .restore("replaced-1", "replaced-2", 6)
        .expect("a restore");
    assert_eq!(one::<i64>(&place.database(), balance), 99);
    assert_eq!(one::<i64>(&place.database(), SUM), 100_000);
    assert_eq!(
        one::<String>(&place.database(), "PRAGMA journal_mode"),
        "wal"
    );
}

#[test]
fn a_damaged_state_is_kept_bit_by_bit() {
    let place = Place::new();
    drop(bank(&place.database(), "wal"));
    place.take("good").expect("a snapshot");
    let good = fs::read(place.database()).expect("a database");
    let good_copy = digest(&place.root().join("good/0.db"));
    let mut torn = good;
    torn[4096 * 20..4096 * 21].fill(0xee);
    for (number, damaged) in [torn, b"not a database".to_vec(), vec![]]
        .into_iter()
        .enumerate()
    {
        fs::write(place.database(), &damaged).expect("a file");
        fs::write(place.node().join("node.db-wal"), b"torn wal").expect("a file");
        let id = format!("replaced-{number}");
        if number < 2 {
            let error = place.take("bad").expect_err("a refusal");
            assert!(chain(&error).contains("node.db"), "{error}");
            assert_eq!(names(&place.root().join(".work")), [""; 0]);
        }
        let kept = place.store.restore("good", &id, 2).expect("a restore");
        assert_eq!(digest(&place.database()), good_copy);
        assert_eq!(names(&place.node()), ["node.db"]);
        // An empty file is a sound database without tables.
        assert_eq!(kept.holds_damaged(), number < 2, "{kept:?}");
        if number < 2 {
            let folder = place.root().join(&id);
            let kept_names = names(&folder);
            assert!(
                kept_names.contains(&"0.damaged-wal".to_owned()),
                "{kept_names:?}"
            );
            assert!(
                !kept_names.iter().any(|name| name.starts_with("0.db")),
                "{kept_names:?}"
            );
            assert_eq!(digest(&folder.join("0.damaged")), Digest::of(&damaged));
            place.store.verify(&id).expect("kept as it was");
            place
                .store
                .restore(&id, &format!("again-{number}"), 3)
                .expect("a restore");
            assert_eq!(digest(&place.database()), Digest::of(&damaged));
        }
    }
}

#[test]
fn a_damaged_snapshot_is_refused_and_nothing_changes() {
    let place = Place::new();
    drop(bank(&place.database(), "wal"));
    place.take("s").expect("a snapshot");
    let copy = place.root().join("s/0.db");
    let good = fs::read(&copy).expect("a copy");
    let mut flipped = good.clone();
    flipped[50_000] ^= 1;
    let record = fs::read_to_string(place.root().join("s/snapshot.json")).expect("a record");
    let cases: [(&dyn Fn(), &str); 5] = [
        (
            &|| fs::write(&copy, &flipped).expect("a file"),
            "`0.db` has other content",
        ),
        (
            &|| fs::write(&copy, &good[..5000]).expect("a file"),
            "`0.db` has other content",
        ),
        (
            &|| fs::remove_file(&copy).expect("a removal"),
            "`0.db` is missing",
        ),
        (
            &|| fs::write(place.root().join("s/snapshot.json"), &record[..90]).expect("a file"),
            "its record cannot be read",
        ),
        (
            &|| {
                let escaping = record.replace("0.db", "../../x");
                fs::write(place.root().join("s/snapshot.json"), escaping).expect("a file");
            },
            "does not belong to it",
        ),
    ];
    for (damage, expected) in cases {
        damage();
        let before = picture(place.folder.path());
        for error in [
            place.store.verify("s").expect_err("a refusal"),
            place
                .store
                .restore("s", "replaced", 2)
                .expect_err("a refusal"),
        ] {
            assert!(
                chain(&error).contains(expected),
                "{error} does not say {expected:?}"
            );
        }
        assert_eq!(picture(place.folder.path()), before, "{expected}");
        fs::write(&copy, &good).expect("a file");
        fs::write(place.root().join("s/snapshot.json"), &record).expect("a file");
    }
    place
        .store
        .restore("s", "replaced", 2)
        .expect("the intact snapshot");
}

#[test]
fn databases_that_do_not_exist_are_absent_again_after_a_restore() {
    let place = Place::new();
    let elsewhere = place.folder.path().join("never/made.db");
    let databases = [place.database(), elsewhere.clone()];
    let empty = place
        .store
        .create(&databases, &new("empty", 1))
        .expect("a snapshot");
    assert!(
        empty
            .files
            .iter()
            .all(|file| file.state == FileState::Absent),
        "{empty:?}"
    );
    assert_eq!(names(&place.root().join("empty")), ["snapshot.json"]);
    let connection = bank(&place.database(), "wal");
    std::mem::forget(connection);
    place
        .store
        .restore("empty", "replaced", 2)
        .expect("a restore");
    assert_eq!(names(&place.node()), [""; 0]);
    assert!(!elsewhere.parent().expect("a folder").exists());
    place
        .store
        .restore("empty", "replaced", 3)
        .expect("the restore again");
    place
        .store
        .restore("replaced", "nothing", 4)
        .expect("a restore");
    assert_eq!(one::<i64>(&place.database(), SUM), 100_000);
}

#[test]
fn a_full_disk_under_the_database_is_told_before_anything_changes() {
    let place = Place::new();
    let Some(disk) = cbddc_tests::SmallDisk::mount(5 << 20) else {
        return;
    };
    let database = disk.path().join("node.db");
    drop(bank(&database, "delete"));
    let databases = [database];
    place
        .store
        .create(&databases, &new("s", 1))
        .expect("a snapshot");
    fs::write(disk.path().join("ballast"), vec![1; 2 << 20]).expect("ballast");
    let before = (picture(disk.path()), picture(place.folder.path()));
    let error = place
        .store
        .restore("s", "kept", 2)
        .expect_err("a full disk");
    assert!(matches!(error, SnapshotError::NoSpace { .. }), "{error}");
    assert_eq!((picture(disk.path()), picture(place.folder.path())), before);
    fs::remove_file(disk.path().join("ballast")).expect("a removal");
    place.store.restore("s", "kept", 2).expect("a restore");
}

#[test]
fn ids_and_unknown_snapshots_are_checked() {
    let place = Place::new();
    drop(bank(&place.database(), "delete"));
    let before = picture(place.folder.path());
    for id in ["", "..", ".work", "a/b", "a b", &"x".repeat(65)] {
        let refusals = [
            place.take(id).expect_err("a refusal"),
            place.store.get(id).expect_err("a refusal"),
            place.store.remove(id).expect_err("a refusal"),
            place.store.restore(id, "kept", 1).expect_err("a refusal"),
        ];
        let invalid = |error: &SnapshotError| matches!(error, SnapshotError::Invalid { .. });
        assert!(refusals.iter().all(invalid), "{refusals:?}");
    }
    let error = place
        .store
        .restore("unknown", "kept", 1)
        .expect_err("a refusal");
    assert_eq!(
        error.to_string(),
        "there is no snapshot unknown; see `cbctl snapshot list`"
    );
    assert_eq!(picture(place.folder.path()), before);

    place.take("s").expect("a snapshot");
    let before = picture(place.folder.path());
    assert!(matches!(place.take("s"), Err(SnapshotError::Exists(_))));
    assert!(place.store.restore("s", "../kept", 1).is_err());
    assert_eq!(picture(place.folder.path()), before);
    place.store.remove("s").expect("a removal");
    assert_eq!(place.store.list().expect("a list"), []);
    assert!(matches!(
        place.store.remove("s"),
        Err(SnapshotError::NotFound(_))
    ));
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let place = Place::new();
    drop(bank(&place.database(), "wal"));
    let Some(disk) = cbddc_tests::SmallDisk::mount(3 << 20) else {
        return;
    };
    let root = disk.path().join("snapshots");
    let store = SnapshotStore::open(&root).expect("a store");
    store
        .create(&[place.database()], &new("first", 1))
        .expect("a snapshot");
    let before = picture(disk.path());
    let mut attempts = vec![
        store
            .create(&[place.database()], &new("second", 2))
            .expect_err("a full disk"),
    ];
    attempts.push(store.restore("first", "kept", 3).expect_err("a full disk"));
    for error in attempts {
        let SnapshotError::NoSpace { free, needed, .. } = error else {
            panic!("{error:?}")
        };
        assert!(free < needed, "{free} free, {needed} needed");
    }
    assert_eq!(picture(disk.path()), before);
    assert_eq!(one::<i64>(&place.database(), SUM), 100_000);
    store.remove("first").expect("a removal");
    store
        .create(&[place.database()], &new("second", 2))
        .expect("a snapshot");
}
