//! Health, and what the mesh check needs of this node.

use super::{Services, caller, refuse};
use crate::adapters::clusters::ClusterAccess;
use crate::adapters::connections::judge::Joined;
use crate::adapters::health_history::{HealthHistory, StoredEntry};
use crate::adapters::node_protocol::{self, CanaryError, Observation};
use crate::error_chain;
use cbddc_domain::health::{self, CheckState, Measurement, judge};
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::oplog::{Operation, OplogEntry};
use cbddc_proto::v1;
use cbddc_proto::v1::health_service_server::HealthService;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

/// How long whoever asks for health waits for a check; below what `cbctl` waits by default.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// The most events in one answer: about 5 MiB.
const EVENTS_MAX: usize = 20_000;

/// The most entries of the history in one answer: about 1 MiB.
const ENTRIES_MAX: u32 = 5_000;

/// Entries on their way to a follower who reads slowly.
const ENTRIES_IN_FLIGHT: usize = 64;

#[tonic::async_trait]
impl HealthService for Services {
    async fn get_health(
        &self,
        request: Request<v1::GetHealthRequest>,
    ) -> Result<Response<v1::GetHealthResponse>, Status> {
        caller(&request)?;
        let measurements = self.world.measure(LOOK_LIMIT).await;
        let now = judge(&measurements);
        let judged = self.health.borrow().clone();
        let mut answer = v1::GetHealthResponse {
            status: word(now.status.max(judged.judgement.status)),
            reasons: now.reasons,
            measurements: measurements.iter().map(measurement).collect(),
            judged: word(judged.judgement.status),
            since_wall_ms: judged.since_wall_ms,
            checks: judged.checks.iter().map(state).collect(),
        };
        if judged.judgement.status > now.status {
            answer.reasons = judged.judgement.reasons;
        }
        Ok(Response::new(answer))
    }

    async fn list_health_history(
        &self,
        request: Request<v1::ListHealthHistoryRequest>,
    ) -> Result<Response<v1::ListHealthHistoryResponse>, Status> {
        caller(&request)?;
        let request = request.into_inner();
        let limit = match request.limit {
            0 => ENTRIES_MAX,
            limit => limit.min(ENTRIES_MAX),
        };
        let now_wall_ms = self.world.now().wall_ms;
        let since_wall_ms = match i64::try_from(request.back_ms) {
            Ok(back_ms @ 1..) => now_wall_ms.saturating_sub(back_ms),
            Ok(_) | Err(_) => i64::MIN,
        };
        let read = self.history.since(since_wall_ms, limit).await;
        let read = read.map_err(|error| refuse(Code::Internal, "history", error_chain(&error)))?;
        Ok(Response::new(v1::ListHealthHistoryResponse {
            entries: read.into_iter().map(entry).collect(),
            now_wall_ms,
        }))
    }

    type FollowHealthHistoryStream =
        Pin<Box<dyn Stream<Item = Result<v1::FollowHealthHistoryResponse, Status>> + Send>>;

    async fn follow_health_history(
        &self,
        request: Request<v1::FollowHealthHistoryRequest>,
    ) -> Result<Response<Self::FollowHealthHistoryStream>, Status> {
        caller(&request)?;
        let after = request.into_inner().after;
        let (entries, stream) = mpsc::channel(ENTRIES_IN_FLIGHT);
        tokio::spawn(follow(self.history.clone(), after, entries));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn observe_replication(
        &self,
        request: Request<v1::ObserveReplicationRequest>,
    ) -> Result<Response<v1::ObserveReplicationResponse>, Status> {
        caller(&request)?;
        let request = request.into_inner();
        let cluster = self.running_cluster(&request.cluster)?;
        let protocol = &cluster.protocol;
        // Asking for one event is asking for the time only.
        let mut not_checked = Vec::new();
        if request.limit != 1
            && !request.only_look
            && let Err(error) = write_canary(&cluster, &request, self.world.now().wall_ms).await
        {
            tracing::warn!("{}", error_chain(&error));
            not_checked.push(error_chain(&error));
        }
        let observed = protocol.observe(request.since_wall_ms).await;
        let observed = observed
            .map_err(|error| refuse(Code::Unavailable, "node_unreachable", error_chain(&error)))?;
        let limit = match usize::try_from(request.limit) {
            Ok(0) | Err(_) => EVENTS_MAX,
            Ok(limit) => limit.min(EVENTS_MAX),
        };
        let settings = protocol.settings();
        let mut message = view(observed, limit);
        // Whoever asks for the time only is not told who is joined.
        if message.token_accepted && request.limit != 1 {
            let joined = protocol.joined(self.world.processes().await).await;
            let told = |joined: &Joined| !matches!(joined, Joined::NotChecked(_));
            message.joined_known = joined.values().any(told);
            // A peer that is not up cannot be joined; whoever asks hears that from its own agent.
            message.expected = protocol.owed(&joined).await;
            not_checked.extend(node_protocol::not_checked(&joined));
            let there = joined
                .into_iter()
                .filter(|(_, joined)| *joined == Joined::Yes);
            message.joined = there.map(|(address, _)| address).collect();
        }
        message.not_checked = not_checked;
        message.target_collections = settings.target_collections.clone();
        message.wall_ms = self.world.now().wall_ms;
        if request.limit == 1 {
            message.pruned_wall_ms = cluster.oplog.pruned_wall_ms().await;
        }
        Ok(Response::new(message))
    }
}

/// Has an event written for whoever asks.
async fn write_canary(
    cluster: &ClusterAccess,
    request: &v1::ObserveReplicationRequest,
    wall_ms: i64,
) -> Result<(), CanaryError> {
    let protocol = &cluster.protocol;
    let stored = match protocol.remembers_canary().await {
        true => VectorClock::default(),
        false => cluster.oplog.stored_clock().await,
    };
    protocol
        .write_canary(wall_ms, request.since_wall_ms, &stored)
        .await
}

/// Sends entries until the follower hangs up or the agent stops.
async fn follow(
    history: HealthHistory,
    mut after: u64,
    entries: mpsc::Sender<Result<v1::FollowHealthHistoryResponse, Status>>,
) {
    let mut newest = history.newest();
    loop {
        newest.mark_unchanged();
        let read = match history.after(after, ENTRIES_MAX).await {
            Ok(read) => read,
            Err(error) => {
                let status = refuse(Code::Internal, "history", error_chain(&error));
                return drop(entries.send(Err(status)).await);
            }
        };
        let waits = read.is_empty();
        for stored in read {
            after = stored.number;
            let message = v1::FollowHealthHistoryResponse {
                entry: Some(entry(stored)),
            };
            if entries.send(Ok(message)).await.is_err() {
                return;
            }
        }
        if waits {
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = entries.closed() => return,
            }
        }
    }
}

fn word(status: health::Status) -> String {
    status.as_str().to_lowercase()
}

fn measurement(measured: &Measurement) -> v1::Measurement {
    let figure = |figure: &health::Perf| v1::Figure {
        label: figure.label.clone(),
        value: figure.value,
        unit: figure.unit.clone(),
    };
    v1::Measurement {
        check: measured.check.as_str().to_owned(),
        name: measured.name.clone(),
        severity: measured.severity.as_str().to_owned(),
        status: word(measured.status),
        detail: measured.detail.clone(),
        took_ms: measured.took_ms,
        figures: measured.figures.iter().map(figure).collect(),
    }
}

fn state(state: &CheckState) -> v1::CheckState {
    v1::CheckState {
        name: state.name.clone(),
        kind: state.kind.as_str().to_owned(),
        severity: state.severity.as_str().to_owned(),
        status: word(state.status),
        reason: state.reason.clone(),
        since_wall_ms: state.since_wall_ms,
        flapping: state.flapping,
    }
}

fn entry(stored: StoredEntry) -> v1::HealthHistoryEntry {
    let entry = stored.entry;
    let tally = entry.tally.unwrap_or_default();
    v1::HealthHistoryEntry {
        number: stored.number,
        wall_ms: entry.wall_ms,
        check: entry.check,
        kind: entry.kind.as_str().to_owned(),
        status: word(entry.status),
        reason: entry.reason,
        healthy: tally.healthy,
        degraded: tally.degraded,
        unknown: tally.unknown,
        unhealthy: tally.unhealthy,
        took_ms_max: tally.took_ms_max,
    }
}

fn view(observed: Observation, limit: usize) -> v1::ObserveReplicationResponse {
    v1::ObserveReplicationResponse {
        node_id: observed.node_id,
        token_accepted: observed.token_accepted,
        interests: observed.interests,
        clock_before: clock(&observed.clock_before),
        truncated: observed.events.len() > limit,
        events: observed.events.into_iter().take(limit).map(event).collect(),
        clock_after: clock(&observed.clock_after),
        joined_known: false,
        joined: Vec::new(),
        expected: Vec::new(),
        target_collections: Vec::new(),
        wall_ms: 0,
        pruned_wall_ms: 0,
        not_checked: Vec::new(),
    }
}

fn clock(clock: &VectorClock) -> Vec<v1::ClockEntry> {
    let entry = |(origin, (wall, logic)): (&String, &(i64, i32))| v1::ClockEntry {
        origin: origin.clone(),
        wall: *wall,
        logic: *logic,
    };
    clock.0.iter().map(entry).collect()
}

fn event(entry: OplogEntry) -> v1::OplogEvent {
    v1::OplogEvent {
        collection: entry.collection,
        key: entry.key,
        delete: entry.operation == Operation::Delete,
        wall: entry.hlc.wall,
        logic: entry.hlc.logic,
        origin: entry.hlc.node,
        hash: entry.hash,
        previous_hash: entry.previous_hash,
    }
}
