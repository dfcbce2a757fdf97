//! The integration tests, one module per area.

mod builds;
mod snapshots;
