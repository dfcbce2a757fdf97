//! Ctrl-C: everything that waits looks here and gives up, so that what was started is ended.

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Asks everything that waits to give up.
pub fn set() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// True once somebody asked.
pub fn is_set() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Unwinds if somebody asked, once: what cleans up during that may wait again.
pub fn check() {
    assert!(!is_set() || std::thread::panicking(), "interrupted");
}
