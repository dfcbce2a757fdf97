//! The agent: one loop that steps the pure state machine of `cbddc-domain`, saves what was decided,
//! and lets adapters perform it.
//!
//! In reading order: [`ports`] says what the engine needs of the world; [`engine`] is the loop;
//! [`monitor`] tells it what the checks find; [`triggers`] brings together what is found after the commit, and
//! [`proposing`] the rollback of the mesh that follows; [`janitor`] clears away;
//! [`identity`] looks after certificate and authorities, [`join`] gets the first one; [`liveness`] finds
//! out which members are there; [`follow`] looks at the node's replication by itself; [`grpc`] is what clients and peers call; [`adapters`] fulfil the ports,
//! each named after its technology; [`gate`] is what systemd asks before it starts the node. The binary's `main` picks the adapters.

pub mod adapters;
pub mod adoption;
pub mod agent_check;
pub mod config;
pub mod engine;
pub mod follow;
pub mod gate;
pub mod grpc;
pub mod heartbeat;
pub mod identity;
pub mod janitor;
pub mod join;
pub mod liveness;
pub mod monitor;
pub mod ports;
pub mod proposing;
pub mod triggers;

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
