//! The node's data: where it lies, and another state put in its place.

use super::{HostWorld, blocking, failed};
use crate::adapters::file_sync::blite_files;
use crate::ports::EffectError;
use std::path::PathBuf;

impl HostWorld {
    /// The files of all of the node's databases.
    pub(super) fn all_data_files(&self) -> Vec<PathBuf> {
        let blite = self.blite.iter().flat_map(|data| blite_files(data));
        self.databases.iter().cloned().chain(blite).collect()
    }

    /// Puts a snapshot in the place of the node's data, which is kept under the second name.
    pub(super) async fn restore(
        &self,
        id: String,
        kept: String,
    ) -> Result<Option<String>, EffectError> {
        let (snapshots, wall_ms) = (self.snapshots.clone(), self.clock.now().wall_ms);
        blocking(move || {
            let replaced = snapshots
                .restore(&id, &kept, wall_ms)
                .map_err(|error| failed(&error))?;
            Ok(Some(format!(
                "the state that was replaced is kept as snapshot {}",
                replaced.id
            )))
        })
        .await
    }
}
