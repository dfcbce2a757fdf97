//! A node's BLite database, which only the node can read: is it there, and does its log grow too large
//! to be read at a start in reasonable time.

use super::{Finding, figure};
use crate::adapters::node_logs::{of_blite, size};
use cbddc_domain::health::Status;
use cbddc_domain::node_starts::expected_ms;
use cbddc_domain::units::{show_duration_ms, show_size_bytes};
use std::path::{Path, PathBuf};

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BliteSettings {
    /// The data file, `X.blite`.
    pub path: PathBuf,
    /// Bytes of write-ahead log above which it is degraded.
    pub max_log_bytes: u64,
}

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
    let figures = vec![
        figure("size", size(path), "B"),
        figure("log", log_bytes, "B"),
    ];
    let (status, detail) = match std::fs::metadata(path) {
        Err(error) => (Status::Unhealthy, unreadable(path, &error)),
        Ok(_) if log_bytes > settings.max_log_bytes => (Status::Degraded, too_large(log_bytes)),
        Ok(_) => {
            let log = show_size_bytes(log_bytes);
            (Status::Healthy, format!("it is there; its log has {log}"))
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
