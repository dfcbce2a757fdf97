//! The harness.

pub mod fixture;
