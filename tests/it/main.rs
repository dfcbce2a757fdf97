//! Tests.

mod config;
mod ctl;
mod fake;
mod tls;
