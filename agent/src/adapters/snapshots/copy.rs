//! Copies one database, by SQLite's online backup where it is sound and bit by bit where it is not.

use super::error::SnapshotError;
use super::record::{FileState, Part};
use crate::adapters::disk;
use cbddc_oplog::open_to_read;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What SQLite may keep beside a database.
pub(super) const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];
/// How long to wait for a writer's lock before giving up: a node commits within milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a backup is tried while a writer in rollback-journal mode holds the database.
const BUSY_TRIES: u32 = 200;
/// The pause between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// What to do with a database that is not sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfDamaged {
    /// Fail: a snapshot is what one relies on later.
    Refuse,
    /// Keep its files as they are: it is about to be replaced, and must not be lost.
    KeepBits,
    /// Take nothing, whatever it is: the snapshot is of a node that is about to begin without data.
    TakeNothing,
}

/// The path of a file that belongs to `database`.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The bytes that a copy of `database` needs at most.
pub(super) fn bytes_of(database: &Path) -> u64 {
    let size = |suffix: &str| fs::metadata(beside(database, suffix)).map_or(0, |file| file.len());
    ["", "-wal", "-journal"].into_iter().map(size).sum()
}

/// Copies `database` into `folder` under names that begin with `number`.
pub(super) fn copy_database(
    database: &Path,
    folder: &Path,
    number: usize,
    if_damaged: IfDamaged,
) -> Result<FileState, SnapshotError> {
    let there = |suffix: &str| beside(database, suffix).try_exists();
    let takes = if_damaged != IfDamaged::TakeNothing;
    if !takes || !there("").map_err(SnapshotError::io("read", database, 0))? {
        return Ok(FileState::Absent);
    }
    let name = format!("{number}.db");
    let copy = folder.join(&name);
    let copied = back_up(database, &copy).and_then(|journal_mode| {
        integrity_check(&copy, database)?;
        let needed = bytes_of(database);
        let (size, digest) = settle(&copy).map_err(SnapshotError::io("write", &copy, needed))?;
        let copy = Part {
            name,
            suffix: String::new(),
            size,
            digest,
        };
        Ok(FileState::Copied { copy, journal_mode })
    });
    match copied {
        Err(SnapshotError::Sqlite { source, .. }) if if_damaged == IfDamaged::KeepBits => {
            keep_bits(database, folder, number, source.to_string())
        }
        Err(SnapshotError::Integrity { finding, .. }) if if_damaged == IfDamaged::KeepBits => {
            keep_bits(database, folder, number, finding)
        }
        other => other,
    }
}

/// Backs `database` up to the new file `copy`; returns the source's journal mode.
fn back_up(database: &Path, copy: &Path) -> Result<String, SnapshotError> {
    match back_up_in_place(database, copy) {
        // A crash left a rollback journal, and a reader may not roll it back: do it on a copy, so
        // that the original stays as it was found.
        Err(SnapshotError::Sqlite { source, .. }) if is_hot_journal(&source) => {
            let scratch = beside(copy, ".unrolled");
            let needed = bytes_of(database);
            for suffix in ["", "-journal"] {
                let (from, to) = (beside(database, suffix), beside(&scratch, suffix));
                fs::copy(&from, &to).map_err(SnapshotError::io("copy", &from, needed))?;
            }
            let roll_back = || -> rusqlite::Result<String> {
                let connection = Connection::open(&scratch)?;
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
                connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))
            };
            let mode =
                roll_back().map_err(SnapshotError::sqlite("roll back", database, copy, needed))?;
            remove_if_there(copy).map_err(SnapshotError::io("remove", copy, 0))?;
            back_up_in_place(&scratch, copy)?;
            for suffix in ["", "-journal"] {
                let path = beside(&scratch, suffix);
                remove_if_there(&path).map_err(SnapshotError::io("remove", &path, 0))?;
            }
            Ok(mode)
        }
        other => other,
    }
}

/// True for the one error that says a reader met a rollback journal that a crash left. Others of its
/// family mean a `-wal` that could not be read, whose commits a bare copy would lose.
fn is_hot_journal(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code == Some(rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}

fn back_up_in_place(database: &Path, copy: &Path) -> Result<String, SnapshotError> {
    let needed = bytes_of(database);
    let error = |action| SnapshotError::sqlite(action, database, copy, needed);
    let source = open_to_read(database, BUSY_TIMEOUT).map_err(error("open"))?;
    let journal_mode = source
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .map_err(error("read"))?;
    let mut target = Connection::open(copy).map_err(error("copy"))?;
    // Nothing reads the copy before it is complete and synced as a whole.
    target
        .pragma_update(None, "synchronous", "OFF")
        .map_err(error("copy"))?;
    {
        let backup = Backup::new(&source, &mut target).map_err(error("copy"))?;
        let mut tries = 0;
        // All pages in one step: the copy is of one moment, and commits cannot make it start over.
        // In WAL mode writers go on meanwhile; in the rollback modes their commits wait.
        while backup.step(-1).map_err(error("copy"))? != StepResult::Done {
            tries += 1;
            if tries == BUSY_TRIES {
                let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                return Err(error("copy")(rusqlite::Error::SqliteFailure(busy, None)));
            }
            std::thread::sleep(BUSY_PAUSE);
        }
    }
    target
        .close()
        .map_err(|(_, source)| error("copy")(source))?;
    Ok(journal_mode)
}

/// Runs `PRAGMA integrity_check` on the file `path` that nobody else uses, without creating files
/// beside it; errors tell of the database `named`.
pub(super) fn integrity_check(path: &Path, named: &Path) -> Result<(), SnapshotError> {
    let error = |source| SnapshotError::Sqlite {
        action: "check",
        path: named.to_owned(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(immutable_uri(path)?, flags).map_err(error)?;
    let finding: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(error)?;
    if finding == "ok" {
        return Ok(());
    }
    Err(SnapshotError::Integrity {
        path: named.to_owned(),
        finding,
    })
}

/// `immutable` tells SQLite that no lock, no `-wal` and no `-shm` are needed.
fn immutable_uri(path: &Path) -> Result<String, SnapshotError> {
    let Some(text) = path.to_str() else {
        return Err(not_utf8(path));
    };
    let escaped = text
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    Ok(format!("file:{escaped}?immutable=1"))
}

/// A snapshot's record is JSON, which holds only UTF-8 paths.
pub(super) fn not_utf8(path: &Path) -> SnapshotError {
    let what = format!("the path {}", path.display());
    SnapshotError::Invalid {
        what,
        rule: "paths of databases are UTF-8",
    }
}

fn keep_bits(
    database: &Path,
    folder: &Path,
    number: usize,
    finding: String,
) -> Result<FileState, SnapshotError> {
    let mut parts = Vec::new();
    for suffix in [""].into_iter().chain(SIDE_FILES) {
        let from = beside(database, suffix);
        let name = format!("{number}.damaged{suffix}");
        let to = folder.join(&name);
        let copied = copy_file(&from, &to);
        match copied {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
            other => {
                let (size, digest) =
                    other.map_err(SnapshotError::io("keep", &from, bytes_of(database)))?;
                parts.push(Part {
                    name,
                    suffix: suffix.to_owned(),
                    size,
                    digest,
                });
            }
        }
    }
    // What the failed backup wrote is of no use.
    for suffix in [""].into_iter().chain(SIDE_FILES) {
        for leftover in [
            format!("{number}.db{suffix}"),
            format!("{number}.db.unrolled{suffix}"),
        ] {
            let path = folder.join(leftover);
            remove_if_there(&path).map_err(SnapshotError::io("remove", &path, 0))?;
        }
    }
    Ok(FileState::Damaged { parts, finding })
}

/// Copies a file bit by bit, to disk; returns its size and digest.
pub(super) fn copy_file(from: &Path, to: &Path) -> io::Result<(u64, cbddc_domain::build::Digest)> {
    let mut input = File::open(from)?;
    let mut output = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)?;
    let copied = disk::copy_and_hash(&mut input, &mut output)?;
    output.sync_all()?;
    Ok(copied)
}

fn settle(copy: &Path) -> io::Result<(u64, cbddc_domain::build::Digest)> {
    File::open(copy)?.sync_all()?;
    disk::hash_file(copy)
}

/// Removes a file; nothing there is fine.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
