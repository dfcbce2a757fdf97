//! Counts documents in the databases themselves: what is lost, what is there twice.

use super::writer::Written;
use super::{TestMesh, interrupt};
use crate::fixture::store::{self, Held};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the databases are counted while nodes still replicate.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What the databases of all nodes hold of what was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// How many documents were acknowledged.
    pub acknowledged: usize,
    /// How many of them each node holds.
    pub present: Vec<(String, usize)>,
    /// The acknowledged ones that are missing, as `NODE: KEY`.
    pub lost: Vec<String>,
    /// The events that a node holds twice, as `NODE: KEY`.
    pub doubled: Vec<String>,
}

impl Count {
    /// True when nothing is lost and nothing is there twice.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty()
    }

    /// Compares what was written with what each node holds.
    pub fn of(written: &Written, held: impl IntoIterator<Item = (String, Held)>) -> Self {
        let mut count = Self {
            acknowledged: written.acknowledged.len(),
            ..Self::default()
        };
        for (node, held) in held {
            let missing = |key: &&String| !held.keys.contains(*key);
            let lost: Vec<&String> = written.acknowledged.iter().filter(missing).collect();
            let present = written.acknowledged.len() - lost.len();
            let named = |key: &String| format!("{node}: {key}");
            count.lost.extend(lost.into_iter().map(named));
            count.doubled.extend(held.doubled.iter().map(named));
            count.present.push((node, present));
        }
        count
    }
}

impl TestMesh {
    /// Counts until every node holds every acknowledged document, or the limit is over.
    #[track_caller]
    pub fn count_documents(&self, written: &Written, limit: Duration) -> Count {
        let until = Instant::now() + limit;
        loop {
            let count = self.count_once(written);
            if count.lost.is_empty() || Instant::now() >= until {
                return count;
            }
            interrupt::check();
            std::thread::sleep(AGAIN_AFTER);
        }
    }

    fn count_once(&self, written: &Written) -> Count {
        let held = self.nodes().iter().map(|node| {
            let held = read(&node.database(), &written.collection)
                .unwrap_or_else(|error| panic!("cannot count at {}: {error}", node.name));
            (node.name.clone(), held)
        });
        Count::of(written, held)
    }
}

fn read(database: &Path, collection: &str) -> rusqlite::Result<Held> {
    // Not to write: whoever opens the file of a 0.9 node for that may delete its log, see `NODE.md`.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(database, flags)?;
    db.busy_timeout(Duration::from_secs(5))?;
    store::held(&db, collection)
}
