//! Everything that touches the world, a short adapter per technology, with nothing left to decide.

pub mod adoption;
pub mod builds;
pub mod cbddc_wire;
pub mod checks;
pub mod clock;
pub mod crash;
pub(crate) mod disk;
pub mod gate_files;
pub mod host;
pub mod http;
pub mod local;
pub mod node_protocol;
pub mod notify;
pub mod peers;
pub mod process;
pub mod quiesce;
pub mod snapshots;
pub mod sqlite;
pub mod startable;
pub mod systemd;
pub mod tls;
pub mod world;
