//! The integration tests, one module per area.

mod builds;
mod checks;
mod crashes;
mod fixture;
mod fixture_faults;
mod process;
mod quiesce;
mod snapshots;
mod vectors;
mod wire_refusals;
