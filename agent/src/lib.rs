//! The agent: one loop that steps the pure state machine of `cbddc-domain`, saves what was decided,
//! and lets adapters perform it.
//!
//! In reading order: [`config`] is what the agent is told to do; [`ports`] says what the engine needs of the world; [`adapters`] fulfil it, each
//! named after its technology.

pub mod adapters;
pub mod config;
pub mod ports;
