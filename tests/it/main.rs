//! Tests.

mod checks;
mod process;
mod quiesce;
