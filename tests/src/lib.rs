//! The harness.

pub mod fixture;
mod small_disk;

pub use small_disk::SmallDisk;
pub mod bins;
pub mod ground;
