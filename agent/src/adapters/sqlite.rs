//! State and journal in one SQLite database: `synchronous=FULL`, one connection, one thread.
//!
//! The state is one JSON document with the shape of [`Node`]; its shape's number is in
//! `user_version`, and a stored document of every earlier shape is a test. The journal's lines are
//! chained by hashes: a line that was changed or taken out is noticed when the database is opened.

mod membership;

pub use membership::TokenUse;

use crate::ports::{EffectError, JournalLine, Store};
use async_trait::async_trait;
use cbddc_domain::build::Digest;
use cbddc_domain::node::Node;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use tokio::sync::{oneshot, watch};

/// The number of the present shape of the database.
const SHAPE: u32 = 3;

/// Operations waiting for the database's thread; beyond this, callers wait.
const QUEUE: usize = 256;

/// How many of the newest lines are checked when the database is opened. A million lines are about
/// a second's work.
const CHECKED_ON_OPEN: u64 = 1_000_000;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// It could not be opened or prepared.
    #[error("cannot open the state database {path}")]
    Open {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// Another agent holds it.
    #[error(
        "another cbagent runs on the state database {path}: stop that one first, or give this one a state folder of its own"
    )]
    InUse {
        /// Where.
        path: String,
    },
    /// A newer agent wrote it.
    #[error(
        "the state database has shape {found}, this agent knows {SHAPE}: install the newer agent again"
    )]
    Newer {
        /// Its shape.
        found: u32,
    },
    /// The state cannot be read.
    #[error(
        "the saved state cannot be read; put back a copy of the state folder, or move it away and enrol this host anew"
    )]
    State(#[source] serde_json::Error),
    /// The journal's chain is broken.
    #[error(
        "the journal was changed outside of the agent at line {0}: keep a copy of the state folder for whoever looks into it, then move it away and enrol this host anew"
    )]
    ChainBroken(u64),
    /// A statement cannot be read.
    #[error(
        "a statement about the mesh's members in the state database cannot be read: put back a copy of the state folder, or move it away and let this host join anew"
    )]
    Statement,
    /// A token has no use left; nothing was written.
    #[error("the token was used already")]
    UsedUp,
    /// An operation failed.
    #[error("the state database failed")]
    Failed(#[from] rusqlite::Error),
    /// The thread is gone.
    #[error("the state database was closed")]
    Closed,
}

/// A line of the journal as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLine {
    /// Counts from 1 without gaps.
    pub number: u64,
    /// The line.
    pub line: JournalLine,
    /// SHA-256 over the previous line's hash and this line.
    pub hash: Digest,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The state database.
#[derive(Clone)]
pub struct SqliteStore {
    jobs: mpsc::SyncSender<Job>,
    newest: watch::Sender<u64>,
}

impl SqliteStore {
    /// Opens or creates the database, brings it to the present shape, checks the journal's chain,
    /// and reads the state.
    ///
    /// # Errors
    /// See [`SqliteError`]; nothing has been changed then.
    pub fn open(path: &Path) -> Result<(Self, Node), SqliteError> {
        let opened = open_connection(path);
        let mut connection = opened.map_err(|source| {
            let path = path.display().to_string();
            match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy) => SqliteError::InUse { path },
                Some(_) | None => SqliteError::Open { path, source },
            }
        })?;
        migrate(&mut connection)?;
        let newest = check_chain(&connection)?;
        let document: Option<String> = connection
            .query_row("SELECT document FROM state WHERE id = 1", [], |row| {
                row.get(0)
            })
            .optional()?;
        let node = match document {
            Some(document) => serde_json::from_str(&document).map_err(SqliteError::State)?,
            None => Node::default(),
        };
        let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE);
        thread::Builder::new()
            .name("sqlite".into())
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    job(&mut connection);
                }
            })
            .map_err(|_| SqliteError::Closed)?;
        Ok((
            Self {
                jobs,
                newest: watch::channel(newest).0,
            },
            node,
        ))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| drop(answer.send(work(connection))));
        let jobs = self.jobs.clone();
        // The queue is bounded; a full one must not block the runtime.
        if let Err(mpsc::TrySendError::Full(job)) = jobs.try_send(job) {
            let sent = tokio::task::spawn_blocking(move || jobs.send(job)).await;
            sent.map_err(|_| SqliteError::Closed)?
                .map_err(|_| SqliteError::Closed)?;
        }
        answered.await.map_err(|_| SqliteError::Closed)?
    }

    /// Lines after the number `after`, oldest first, at most `limit`.
    pub async fn lines_after(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredLine>, SqliteError> {
        self.run(move |connection| {
            let query = "SELECT number, wall_ms, kind, epoch, generation, actor, text, hash \
                         FROM journal WHERE number > ?1 ORDER BY number LIMIT ?2";
            let mut statement = connection.prepare_cached(query)?;
            let rows = statement.query_map(params![after, limit], read_line)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The number of the newest line, and a way to hear of newer ones.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Writes a line that no change of state goes with.
    pub async fn note(&self, line: JournalLine) -> Result<(), SqliteError> {
        self.write(None, vec![line]).await
    }

    async fn write(
        &self,
        document: Option<String>,
        lines: Vec<JournalLine>,
    ) -> Result<(), SqliteError> {
        self.transact(move |transaction| {
            if let Some(document) = document {
                let statement = "INSERT INTO state (id, document) VALUES (1, ?1) \
                                 ON CONFLICT (id) DO UPDATE SET document = ?1";
                transaction.execute(statement, [document])?;
            }
            append(transaction, lines)
        })
        .await
    }

    /// One transaction that ends with the number of the journal's newest line.
    async fn transact(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<u64, SqliteError> + Send + 'static,
    ) -> Result<(), SqliteError> {
        let number = self
            .run(move |connection| {
                let transaction = connection.transaction()?;
                let number = work(&transaction)?;
                transaction.commit()?;
                Ok(number)
            })
            .await?;
        self.newest.send_if_modified(|newest| {
            let newer = number > *newest;
            *newest = number.max(*newest);
            newer
        });
        Ok(())
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn save(&self, node: &Node, lines: Vec<JournalLine>) -> Result<(), EffectError> {
        let document =
            serde_json::to_string(node).map_err(|error| EffectError(error.to_string()))?;
        let written = self.write(Some(document), lines).await;
        written.map_err(|error| EffectError(crate::error_chain(&error)))
    }
}

fn open_connection(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    // Held for good: two agents must never share one state folder.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "cache_size", -512)?;
    connection.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), SqliteError> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > SHAPE {
        return Err(SqliteError::Newer { found });
    }
    if found < 1 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(
            "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), document TEXT NOT NULL);
             CREATE TABLE journal (
                 number INTEGER PRIMARY KEY,
                 wall_ms INTEGER NOT NULL,
                 kind TEXT NOT NULL,
                 epoch TEXT,
                 generation INTEGER,
                 actor TEXT NOT NULL,
                 text TEXT NOT NULL,
                 hash BLOB NOT NULL
             );
             CREATE TABLE journal_head (
                 id INTEGER PRIMARY KEY CHECK (id = 1),
                 number INTEGER NOT NULL,
                 hash BLOB NOT NULL
             );
             PRAGMA user_version = 1;",
        )?;
        transaction.commit()?;
    }
    // Shape 2 also adds to the document; what an earlier agent saved lacks that, and is read as it is.
    if found < 2 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(
            "CREATE TABLE statements (
                 subject TEXT PRIMARY KEY,
                 signed BLOB NOT NULL,
                 author TEXT NOT NULL
             );
             CREATE TABLE grants (
                 secret BLOB PRIMARY KEY,
                 signed BLOB NOT NULL,
                 until_wall_ms INTEGER NOT NULL,
                 used INTEGER NOT NULL
             );
             CREATE TABLE evidence (
                 record BLOB PRIMARY KEY,
                 signed BLOB NOT NULL
             );
             CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), latest_s INTEGER NOT NULL);
             PRAGMA user_version = 2;",
        )?;
        transaction.commit()?;
    }
    // Shape 3 adds to the document alone: what triggers have come to, and what is stopped. An older
    // agent would forget it.
    if found < 3 {
        connection.pragma_update(None, "user_version", 3)?;
    }
    Ok(())
}

fn last_line(connection: &Connection) -> Result<(u64, Digest), rusqlite::Error> {
    let query = "SELECT number, hash FROM journal ORDER BY number DESC LIMIT 1";
    let last = connection.query_row(query, [], |row| Ok((row.get(0)?, read_hash(row, 1)?)));
    Ok(last.optional()?.unwrap_or((0, Digest::from_bytes([0; 32]))))
}

fn append(connection: &Connection, lines: Vec<JournalLine>) -> Result<u64, SqliteError> {
    let (mut number, mut hash) = last_line(connection)?;
    let statement = "INSERT INTO journal (number, wall_ms, kind, epoch, generation, actor, text, hash) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let mut statement = connection.prepare_cached(statement)?;
    for line in lines {
        number += 1;
        hash = chained(&hash, number, &line);
        let epoch = line.epoch.map(|epoch| epoch.to_string());
        statement.execute(params![
            number,
            line.wall_ms,
            line.kind,
            epoch,
            line.generation,
            line.actor,
            line.text,
            hash.as_bytes()
        ])?;
    }
    // Kept apart, so that missing newest lines are noticed too.
    let statement = "INSERT INTO journal_head (id, number, hash) VALUES (1, ?1, ?2) \
                     ON CONFLICT (id) DO UPDATE SET number = ?1, hash = ?2";
    connection.execute(statement, params![number, hash.as_bytes()])?;
    Ok(number)
}

fn chained(previous: &Digest, number: u64, line: &JournalLine) -> Digest {
    let epoch = line
        .epoch
        .map(|epoch| epoch.to_string())
        .unwrap_or_default();
    let fields = [
        previous.to_string(),
        number.to_string(),
        line.wall_ms.to_string(),
        line.kind.clone(),
        epoch,
        line.generation
            .map(|generation| generation.to_string())
            .unwrap_or_default(),
        line.actor.clone(),
        line.text.clone(),
    ];
    // Lengths stand before the fields, so that nothing can move from one into another.
    let text: String = fields
        .iter()
        .map(|field| format!("{}:{field}|", field.len()))
        .collect();
    Digest::of(text.as_bytes())
}

fn check_chain(connection: &Connection) -> Result<u64, SqliteError> {
    let (newest, last) = last_line(connection)?;
    let head = "SELECT number, hash FROM journal_head WHERE id = 1";
    let head = connection.query_row(head, [], |row| Ok((row.get(0)?, read_hash(row, 1)?)));
    let head: (u64, Digest) = head.optional()?.unwrap_or((0, Digest::from_bytes([0; 32])));
    if head != (newest, last) {
        return Err(SqliteError::ChainBroken(newest.min(head.0) + 1));
    }
    let first = newest.saturating_sub(CHECKED_ON_OPEN) + 1;
    let before = "SELECT hash FROM journal WHERE number = ?1";
    let before = connection
        .query_row(before, [first - 1], |row| read_hash(row, 0))
        .optional()?;
    let mut previous = match before {
        Some(hash) => hash,
        None if first == 1 => Digest::from_bytes([0; 32]),
        None => return Err(SqliteError::ChainBroken(first - 1)),
    };
    let query = "SELECT number, wall_ms, kind, epoch, generation, actor, text, hash \
                 FROM journal WHERE number >= ?1 ORDER BY number";
    let mut statement = connection.prepare(query)?;
    for (expected, line) in (first..).zip(statement.query_map([first], read_line)?) {
        let line = line?;
        let hash = chained(&previous, expected, &line.line);
        if line.number != expected || line.hash != hash {
            return Err(SqliteError::ChainBroken(expected));
        }
        previous = hash;
    }
    Ok(newest)
}

fn read_hash(row: &Row<'_>, index: usize) -> Result<Digest, rusqlite::Error> {
    row.get::<_, [u8; 32]>(index).map(Digest::from_bytes)
}

fn read_line(row: &Row<'_>) -> Result<StoredLine, rusqlite::Error> {
    let epoch: Option<String> = row.get(3)?;
    Ok(StoredLine {
        number: row.get(0)?,
        line: JournalLine {
            wall_ms: row.get(1)?,
            kind: row.get(2)?,
            epoch: epoch.and_then(|text| text.parse().ok()),
            generation: row.get(4)?,
            actor: row.get(5)?,
            text: row.get(6)?,
        },
        hash: read_hash(row, 7)?,
    })
}
