//! Reads all events of the node, for audits: from its SQLite database, page by page, or where there
//! is none over the CBDDC protocol, which gives them all at once.

use crate::adapters::node_protocol::{Look, NodeProtocol, ProtocolError};
use cbddc_domain::audit::{Audit, AuditReport, Boundaries, Page, Source};
use cbddc_domain::documents::DocumentVersion;
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::oplog::OplogEntry;
use cbddc_oplog::{Cursor, OplogDb, OplogError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Rows in a page: about half a MiB.
const PAGE_ROWS: usize = 4096;

/// Recent rows that are looked at without being asked: 10 pages.
const RECENT_ROWS_MAX: usize = 10 * PAGE_ROWS;

/// How long to wait until another reader is done.
const TURN_LIMIT: Duration = Duration::from_secs(5);

/// A part of what is read.
#[derive(Debug)]
pub enum Part {
    /// First.
    Head(Box<Head>),
    /// Rows in order.
    Page(Page),
    /// Last.
    Tail {
        /// The node's clock.
        clock: VectorClock,
        /// The boundaries.
        boundaries: Option<Boundaries>,
    },
}

/// What is known before the rows.
#[derive(Debug)]
pub struct Head {
    /// The node.
    pub look: Look,
    /// The boundaries of pruning; unset: they cannot be seen.
    pub boundaries: Option<Boundaries>,
    /// Where the rows come from, for people.
    pub read_from: String,
}

/// What a node holds of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Whether it has the event that wrote this version.
    pub has_event: bool,
    /// Whether it has this version or a later one; unset: it cannot be told.
    pub has_document: Option<bool>,
}

/// Why nothing, or nothing more, was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The node did not answer.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Its database could not be read.
    #[error(transparent)]
    Database(#[from] OplogError),
    /// Somebody else reads.
    #[error("another audit reads this node's events; wait until it ends")]
    Busy,
    /// The reader ended by a fault.
    #[error("the reader of the database ended by a fault")]
    Fault,
}

/// Reads the node's events and documents, one reader at a time.
#[derive(Debug, Clone)]
pub struct OplogReader {
    databases: Arc<Vec<PathBuf>>,
    turn: Arc<Semaphore>,
}

impl OplogReader {
    /// `databases` are the node's files; those without an oplog are passed over.
    pub fn new(databases: Vec<PathBuf>) -> Self {
        Self {
            databases: Arc::new(databases),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Opens the first of the node's databases that has an oplog and can be read.
    pub fn open(&self) -> Option<OplogDb> {
        self.databases
            .iter()
            .find_map(|path| match OplogDb::open(path) {
                Ok(db) => Some(db),
                Err(error) => {
                    tracing::debug!(error = crate::error_chain(&error), "not read for an audit");
                    None
                }
            })
    }

    /// Whether the database can be read and keeps documents apart from events.
    pub async fn keeps_documents(&self) -> bool {
        let reader = self.clone();
        let look = move || reader.open().is_some_and(|db| db.keeps_documents());
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }

    /// Up to which wall time events were pruned; zero: none, or it cannot be seen.
    pub async fn pruned_wall_ms(&self) -> i64 {
        let reader = self.clone();
        let read = move || reader.open()?.boundaries().ok()?;
        let read = tokio::task::spawn_blocking(read).await.ok().flatten();
        let boundaries = read.unwrap_or_default().into_values();
        let walls = boundaries.map(|((wall, _), _)| wall);
        walls.max().unwrap_or_default()
    }

    /// The node's clock, and an audit of its own events since a moment: what it shows by itself. At
    /// most 40,960 rows are looked at, the oldest first. `writers` are the collections that its peers
    /// declare, by their ids.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn recent(
        &self,
        protocol: &NodeProtocol,
        since_wall_ms: i64,
        writers: &BTreeMap<String, Vec<String>>,
    ) -> Result<(Look, AuditReport), ReadError> {
        let look = protocol.look().await?;
        let source = Source {
            name: look.node_id.clone(),
            origin: look.node_id.clone(),
            interests: look.interests.clone(),
            clock: look.clock.clone(),
            boundaries: None,
        };
        let (reader, of_database, known) = (self.clone(), source.clone(), writers.clone());
        let work = move || match reader.open() {
            Some(db) => {
                let source = Source {
                    boundaries: db.boundaries()?,
                    ..of_database
                };
                let audit = Audit::new(vec![source], since_wall_ms).with_writers(&known);
                audit_recent(&db, audit, since_wall_ms).map(Some)
            }
            None => Ok(None),
        };
        let read = tokio::task::spawn_blocking(work).await;
        let report = match read.map_err(|_| ReadError::Fault)?? {
            Some(report) => report,
            None => {
                let mut events = protocol.observe(since_wall_ms).await?.events;
                order(&mut events);
                let is_cut = events.len() > RECENT_ROWS_MAX;
                events.truncate(RECENT_ROWS_MAX);
                let audit = Audit::new(vec![source], since_wall_ms);
                let mut audit = audit.with_writers(writers);
                // Pages made here are in order.
                let _ = audit.feed(0, Page::of_events(&events));
                match is_cut {
                    true => audit.end_early(0, None),
                    false => audit.end(0, None),
                }
                audit.finish()
            }
        };
        Ok((look, report))
    }

    /// How far the node has seen each origin: its clock, and of origins that it does not name, as after
    /// some restarts, the last event in its database, where that can be read.
    pub async fn complete(&self, mut clock: VectorClock, wanted: &VectorClock) -> VectorClock {
        let named =
            |clock: &VectorClock| wanted.0.keys().all(|origin| clock.0.contains_key(origin));
        if named(&clock) {
            return clock;
        }
        for (origin, moment) in self.stored_clock().await.0 {
            clock.0.entry(origin).or_insert(moment);
        }
        clock
    }

    /// The last event of each origin in the node's database; empty where that cannot be read.
    pub async fn stored_clock(&self) -> VectorClock {
        let reader = self.clone();
        let read = move || reader.open()?.clock().ok();
        let read = tokio::task::spawn_blocking(read).await.ok().flatten();
        read.unwrap_or_default()
    }

    /// The documents of a span of time that no event here explains; see
    /// [`OplogDb::documents_without_event`]. [`None`] also where the database cannot be read.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn documents_without_event(
        &self,
        from_wall_ms: i64,
        until_wall_ms: i64,
        most: usize,
    ) -> Result<Option<Vec<DocumentVersion>>, ReadError> {
        let reader = self.clone();
        let work = move || match reader.open() {
            Some(db) => Ok(db.documents_without_event(from_wall_ms, until_wall_ms, most)?),
            None => Ok(None),
        };
        let found = tokio::task::spawn_blocking(work).await;
        found.map_err(|_| ReadError::Fault)?
    }

    /// What the node holds of these documents, in their order: by its database, or where that cannot be
    /// read, by the events that it gives its peers.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn find(
        &self,
        protocol: &NodeProtocol,
        versions: Vec<DocumentVersion>,
    ) -> Result<Vec<Found>, ReadError> {
        let Some(oldest) = versions.iter().map(|version| version.wall).min() else {
            return Ok(Vec::new());
        };
        let (reader, wanted) = (self.clone(), versions.clone());
        let work = move || {
            let Some(db) = reader.open() else {
                return Ok(None);
            };
            let found = wanted.iter().map(|version| {
                Ok(Found {
                    has_event: db.has_event(version)?,
                    has_document: db.has_document(version)?,
                })
            });
            found.collect::<Result<Vec<_>, ReadError>>().map(Some)
        };
        let found = tokio::task::spawn_blocking(work).await;
        if let Some(found) = found.map_err(|_| ReadError::Fault)?? {
            return Ok(found);
        }
        let events = protocol.observe(oldest).await?.events;
        let held: BTreeSet<_> = events
            .iter()
            .map(|event| (event.hlc.moment(), event.hlc.node.as_str()))
            .collect();
        let found = versions.iter().map(|version| Found {
            has_event: held.contains(&((version.wall, version.logic), version.origin.as_str())),
            has_document: None,
        });
        Ok(found.collect())
    }

    /// Reads all events from a moment on into `parts`; ends early when nobody listens any more.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        &self,
        protocol: &NodeProtocol,
        since_wall_ms: i64,
        parts: &mpsc::Sender<Part>,
    ) -> Result<(), ReadError> {
        let turn = timeout(TURN_LIMIT, self.turn.clone().acquire_owned()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(ReadError::Busy);
        };
        // The clock first: what it covers must be among the rows that are read after it.
        let look = protocol.look().await?;
        if !look.token_accepted {
            send_nothing(look, VectorClock::default(), parts).await;
            return Ok(());
        }
        let reader = self.clone();
        let (sink, is_wanted) = (parts.clone(), look.clone());
        let work = move || match reader.open() {
            Some(db) => read_database(&db, is_wanted, since_wall_ms, &sink).map(Some),
            None => Ok(None),
        };
        let read = tokio::task::spawn_blocking(work).await;
        let boundaries = match read.map_err(|_| ReadError::Fault)?? {
            Some(boundaries) => boundaries,
            None => {
                pull(protocol, look, since_wall_ms, parts).await?;
                None
            }
        };
        let clock = protocol.look().await?.clock;
        let _ = parts.send(Part::Tail { clock, boundaries }).await;
        Ok(())
    }
}

fn audit_recent(
    db: &OplogDb,
    mut audit: Audit,
    since_wall_ms: i64,
) -> Result<AuditReport, ReadError> {
    let mut next = Some(Cursor::at(since_wall_ms));
    for _ in 0..RECENT_ROWS_MAX / PAGE_ROWS {
        let Some(cursor) = next.take() else { break };
        let (page, after) = db.page(&cursor, PAGE_ROWS)?;
        // The database gives them in order.
        let _ = audit.feed(0, page);
        next = after;
    }
    match next {
        Some(_) => audit.end_early(0, db.boundaries()?),
        None => audit.end(0, db.boundaries()?),
    }
    Ok(audit.finish())
}

async fn send_nothing(look: Look, clock: VectorClock, parts: &mpsc::Sender<Part>) {
    let head = Head {
        look,
        boundaries: None,
        read_from: "nothing: the node refuses the token".to_owned(),
    };
    let boundaries = None;
    let _ = parts.send(Part::Head(Box::new(head))).await;
    let _ = parts.send(Part::Tail { clock, boundaries }).await;
}

/// Returns the boundaries after the rows; the outer option is whether they can be seen.
fn read_database(
    db: &OplogDb,
    look: Look,
    since_wall_ms: i64,
    parts: &mpsc::Sender<Part>,
) -> Result<Option<Boundaries>, ReadError> {
    let head = Head {
        look,
        boundaries: db.boundaries()?,
        read_from: format!("{} ({})", db.path().display(), db.schema()),
    };
    if parts.blocking_send(Part::Head(Box::new(head))).is_err() {
        return Ok(None);
    }
    let mut next = Some(Cursor::at(since_wall_ms));
    while let Some(cursor) = next {
        let (page, after) = db.page(&cursor, PAGE_ROWS)?;
        if parts.blocking_send(Part::Page(page)).is_err() {
            return Ok(None);
        }
        next = after;
    }
    Ok(db.boundaries()?)
}

async fn pull(
    protocol: &NodeProtocol,
    look: Look,
    since_wall_ms: i64,
    parts: &mpsc::Sender<Part>,
) -> Result<(), ReadError> {
    let head = Head {
        look,
        boundaries: None,
        read_from: "the node's sync port".to_owned(),
    };
    let mut events = protocol.observe(since_wall_ms).await?.events;
    let _ = parts.send(Part::Head(Box::new(head))).await;
    order(&mut events);
    for rows in events.chunks(PAGE_ROWS) {
        if parts.send(Part::Page(Page::of_events(rows))).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn order(events: &mut [OplogEntry]) {
    events.sort_by(|a, b| (a.hlc.moment(), &a.hlc.node).cmp(&(b.hlc.moment(), &b.hlc.node)));
}
