//! Programs whose clock is wrong: a small library of Debian's gives one program another time than the
//! rest of the machine. The monotonic clocks go on as they are, as they do where a clock's battery died.

use crate::hosts::all_tests_are_required;
use std::fs;
use std::path::PathBuf;

/// A host whose clock battery is dead begins here with every start.
pub const DEAD_BATTERY: &str = "@1970-01-01 00:00:10";

/// The library; where it is missing, says which test is left out.
///
/// # Panics
/// If all tests are required and it is missing.
#[track_caller]
pub fn library(test: &str) -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let found = found.find(|path| path.is_file());
    if found.is_none() {
        let what = format!("{test} (the package libfaketime is not installed)");
        assert!(!all_tests_are_required(), "all tests are required: {what}");
        eprintln!("LEFT OUT: {what}");
    }
    found
}

/// The variables with which a program has another time, given where the library lies.
pub fn environment(library: &str, time: &str) -> [(&'static str, String); 3] {
    [
        ("LD_PRELOAD", library.to_owned()),
        ("FAKETIME", time.to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}
