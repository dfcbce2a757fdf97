//! How long a node that was just started is waited for where no probation follows.
//!
//! A node that replays the log of its database may take minutes (`NODE.md`, section 8), and to end it
//! then means that it begins anew. So one that is busy is waited for up to a bound of its own; one that
//! sleeps is not.

/// What the node's processes have done since they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Processor time, in milliseconds.
    pub processor_ms: u64,
    /// Bytes that were read, from wherever.
    pub read_bytes: u64,
}

/// How long is waited, in milliseconds since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadyLimits {
    /// For a node that does nothing.
    pub ready_ms: u64,
    /// For one that is busy.
    pub busy_ms: u64,
}

/// Over how long it is looked whether a node is busy, in milliseconds.
pub const WINDOW_MS: u64 = 3_000;

/// The least of the processor that a busy node uses, in hundredths of one: an idle .NET process uses
/// less than one.
const PROCESSOR_PERCENT_MIN: u64 = 10;

/// The least that a busy node reads per second: no disk that a node runs on is as slow.
const READ_BYTES_MIN: u64 = 256 * 1024;

/// Whether to go on waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The usual time is not over.
    Wait,
    /// It is, but the node is busy.
    WaitBusy,
    /// The node does nothing, and the time for that is over.
    OverIdle,
    /// It is busy, and the time for that is over, too.
    OverBusy,
}

/// The memory between two looks.
#[derive(Debug, Clone, Copy)]
pub struct Readiness {
    limits: ReadyLimits,
    /// The beginning of the window, and what was done until then.
    began: Option<(u64, Effort)>,
    is_busy: bool,
}

impl Readiness {
    /// Nothing was seen yet.
    pub fn new(limits: ReadyLimits) -> Self {
        Self {
            limits,
            began: None,
            is_busy: false,
        }
    }

    /// Takes in what was done until `now_ms` since the start; `None`: it cannot be read, which counts as
    /// nothing.
    pub fn look(&mut self, now_ms: u64, effort: Option<Effort>) -> Patience {
        self.take_in(now_ms, effort);
        let ReadyLimits { ready_ms, busy_ms } = self.limits;
        // Where the usual time is shorter than a window, there was no time to be busy.
        match (now_ms > ready_ms.max(WINDOW_MS), self.is_busy) {
            (false, _) => Patience::Wait,
            (true, true) if now_ms <= busy_ms => Patience::WaitBusy,
            (true, true) => Patience::OverBusy,
            (true, false) => Patience::OverIdle,
        }
    }

    /// Whether the node was busy at the last look.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    fn take_in(&mut self, now_ms: u64, effort: Option<Effort>) {
        let Some(effort) = effort else {
            (self.began, self.is_busy) = (None, false);
            return;
        };
        let (began_ms, before) = *self.began.get_or_insert((now_ms, effort));
        let passed_ms = now_ms.saturating_sub(began_ms);
        if passed_ms < WINDOW_MS {
            return;
        }
        let processor_ms = effort.processor_ms.saturating_sub(before.processor_ms);
        let read = effort.read_bytes.saturating_sub(before.read_bytes);
        self.is_busy = processor_ms.saturating_mul(100) >= passed_ms * PROCESSOR_PERCENT_MIN
            || read.saturating_mul(1_000) >= passed_ms.saturating_mul(READ_BYTES_MIN);
        self.began = Some((now_ms, effort));
    }
}

/// Time that does not count against a limit, because the node was busy with its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Excused {
    total_ms: u64,
    looked_ms: Option<u64>,
}

impl Excused {
    /// Nothing is excused yet.
    pub const NONE: Self = Self {
        total_ms: 0,
        looked_ms: None,
    };

    /// Takes in whether the node is busy at `now_ms`, since the last look then, too; returns how much
    /// is excused so far, in milliseconds: never more than `most_ms`.
    pub fn look(&mut self, now_ms: u64, is_busy: bool, most_ms: u64) -> u64 {
        let before_ms = self.looked_ms.replace(now_ms).unwrap_or(now_ms);
        if is_busy {
            let passed_ms = now_ms.saturating_sub(before_ms);
            self.total_ms = self.total_ms.saturating_add(passed_ms).min(most_ms);
        }
        self.total_ms
    }
}

#[cfg(test)]
mod tests {
    use super::{Effort, Excused, Patience, Readiness, ReadyLimits};

    const LIMITS: ReadyLimits = ReadyLimits {
        ready_ms: 10_000,
        busy_ms: 60_000,
    };

    /// Looks every half second until it is over; `effort` is what was done until then. Says when, and how
    /// often it was waited because the node was busy.
    fn play(limits: ReadyLimits, effort: fn(u64) -> Option<Effort>) -> (u64, Patience, usize) {
        let mut readiness = Readiness::new(limits);
        let mut busy = 0;
        for now_ms in (0..).step_by(500) {
            match readiness.look(now_ms, effort(now_ms)) {
                Patience::Wait => {}
                Patience::WaitBusy => busy += 1,
                over @ (Patience::OverIdle | Patience::OverBusy) => return (now_ms, over, busy),
            }
        }
        unreachable!("it is bounded")
    }

    fn processor(ms: u64) -> Option<Effort> {
        let processor_ms = ms;
        Some(Effort {
            processor_ms,
            read_bytes: 0,
        })
    }

    fn reads(bytes: u64) -> Option<Effort> {
        let read_bytes = bytes;
        Some(Effort {
            processor_ms: 0,
            read_bytes,
        })
    }

    #[test]
    fn time_is_excused_while_the_node_is_busy_and_no_longer_than_that() {
        let mut excused = Excused::NONE;
        let looks = [
            (0, true, 0),
            (100, true, 100),
            (200, false, 100),
            (900, true, 800),
            // A clock that goes back excuses nothing.
            (500, true, 800),
            (2_000, true, 1_000),
        ];
        for (now_ms, is_busy, expected) in looks {
            assert_eq!(excused.look(now_ms, is_busy, 1_000), expected, "{now_ms}");
        }
    }

    #[test]
    fn only_who_is_busy_is_waited_for_and_not_for_ever() {
        let idle = (10_500, Patience::OverIdle, 0);
        assert_eq!(play(LIMITS, |_| None), idle);
        assert_eq!(play(LIMITS, |_| processor(5_000)), idle);
        assert_eq!(play(LIMITS, |ms| processor(ms / 50)), idle, "a little");
        assert_eq!(play(LIMITS, |ms| reads(ms * 100)), idle, "a little");
        let busy = (60_500, Patience::OverBusy, 100);
        assert_eq!(play(LIMITS, processor), busy);
        assert_eq!(play(LIMITS, |ms| reads(ms * 1_000)), busy);
        // Who falls asleep is noticed after a window.
        let (ms, over, _) = play(LIMITS, |ms| processor(ms.min(20_000)));
        assert_eq!(over, Patience::OverIdle);
        assert!((20_000..=27_000).contains(&ms), "{ms}");
    }

    #[test]
    fn odd_limits_and_counters_are_bounded() {
        let short = ReadyLimits {
            ready_ms: 100,
            busy_ms: 200,
        };
        assert_eq!(play(short, |_| None).0, 3_500);
        assert_eq!(play(short, processor).1, Patience::OverBusy);
        // A helper that ended takes its share away.
        let (_, over, _) = play(LIMITS, |ms| processor(100_000_u64.saturating_sub(ms)));
        assert_eq!(over, Patience::OverIdle);
        assert_eq!(
            play(LIMITS, |ms| reads(u64::MAX - 1 + ms % 2)).1,
            Patience::OverIdle
        );
    }
}
