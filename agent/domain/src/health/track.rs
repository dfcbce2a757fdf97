//! One check over time.
//!
//! A result alone changes little: the status gets worse after `fall` results in a row that are at
//! least as bad, and better after `rise` results in a row that are at least as good. While a check
//! flaps, the worst of its recent results holds. Until a new process was healthy once, bad results
//! count for nothing before its time to start is over: then it is `Unknown`, which lets nothing pass.

use super::flapping::{WINDOW, changes, flaps};
use super::{Check, Measurement, Severity, Status};
use std::collections::VecDeque;

/// How one check is run and judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name, unique on a node.
    pub name: String,
    /// What it measures.
    pub kind: Check,
    /// How much it may say.
    pub severity: Severity,
    /// Pause between two runs, in milliseconds.
    pub interval_ms: u64,
    /// How long one run may take, in milliseconds.
    pub timeout_ms: u64,
    /// Good results in a row until it is better.
    pub rise: u32,
    /// Bad results in a row until it is worse.
    pub fall: u32,
}

/// The memory of one check.
#[derive(Debug, Clone)]
pub struct Track {
    policy: Policy,
    recent: VecDeque<Status>,
    status: Status,
    flapping: bool,
    was_good: bool,
    newest: Option<Measurement>,
}

impl Track {
    /// Nothing was measured yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            recent: VecDeque::new(),
            status: Status::Unknown,
            flapping: false,
            was_good: false,
            newest: None,
        }
    }

    /// How it is judged.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The judged status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether it flaps.
    pub fn is_flapping(&self) -> bool {
        self.flapping
    }

    /// The newest result.
    pub fn newest(&self) -> Option<&Measurement> {
        self.newest.as_ref()
    }

    /// Another process runs: what was measured of the last one says nothing of it.
    pub fn begin(&mut self) {
        if self.policy.kind.begins_with_process() {
            *self = Self::new(self.policy.clone());
        }
    }

    /// Takes in a result. `starting`: the process still has time to become healthy.
    pub fn take(&mut self, measurement: Measurement, starting: bool) {
        let status = self.policy.severity.cap(measurement.status);
        self.newest = Some(measurement);
        self.recent.push_back(status);
        let kept = WINDOW
            .max(count(self.policy.rise))
            .max(count(self.policy.fall));
        while self.recent.len() > kept {
            self.recent.pop_front();
        }
        self.was_good |= status.is_acceptable();
        self.flapping = flaps(self.flapping, self.window());
        self.status = self.judged(starting && !self.was_good);
    }

    /// The results that flapping is told by, oldest first.
    fn window(&mut self) -> &[Status] {
        let recent = self.recent.make_contiguous();
        &recent[recent.len().saturating_sub(WINDOW)..]
    }

    fn judged(&mut self, excused: bool) -> Status {
        if self.flapping {
            let worst = self.window().iter().max().copied();
            return worst.unwrap_or(Status::Unknown);
        }
        let newest = |number: u32| self.recent.iter().rev().take(count(number));
        // The worst of the newest results is what has held for so long; the best of them, what was
        // never reached again.
        let risen_to = newest(self.policy.rise).max().copied();
        let fallen_to = newest(self.policy.fall).min().copied();
        match (risen_to, fallen_to) {
            (Some(better), _) if better < self.status => better,
            (_, Some(worse))
                if worse > self.status
                    && self.recent.len() >= count(self.policy.fall)
                    && !excused =>
            {
                worse
            }
            _ => self.status,
        }
    }

    /// Why it is not healthy, in a sentence without its name; the newest result where it is.
    pub fn reason(&self) -> String {
        let Some(newest) = &self.newest else {
            return "not measured yet".to_owned();
        };
        if self.flapping {
            let recent: Vec<Status> = self.recent.iter().copied().collect();
            let recent = &recent[recent.len().saturating_sub(WINDOW)..];
            let changes = changes(recent);
            return format!(
                "flapping, {changes} changes in the last {} results; now {}: {}",
                recent.len(),
                newest.status,
                newest.detail
            );
        }
        if self.status == Status::Unknown && newest.counts() == Status::Unhealthy {
            return format!("not healthy yet: {}", newest.detail);
        }
        newest.detail.clone()
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::Status::{self, Degraded, Healthy, Unhealthy, Unknown};
    use super::{Check, Measurement, Policy, Severity, Track};

    fn track(rise: u32, fall: u32, severity: Severity) -> Track {
        Track::new(Policy {
            name: "http".into(),
            kind: Check::Http,
            severity,
            interval_ms: 5_000,
            timeout_ms: 2_000,
            rise,
            fall,
        })
    }

    fn result(letter: char) -> Measurement {
        let status = match letter.to_ascii_lowercase() {
            'h' => Healthy,
            'd' => Degraded,
            'u' => Unknown,
            'b' => Unhealthy,
            other => panic!("{other} is no result"),
        };
        Measurement {
            check: Check::Http,
            name: "http".into(),
            severity: Severity::Critical,
            status,
            detail: format!("is {status}"),
            took_ms: 1,
            figures: Vec::new(),
        }
    }

    fn letter(status: Status) -> char {
        match status {
            Healthy => 'h',
            Degraded => 'd',
            Unknown => 'u',
            Unhealthy => 'b',
        }
    }

    /// Results, a letter each, capital while the process still starts; and the judgement after each.
    #[track_caller]
    fn check(mut track: Track, results: &str, judged: &str) {
        let found: String = results
            .chars()
            .map(|one| {
                track.take(result(one), one.is_ascii_uppercase());
                letter(track.status())
            })
            .collect();
        assert_eq!(found, judged, "after {results}");
    }

    #[test]
    fn one_result_is_not_enough() {
        let two = || track(2, 2, Severity::Critical);
        check(two(), "h", "h");
        check(two(), "hbhbhh", "hhhhhh");
        check(two(), "hbbhhh", "hhbbhh");
        check(two(), "hbbhbhh", "hhbbbbh");
        check(track(3, 1, Severity::Critical), "hbhhh", "hbbbh");
        check(track(1, 3, Severity::Critical), "hbbhbbb", "hhhhhhb");
    }

    #[test]
    fn it_falls_as_far_as_all_of_them_fell_and_rises_as_far_as_all_rose() {
        let two = || track(2, 2, Severity::Critical);
        check(two(), "hdb", "hhd");
        check(two(), "hdbb", "hhdb");
        check(two(), "hbbdh", "hhbbd");
        check(two(), "huub", "hhuu");
    }

    #[test]
    fn before_anything_is_known_one_good_result_counts_and_one_bad_does_not() {
        let two = || track(2, 2, Severity::Critical);
        check(two(), "bb", "ub");
        check(two(), "bhh", "uuh");
        check(two(), "d", "d");
    }

    #[test]
    fn a_process_that_starts_is_excused_until_it_was_good_once() {
        let two = || track(2, 2, Severity::Critical);
        check(two(), "BBBBb", "uuuub");
        check(two(), "BBHH", "uuuh");
        check(two(), "HBB", "hhb");
        check(two(), "DBB", "ddb");
    }

    #[test]
    fn more_results_in_a_row_than_flapping_looks_at() {
        let bad = "b".repeat(25);
        check(
            track(1, 25, Severity::Critical),
            &format!("h{bad}"),
            &format!("{}b", "h".repeat(25)),
        );
    }

    #[test]
    fn a_warning_is_degraded_at_most() {
        check(track(2, 2, Severity::Warning), "hbbu", "hhdd");
        check(track(2, 2, Severity::Warning), "U", "d");
    }

    #[test]
    fn while_it_flaps_the_worst_of_the_recent_results_holds() {
        // Eight changes among the last twenty make it flap, from the ninth result on.
        check(
            track(2, 2, Severity::Critical),
            "hbhbhbhbhbh",
            "hhhhhhhhbbb",
        );
        // It calms down when four changes are left in the window, long after two good results.
        let calm = "hbhbhbhb".to_owned() + &"h".repeat(17);
        check(
            track(2, 2, Severity::Critical),
            &calm,
            &("hhhhhhhh".to_owned() + &"b".repeat(15) + "hh"),
        );
        let mut track = track(2, 2, Severity::Critical);
        for one in "hbhbhbhbh".chars() {
            track.take(result(one), false);
        }
        assert!(track.is_flapping());
        assert_eq!(
            track.reason(),
            "flapping, 8 changes in the last 9 results; now Healthy: is Healthy"
        );
    }

    #[test]
    fn another_process_is_another_matter() {
        let mut http = track(2, 2, Severity::Critical);
        for one in "hbb".chars() {
            http.take(result(one), false);
        }
        http.begin();
        assert_eq!((http.status(), http.newest()), (Unknown, None));
        assert_eq!(http.reason(), "not measured yet");
    }
}
