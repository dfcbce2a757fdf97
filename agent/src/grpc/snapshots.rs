//! Snapshots of the node's database.

use super::{Services, caller, engine_error, malformed, person, refuse};
use crate::adapters::snapshots::{NewSnapshot, Snapshot, SnapshotError};
use crate::error_chain;
use cbddc_domain::node::Event;
use cbddc_proto::convert::text;
use cbddc_proto::v1;
use cbddc_proto::v1::snapshot_service_server::SnapshotService;
use std::collections::BTreeMap;
use tonic::{Code, Request, Response, Status};

#[tonic::async_trait]
impl SnapshotService for Services {
    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        let actor = person(&request)?;
        let reason = text("reason", request.into_inner().reason).map_err(malformed)?;
        let reason = if reason.is_empty() {
            "by hand".to_owned()
        } else {
            reason
        };
        if self.databases.is_empty() {
            let text = "no database is configured on this host: name it under `service.databases`";
            return Err(refuse(Code::FailedPrecondition, "no_database", text));
        }
        let taken_at_ms = self.world.now().wall_ms;
        let id = format!("by-hand-{taken_at_ms}");
        let (snapshots, databases) = (self.snapshots.clone(), self.databases.clone());
        let new = NewSnapshot {
            id,
            taken_at_ms,
            reason,
            labels: BTreeMap::new(),
        };
        let snapshot = blocking(move || snapshots.create(&databases, &new)).await?;
        self.note(
            "snapshot_taken",
            &actor,
            format!("snapshot {} was taken and verified", snapshot.id),
        )
        .await?;
        Ok(Response::new(v1::CreateSnapshotResponse {
            snapshot: Some(message(&snapshot)),
        }))
    }

    async fn list_snapshots(
        &self,
        _: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let snapshots = self.snapshots.clone();
        let list = blocking(move || snapshots.list()).await?;
        let snapshots = list.iter().rev().map(message).collect();
        Ok(Response::new(v1::ListSnapshotsResponse { snapshots }))
    }

    async fn reseed_node(
        &self,
        request: Request<v1::ReseedNodeRequest>,
    ) -> Result<Response<v1::ReseedNodeResponse>, Status> {
        let by = person(&request)?;
        self.reseed_here(&by).await?;
        Ok(Response::new(v1::ReseedNodeResponse {}))
    }

    async fn list_only_in_snapshot(
        &self,
        request: Request<v1::ListOnlyInSnapshotRequest>,
    ) -> Result<Response<v1::ListOnlyInSnapshotResponse>, Status> {
        caller(&request)?;
        let id = text("id", request.into_inner().id).map_err(malformed)?;
        self.only_in_snapshot(id).await.map(Response::new)
    }

    async fn restore_snapshot(
        &self,
        request: Request<v1::RestoreSnapshotRequest>,
    ) -> Result<Response<v1::RestoreSnapshotResponse>, Status> {
        let by = person(&request)?;
        let id = text("id", request.into_inner().id).map_err(malformed)?;
        let (snapshots, wanted) = (self.snapshots.clone(), id.clone());
        let verified = blocking(move || snapshots.verify(&wanted)).await?;
        let event = Event::Restore {
            snapshot: verified.id,
            by: by.clone(),
        };
        self.engine.tell(event, &by).await.map_err(engine_error)?;
        Ok(Response::new(v1::RestoreSnapshotResponse {}))
    }
}

fn message(snapshot: &Snapshot) -> v1::Snapshot {
    v1::Snapshot {
        id: snapshot.id.clone(),
        taken_wall_ms: snapshot.taken_at_ms,
        size: snapshot.size(),
        reason: snapshot.reason.clone(),
        databases: u32::try_from(snapshot.files.len()).unwrap_or(u32::MAX),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| Status::internal("a fault in the agent; see its log"))?;
    done.map_err(|error| snapshot_error(&error))
}

fn snapshot_error(error: &SnapshotError) -> Status {
    let (code, word) = if matches!(error, SnapshotError::NotFound(_)) {
        (Code::NotFound, "snapshot_unknown")
    } else if matches!(error, SnapshotError::NoSpace { .. }) {
        (Code::ResourceExhausted, "no_space")
    } else if matches!(
        error,
        SnapshotError::Damaged { .. } | SnapshotError::Record { .. }
    ) {
        (Code::FailedPrecondition, "snapshot_damaged")
    } else {
        (Code::Internal, "snapshot_failed")
    };
    refuse(code, word, error_chain(error))
}
