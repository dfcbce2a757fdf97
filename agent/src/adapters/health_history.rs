//! The history of health, in a SQLite database of its own: no other state depends on it. It is
//! bounded, and may lose its last moments in a power cut (`synchronous=NORMAL`); a file that cannot be
//! read is put aside and a new one begun.

use cbddc_domain::health::{HealthEntry, HealthEntryKind, Status, Tally};
use cbddc_domain::node_starts::{NodeStart, STARTS_KEPT};
use rusqlite::{Connection, Row, params};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

/// The most entries that are kept: with ten checks, some weeks of summaries and changes.
const ENTRIES_MAX: u64 = 20_000;

/// How many more there may be before the oldest are taken out.
const ENTRIES_OVER: u64 = 200;

/// The number of the present shape.
const SHAPE: u32 = 2;

/// The history cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the history of health failed")]
pub struct HistoryError(#[from] rusqlite::Error);

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Counts up; numbers of entries that were taken out are not used again.
    pub number: u64,
    /// The entry.
    pub entry: HealthEntry,
}

/// The history of this host's node.
#[derive(Clone)]
pub struct HealthHistory {
    database: Arc<Mutex<Connection>>,
    newest: watch::Sender<u64>,
}

impl HealthHistory {
    /// Opens or creates it.
    ///
    /// # Errors
    /// Not even a new file can be made.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let (database, newest) = match open(path) {
            Ok(opened) => opened,
            Err(error) => {
                let aside = aside(path);
                tracing::warn!(%error, aside = %aside.display(), "the history of health cannot be read; a new one begins");
                // What cannot be moved fails again below.
                let _ = std::fs::rename(path, aside);
                for ending in ["-wal", "-shm"] {
                    let mut side = path.as_os_str().to_owned();
                    side.push(ending);
                    let _ = std::fs::remove_file(side);
                }
                open(path)?
            }
        };
        Ok(Self {
            database: Arc::new(Mutex::new(database)),
            newest: watch::channel(newest).0,
        })
    }

    /// Writes what comes until nobody can send any more.
    pub async fn run(self, mut coming: mpsc::Receiver<Vec<HealthEntry>>) {
        while let Some(mut entries) = coming.recv().await {
            while let Ok(more) = coming.try_recv() {
                entries.extend(more);
            }
            if let Err(error) = self.keep(entries).await {
                tracing::warn!(
                    error = crate::error_chain(&error),
                    "health was not written down"
                );
            }
        }
    }

    /// Writes entries in one transaction.
    pub async fn keep(&self, entries: Vec<HealthEntry>) -> Result<(), HistoryError> {
        let newest = self.with(move |database| keep(database, &entries)).await?;
        self.newest.send_replace(newest);
        Ok(())
    }

    /// The number of the newest entry, and a way to hear of newer ones.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Entries after the number `after`, oldest first, at most `limit`.
    pub async fn after(&self, after: u64, limit: u32) -> Result<Vec<StoredEntry>, HistoryError> {
        self.with(move |database| {
            let query = format!("{SELECT} WHERE number > ?1 ORDER BY number LIMIT ?2");
            let mut statement = database.prepare_cached(&query)?;
            let rows = statement.query_map(params![after, limit], read)?;
            rows.collect()
        })
        .await
    }

    /// The newest `limit` entries since a moment, oldest first, and before them the last change of
    /// each check before that moment, which tells what held at its beginning.
    pub async fn since(&self, wall_ms: i64, limit: u32) -> Result<Vec<StoredEntry>, HistoryError> {
        self.with(move |database| {
            let query = format!(
                "{SELECT} WHERE number IN (SELECT max(number) FROM entries \
                 WHERE wall_ms < ?1 AND kind = 'change' GROUP BY name) \
                 OR number IN (SELECT number FROM entries WHERE wall_ms >= ?1 \
                 ORDER BY number DESC LIMIT ?2) ORDER BY number"
            );
            let mut statement = database.prepare_cached(&query)?;
            let rows = statement.query_map(params![wall_ms, limit], read)?;
            rows.collect()
        })
        .await
    }

    /// Remembers a start of the node, and forgets the oldest.
    pub async fn keep_node_start(&self, start: NodeStart) -> Result<(), HistoryError> {
        self.with(move |database| {
            let transaction = database.transaction()?;
            transaction.execute(
                "INSERT INTO node_starts (wall_ms, took_ms, log_bytes) VALUES (?1, ?2, ?3)",
                params![start.wall_ms, start.took_ms, start.log_bytes],
            )?;
            transaction.execute(
                "DELETE FROM node_starts WHERE number <= (SELECT max(number) FROM node_starts) - ?1",
                [STARTS_KEPT],
            )?;
            transaction.commit()
        })
        .await
    }

    /// The remembered starts of the node, newest first.
    pub async fn node_starts(&self) -> Result<Vec<NodeStart>, HistoryError> {
        self.with(|database| {
            let query = "SELECT wall_ms, took_ms, log_bytes FROM node_starts ORDER BY number DESC";
            let mut statement = database.prepare(query)?;
            let rows = statement.query_map([], |row| {
                Ok(NodeStart {
                    wall_ms: row.get(0)?,
                    took_ms: row.get(1)?,
                    log_bytes: row.get(2)?,
                })
            })?;
            rows.collect()
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, HistoryError> {
        let database = self.database.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut lock(&database))).await;
        // Only the end of the runtime ends it early.
        Ok(done.unwrap_or(Err(rusqlite::Error::InvalidQuery))?)
    }
}

const NODE_STARTS: &str = "CREATE TABLE node_starts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    wall_ms INTEGER NOT NULL,
    took_ms INTEGER NOT NULL,
    log_bytes INTEGER
);";

const SELECT: &str = "SELECT number, wall_ms, name, kind, status, reason, healthy, degraded, unknown, \
                      unhealthy, took_ms_max FROM entries";

fn lock(database: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    database.lock().unwrap_or_else(PoisonError::into_inner)
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("db.unreadable")
}

fn open(path: &Path) -> rusqlite::Result<(Connection, u64)> {
    let database = Connection::open(path)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.pragma_update(None, "cache_size", -256)?;
    let found: u32 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == 0 {
        database.execute_batch(&format!(
            "BEGIN;
             CREATE TABLE entries (
                 number INTEGER PRIMARY KEY AUTOINCREMENT,
                 wall_ms INTEGER NOT NULL,
                 name TEXT NOT NULL,
                 kind TEXT NOT NULL,
                 status TEXT NOT NULL,
                 reason TEXT NOT NULL,
                 healthy INTEGER,
                 degraded INTEGER,
                 unknown INTEGER,
                 unhealthy INTEGER,
                 took_ms_max INTEGER
             );
             CREATE INDEX entries_by_time ON entries (wall_ms);
             {NODE_STARTS}
             PRAGMA user_version = {SHAPE};
             COMMIT;"
        ))?;
    } else if found == 1 {
        database.execute_batch(&format!(
            "BEGIN; {NODE_STARTS} PRAGMA user_version = {SHAPE}; COMMIT;"
        ))?;
    } else if found > SHAPE {
        return Err(rusqlite::Error::InvalidQuery);
    }
    let newest = "SELECT coalesce(max(number), 0) FROM entries";
    let newest = database.query_row(newest, [], |row| row.get(0))?;
    Ok((database, newest))
}

fn keep(database: &mut Connection, entries: &[HealthEntry]) -> rusqlite::Result<u64> {
    let transaction = database.transaction()?;
    let insert = "INSERT INTO entries (wall_ms, name, kind, status, reason, healthy, degraded, \
                  unknown, unhealthy, took_ms_max) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    for entry in entries {
        let tally = entry.tally;
        transaction.prepare_cached(insert)?.execute(params![
            entry.wall_ms,
            entry.check,
            entry.kind.as_str(),
            entry.status.as_str(),
            entry.reason,
            tally.map(|tally| tally.healthy),
            tally.map(|tally| tally.degraded),
            tally.map(|tally| tally.unknown),
            tally.map(|tally| tally.unhealthy),
            tally.map(|tally| tally.took_ms_max),
        ])?;
    }
    let ends = "SELECT coalesce(max(number), 0), count(*) FROM entries";
    let (newest, number): (u64, u64) =
        transaction.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if number > ENTRIES_MAX + ENTRIES_OVER {
        let oldest = newest.saturating_sub(ENTRIES_MAX);
        transaction.execute("DELETE FROM entries WHERE number <= ?1", [oldest])?;
    }
    transaction.commit()?;
    Ok(newest)
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredEntry> {
    let (kind, status): (String, String) = (row.get(3)?, row.get(4)?);
    let healthy: Option<u32> = row.get(6)?;
    let tally = match healthy {
        Some(healthy) => Some(Tally {
            healthy,
            degraded: row.get(7)?,
            unknown: row.get(8)?,
            unhealthy: row.get(9)?,
            took_ms_max: row.get(10)?,
        }),
        None => None,
    };
    Ok(StoredEntry {
        number: row.get(0)?,
        entry: HealthEntry {
            wall_ms: row.get(1)?,
            check: row.get(2)?,
            kind: if kind == HealthEntryKind::Summary.as_str() {
                HealthEntryKind::Summary
            } else {
                HealthEntryKind::Change
            },
            status: Status::from_word(&status).unwrap_or(Status::Unknown),
            reason: row.get(5)?,
            tally,
        },
    })
}
