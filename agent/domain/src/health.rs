//! Health: measurements, the judgement over several of them, and the judgement over time. What a new
//! release has to pass is in `warmup`.
//!
//! A [`Track`] judges one check over time: `rise` and `fall`, flapping, the time after a start. A
//! [`Panel`] holds the tracks of a node. [`judge`] is for one moment.
//!
//! Deliberately absent: measuring. Adapters measure; what a measurement is worth is decided here.

mod flapping;
mod history;
mod panel;
mod plugin;
mod reply;
mod skew;
mod track;

pub use history::{HealthEntry, HealthEntryKind, Tally};
pub use panel::{CheckState, Panel};
pub use plugin::{Perf, PluginReport, read_plugin};
pub use reply::{HealthReply, judge_reply};
pub use skew::{ClockOffset, doubt_clock};
pub use track::{Policy, Track};

use std::fmt;

/// The longest piece of a node's own words that is repeated in a sentence, in characters.
pub const QUOTED_CHARS_MAX: usize = 80;

/// How well something is, ordered by badness.
///
/// To know that something is unhealthy is worse than not to know, so that a bad reply stays bad
/// whatever unknown word comes with it. Neither lets a release pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// All is well.
    Healthy,
    /// It works, with a warning.
    Degraded,
    /// It could not be told.
    Unknown,
    /// It does not work.
    Unhealthy,
}

impl Status {
    /// True for what lets a release pass: healthy, or degraded, which is a warning.
    pub fn is_acceptable(self) -> bool {
        match self {
            Self::Healthy | Self::Degraded => true,
            Self::Unknown | Self::Unhealthy => false,
        }
    }

    /// The word of ASP.NET health checks for this status, read without regard to case. `None` for
    /// any other word.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Healthy,
            Self::Degraded,
            Self::Unhealthy,
            Self::Unknown,
        ]
        .into_iter()
        .find(|status| word.trim().eq_ignore_ascii_case(status.as_str()))
    }

    /// The word for people and machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Degraded => "Degraded",
            Self::Unknown => "Unknown",
            Self::Unhealthy => "Unhealthy",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The node's process runs.
    Unit,
    /// Its port accepts connections.
    Tcp,
    /// Its `/health` answers.
    Http,
    /// It speaks CBDDC and knows its peers.
    Cbddc,
    /// Its database can be read, is sound, and may be written to.
    Database,
    /// Its host has room.
    Host,
    /// A program of the operator's own says so.
    Exec,
}

impl Check {
    /// The word for people and machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Cbddc => "cbddc",
            Self::Database => "database",
            Self::Host => "host",
            Self::Exec => "exec",
        }
    }

    /// The kind of a word, if there is such a one.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Unit,
        Self::Tcp,
        Self::Http,
        Self::Cbddc,
        Self::Database,
        Self::Host,
        Self::Exec,
    ];

    /// Whether what it measured of one process says nothing of the next one. A host stays the same,
    /// and a process that keeps ending must not look new each time.
    pub fn begins_with_process(self) -> bool {
        match self {
            Self::Unit | Self::Host => false,
            Self::Tcp | Self::Http | Self::Cbddc | Self::Database | Self::Exec => true,
        }
    }

    /// Whether it costs so little that a node on probation may be asked several times a second.
    pub fn is_cheap(self) -> bool {
        match self {
            Self::Unit | Self::Tcp | Self::Http | Self::Cbddc | Self::Host => true,
            Self::Database | Self::Exec => false,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much a check may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// At most that the node is degraded, whatever it finds.
    Warning,
    /// Also that the node is unhealthy, or that it is not known.
    Critical,
}

impl Severity {
    /// The status that counts.
    pub fn cap(self, status: Status) -> Status {
        match self {
            Self::Warning => status.min(Status::Degraded),
            Self::Critical => status,
        }
    }

    /// The word for people and machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub check: Check,
    /// Which check of that kind; the kind's word where there is one only.
    pub name: String,
    /// How much it may say.
    pub severity: Severity,
    /// What it showed.
    pub status: Status,
    /// The same in a sentence.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Figures that came with it.
    pub figures: Vec<Perf>,
}

impl Measurement {
    /// What it counts as.
    pub fn counts(&self) -> Status {
        self.severity.cap(self.status)
    }
}

/// The verdict over several measurements of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The worst of them.
    pub status: Status,
    /// Why it is not `Healthy`, the worst first; empty when it is.
    pub reasons: Vec<String>,
}

/// Judges measurements of one moment by the worst of them. Without any, nothing is known.
pub fn judge(measurements: &[Measurement]) -> Judgement {
    let Some(status) = measurements.iter().map(Measurement::counts).max() else {
        return Judgement {
            status: Status::Unknown,
            reasons: vec!["nothing was measured".into()],
        };
    };
    let mut bad: Vec<&Measurement> = measurements
        .iter()
        .filter(|one| one.counts() != Status::Healthy)
        .collect();
    // A stable sort: what is equally bad stays in the order of the checks.
    bad.sort_by_key(|one| std::cmp::Reverse(one.counts()));
    let reasons = bad
        .iter()
        .map(|one| format!("{}: {}", one.name, one.detail))
        .collect();
    Judgement { status, reasons }
}

/// Somebody else's words, cut and free of control characters, so that they cannot imitate ours.
pub fn quoted(text: &str) -> String {
    let clean: Vec<char> = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let cut: String = clean.iter().take(QUOTED_CHARS_MAX).collect();
    if clean.len() > QUOTED_CHARS_MAX {
        format!("\"{cut}…\"")
    } else {
        format!("\"{cut}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, Measurement, Severity, Status, judge};
    use Status::{Degraded, Healthy, Unhealthy, Unknown};

    fn measurement(check: Check, status: Status) -> Measurement {
        Measurement {
            check,
            name: check.as_str().to_owned(),
            severity: Severity::Critical,
            status,
            detail: format!("is {status}"),
            took_ms: 1,
            figures: Vec::new(),
        }
    }

    #[test]
    fn the_worst_measurement_decides_and_is_named_first() {
        let cases: [(&[Status], Status, &[&str]); 6] = [
            (&[], Unknown, &["nothing was measured"]),
            (&[Healthy, Healthy], Healthy, &[]),
            (&[Healthy, Degraded], Degraded, &["tcp: is Degraded"]),
            (
                &[Degraded, Unknown],
                Unknown,
                &["tcp: is Unknown", "unit: is Degraded"],
            ),
            (
                &[Unknown, Unhealthy],
                Unhealthy,
                &["tcp: is Unhealthy", "unit: is Unknown"],
            ),
            (
                &[Unhealthy, Unhealthy],
                Unhealthy,
                &["unit: is Unhealthy", "tcp: is Unhealthy"],
            ),
        ];
        for (statuses, status, reasons) in cases {
            let measurements: Vec<_> = [Check::Unit, Check::Tcp]
                .into_iter()
                .zip(statuses)
                .map(|(check, status)| measurement(check, *status))
                .collect();
            let judgement = judge(&measurements);
            assert_eq!(
                (judgement.status, judgement.reasons),
                (status, reasons.iter().map(ToString::to_string).collect()),
                "{statuses:?}"
            );
        }
    }

    #[test]
    fn a_warning_never_counts_as_more_than_degraded() {
        for status in [Healthy, Degraded, Unknown, Unhealthy] {
            let warning = Measurement {
                severity: Severity::Warning,
                ..measurement(Check::Exec, status)
            };
            assert_eq!(judge(&[warning]).status, status.min(Degraded));
        }
    }
}
