//! Snapshots of the node's SQLite databases: taken, verified, restored.
//!
//! ```text
//! root/<id>/snapshot.json   what was taken, when and why, with sizes and digests
//! root/<id>/0.db, 1.db …    one complete copy per database
//! root/.work/               work in progress, emptied at start
//! ```
//!
//! A snapshot appears under its id by one rename, complete, verified and on disk, or not at all. A
//! copy is made by SQLite's online backup, never by copying a database file whose `-wal` holds the
//! newest commits. All calls block on the disk. One process uses a store at a time.

mod copy;
mod error;
mod record;
mod restore;
mod store;

pub use error::SnapshotError;
pub use record::{FileState, NewSnapshot, Snapshot, SnapshotFile};
pub use store::SnapshotStore;
