//! The decisions of `cbagent` and `cbctl`: functions from state, event and time to new state and
//! actions.
//!
//! Nothing here does I/O, reads a clock or draws a random number; the dependency list keeps it so.
//! Times arrive as values, randomness as nonces. The agent's engine performs what is decided here,
//! `cbctl` drives [`proposer`], and the simulation runs both, thousands of meshes at a time.
//!
//! In reading order: [`id`] and [`build`] name things; [`release`] and [`generation`] are what a
//! node runs and ran.

pub mod build;
pub mod bundle;
pub mod id;
pub mod manifest;
pub mod relative_path;
pub mod time;
