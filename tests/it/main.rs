//! Tests.

mod fixture;
mod fixture_faults;
mod vectors;
mod wire_refusals;
