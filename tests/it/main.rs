//! Tests.

mod fixture;
mod fixture_faults;
mod fixture_sync;
mod vectors;
mod wire_refusals;
