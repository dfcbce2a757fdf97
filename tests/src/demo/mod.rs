//! The demonstration: the main job, played with the real programs on a mesh of three hosts.
//!
//! In reading order: [`story`] is what is played; [`stage`] shows command lines with what they print,
//! and holds each to its exit code;
//! [`health_watch`] hears what a bad build says of itself; [`timeline`] tells what happened; [`replaced`]
//! looks up what was acknowledged meanwhile; [`keep`] leaves a mesh up, and ends it later.
//!
//! Whatever is not as told panics with a sentence: the demonstration is also a test.

pub mod health_watch;
pub mod keep;
pub mod replaced;
pub mod stage;
pub mod story;
pub mod timeline;
