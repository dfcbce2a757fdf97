//! A node's BLite database, which only the node can read: is it there, and does its log grow too large
//! to be read at a start in reasonable time.

use super::{Finding, figure};
use crate::adapters::file_sync::FileSync;
use crate::adapters::node_logs::{of_blite, size};
use cbddc_domain::health::Status;
use cbddc_domain::node_starts::expected_ms;
use cbddc_domain::units::{show_duration_ms, show_size_bytes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What is looked at.
#[derive(Clone)]
pub struct BliteSettings {
    /// The data file, `X.blite`.
    pub path: PathBuf,
    /// Bytes of write-ahead log above which it is degraded.
    pub max_log_bytes: u64,
    /// Who has its files synced; unset: nobody.
    pub sync: Option<Arc<FileSync>>,
}

/// How many times longer than its pace something may wait to be synced, and how long at least, before that
/// is told.
const LATE: u32 = 5;
const LATE_MIN: Duration = Duration::from_secs(5);

/// Looks once.
pub async fn look_at(settings: &BliteSettings) -> Finding {
    let of = settings.clone();
    let looked = tokio::task::spawn_blocking(move || judge(&of)).await;
    looked.unwrap_or_else(|_| Finding {
        status: Status::Unknown,
        detail: "the look ended by a fault in the agent".to_owned(),
        figures: Vec::new(),
    })
}

fn judge(settings: &BliteSettings) -> Finding {
    let path = &settings.path;
    let log_bytes: u64 = of_blite(path).iter().map(|log| size(log)).sum();
    let syncs = settings.sync.as_ref().map(|sync| sync.told().syncs);
    let mut figures = vec![
        figure("size", size(path), "B"),
        figure("log", log_bytes, "B"),
    ];
    figures.extend(syncs.map(|syncs| figure("syncs", syncs, "c")));
    let (status, detail) = match std::fs::metadata(path) {
        Err(error) => (Status::Unhealthy, unreadable(path, &error)),
        Ok(_) if log_bytes > settings.max_log_bytes => (Status::Degraded, too_large(log_bytes)),
        Ok(_) => {
            let log = show_size_bytes(log_bytes);
            let text = format!("it is there; its log has {log}");
            match settings.sync.as_deref().map(synced) {
                Some((status, told)) => (status, format!("{text}; {told}")),
                None => {
                    let told = "nobody syncs it: a power cut takes what is in it";
                    (Status::Healthy, format!("{text}; {told}"))
                }
            }
        }
    };
    Finding {
        status,
        detail,
        figures,
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be found: {error}", path.display())
}

fn too_large(log_bytes: u64) -> String {
    let start = expected_ms(&[], Some(log_bytes)).unwrap_or_default();
    format!(
        "its log has {}, and no stop empties it: a start reads it, which may take {}",
        show_size_bytes(log_bytes),
        show_duration_ms(start)
    )
}

/// How it is with syncing.
fn synced(sync: &FileSync) -> (Status, String) {
    let told = sync.told();
    let took = show_duration_ms(milliseconds(told.took));
    let waits = show_duration_ms(milliseconds(told.waits));
    if told.waits > (sync.pace() * LATE).max(LATE_MIN) {
        let why = told.fault.unwrap_or_else(|| format!("a sync took {took}"));
        let text =
            format!("not synced for {waits}, so that a power cut takes what it wrote since: {why}");
        return (Status::Degraded, text);
    }
    let pace = show_duration_ms(milliseconds(sync.pace()));
    (
        Status::Healthy,
        format!("synced every {pace}, which took {took} last time"),
    )
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
