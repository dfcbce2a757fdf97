//! A node that writes into a write-ahead log which is no longer in its place.
//!
//! A node may lose the locks of its own database; then any program that opens the file for writing and
//! closes it believes itself the last, and deletes the log. The node writes on into the deleted file, and
//! all that it commits is gone when it ends (`NODE.md`, section 8). While it lives, `/proc/PID/fd` still
//! leads to that file.

use super::node_logs::of_sqlite;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The most descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 65_536;

/// The most logs of one database that are kept beside each other.
const KEPT_MAX: u32 = 99;

/// How a log of SQLite begins, but for the last bit, which is the order of bytes in its checksums.
const BEGINNING: [u8; 4] = [0x37, 0x7f, 0x06, 0x82];

/// A log that some process of the node has open, and that is not the one in its place.
#[derive(Debug)]
pub struct DeletedLog {
    /// The database that it belongs to.
    pub database: PathBuf,
    /// Where it can still be reached.
    pub descriptor: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Which file it is.
    id: (u64, u64),
    /// Whether it begins as a log does, and when it was written last.
    worth: (bool, SystemTime),
    /// It, for as long as this is kept.
    file: File,
}

/// The deleted logs of these databases that these processes write to. What may not be looked into, as of
/// another user's process, says nothing. Of several logs of one database, those come first that SQLite can
/// recover, and then those that were written last.
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
            // A node has several connections, each with the file open, or with another one where that was
            // deleted again.
            if log.bytes > 0 && !found.iter().any(|known| known.id == log.id) {
                found.push(log);
            }
        }
    }
    found.sort_by_key(|log| std::cmp::Reverse(log.worth));
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
    let written = held.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    (!is_same && held.is_file()).then(|| DeletedLog {
        database,
        descriptor: descriptor.to_owned(),
        bytes: held.len(),
        id: (held.dev(), held.ino()),
        worth: (begins_as_log(&file), written),
        file,
    })
}

/// Where it does not, SQLite takes it for an empty one.
fn begins_as_log(file: &File) -> bool {
    let mut first = [0; BEGINNING.len()];
    let is_read = file.read_exact_at(&mut first, 0).is_ok();
    first[3] &= !1;
    is_read && first == BEGINNING
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
    /// somebody has to decide. Where it cannot be written, as on a full disk, it is kept in the folder
    /// `or_in`.
    ///
    /// # Errors
    /// It cannot be written there either.
    pub fn put_back(&mut self, or_in: &Path) -> io::Result<String> {
        let database = real(&self.database);
        let log = of_sqlite(&database);
        let is_free = std::fs::metadata(&log).map_or(true, |there| there.len() == 0);
        let to = match is_free {
            true => Ok(log.clone()),
            false => free_name(&log),
        };
        let put = to.and_then(|to| Ok((self.copy_to(&database, &to)?, to)));
        let shown = database.display();
        let began = format!("the node wrote into a log of {shown} that was deleted");
        let (bytes, to) = match put {
            Ok(put) => put,
            Err(error) => {
                let (bytes, to) = self.keep_in(or_in, &database, &log)?;
                return Ok(format!(
                    "{began}, and it could not be put back: {error}; it is kept as {}, {bytes} bytes: nothing of it is in \
                     the database",
                    to.display()
                ));
            }
        };
        if !is_free {
            return Ok(format!(
                "{began}, and another one lies in its place: the node's, {bytes} bytes, is kept as {}: nothing of it is \
                 in the database",
                to.display()
            ));
        }
        // It belongs to the log that is gone, and is made anew.
        let _ = std::fs::remove_file(with_ending(&database, "-shm"));
        Ok(format!(
            "{began}; it was put back, {bytes} bytes, so that nothing is lost"
        ))
    }

    fn keep_in(
        &mut self,
        folder: &Path,
        database: &Path,
        log: &Path,
    ) -> io::Result<(u64, PathBuf)> {
        let mut folders = std::fs::DirBuilder::new();
        folders.recursive(true).mode(0o700).create(folder)?;
        let to = free_name(&folder.join(log.file_name().unwrap_or_default()))?;
        Ok((self.copy_to(database, &to)?, to))
    }

    /// Whole or not at all, and as its database is: owner and mode.
    fn copy_to(&mut self, database: &Path, to: &Path) -> io::Result<u64> {
        let fresh = with_ending(to, ".new");
        let copied = self.copy_by_way_of(&fresh, database, to);
        if copied.is_err() {
            // Half a log would only take up the room that was missing.
            let _ = std::fs::remove_file(&fresh);
        }
        copied
    }

    fn copy_by_way_of(&mut self, fresh: &Path, database: &Path, to: &Path) -> io::Result<u64> {
        let of = std::fs::metadata(database)?;
        let mut copy = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(of.mode() & 0o777)
            .open(fresh)?;
        io::Seek::rewind(&mut self.file)?;
        let bytes = io::copy(&mut self.file, &mut copy)?;
        std::os::unix::fs::fchown(&copy, Some(of.uid()), Some(of.gid()))?;
        copy.sync_all()?;
        std::fs::rename(fresh, to)?;
        if let Some(folder) = to.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(bytes)
    }
}

/// A name beside the log's that nobody has yet: what was kept earlier stays.
fn free_name(log: &Path) -> io::Result<PathBuf> {
    let names = (1..=KEPT_MAX).map(|number| match number {
        1 => with_ending(log, ".of-the-node"),
        number => with_ending(log, &format!(".of-the-node-{number}")),
    });
    let mut free = names.filter(|name| !name.exists());
    free.next()
        .ok_or_else(|| io::Error::other(format!("{KEPT_MAX} logs are kept already")))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}
