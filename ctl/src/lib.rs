//! The parts of `cbctl` that tests use as a library.

pub mod pack;
