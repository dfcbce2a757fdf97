//! Why a snapshot cannot be taken, used or removed.

use crate::adapters::disk;
use std::io;
use std::path::{Path, PathBuf};

/// Why a snapshot cannot be taken, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The disk is full, or would be.
    #[error("{free} bytes free, {needed} bytes needed on {}; free some space or remove old snapshots", path.display())]
    NoSpace {
        /// The bytes that may still be written.
        free: u64,
        /// The bytes that are needed.
        needed: u64,
        /// Where.
        path: PathBuf,
    },
    /// SQLite could not read or copy a database.
    #[error("cannot {action} the database {}", path.display())]
    Sqlite {
        /// What was being done.
        action: &'static str,
        /// Which database.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// A database, or a copy of it, is damaged.
    #[error("the database {} is damaged: {finding}", path.display())]
    Integrity {
        /// Which database.
        path: PathBuf,
        /// The first thing that `PRAGMA integrity_check` found.
        finding: String,
    },
    /// The files of a snapshot are not what was written.
    #[error("snapshot {id} is damaged: `{file}` {what}; use another snapshot")]
    Damaged {
        /// Which snapshot.
        id: String,
        /// Which of its files.
        file: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The record of a snapshot cannot be read.
    #[error("snapshot {id} is damaged: its record cannot be read; use another snapshot")]
    Record {
        /// Which snapshot.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot {0}; see `cbctl snapshot list`")]
    NotFound(String),
    /// The id is taken.
    #[error("there is a snapshot {0} already; snapshots never change")]
    Exists(String),
    /// The id, reason or a database's path cannot be used.
    #[error("{what} cannot be used for a snapshot: {rule}")]
    Invalid {
        /// What was given, cut to 80 characters.
        what: String,
        /// What a valid one looks like.
        rule: &'static str,
    },
}

impl SnapshotError {
    /// Wraps an I/O error, or tells that the disk is full when that is what it is.
    pub(super) fn io(
        action: &'static str,
        path: &Path,
        needed: u64,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            if disk::is_full(&source) {
                return Self::no_space(path, needed);
            }
            Self::Io {
                action,
                path: path.to_owned(),
                source,
            }
        }
    }

    /// Wraps an error of SQLite, or tells that the disk is full when that is what it is.
    pub(super) fn sqlite(
        action: &'static str,
        path: &Path,
        to: &Path,
        needed: u64,
    ) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| {
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
                return Self::no_space(to, needed);
            }
            Self::Sqlite {
                action,
                path: path.to_owned(),
                source,
            }
        }
    }

    fn no_space(path: &Path, needed: u64) -> Self {
        let folder = path
            .ancestors()
            .find(|folder| folder.is_dir())
            .unwrap_or(path);
        let free = disk::free_bytes(folder).unwrap_or(0);
        Self::NoSpace {
            free,
            needed,
            path: folder.to_owned(),
        }
    }
}
