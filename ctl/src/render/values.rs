//! Domain values as people and programs read them.

use cbddc_domain::register::{Epoch, Record, RecordKind};
use cbddc_domain::release::Release;
use serde::Serialize;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment of some host's clock, RFC 3339 in UTC, to the second.
pub fn moment(wall_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp(wall_ms.div_euclid(1000))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{wall_ms} ms"))
}

/// A moment to the millisecond.
pub fn exact_moment(wall_ms: i64) -> String {
    let whole = moment(wall_ms);
    match whole.strip_suffix('Z') {
        Some(seconds) => format!("{seconds}.{:03}Z", wall_ms.rem_euclid(1000)),
        None => whole,
    }
}

/// An epoch; empty for none.
pub fn epoch(epoch: Epoch) -> String {
    if epoch == Epoch::default() {
        String::new()
    } else {
        epoch.to_string()
    }
}

/// A release, as JSON shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReleaseJson {
    /// Its short id.
    pub id: String,
    /// Its build, NAME@VERSION.
    pub build: String,
    /// The digest of that.
    pub build_digest: String,
    /// Its configuration set.
    pub config: Option<String>,
    /// Its secret set.
    pub secrets: Option<String>,
}

impl From<&Release> for ReleaseJson {
    fn from(release: &Release) -> Self {
        Self {
            id: release.id().to_string(),
            build: release.build.id.to_string(),
            build_digest: release.build.digest.to_string(),
            config: release.config.as_ref().map(|set| set.id.to_string()),
            secrets: release.secrets.as_ref().map(|set| set.id.to_string()),
        }
    }
}

impl ReleaseJson {
    /// As tables show it: `cbddc@1.1.0 (ab12cd34)`.
    pub fn short(&self) -> String {
        format!("{} ({})", self.build, self.id)
    }
}

/// A record, as JSON shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordJson {
    /// Its epoch.
    pub epoch: String,
    /// `rollout`, `rollback`, `voters` or `trust`.
    pub kind: &'static str,
    /// What every node runs that is not an exception.
    pub release: Option<ReleaseJson>,
    /// Nodes that run something else.
    pub exceptions: BTreeMap<String, ReleaseJson>,
    /// Who votes from then on.
    pub voters: Vec<String>,
    /// Whether it was forced without a majority.
    pub forced: bool,
    /// Who proposed it.
    pub proposed_by: String,
    /// Why.
    pub reason: String,
}

impl From<&Record> for RecordJson {
    fn from(record: &Record) -> Self {
        let exceptions = record.exceptions.iter();
        Self {
            epoch: record.epoch.to_string(),
            kind: match record.kind {
                RecordKind::Rollout => "rollout",
                RecordKind::Rollback => "rollback",
                RecordKind::Voters => "voters",
                RecordKind::Trust => "trust",
            },
            release: record.release.as_ref().map(Into::into),
            exceptions: exceptions
                .map(|(node, release)| (node.to_string(), release.into()))
                .collect(),
            voters: record.voters.iter().map(ToString::to_string).collect(),
            forced: record.forced,
            proposed_by: record.proposed_by.clone(),
            reason: record.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{exact_moment, moment};

    #[test]
    fn moments() {
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(1_753_000_000_999), "2025-07-20T08:26:40Z");
        assert_eq!(exact_moment(1_753_000_000_999), "2025-07-20T08:26:40.999Z");
        assert_eq!(exact_moment(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(moment(i64::MAX), format!("{} ms", i64::MAX));
    }
}
