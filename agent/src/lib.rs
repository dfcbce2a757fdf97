//! The agent: one loop that steps the pure state machine of `cbddc-domain`, saves what was decided,
//! and lets adapters perform it.
//!
//! In reading order: [`ports`] says what the engine needs of the world; [`engine`] is the loop;
//! [`monitor`] tells it what the checks find; [`janitor`] clears away; [`grpc`] is what clients and peers call; [`adapters`]
//! fulfil the ports, each named after its technology; [`gate`] is what systemd asks before it starts the
//! node. The binary's `main` picks the adapters.

pub mod adapters;
pub mod adoption;
pub mod config;
pub mod engine;
pub mod gate;
pub mod grpc;
pub mod heartbeat;
pub mod janitor;
pub mod monitor;
pub mod ports;

/// An error and its causes in one line: the only function that prints a chain.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
