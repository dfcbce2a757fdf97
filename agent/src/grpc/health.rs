//! Health, and what the mesh check needs of this node.

use super::{Services, caller, refuse};
use crate::adapters::node_protocol::Observation;
use crate::error_chain;
use cbddc_domain::health::judge;
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::oplog::{Operation, OplogEntry};
use cbddc_domain::phase::Phase;
use cbddc_proto::v1;
use cbddc_proto::v1::health_service_server::HealthService;
use tonic::{Code, Request, Response, Status};

/// The most events in one answer: about 5 MiB.
const EVENTS_MAX: usize = 20_000;

#[tonic::async_trait]
impl HealthService for Services {
    async fn get_health(
        &self,
        request: Request<v1::GetHealthRequest>,
    ) -> Result<Response<v1::GetHealthResponse>, Status> {
        caller(&request)?;
        let measurements = self.world.measure().await;
        let judgement = judge(&measurements);
        let message = |measurement: &cbddc_domain::health::Measurement| v1::Measurement {
            check: measurement.check.as_str().to_owned(),
            status: measurement.status.as_str().to_lowercase(),
            detail: measurement.detail.clone(),
            took_ms: measurement.took_ms,
        };
        Ok(Response::new(v1::GetHealthResponse {
            status: judgement.status.as_str().to_lowercase(),
            reasons: judgement.reasons,
            measurements: measurements.iter().map(message).collect(),
        }))
    }

    async fn observe_replication(
        &self,
        request: Request<v1::ObserveReplicationRequest>,
    ) -> Result<Response<v1::ObserveReplicationResponse>, Status> {
        caller(&request)?;
        let request = request.into_inner();
        let Some(protocol) = &self.protocol else {
            let text = "no `[cbddc]` section is configured on this host, so replication cannot be looked at";
            return Err(refuse(Code::FailedPrecondition, "not_configured", text));
        };
        match self.engine.node().phase {
            Phase::Steady { running: None } | Phase::Prepared { running: None, .. } => {
                let text = "nothing was rolled out to this node yet";
                return Err(refuse(Code::FailedPrecondition, "nothing_runs", text));
            }
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Probation(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => {}
        }
        // Asking for one event is asking for the time only.
        if request.limit != 1
            && let Err(error) = protocol.write_canary(self.world.now().wall_ms).await
        {
            tracing::warn!(error = error_chain(&error), "no canary event was written");
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
        // A peer that is not up cannot be joined; whoever asks hears that from its own agent.
        message.expected = protocol.expected_peers_up().await;
        message.target_collections = settings.target_collections.clone();
        message.wall_ms = self.world.now().wall_ms;
        Ok(Response::new(message))
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
        joined_known: observed.joined.is_some(),
        joined: observed.joined.unwrap_or_default(),
        expected: Vec::new(),
        target_collections: Vec::new(),
        wall_ms: 0,
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
