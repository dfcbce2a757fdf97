//! Lines of the log that strangers can cause, so many and no more: a flood of connections must not
//! fill the log's disk, nor bury what else it says.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The most lines in a window.
pub const LINES_MAX: u32 = 20;
/// How long a window lasts.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts lines.
#[derive(Debug, Default)]
pub(super) struct Sparing(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl Sparing {
    /// Whether a line may be written now, and how many were left out since the last one; nothing: it
    /// is left out, and counted.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = held.get_or_insert(Window {
            began: now,
            lines: 0,
            left_out: 0,
        });
        if now.duration_since(window.began) >= WINDOW {
            (window.began, window.lines) = (now, 0);
        }
        if window.lines == LINES_MAX {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, Sparing, WINDOW};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn so_many_lines_in_a_window_and_the_rest_is_counted() {
        let (sparing, begin) = (Sparing::default(), Instant::now());
        for line in 0..LINES_MAX {
            let now = begin + Duration::from_secs(u64::from(line));
            assert_eq!(sparing.admit(now), Some(0), "line {line}");
        }
        let within = begin + WINDOW - Duration::from_millis(1);
        assert_eq!([sparing.admit(within), sparing.admit(within)], [None; 2]);
        let next = begin + WINDOW;
        assert_eq!(sparing.admit(next), Some(2));
        assert_eq!(sparing.admit(next), Some(0));
        for _ in 2..LINES_MAX {
            assert_eq!(sparing.admit(next), Some(0));
        }
        assert_eq!(sparing.admit(next), None);
    }
}
