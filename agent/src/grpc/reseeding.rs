//! Starting the node without data, so that it takes everything from its peers again; and what only the data
//! that it leaves has.

use super::snapshots::blocking;
use super::{Services, engine_error, refuse};
use crate::adapters::snapshots::{NewSnapshot, SnapshotError};
use cbddc_domain::documents::DocumentVersion;
use cbddc_domain::node::Event;
use cbddc_oplog::{OplogDb, OplogError};
use cbddc_proto::convert::replication::{VERSIONS_MAX, version_to_proto};
use cbddc_proto::v1;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tonic::{Code, Status};

impl Services {
    pub(super) async fn reseed_here(&self, by: &str) -> Result<(), Status> {
        let files = self.world.data_files();
        if files.is_empty() {
            let text = "no data of the node is configured on this host: name it under `service.databases` or `service.blite`";
            return Err(refuse(Code::FailedPrecondition, "no_database", text));
        }
        self.refuse_without_peers().await?;
        let taken_at_ms = self.world.now().wall_ms;
        let new = NewSnapshot {
            id: format!("empty-{taken_at_ms}"),
            taken_at_ms,
            reason: format!("no data: {by} has the node take everything from its peers again"),
            labels: BTreeMap::new(),
        };
        let snapshots = self.snapshots.clone();
        let empty = blocking(move || snapshots.create_empty(&files, &new)).await?;
        let id = empty.id.clone();
        let text = format!(
            "the node is to begin without data and to take everything from its peers: what is there is kept as a \
             snapshot, and {id} is restored"
        );
        self.note("reseed_asked", by, text).await?;
        let event = Event::Restore {
            snapshot: empty.id,
            by: by.to_owned(),
        };
        let told = self.engine.tell(event, by).await.map_err(engine_error);
        if told.is_err() {
            let snapshots = self.snapshots.clone();
            blocking(move || snapshots.remove(&id)).await?;
        }
        told.map(drop)
    }

    /// In each cluster somebody must be there who holds something: a node that begins without data beside
    /// nobody has lost it.
    async fn refuse_without_peers(&self) -> Result<(), Status> {
        for cluster in self.clusters.iter() {
            let protocol = &cluster.protocol;
            let mut holds = false;
            for peer in &protocol.settings().expected_peers {
                let look = protocol.look_at(&peer.address).await;
                holds |= look.is_ok_and(|look| look.token_accepted && !look.clock.0.is_empty());
            }
            if !holds {
                let text = "no peer of this node answers and shows that it holds anything: the node would have nothing";
                return Err(refuse(Code::FailedPrecondition, "no_peers", text));
            }
        }
        Ok(())
    }

    pub(super) async fn only_in_snapshot(
        &self,
        id: String,
    ) -> Result<v1::ListOnlyInSnapshotResponse, Status> {
        let snapshots = self.snapshots.clone();
        let (copies, not_compared) = blocking(move || {
            let snapshot = snapshots.get(&id)?;
            let (mut copies, mut others) = (Vec::new(), Vec::new());
            for file in &snapshot.files {
                match snapshots.copy_of(&id, file) {
                    Some(copy) => copies.push(copy),
                    None if file.parts().is_empty() => {}
                    None => others.push(file.source.display().to_string()),
                }
            }
            Ok::<_, SnapshotError>((copies, others))
        })
        .await?;
        let Some(cluster) = self.clusters.first() else {
            let text = "no `[cbddc]` section is configured on this host";
            return Err(refuse(Code::FailedPrecondition, "not_configured", text));
        };
        let reader = cluster.oplog.clone();
        let compared =
            tokio::task::spawn_blocking(move || reader.open().map(|now| only_in(&copies, &now)));
        let compared = compared.await;
        let compared =
            compared.map_err(|_| Status::internal("a fault in the agent; see its log"))?;
        let Some(compared) = compared else {
            let text = "the node has no database that can be read from outside";
            return Err(refuse(Code::FailedPrecondition, "no_database", text));
        };
        let only = compared
            .map_err(|error| refuse(Code::Internal, "database", crate::error_chain(&error)))?;
        Ok(v1::ListOnlyInSnapshotResponse {
            more: only.len() >= VERSIONS_MAX,
            documents: only.iter().map(version_to_proto).collect(),
            not_compared: match not_compared.is_empty() {
                true => String::new(),
                false => format!("kept bit by bit: {}", not_compared.join(", ")),
            },
        })
    }
}

/// The documents of these copies that the node's database has not, in that version or a later one.
fn only_in(copies: &[PathBuf], now: &OplogDb) -> Result<Vec<DocumentVersion>, OplogError> {
    let mut only = Vec::new();
    let mut failed = None;
    for copy in copies {
        // One of the application's own, without events.
        let Ok(copy) = OplogDb::open_copy(copy) else {
            continue;
        };
        copy.each_document(|document| {
            if only.len() >= VERSIONS_MAX || failed.is_some() || document.content.is_none() {
                return;
            }
            let version = DocumentVersion {
                collection: document.collection.to_owned(),
                key: document.key.to_owned(),
                wall: document.version.0,
                logic: document.version.1,
                origin: document.origin.to_owned(),
            };
            match now.has_document(&version) {
                Ok(has) if has != Some(true) => only.push(version),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        })?;
    }
    failed.map_or(Ok(only), Err)
}
