//! The documents of the node as digests, made once and kept for as long as a comparison takes.

use crate::adapters::clock::nonce;
use crate::adapters::oplog_reader::OplogReader;
use cbddc_domain::documents::{DocumentRow, DocumentRows, DocumentTable, content_digest};
use cbddc_oplog::{OplogDb, OplogError};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

/// How long digests are kept.
const KEPT: Duration = Duration::from_secs(60);

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
    /// The state that was asked for is no longer kept.
    #[error("these digests are no longer kept; compare anew")]
    Gone,
    /// The reader ended by a fault.
    #[error("the reader of the database ended by a fault")]
    Fault,
}

/// The collections of a table to make, and who waits for it.
type Job = (Vec<String>, oneshot::Sender<Result<State, DigestError>>);

/// Makes digests, one table at a time, and all of them on one thread: glibc keeps the memory that a
/// table took for the thread that took it, so that with a pool an agent had a dozen tables' worth of
/// it after an hour (measured: 12 × 60 MB of 320,000 documents).
#[derive(Debug, Clone)]
pub struct DocumentDigests {
    jobs: mpsc::Sender<Job>,
    kept: Arc<Mutex<Option<Arc<State>>>>,
}

impl DocumentDigests {
    /// Nothing is read yet.
    pub fn new(reader: OplogReader) -> Self {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let make = move || {
            for (collections, answer) in waiting {
                let db = reader.open().ok_or(DigestError::NoDatabase);
                // Whoever asked may be gone.
                let _ = answer.send(db.and_then(|db| read(&db, collections)));
            }
        };
        let thread = std::thread::Builder::new().name("digests".into());
        if let Err(error) = thread.spawn(make) {
            tracing::error!(%error, "no thread for comparing documents: start the agent anew");
        }
        Self {
            jobs,
            kept: Arc::default(),
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
    ) -> Result<Arc<State>, DigestError> {
        let mut kept = self.kept.lock().await;
        let is_it = |state: &&Arc<State>| state.name == name && state.made.elapsed() < KEPT;
        if let Some(state) = kept.as_ref().filter(is_it) {
            return Ok(state.clone());
        }
        *kept = None;
        if !name.is_empty() {
            return Err(DigestError::Gone);
        }
        let (answer, made) = oneshot::channel();
        let job = self.jobs.send((collections, answer));
        job.map_err(|_| DigestError::Fault)?;
        let state = Arc::new(made.await.map_err(|_| DigestError::Fault)??);
        *kept = Some(state.clone());
        self.forget_later(&state);
        Ok(state)
    }

    /// Memory is given back although nobody asks again.
    fn forget_later(&self, state: &Arc<State>) {
        let (kept, name) = (self.kept.clone(), state.name.clone());
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            let mut kept = kept.lock().await;
            if kept.as_ref().is_some_and(|state| state.name == name) {
                *kept = None;
            }
        });
    }
}

fn read(db: &OplogDb, collections: Vec<String>) -> Result<State, DigestError> {
    let mut rows = DocumentRows::default();
    db.each_document(|document| {
        let wanted = |name: &String| name == document.collection;
        if collections.is_empty() || collections.iter().any(wanted) {
            rows.push(&DocumentRow {
                collection: document.collection.to_owned(),
                key: document.key.to_owned(),
                version: document.version,
                origin: document.origin.to_owned(),
                digest: document.content.map(content_digest),
            });
        }
    })?;
    Ok(State {
        name: format!("{:016x}", nonce()),
        table: rows.finish(),
        read_from: format!("{} of {}", db.documents_from(), db.path().display()),
        made: Instant::now(),
    })
}
