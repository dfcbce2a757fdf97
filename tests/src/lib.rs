//! The harness.

pub mod bins;
