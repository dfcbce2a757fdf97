//! The decisions of `cbagent` and `cbctl`: functions from state, event and time to new state and
//! actions.
//!
//! Nothing here does I/O, reads a clock or draws a random number; the dependency list keeps it so.
//! Times arrive as values, randomness as nonces. The agent's engine performs what is decided here,
//! `cbctl` drives [`proposer`], and the simulation runs both, thousands of meshes at a time.
//!
//! In reading order: [`id`], [`build`], [`release`], [`generation`] name things; [`register`] is
//! what an agent promised, voted for and learnt; [`phase`] where it stands between two releases;
//! [`node`] its whole state and what may happen to it; [`step`](mod@step) decides. [`plan`],
//! [`waves`] and [`proposer`] are the client's side.

pub mod access;
pub mod audit;
pub mod build;
pub mod bundle;
pub mod documents;
mod drift;
pub mod generation;
pub mod health;
pub mod hlc;
pub mod id;
pub mod identity;
pub mod manifest;
pub mod mesh;
pub mod node;
pub mod node_starts;
pub mod oplog;
pub mod phase;
pub mod plan;
pub mod proposer;
pub mod readiness;
pub mod register;
pub mod relative_path;
pub mod release;
pub mod replication;
pub mod retention;
pub mod rollback;
pub mod roster;
mod serde_pairs;
pub mod starts;
pub mod step;
pub mod stops;
pub mod time;
pub mod trigger;
pub mod units;
pub mod warmup;
pub mod waves;
