//! What ends a run from outside: everything that waits looks here and gives up, so that what was
//! started is ended.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static TIME_IS_UP: AtomicBool = AtomicBool::new(false);

/// Asks everything that waits to give up, as Ctrl-C does.
pub fn set() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// True once somebody asked.
pub fn is_set() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// From now on SIGTERM, which the runner sends to a test whose time is up, is a failure like any
/// other: the logs are shown, and what was started is ended.
pub fn end_when_time_is_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build();
            let runtime = runtime.expect("a runtime for one signal");
            runtime.block_on(async {
                let terminated = signal(SignalKind::terminate());
                terminated.expect("SIGTERM can be heard").recv().await;
            });
            TIME_IS_UP.store(true, Ordering::SeqCst);
        });
    });
}

/// Unwinds if somebody asked, once: what cleans up during that may wait again.
pub fn check() {
    if std::thread::panicking() {
        return;
    }
    assert!(!is_set(), "interrupted");
    let time_is_up = TIME_IS_UP.load(Ordering::SeqCst);
    assert!(!time_is_up, "its time was up while it waited");
}
