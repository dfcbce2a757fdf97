//! The harness: what the tests, the demo and the benchmarks share.

pub mod bare_client;
pub mod bins;
pub mod clocks;
pub mod demo;
pub mod figures;
pub mod fixture;
pub mod ground;
pub mod hosts;
pub mod mesh;
pub mod sim;
mod small_disk;
pub mod usage;

pub use small_disk::SmallDisk;
