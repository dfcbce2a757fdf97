//! Reads what a CBDDC node keeps in SQLite: the schemas of EF Core and of version 0.9.1.
//!
//! Read-only, and a page at a time, so that the node's own work never waits for a reader: no
//! statement outlives its page. Deliberately absent: judging what is read, BLite (its files are open
//! to one process only), and writing anything.

mod documents;
mod reading;
mod schema;

pub use documents::DocumentText;
pub use reading::{open_copy, open_to_read};
pub use schema::OplogError;

use cbddc_domain::audit::{Boundaries, Link, Page, RowText};
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::oplog::Operation;
use rusqlite::{Connection, params};
use schema::Schema;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait for a lock: as long as the nodes themselves do.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A database that has an oplog.
#[derive(Debug)]
pub struct OplogDb {
    db: Connection,
    schema: Schema,
    path: PathBuf,
}

/// The place after a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    wall: i64,
    logic: i32,
    origin: String,
    id: i64,
}

impl Cursor {
    /// Before everything that was written at this time or later.
    pub fn at(wall_ms: i64) -> Self {
        Self {
            wall: wall_ms,
            logic: i32::MIN,
            origin: String::new(),
            id: i64::MIN,
        }
    }
}

impl OplogDb {
    /// Opens a file read-only and finds out its schema.
    ///
    /// # Errors
    /// [`OplogError`]: also where the file is no SQLite database, or has no oplog.
    pub fn open(path: &Path) -> Result<Self, OplogError> {
        Self::of(path, open_to_read(path, BUSY_TIMEOUT))
    }

    /// The same of a copy that nobody writes to; nothing is put beside it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_copy(path: &Path) -> Result<Self, OplogError> {
        Self::of(path, open_copy(path))
    }

    fn of(path: &Path, opened: rusqlite::Result<Connection>) -> Result<Self, OplogError> {
        let failed = |source| OplogError::Open {
            path: path.to_owned(),
            source,
        };
        let db = opened.map_err(failed)?;
        let schema = Schema::of(&db).map_err(failed)?;
        let schema = schema.ok_or_else(|| OplogError::NoOplog(path.to_owned()))?;
        let path = path.to_owned();
        Ok(Self { db, schema, path })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which schema it has, for people.
    pub fn schema(&self) -> &'static str {
        self.schema.word()
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, OplogError> {
        read(&self.db).map_err(|source| OplogError::Read {
            path: self.path.clone(),
            source,
        })
    }

    /// The boundaries that pruning left; unset where the database has no place for them.
    ///
    /// # Errors
    /// [`OplogError::Read`].
    pub fn boundaries(&self) -> Result<Option<Boundaries>, OplogError> {
        let Some(sql) = self.schema.boundaries() else {
            return Ok(None);
        };
        let boundaries = self.read(|db| {
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map([], |row| {
                let hash: Option<String> = row.get(3)?;
                let link = hash.as_deref().and_then(Link::parse);
                let moment = (row.get(1)?, row.get(2)?);
                Ok((row.get(0)?, (moment, link.unwrap_or(Link::NONE))))
            })?;
            rows.collect()
        });
        boundaries.map(Some)
    }

    /// The latest moment of each origin, as the node seeds its clock: from the boundaries, then from
    /// the events.
    ///
    /// # Errors
    /// [`OplogError::Read`].
    pub fn clock(&self) -> Result<VectorClock, OplogError> {
        let mut clock = VectorClock::default();
        for (origin, (moment, _)) in self.boundaries()?.unwrap_or_default() {
            clock.advance(&origin, moment);
        }
        let rows = self.schema.rows();
        let sql = format!(
            "SELECT n, w, max(l) FROM ({rows}) JOIN (SELECT n AS origin, max(w) AS latest \
             FROM ({rows}) GROUP BY n) ON n = origin AND w = latest GROUP BY n, w"
        );
        self.read(|db| {
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let origin: String = row.get(0)?;
                clock.advance(&origin, (row.get(1)?, row.get(2)?));
            }
            Ok(clock)
        })
    }

    /// The next rows after a place, at most `limit`, and the place after them; no place when those
    /// were the last.
    ///
    /// # Errors
    /// [`OplogError::Read`].
    pub fn page(&self, after: &Cursor, limit: usize) -> Result<(Page, Option<Cursor>), OplogError> {
        let sql = self.schema.page();
        self.read(|db| {
            let mut statement = db.prepare_cached(&sql)?;
            let most = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![
                after.wall,
                after.logic,
                after.origin,
                after.id,
                most
            ])?;
            let (mut page, mut last) = (Page::default(), None);
            let mut count = 0;
            while let Some(row) = rows.next()? {
                let text = |column: usize| -> rusqlite::Result<&str> {
                    Ok(row.get_ref(column)?.as_str_or_null()?.unwrap_or_default())
                };
                let (wall, logic) = (row.get(0)?, row.get(1)?);
                let operation: i64 = row.get(6)?;
                page.push(&RowText {
                    wall,
                    logic,
                    origin: text(2)?,
                    collection: text(4)?,
                    key: text(5)?,
                    operation: Operation::from_number(operation).unwrap_or(Operation::Put),
                    hash: text(7)?,
                    previous: text(8)?,
                });
                count += 1;
                if count == limit {
                    last = Some(Cursor {
                        wall,
                        logic,
                        origin: text(2)?.to_owned(),
                        id: row.get(3)?,
                    });
                }
            }
            Ok((page, last))
        })
    }
}
