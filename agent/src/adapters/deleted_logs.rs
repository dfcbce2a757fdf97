//! A node that writes into a write-ahead log which is no longer in its place.
//!
//! A node may lose the locks of its own database; then any program that opens the file for writing and
//! closes it believes itself the last, and deletes the log. The node writes on into the deleted file, and
//! all that it commits is gone when it ends (`NODE.md`, section 8). While it lives, `/proc/PID/fd` still
//! leads to that file.

use super::node_logs::of_sqlite;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The most descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 65_536;

/// A log that some process of the node has open, and that is not the one in its place.
#[derive(Debug)]
pub struct DeletedLog {
    /// The database that it belongs to.
    pub database: PathBuf,
    /// Where it can still be reached.
    pub descriptor: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// It, for as long as this is kept.
    file: File,
}

/// The deleted logs of these databases that these processes write to. What may not be looked into, as of
/// another user's process, says nothing.
pub fn find(pids: &[u32], databases: &[PathBuf]) -> Vec<DeletedLog> {
    let mut found: Vec<DeletedLog> = Vec::new();
    for pid in pids {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for entry in entries.take(DESCRIPTORS_MAX).flatten() {
            let descriptor = entry.path();
            let Some(log) = deleted_log(&descriptor, databases) else {
                continue;
            };
            // A node has several connections, each with the file open.
            if log.bytes > 0 && !found.iter().any(|known| known.database == log.database) {
                found.push(log);
            }
        }
    }
    found
}

fn deleted_log(descriptor: &Path, databases: &[PathBuf]) -> Option<DeletedLog> {
    let target = std::fs::read_link(descriptor).ok()?;
    let target = target.to_str()?;
    let path = Path::new(target.strip_suffix(" (deleted)").unwrap_or(target));
    let is_log_of = |database: &&PathBuf| of_sqlite(&real(database)) == path;
    let database = databases.iter().find(is_log_of)?.clone();
    // Opened without following what the name says by now.
    let file = File::open(descriptor).ok()?;
    let held = file.metadata().ok()?;
    let in_place = std::fs::metadata(path).ok();
    let is_same = in_place.is_some_and(|at| (at.dev(), at.ino()) == (held.dev(), held.ino()));
    (!is_same && held.is_file()).then(|| DeletedLog {
        database,
        descriptor: descriptor.to_owned(),
        bytes: held.len(),
        file,
    })
}

/// Where the database is, all links followed: so the kernel names its log.
fn real(database: &Path) -> PathBuf {
    database
        .canonicalize()
        .unwrap_or_else(|_| database.to_owned())
}

impl DeletedLog {
    /// Puts the log back in its place, now that the node has ended, so that SQLite recovers what is in it;
    /// says what was done. Where another log lies there by now with something in it, both are kept, and
    /// somebody has to decide.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put_back(&mut self) -> io::Result<String> {
        let database = real(&self.database);
        let log = of_sqlite(&database);
        let is_free = std::fs::metadata(&log).map_or(true, |there| there.len() == 0);
        let to = match is_free {
            true => log.clone(),
            false => with_ending(&log, ".of-the-node"),
        };
        let bytes = self.copy_to(&database, &to)?;
        if !is_free {
            return Ok(format!(
                "the node wrote into a log of {} that was deleted, and another one lies in its place: the node's, {bytes} \
                 bytes, is kept as {}: nothing of it is in the database",
                database.display(),
                to.display()
            ));
        }
        // It belongs to the log that is gone, and is made anew.
        let _ = std::fs::remove_file(with_ending(&database, "-shm"));
        Ok(format!(
            "the node wrote into a log of {} that was deleted; it was put back, {bytes} bytes, so that nothing is lost",
            database.display()
        ))
    }

    /// Whole or not at all, and as its database is: owner and mode.
    fn copy_to(&mut self, database: &Path, to: &Path) -> io::Result<u64> {
        let of = std::fs::metadata(database)?;
        let fresh = with_ending(to, ".new");
        let mut copy = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(of.mode() & 0o777)
            .open(&fresh)?;
        io::Seek::rewind(&mut self.file)?;
        let bytes = io::copy(&mut self.file, &mut copy)?;
        std::os::unix::fs::fchown(&copy, Some(of.uid()), Some(of.gid()))?;
        copy.sync_all()?;
        std::fs::rename(&fresh, to)?;
        if let Some(folder) = to.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(bytes)
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}
