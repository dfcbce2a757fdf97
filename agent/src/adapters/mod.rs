//! Everything that touches the world, a short adapter per technology, with nothing left to decide.

pub mod builds;
pub mod cbddc_wire;
pub mod checks;
pub mod clock;
pub(crate) mod disk;
pub mod host;
pub mod http;
pub mod node_protocol;
pub mod peers;
pub mod process;
pub mod quiesce;
pub mod snapshots;
pub mod sqlite;
pub mod tls;
pub mod world;

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
