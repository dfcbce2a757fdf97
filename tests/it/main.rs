//! The integration tests, one module per area.

mod api;
mod builds;
mod checks;
mod config;
mod crashes;
mod ctl;
mod engine;
mod fake;
mod fixture;
mod fixture_faults;
mod fixture_sync;
mod hosts;
mod mesh;
mod process;
mod quiesce;
mod scenarios;
mod simulation;
mod snapshots;
mod state;
mod tidy;
mod tls;
mod vectors;
mod vectors_wire;
mod wire_refusals;
