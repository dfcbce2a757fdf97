//! The integration tests, one module per area.

mod builds;
mod checks;
mod crashes;
mod process;
mod process_recovery;
mod quiesce;
mod snapshots;
//! Tests.

mod fixture;
mod fixture_faults;
mod vectors;
mod wire_refusals;
