//! The integration tests, one module per area.

mod builds;
mod checks;
mod crashes;
mod process;
mod quiesce;
mod snapshots;
