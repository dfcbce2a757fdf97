//! How a newly started node proves itself: judgements over time, with the process watched.
//!
//! ```text
//! waiting ──acceptable──▶ proving ──healthy_for──▶ clean
//!    │                     │    ▲                    │
//!    │                     └bad─┘ (up to `fall`) ◀───┘ bad
//!    └──── ready_within over · process gone or another · too many bad ────▶ failed
//! ```

use crate::health::Judgement;
use crate::readiness::Excused;

/// What a node has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmupLimits {
    /// How long it must be healthy without a break before that counts, in milliseconds.
    pub healthy_for_ms: u64,
    /// How soon it must first be healthy, in milliseconds. Together with `healthy_for_ms` also the
    /// limit for being clean, so that a node that goes back and forth does not warm up for ever.
    pub ready_within_ms: u64,
    /// How many bad judgements in a row are tolerated once it was healthy.
    pub fall: u32,
    /// How much time does not count, at most, because the node is busy with its start, in milliseconds.
    pub busy_ms: u64,
}

impl WarmupLimits {
    /// The tolerated bad judgements in a row where nothing else is configured.
    pub const FALL_DEFAULT: u32 = 2;
}

/// The identity of a running process within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningProcess {
    /// Its process id.
    pub pid: u32,
    /// When it started, in milliseconds since boot.
    pub started_ms: u64,
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet; for this reason.
    Pending {
        /// What is waited for, in a sentence.
        reason: String,
    },
    /// It was healthy for long enough, and is. `Degraded` counts: it is a warning.
    Clean,
    /// It did not prove itself. Final.
    Failed {
        /// Why, in a sentence.
        reason: String,
    },
}

/// The memory between two judgements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmup {
    limits: WarmupLimits,
    began_ms: u64,
    process: RunningProcess,
    /// Since when every judgement was acceptable.
    healthy_since: Option<u64>,
    was_healthy: bool,
    was_clean: bool,
    bad_in_a_row: u32,
    excused: Excused,
    failed: Option<String>,
}

impl Warmup {
    /// Begins at `now_ms` (milliseconds since boot) with the process that was just started.
    pub fn new(limits: WarmupLimits, process: RunningProcess, now_ms: u64) -> Self {
        Self {
            limits,
            began_ms: now_ms,
            process,
            healthy_since: None,
            was_healthy: false,
            was_clean: false,
            bad_in_a_row: 0,
            excused: Excused::NONE,
            failed: None,
        }
    }

    /// Takes in what was found at `now_ms` and says where the node stands. `process` is what runs
    /// now, `None` if nothing does, `is_busy` whether its start still keeps it busy, as with reading its
    /// database's log. May go on after `Clean`, as long as the node is on probation.
    pub fn observe(
        &mut self,
        now_ms: u64,
        process: Option<RunningProcess>,
        judgement: &Judgement,
        is_busy: bool,
    ) -> Verdict {
        let is_starting = is_busy && !self.was_healthy;
        let busy_ms = self.limits.busy_ms;
        let excused_ms = self.excused.look(now_ms, is_starting, busy_ms);
        if self.failed.is_none() {
            self.failed = self.process_failure(process);
        }
        if self.failed.is_none() {
            self.take_in(now_ms, judgement);
            self.failed = self.health_failure(now_ms.saturating_sub(excused_ms), judgement);
        }
        match &self.failed {
            Some(reason) => Verdict::Failed {
                reason: reason.clone(),
            },
            None => self.verdict(now_ms, judgement),
        }
    }

    fn process_failure(&self, process: Option<RunningProcess>) -> Option<String> {
        let expected = self.process.pid;
        match process {
            Some(running) if running == self.process => None,
            Some(running) => Some(format!(
                "the node restarted by itself: process {expected} was expected, {} runs",
                running.pid
            )),
            None => Some(format!(
                "the node ended by itself: process {expected} is gone"
            )),
        }
    }

    fn take_in(&mut self, now_ms: u64, judgement: &Judgement) {
        if judgement.status.is_acceptable() {
            self.bad_in_a_row = 0;
            self.was_healthy = true;
            let since = *self.healthy_since.get_or_insert(now_ms);
            self.was_clean |= now_ms.saturating_sub(since) >= self.limits.healthy_for_ms;
        } else {
            self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
            self.healthy_since = None;
        }
    }

    fn health_failure(&self, now_ms: u64, judgement: &Judgement) -> Option<String> {
        let WarmupLimits {
            healthy_for_ms,
            ready_within_ms,
            fall,
            busy_ms: _,
        } = self.limits;
        let waited_ms = now_ms.saturating_sub(self.began_ms);
        let reasons = judgement.reasons.join("; ");
        if self.was_healthy && self.bad_in_a_row > fall {
            return Some(format!(
                "{} bad judgements in a row: {reasons}",
                self.bad_in_a_row
            ));
        }
        if !self.was_healthy && waited_ms >= ready_within_ms {
            return Some(format!(
                "not healthy within {}: {reasons}",
                seconds(ready_within_ms)
            ));
        }
        let limit_ms = ready_within_ms.saturating_add(healthy_for_ms);
        if !self.was_clean && waited_ms > limit_ms {
            return Some(format!(
                "not healthy for {} without a break within {}",
                seconds(healthy_for_ms),
                seconds(limit_ms)
            ));
        }
        None
    }

    fn verdict(&self, now_ms: u64, judgement: &Judgement) -> Verdict {
        let healthy_for = seconds(self.limits.healthy_for_ms);
        let reason = match self.healthy_since {
            Some(since) => {
                let shown_ms = now_ms.saturating_sub(since);
                if shown_ms >= self.limits.healthy_for_ms {
                    return Verdict::Clean;
                }
                format!("healthy for {} of {healthy_for}", seconds(shown_ms))
            }
            None => judgement.reasons.join("; "),
        };
        Verdict::Pending { reason }
    }
}

/// Milliseconds for people, to a tenth of a second.
fn seconds(ms: u64) -> String {
    match (ms / 1_000, ms % 1_000 / 100) {
        (whole, 0) => format!("{whole} s"),
        (whole, tenth) => format!("{whole}.{tenth} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{RunningProcess, Verdict, Warmup, WarmupLimits};
    use crate::health::{Judgement, Status};

    const NODE: RunningProcess = RunningProcess {
        pid: 7,
        started_ms: 900,
    };
    const LIMITS: WarmupLimits = WarmupLimits {
        healthy_for_ms: 300,
        ready_within_ms: 1_000,
        fall: 2,
        busy_ms: 2_000,
    };

    /// What is seen: H, D, U, ? are judgements; X is no process; R another one, O the same number
    /// started at another time; B is bad, and busy with its start.
    fn play(events: &[(u64, char)]) -> Verdict {
        let mut warmup = Warmup::new(LIMITS, NODE, 0);
        let mut verdict = Verdict::Pending {
            reason: String::new(),
        };
        for (now_ms, event) in events {
            let process = match event {
                'X' => None,
                'R' => Some(RunningProcess { pid: 8, ..NODE }),
                'O' => Some(RunningProcess {
                    started_ms: 901,
                    ..NODE
                }),
                _ => Some(NODE),
            };
            let (status, reasons) = match event {
                'U' | 'B' => (Status::Unhealthy, vec!["tcp: refused".to_owned()]),
                '?' => (Status::Unknown, vec!["http: odd".to_owned()]),
                'D' => (Status::Degraded, vec!["host: little room".to_owned()]),
                _ => (Status::Healthy, Vec::new()),
            };
            verdict = warmup.observe(
                *now_ms,
                process,
                &Judgement { status, reasons },
                *event == 'B',
            );
        }
        verdict
    }

    #[test]
    fn what_is_seen_decides() {
        let cases: [(&[(u64, char)], &str); 20] = [
            (&[(0, 'H')], "pending healthy for 0 s of 0.3 s"),
            (
                &[(0, 'H'), (299, 'H')],
                "pending healthy for 0.2 s of 0.3 s",
            ),
            (&[(0, 'H'), (300, 'H')], "clean"),
            (&[(0, 'H'), (100, 'D'), (300, 'D')], "clean"),
            (&[(0, 'U')], "pending tcp: refused"),
            // Before it was first healthy any number of bad ones passes, within the limit.
            (
                &[(0, 'U'), (1, 'U'), (2, '?'), (3, 'U'), (999, 'U')],
                "pending tcp: refused",
            ),
            (
                &[(0, 'U'), (1_000, 'U')],
                "failed not healthy within 1 s: tcp: refused",
            ),
            (
                &[(0, '?'), (1_000, '?')],
                "failed not healthy within 1 s: http: odd",
            ),
            (&[(999, 'H'), (1_299, 'H')], "clean"),
            // After it, two in a row pass and three do not.
            (&[(0, 'H'), (1, 'U'), (2, '?')], "pending http: odd"),
            (
                &[(0, 'H'), (1, 'U'), (2, 'U'), (3, 'U')],
                "failed 3 bad judgements in a row: tcp: refused",
            ),
            (
                &[(0, 'H'), (1, 'U'), (2, 'U'), (3, 'H'), (4, 'U'), (5, 'U')],
                "pending tcp: refused",
            ),
            // A break begins the time anew, and that does not go on for ever.
            (
                &[(0, 'H'), (200, 'U'), (300, 'H')],
                "pending healthy for 0 s of 0.3 s",
            ),
            (&[(0, 'H'), (200, 'U'), (300, 'H'), (600, 'H')], "clean"),
            (
                &[(0, 'H'), (1_200, 'U'), (1_301, 'H')],
                "failed not healthy for 0.3 s without a break within 1.3 s",
            ),
            // The process is watched at every moment.
            (
                &[(0, 'H'), (1, 'X')],
                "failed the node ended by itself: process 7 is gone",
            ),
            (
                &[(0, 'R')],
                "failed the node restarted by itself: process 7 was expected, 8 runs",
            ),
            (
                &[(0, 'H'), (300, 'H'), (400, 'O')],
                "failed the node restarted by itself: process 7 was expected, 7 runs",
            ),
            // A failure is final.
            (
                &[(0, 'X'), (1, 'H'), (400, 'H')],
                "failed the node ended by itself: process 7 is gone",
            ),
            // Clean is not for ever, and its limit no longer counts.
            (
                &[(0, 'H'), (300, 'H'), (9_000, 'U'), (9_100, 'H')],
                "pending healthy for 0 s of 0.3 s",
            ),
        ];
        for (events, expected) in cases {
            let verdict = match play(events) {
                Verdict::Pending { reason } => format!("pending {reason}"),
                Verdict::Clean => "clean".to_owned(),
                Verdict::Failed { reason } => format!("failed {reason}"),
            };
            assert_eq!(verdict, expected, "{events:?}");
        }
    }

    #[test]
    fn a_busy_start_has_more_time() {
        let cases: [(&[(u64, char)], bool); 5] = [
            (&[(0, 'U'), (900, 'B'), (1_500, 'B')], false),
            // What was excused stays so: another 100 ms are left.
            (&[(0, 'U'), (900, 'U'), (1_500, 'B'), (1_590, 'U')], false),
            (&[(0, 'U'), (900, 'U'), (1_500, 'B'), (1_601, 'U')], true),
            // Not for ever.
            (&[(0, 'B'), (2_900, 'B'), (2_999, 'B')], false),
            (&[(0, 'B'), (2_900, 'B'), (3_000, 'B')], true),
        ];
        for (events, fails) in cases {
            let failed = matches!(play(events), Verdict::Failed { .. });
            assert_eq!(failed, fails, "{events:?}");
        }
        // Then it proves itself as any other, with as much time for that.
        let verdict = play(&[(0, 'B'), (1_900, 'B'), (1_950, 'H'), (2_250, 'H')]);
        assert_eq!(verdict, Verdict::Clean);
        // Once it was healthy, being busy is no excuse.
        let verdict = play(&[(0, 'H'), (1, 'B'), (2, 'B'), (3, 'B')]);
        assert!(matches!(verdict, Verdict::Failed { .. }), "{verdict:?}");
    }

    #[test]
    fn clean_falls_like_any_other() {
        let verdict = play(&[(0, 'H'), (300, 'H'), (400, 'U'), (500, 'U'), (600, 'U')]);
        assert_eq!(
            verdict,
            Verdict::Failed {
                reason: "3 bad judgements in a row: tcp: refused".into()
            }
        );
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_proves_nothing() {
        assert!(matches!(
            play(&[(500, 'H'), (500, 'H'), (100, 'H')]),
            Verdict::Pending { .. }
        ));
    }
}
