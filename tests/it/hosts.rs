//! On real systemd hosts: what only they can show. Each test boots its own, in about a second.

mod enrol;
mod packages;
mod power;
mod story;
mod unit;
