//! Everything that touches the world, a short adapter per technology, with nothing left to decide.

pub mod builds;
pub mod cbddc_wire;
pub mod checks;
pub mod host;
pub mod http;
pub mod process;
pub mod snapshots;
pub mod tls;
