//! What a power cut may take of a SQLite database, as far as that shows from outside.
//!
//! How SQLite logs is written in the file: in WAL mode, or with a rollback journal. Whether it waits for the
//! disk at each commit is `synchronous`, which each connection of the node sets for itself: nobody else sees
//! it. It is told, and never judged.

use rusqlite::Connection;

/// How a database logs what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JournalMode {
    /// In a write-ahead log, which is synced at checkpoints, and at each commit only with
    /// `synchronous = FULL`.
    Wal,
    /// In a rollback journal; which kind is a matter of each connection, too.
    Rollback,
}

impl JournalMode {
    /// As the file says it.
    pub(super) fn of(database: &Connection) -> rusqlite::Result<Self> {
        let mode: String = database.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        Ok(match mode.eq_ignore_ascii_case("wal") {
            true => Self::Wal,
            false => Self::Rollback,
        })
    }

    /// What there is to say about a power cut.
    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::Wal => {
                "WAL mode: a power cut may take what it committed since its last checkpoint, nothing where the node \
                 sets synchronous to FULL, more where to OFF: that does not show from outside"
            }
            Self::Rollback => {
                "rollback journal, no WAL mode: a power cut may take its last commit, more where the node sets \
                 synchronous to OFF: that does not show from outside"
            }
        }
    }
}
