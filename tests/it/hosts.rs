//! On real systemd hosts: what only they can show. Each test boots its own, in about a second.

mod cuts;
mod drain;
mod enrol;
mod five;
mod forgotten;
mod lost_time;
mod packages;
mod partition;
mod places;
mod power;
mod quarantine;
mod random_cuts;
mod story;
mod supervisor;
mod synced;
mod unit;
