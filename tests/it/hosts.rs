//! On real systemd hosts: what only they can show. Each test boots its own, in about a second.

mod cuts;
mod packages;
mod partition;
mod power;
mod random_cuts;
mod story;
mod unit;
