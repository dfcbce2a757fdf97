//! The harness.

mod small_disk;

pub use small_disk::SmallDisk;
