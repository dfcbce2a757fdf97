//! The integration tests, one module per area.

mod builds;
mod checks;
mod process;
mod process_recovery;
mod quiesce;
mod snapshots;
