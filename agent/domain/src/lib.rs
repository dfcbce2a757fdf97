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
pub mod generation;
pub mod id;
pub mod mesh;
pub mod node;
pub mod phase;
pub mod plan;
pub mod register;
pub mod release;
mod serde_pairs;
pub mod time;
pub mod units;
