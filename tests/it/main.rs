//! Tests.

mod fixture;
mod fixture_faults;
mod fixture_sync;
mod vectors;
mod vectors_wire;
mod wire_refusals;
