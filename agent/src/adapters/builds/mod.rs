//! The build store: immutable builds on this host's disk, and the link to the one that runs.
//!
//! ```text
//! root/builds/<digest>/tree/…          the files, read-only
//! root/builds/<digest>/manifest.json   what they must be
//! root/builds/<digest>/bundle.tar.zst  as received: for other agents, and to restore a damaged tree
//! root/builds/<digest>/left/…          what earlier runs left in the tree: moved out by an activation
//! root/incoming/                       work in progress, emptied at start
//! root/current -> builds/<digest>/tree
//! ```
//!
//! A build appears under `builds` by one rename, complete, checked and on disk, or not at all. All
//! calls block on the disk. One process uses a store at a time; within it, changes are serialised.

mod current;
mod error;
mod extract;
mod grown;
mod left;
mod mend;
mod place;
mod store;
mod upload;
mod verify;

pub use current::current_of;
pub use error::BuildError;
pub use grown::{Grown, NAMES_TOLD_MAX};
pub use left::Cleared;
pub use place::{PlaceError, lead};
pub use store::{BuildStore, StoredBuild};
pub use upload::{Imported, Upload};
