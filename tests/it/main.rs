//! The integration tests, one module per area.

mod builds;
mod checks;
mod config;
mod crashes;
mod ctl;
mod fake;
mod fixture;
mod fixture_faults;
mod mesh;
mod process;
mod quiesce;
mod snapshots;
mod tls;
mod vectors;
mod wire_refusals;
