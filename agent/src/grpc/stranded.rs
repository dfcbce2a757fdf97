//! Documents that no event explains: which there are, and whether others hold them.

use super::replication::{digest_status, status};
use super::{Services, malformed};
use crate::adapters::document_digests::DigestError;
use cbddc_proto::convert::replication::{VERSIONS_MAX, version_to_proto, versions_from_proto};
use cbddc_proto::v1;
use tonic::Status;

impl Services {
    pub(super) async fn documents_without_event(
        &self,
        asked: v1::ListDocumentsWithoutEventRequest,
    ) -> Result<v1::ListDocumentsWithoutEventResponse, Status> {
        let cluster = self.running_cluster(&asked.cluster)?;
        let now = self.world.now();
        let before = |ms: u64| {
            now.wall_ms
                .saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX))
        };
        let from = before(asked.since_ago_ms);
        // What was in a process's memory has ended with it.
        let until = match self.health.borrow().process {
            Some(process) => before(now.since_boot_ms.saturating_sub(process.started_ms)),
            None => now.wall_ms,
        };
        let found = cluster
            .oplog
            .documents_without_event(from, until, VERSIONS_MAX)
            .await;
        let found = found.map_err(|error| status(&error))?;
        let Some(found) = found else {
            return Err(digest_status(&DigestError::NoDatabase));
        };
        Ok(v1::ListDocumentsWithoutEventResponse {
            more: found.len() >= VERSIONS_MAX,
            documents: found.iter().map(version_to_proto).collect(),
            uncovered_ms: self.world.uncovered_before_stop(asked.since_ago_ms),
        })
    }

    pub(super) async fn found_documents(
        &self,
        asked: v1::FindDocumentsRequest,
    ) -> Result<v1::FindDocumentsResponse, Status> {
        let cluster = self.running_cluster(&asked.cluster)?;
        let versions = versions_from_proto(asked.documents).map_err(malformed)?;
        let found = cluster.oplog.find(&cluster.protocol, versions).await;
        let found = found.map_err(|error| status(&error))?;
        let found = found.into_iter().map(|found| v1::FoundDocument {
            has_event: found.has_event,
            has_document: found.has_document,
        });
        Ok(v1::FindDocumentsResponse {
            found: found.collect(),
        })
    }
}
