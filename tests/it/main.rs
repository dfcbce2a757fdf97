//! Tests.

mod process;
