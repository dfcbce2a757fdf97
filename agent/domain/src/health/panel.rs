//! All checks of a node over time, and the verdict over them.

use super::history::{ALL, HealthEntry, HealthEntryKind};
use super::{Check, Judgement, Measurement, Policy, Severity, Status, Track};
use crate::time::Now;
use crate::warmup::RunningProcess;

/// Where one check stands.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckState {
    /// Its name.
    pub name: String,
    /// What it measures.
    pub kind: Check,
    /// How much it may say.
    pub severity: Severity,
    /// As judged.
    pub status: Status,
    /// Why, in a sentence without its name.
    pub reason: String,
    /// Since when it has this status, Unix time in milliseconds; zero: never measured.
    pub since_wall_ms: i64,
    /// Whether its results change all the time.
    pub flapping: bool,
    /// The newest result.
    pub newest: Option<Measurement>,
}

/// The checks of one node, and since when each says what it says.
#[derive(Debug, Clone)]
pub struct Panel {
    tracks: Vec<(Track, i64)>,
    grace_ms: u64,
    process: Option<RunningProcess>,
    is_starting: bool,
    overall: Status,
    overall_since_wall_ms: i64,
}

impl Panel {
    /// Nothing was measured yet. A process may take `grace_ms` from its start to become healthy.
    pub fn new(policies: Vec<Policy>, grace_ms: u64) -> Self {
        let tracks = policies.into_iter();
        Self {
            tracks: tracks.map(|policy| (Track::new(policy), 0)).collect(),
            grace_ms,
            process: None,
            is_starting: false,
            overall: Status::Unknown,
            overall_since_wall_ms: 0,
        }
    }

    /// The process that the results are of.
    pub fn process(&self) -> Option<RunningProcess> {
        self.process
    }

    /// Says which process runs; returns what changed by that.
    pub fn begin(&mut self, process: RunningProcess, now: &Now) -> Vec<HealthEntry> {
        if self.process == Some(process) {
            return Vec::new();
        }
        self.process = Some(process);
        let mut entries = Vec::new();
        for index in 0..self.tracks.len() {
            let before = self.tracks[index].0.status();
            self.tracks[index].0.begin();
            entries.extend(self.changed(index, before, now));
        }
        entries.extend(self.overall_changed(now));
        entries
    }

    /// Whether its start still keeps the process busy: then it has more time than others.
    pub fn set_starting(&mut self, is_starting: bool) {
        self.is_starting = is_starting;
    }

    /// Takes in the newest result of a check; returns what changed by that.
    pub fn take(&mut self, index: usize, measurement: Measurement, now: &Now) -> Vec<HealthEntry> {
        let is_young = self.process.is_some_and(|process| {
            now.since_boot_ms.saturating_sub(process.started_ms) < self.grace_ms
        });
        let starting = is_young || self.is_starting;
        let Some((track, _)) = self.tracks.get_mut(index) else {
            return Vec::new();
        };
        let before = track.status();
        track.take(measurement, starting);
        let mut entries: Vec<HealthEntry> = self.changed(index, before, now).into_iter().collect();
        entries.extend(self.overall_changed(now));
        entries
    }

    fn changed(&mut self, index: usize, before: Status, now: &Now) -> Option<HealthEntry> {
        let (track, since_wall_ms) = &mut self.tracks[index];
        if track.status() == before && *since_wall_ms != 0 {
            return None;
        }
        *since_wall_ms = now.wall_ms;
        Some(HealthEntry {
            wall_ms: now.wall_ms,
            check: track.policy().name.clone(),
            kind: HealthEntryKind::Change,
            status: track.status(),
            reason: track.reason(),
            tally: None,
        })
    }

    fn overall_changed(&mut self, now: &Now) -> Option<HealthEntry> {
        let judgement = self.judgement();
        if judgement.status == self.overall && self.overall_since_wall_ms != 0 {
            return None;
        }
        self.overall = judgement.status;
        self.overall_since_wall_ms = now.wall_ms;
        Some(entry_of_all(&judgement, now))
    }

    /// Somebody knows better than the checks: for as long as it lasts, this is the verdict.
    pub fn overrule(&mut self, judgement: &Judgement, now: &Now) -> HealthEntry {
        self.overall = judgement.status;
        // The next result of a check is a change, whatever it says.
        self.overall_since_wall_ms = 0;
        entry_of_all(judgement, now)
    }

    /// Since when the verdict is what it is, Unix time in milliseconds.
    pub fn since_wall_ms(&self) -> i64 {
        self.overall_since_wall_ms
    }

    /// The verdict: the worst check, and why, the worst first.
    pub fn judgement(&self) -> Judgement {
        let worst = self.tracks.iter().map(|(track, _)| track.status()).max();
        let mut bad: Vec<&Track> = self.tracks.iter().map(|(track, _)| track).collect();
        bad.retain(|track| track.status() != Status::Healthy);
        bad.sort_by_key(|track| std::cmp::Reverse(track.status()));
        let reason = |track: &&Track| format!("{}: {}", track.policy().name, track.reason());
        match worst {
            Some(status) => Judgement {
                status,
                reasons: bad.iter().map(reason).collect(),
            },
            None => super::judge(&[]),
        }
    }

    /// Where each check stands.
    pub fn states(&self) -> Vec<CheckState> {
        let state = |(track, since_wall_ms): &(Track, i64)| CheckState {
            name: track.policy().name.clone(),
            kind: track.policy().kind,
            severity: track.policy().severity,
            status: track.status(),
            reason: track.reason(),
            since_wall_ms: *since_wall_ms,
            flapping: track.is_flapping(),
            newest: track.newest().cloned(),
        };
        self.tracks.iter().map(state).collect()
    }

    /// The newest result of each check that has one.
    pub fn measurements(&self) -> Vec<Measurement> {
        let newest = self.tracks.iter().filter_map(|(track, _)| track.newest());
        newest.cloned().collect()
    }
}

fn entry_of_all(judgement: &Judgement, now: &Now) -> HealthEntry {
    HealthEntry {
        wall_ms: now.wall_ms,
        check: ALL.to_owned(),
        kind: HealthEntryKind::Change,
        status: judgement.status,
        reason: judgement.reasons.join("; "),
        tally: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status::{self, Degraded, Healthy, Unhealthy, Unknown};
    use super::{Check, Measurement, Panel, Policy, Severity};
    use crate::time::{BootId, Now};
    use crate::warmup::RunningProcess;

    const GRACE_MS: u64 = 60_000;

    fn at(ms: u64) -> Now {
        Now {
            boot: BootId("a".into()),
            since_boot_ms: ms,
            wall_ms: 1_000_000 + i64::try_from(ms).unwrap(),
        }
    }

    fn panel() -> Panel {
        let policy = |kind: Check, severity| Policy {
            name: kind.as_str().to_owned(),
            kind,
            severity,
            interval_ms: 1,
            timeout_ms: 1,
            rise: 1,
            fall: 1,
        };
        let policies = vec![
            policy(Check::Http, Severity::Critical),
            policy(Check::Host, Severity::Warning),
        ];
        Panel::new(policies, GRACE_MS)
    }

    fn result(kind: Check, status: Status) -> Measurement {
        Measurement {
            check: kind,
            name: kind.as_str().to_owned(),
            severity: Severity::Critical,
            status,
            detail: format!("is {status}"),
            took_ms: 1,
            figures: Vec::new(),
        }
    }

    fn process(started_ms: u64) -> RunningProcess {
        RunningProcess { pid: 7, started_ms }
    }

    /// What happens: a process begins, or a check has a result.
    enum Happens {
        Begin(u64),
        Http(Status),
        Host(Status),
    }
    use Happens::{Begin, Host, Http};

    /// The changes that are kept of what happens, each as `check status`, and the verdict at the end.
    #[track_caller]
    fn check(happening: Vec<(u64, Happens)>, kept: &[&str], status: Status, reasons: &[&str]) {
        let mut panel = panel();
        let mut found = Vec::new();
        for (ms, what) in happening {
            let now = at(ms);
            let entries = match what {
                Begin(started_ms) => panel.begin(process(started_ms), &now),
                Http(status) => panel.take(0, result(Check::Http, status), &now),
                Host(status) => panel.take(1, result(Check::Host, status), &now),
            };
            let words = entries.iter().map(|entry| {
                assert_eq!(entry.wall_ms, now.wall_ms);
                format!("{} {}", entry.check, entry.status)
            });
            found.extend(words);
        }
        assert_eq!(found, kept);
        let judgement = panel.judgement();
        assert_eq!(judgement.status, status);
        assert_eq!(judgement.reasons, reasons);
    }

    #[test]
    fn changes_are_kept_and_the_worst_check_decides() {
        let began = ["http Unknown", "host Unknown", "all Unknown"];
        let healthy = [&began[..], &["http Healthy", "host Healthy", "all Healthy"]].concat();
        check(
            vec![
                (100_000, Begin(1)),
                (100_001, Http(Healthy)),
                (100_002, Host(Healthy)),
            ],
            &healthy,
            Healthy,
            &[],
        );
        check(
            vec![
                (100_000, Begin(1)),
                (100_001, Http(Healthy)),
                (100_002, Host(Healthy)),
                (100_003, Http(Healthy)),
                (100_004, Host(Unhealthy)),
                (100_005, Http(Unhealthy)),
            ],
            &[
                &healthy[..],
                &[
                    "host Degraded",
                    "all Degraded",
                    "http Unhealthy",
                    "all Unhealthy",
                ],
            ]
            .concat(),
            Unhealthy,
            &["http: is Unhealthy", "host: is Unhealthy"],
        );
    }

    #[test]
    fn the_time_to_start_counts_from_the_start_of_the_process() {
        let began = ["http Unknown", "host Unknown", "all Unknown"];
        let starts = |ms: u64| {
            vec![
                (100, Begin(100)),
                (101, Host(Healthy)),
                (ms, Http(Unhealthy)),
            ]
        };
        let host = [&began[..], &["host Healthy"]].concat();
        check(
            starts(60_099),
            &host,
            Unknown,
            &["http: not healthy yet: is Unhealthy"],
        );
        check(
            starts(60_100),
            &[&host[..], &["http Unhealthy", "all Unhealthy"]].concat(),
            Unhealthy,
            &["http: is Unhealthy"],
        );
        // An agent that starts while a process has run for long gives it no new time.
        check(
            vec![
                (90_000, Begin(100)),
                (90_001, Host(Degraded)),
                (90_002, Http(Unhealthy)),
            ],
            &[
                &began[..],
                &["host Degraded", "http Unhealthy", "all Unhealthy"],
            ]
            .concat(),
            Unhealthy,
            &["http: is Unhealthy", "host: is Degraded"],
        );
    }

    #[test]
    fn another_process_knows_nothing_of_the_last_but_the_host_stays() {
        check(
            vec![
                (100_000, Begin(1)),
                (100_001, Http(Unhealthy)),
                (100_002, Host(Healthy)),
                (100_003, Begin(100_003)),
            ],
            &[
                "http Unknown",
                "host Unknown",
                "all Unknown",
                "http Unhealthy",
                "all Unhealthy",
                "host Healthy",
                "http Unknown",
                "all Unknown",
            ],
            Unknown,
            &["http: not measured yet"],
        );
    }

    #[test]
    fn what_was_overruled_is_said_again_by_the_next_result() {
        let mut panel = panel();
        panel.begin(process(1), &at(100_000));
        panel.take(0, result(Check::Http, Healthy), &at(100_001));
        panel.take(1, result(Check::Host, Healthy), &at(100_002));
        let gone = super::super::Judgement {
            status: Unhealthy,
            reasons: vec!["it is gone".into()],
        };
        assert_eq!(panel.overrule(&gone, &at(100_003)).reason, "it is gone");
        // It says the same of the whole, and says so.
        let entries = panel.take(0, result(Check::Http, Unhealthy), &at(100_004));
        let words = |entry: &super::HealthEntry| (entry.check.clone(), entry.status);
        let told: Vec<_> = entries.iter().map(words).collect();
        assert_eq!(
            told,
            [("http".into(), Unhealthy), ("all".into(), Unhealthy)]
        );
        assert_eq!(panel.since_wall_ms(), at(100_004).wall_ms);
    }
}
