//! The integration tests, one module per area.

mod builds;
mod crashes;
mod snapshots;
