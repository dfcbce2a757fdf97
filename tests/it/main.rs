//! The integration tests, one module per area.

mod builds;
mod snapshots;
//! Tests.

mod checks;
mod process;
mod quiesce;
