//! The documents of the node as digests, made once and kept for as long as a comparison takes.

use crate::adapters::clock::nonce;
use crate::adapters::document_stream::{Sent, StreamError, fetch};
use crate::adapters::node_protocol::NodeProtocol;
use crate::adapters::oplog_reader::OplogReader;
use cbddc_domain::documents::{DocumentRow, DocumentRows, DocumentTable, content_digest};
use cbddc_oplog::{OplogDb, OplogError};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

/// How long digests are kept.
const KEPT: Duration = Duration::from_secs(60);

/// The same of those that the node had to send a snapshot for: its peers are asked one after the other.
const KEPT_OF_SNAPSHOT: Duration = Duration::from_secs(15 * 60);

/// The documents at one moment.
#[derive(Debug)]
pub struct State {
    /// Its name.
    pub name: String,
    /// The digests.
    pub table: DocumentTable,
    /// Where they come from, for people.
    pub read_from: String,
    made: Instant,
    kept: Duration,
}

/// Where documents may be read from.
#[derive(Clone, Copy)]
pub enum Ways<'a> {
    /// The node's database.
    Database,
    /// Also a snapshot that the node sends, where its database does not tell documents; `pid` is its
    /// process.
    Snapshot {
        /// How to ask it.
        protocol: &'a NodeProtocol,
        /// The node's process, to tell what it cost it.
        pid: Option<u32>,
    },
}

/// Why there are no digests.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// The node has no SQLite database.
    #[error("the node has no SQLite database with documents that can be read")]
    NoDatabase,
    /// It could not be read.
    #[error(transparent)]
    Database(#[from] OplogError),
    /// The node's snapshot could not be had or read.
    #[error(transparent)]
    Snapshot(#[from] StreamError),
    /// The state that was asked for is no longer kept.
    #[error("these digests are no longer kept; compare anew")]
    Gone,
    /// The reader ended by a fault.
    #[error("the reader of the database ended by a fault")]
    Fault,
}

/// A table to make.
struct Job {
    /// The snapshot that the node sent; unset: of its database.
    sent: Option<Sent>,
    /// Its collections; none: all.
    collections: Vec<String>,
    /// Who waits for it.
    answer: oneshot::Sender<Result<State, DigestError>>,
}

/// Makes digests, one table at a time, and all of them on one thread: glibc keeps the memory that a
/// table took for the thread that took it, so that with a pool an agent had a dozen tables' worth of
/// it after an hour (measured: 12 × 60 MB of 320,000 documents).
#[derive(Debug, Clone)]
pub struct DocumentDigests {
    jobs: mpsc::Sender<Job>,
    kept: Arc<Mutex<Option<Arc<State>>>>,
    reader: OplogReader,
    /// Where a snapshot is kept while it is read.
    folder: PathBuf,
}

impl DocumentDigests {
    /// Nothing is read yet. The folder is for snapshots that the node sends.
    pub fn new(reader: OplogReader, folder: PathBuf) -> Self {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let of_database = reader.clone();
        let make = move || {
            for job in waiting {
                let state = match job.sent {
                    Some(sent) => read_sent(&sent, &job.collections),
                    None => {
                        let db = of_database.open().ok_or(DigestError::NoDatabase);
                        db.and_then(|db| read(&db, &job.collections))
                    }
                };
                // Whoever asked may be gone.
                let _ = job.answer.send(state);
            }
        };
        let thread = std::thread::Builder::new().name("digests".into());
        if let Err(error) = thread.spawn(make) {
            tracing::error!(%error, "no thread for comparing documents: start the agent anew");
        }
        Self {
            jobs,
            kept: Arc::default(),
            reader,
            folder,
        }
    }

    /// The state of that name; without a name a new one, of these collections (none: all).
    ///
    /// # Errors
    /// [`DigestError`].
    pub async fn state(
        &self,
        name: &str,
        collections: Vec<String>,
        ways: Ways<'_>,
    ) -> Result<Arc<State>, DigestError> {
        let mut kept = self.kept.lock().await;
        let is_it = |state: &&Arc<State>| state.name == name && state.made.elapsed() < state.kept;
        if let Some(state) = kept.as_ref().filter(is_it) {
            return Ok(state.clone());
        }
        *kept = None;
        if !name.is_empty() {
            return Err(DigestError::Gone);
        }
        let sent = match ways {
            Ways::Snapshot { protocol, pid } if !self.reader.keeps_documents().await => {
                Some(fetch(protocol, &self.folder, pid).await?)
            }
            Ways::Snapshot { .. } | Ways::Database => None,
        };
        let (answer, made) = oneshot::channel();
        let job = self.jobs.send(Job {
            sent,
            collections,
            answer,
        });
        job.map_err(|_| DigestError::Fault)?;
        let state = Arc::new(made.await.map_err(|_| DigestError::Fault)??);
        *kept = Some(state.clone());
        self.forget_later(&state);
        Ok(state)
    }

    /// Memory is given back although nobody asks again.
    fn forget_later(&self, state: &Arc<State>) {
        let (kept, name, time) = (self.kept.clone(), state.name.clone(), state.kept);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let mut kept = kept.lock().await;
            if kept.as_ref().is_some_and(|state| state.name == name) {
                *kept = None;
            }
        });
    }
}

fn read(db: &OplogDb, collections: &[String]) -> Result<State, DigestError> {
    let mut rows = DocumentRows::default();
    db.each_document(|document| {
        if is_wanted(collections, document.collection) {
            rows.push(&DocumentRow {
                collection: document.collection.to_owned(),
                key: document.key.to_owned(),
                version: document.version,
                origin: document.origin.to_owned(),
                digest: document.content.map(content_digest),
            });
        }
    })?;
    let read_from = format!("{} of {}", db.documents_from(), db.path().display());
    Ok(made(rows, read_from, KEPT))
}

fn read_sent(sent: &Sent, collections: &[String]) -> Result<State, DigestError> {
    let mut rows = DocumentRows::default();
    sent.each_document(|document| {
        if is_wanted(collections, &document.collection) {
            rows.push(&document);
        }
    })?;
    Ok(made(rows, sent.told.clone(), KEPT_OF_SNAPSHOT))
}

fn is_wanted(collections: &[String], collection: &str) -> bool {
    collections.is_empty() || collections.iter().any(|name| name == collection)
}

fn made(rows: DocumentRows, read_from: String, kept: Duration) -> State {
    State {
        name: format!("{:016x}", nonce()),
        table: rows.finish(),
        read_from,
        made: Instant::now(),
        kept,
    }
}
