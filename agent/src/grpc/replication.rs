//! The node's events for audits, its clock, and what this agent has found by itself.

use super::{Services, caller, refuse};
use crate::adapters::clusters::ClusterAccess;
use crate::adapters::document_digests::{DigestError, Ways};
use crate::adapters::oplog_reader::{Part, ReadError};
use crate::error_chain;
use cbddc_domain::documents::STEPS_MAX;
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::phase::Phase;
use cbddc_domain::replication::{FINDINGS_TOLD_MAX, Finding, Grade};
use cbddc_proto::convert::replication::{
    boundaries_to_proto, clock_to_proto, page_to_proto, part_to_proto,
};
use cbddc_proto::v1;
use cbddc_proto::v1::read_oplog_response::Part as Message;
use cbddc_proto::v1::replication_service_server::ReplicationService;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

/// The most ids that may be asked for at once.
const ORIGINS_MAX: usize = 10_000;

/// Parts on their way to somebody who reads slowly.
const PARTS_IN_FLIGHT: usize = 2;

type Sent = Result<v1::ReadOplogResponse, Status>;

#[tonic::async_trait]
impl ReplicationService for Services {
    type ReadOplogStream = Pin<Box<dyn Stream<Item = Sent> + Send>>;

    async fn read_oplog(
        &self,
        request: Request<v1::ReadOplogRequest>,
    ) -> Result<Response<Self::ReadOplogStream>, Status> {
        caller(&request)?;
        let request = request.into_inner();
        let cluster = self.running_cluster(&request.cluster)?;
        let (sent, stream) = mpsc::channel(PARTS_IN_FLIGHT);
        tokio::spawn(stream_oplog(cluster, request.since_wall_ms, sent));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn read_clock(
        &self,
        request: Request<v1::ReadClockRequest>,
    ) -> Result<Response<v1::ReadClockResponse>, Status> {
        caller(&request)?;
        let request = request.into_inner();
        if request.origins.len() > ORIGINS_MAX {
            let text = "at most 10,000 ids may be asked for at once";
            return Err(refuse(Code::InvalidArgument, "malformed", text));
        }
        let cluster = self.running_cluster(&request.cluster)?;
        let look = cluster.protocol.look().await;
        let look = look
            .map_err(|error| refuse(Code::Unavailable, "node_unreachable", error_chain(&error)))?;
        let wanted = request.origins.into_iter();
        let wanted = VectorClock(wanted.map(|origin| (origin, (0, 0))).collect());
        Ok(Response::new(v1::ReadClockResponse {
            node_id: look.node_id,
            interests: look.interests,
            clock: clock_to_proto(&cluster.oplog.complete(look.clock, &wanted).await),
        }))
    }

    async fn read_digests(
        &self,
        request: Request<v1::ReadDigestsRequest>,
    ) -> Result<Response<v1::ReadDigestsResponse>, Status> {
        caller(&request)?;
        let request = request.into_inner();
        let cluster = self.running_cluster(&request.cluster)?;
        let path = request.path.to_vec();
        if path.len() > STEPS_MAX || path.iter().any(|step| *step > 15) {
            let text = "a path has up to 15 steps, each 0 to 15";
            return Err(refuse(Code::InvalidArgument, "malformed", text));
        }
        let ways = match request.by_snapshot {
            true => Ways::Snapshot {
                protocol: &cluster.protocol,
                pid: self.health.borrow().pid,
            },
            false => Ways::Database,
        };
        let documents = &cluster.documents;
        let state = documents
            .state(&request.state, request.collections, ways)
            .await;
        let state = state.map_err(|error| digest_status(&error))?;
        let part = part_to_proto(state.table.part(&path));
        Ok(Response::new(v1::ReadDigestsResponse {
            state: state.name.clone(),
            count: state.table.len() as u64,
            read_from: state.read_from.clone(),
            ..part
        }))
    }

    async fn list_documents_without_event(
        &self,
        request: Request<v1::ListDocumentsWithoutEventRequest>,
    ) -> Result<Response<v1::ListDocumentsWithoutEventResponse>, Status> {
        caller(&request)?;
        self.documents_without_event(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn find_documents(
        &self,
        request: Request<v1::FindDocumentsRequest>,
    ) -> Result<Response<v1::FindDocumentsResponse>, Status> {
        caller(&request)?;
        self.found_documents(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn list_clusters(
        &self,
        request: Request<v1::ListClustersRequest>,
    ) -> Result<Response<v1::ListClustersResponse>, Status> {
        caller(&request)?;
        self.running_cluster("")?;
        let clusters = self.clusters.iter().map(|cluster| v1::Cluster {
            name: cluster.name().to_owned(),
            topology: cluster.protocol.settings().topology.word().to_owned(),
        });
        Ok(Response::new(v1::ListClustersResponse {
            clusters: clusters.collect(),
        }))
    }

    async fn list_findings(
        &self,
        request: Request<v1::ListFindingsRequest>,
    ) -> Result<Response<v1::ListFindingsResponse>, Status> {
        caller(&request)?;
        let found = self.findings.borrow().clone();
        let finding = |finding: Finding| v1::ReplicationFinding {
            kind: finding.kind.as_str().to_owned(),
            is_definite: finding.kind.is_definite(),
            node: finding.node.to_string(),
            origin: finding.origin,
            cluster: finding.cluster,
            is_critical: finding.grade == Grade::Critical,
            text: finding.text,
        };
        Ok(Response::new(v1::ListFindingsResponse {
            findings: found.current.into_iter().map(finding).collect(),
            looked_wall_ms: found.looked_wall_ms,
        }))
    }
}

impl Services {
    /// What is found now, in sentences, notes left out.
    pub(super) fn findings_now(&self) -> Vec<String> {
        let found = self.findings.borrow();
        let wrong = found.current.iter().filter(|it| it.kind.is_definite());
        let told = wrong.take(FINDINGS_TOLD_MAX);
        told.map(|it| match it.is_old {
            true => format!("{} (as before the release that runs)", it.text),
            false => it.text.clone(),
        })
        .collect()
    }

    /// A cluster of the node, where it is configured and something runs behind it; without a name
    /// the first.
    pub(super) fn running_cluster(&self, name: &str) -> Result<ClusterAccess, Status> {
        if self.clusters.is_empty() {
            let text = "no `[cbddc]` section is configured on this host, so replication cannot be looked at";
            return Err(refuse(Code::FailedPrecondition, "not_configured", text));
        }
        let mut clusters = self.clusters.iter();
        let Some(cluster) = clusters.find(|one| name.is_empty() || one.name() == name) else {
            let text = "no cluster of this name is configured on this host";
            return Err(refuse(Code::NotFound, "unknown", text));
        };
        match self.engine.node().phase {
            Phase::Steady { running: None } | Phase::Prepared { running: None, .. } => {
                let text = "nothing was rolled out to this node yet";
                Err(refuse(Code::FailedPrecondition, "nothing_runs", text))
            }
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Probation(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => Ok(cluster.clone()),
        }
    }
}

async fn stream_oplog(cluster: ClusterAccess, since_wall_ms: i64, sent: mpsc::Sender<Sent>) {
    let (parts, mut read) = mpsc::channel(PARTS_IN_FLIGHT);
    let settings = cluster.protocol.settings();
    let reading = async {
        let (reader, protocol) = (&cluster.oplog, &cluster.protocol);
        let ended = reader.read(protocol, since_wall_ms, &parts).await;
        drop(parts);
        ended
    };
    let sending = async {
        while let Some(part) = read.recv().await {
            let mut part = message(part);
            if let Message::Head(head) = &mut part {
                head.target_collections = settings.target_collections.clone();
                head.critical_collections = settings.critical_collections.clone();
            }
            let response = v1::ReadOplogResponse { part: Some(part) };
            if sent.send(Ok(response)).await.is_err() {
                // Nobody listens any more: the reader stops at its next part.
                read.close();
            }
        }
    };
    let (ended, ()) = tokio::join!(reading, sending);
    if let Err(error) = ended {
        let _ = sent.send(Err(status(&error))).await;
    }
}

fn message(part: Part) -> Message {
    match part {
        Part::Head(head) => Message::Head(v1::OplogHead {
            node_id: head.look.node_id,
            token_accepted: head.look.token_accepted,
            interests: head.look.interests,
            clock: clock_to_proto(&head.look.clock),
            boundaries_known: head.boundaries.is_some(),
            boundaries: boundaries_to_proto(&head.boundaries.unwrap_or_default()),
            read_from: head.read_from,
            target_collections: Vec::new(),
            critical_collections: Vec::new(),
        }),
        Part::Page(page) => Message::Page(page_to_proto(page)),
        Part::Tail { clock, boundaries } => Message::Tail(v1::OplogTail {
            clock: clock_to_proto(&clock),
            boundaries: boundaries_to_proto(&boundaries.unwrap_or_default()),
        }),
    }
}

pub(super) fn digest_status(error: &DigestError) -> Status {
    let (code, word) = match error {
        DigestError::NoDatabase => (Code::FailedPrecondition, "no_database"),
        DigestError::Database(_) | DigestError::Fault => (Code::Internal, "database"),
        DigestError::Snapshot(_) => (Code::Unavailable, "no_snapshot"),
        DigestError::Gone => (Code::Aborted, "gone"),
    };
    refuse(code, word, error_chain(error))
}

pub(super) fn status(error: &ReadError) -> Status {
    let (code, word) = match error {
        ReadError::Protocol(_) => (Code::Unavailable, "node_unreachable"),
        ReadError::Database(_) | ReadError::Fault => (Code::Internal, "database"),
        ReadError::Busy => (Code::ResourceExhausted, "busy"),
    };
    refuse(code, word, error_chain(error))
}
