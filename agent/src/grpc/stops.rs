//! Stopping traffic, peers and rollouts on this host, and letting them go.

use super::{Services, engine_error, malformed, person, refuse};
use cbddc_domain::node::Event;
use cbddc_domain::phase::Phase;
use cbddc_domain::stops::StopsChange;
use cbddc_proto::convert::{duration_ms, text};
use cbddc_proto::v1;
use std::time::Duration;
use tonic::{Code, Request, Response, Status};

/// How long a caller waits for a node to be stopped; below what `cbctl` waits by default.
const HALT_WAIT: Duration = Duration::from_secs(8);

/// Whether a process of the node may be there.
fn may_run(phase: &Phase) -> bool {
    !matches!(phase, Phase::Steady { running: None } | Phase::Stuck { .. })
}

impl Services {
    pub(super) async fn set_drained_here(
        &self,
        request: Request<v1::SetDrainedRequest>,
    ) -> Result<Response<v1::SetDrainedResponse>, Status> {
        let by = person(&request)?;
        let asked = request.into_inner();
        let change = StopsChange::Drained(asked.drained);
        self.change_stops(change, asked.reason, by).await?;
        Ok(Response::new(v1::SetDrainedResponse {}))
    }

    pub(super) async fn set_quarantined_here(
        &self,
        request: Request<v1::SetQuarantinedRequest>,
    ) -> Result<Response<v1::SetQuarantinedResponse>, Status> {
        let by = person(&request)?;
        let asked = request.into_inner();
        let change = StopsChange::Quarantined(asked.quarantined);
        self.change_stops(change, asked.reason, by).await?;
        if asked.quarantined && self.engine.context().policy.quarantine_stops {
            self.wait_until_halted().await?;
        }
        Ok(Response::new(v1::SetQuarantinedResponse {}))
    }

    pub(super) async fn set_frozen_here(
        &self,
        request: Request<v1::SetFrozenRequest>,
    ) -> Result<Response<v1::SetFrozenResponse>, Status> {
        let by = person(&request)?;
        let asked = request.into_inner();
        let lasts = match asked.lasts_ms {
            0 => None,
            lasts => Some(duration_ms("lasts_ms", lasts).map_err(malformed)?),
        };
        self.change_stops(StopsChange::Frozen(lasts), asked.reason, by)
            .await?;
        Ok(Response::new(v1::SetFrozenResponse {}))
    }

    /// Waits a while for the node to be stopped, where that is how it is cut off: whoever asked wants to
    /// know whether it still speaks to its peers.
    async fn wait_until_halted(&self) -> Result<(), Status> {
        let mut changed = self.engine.watch();
        let wait = changed.wait_for(|node| {
            let is_stopped = node.stops.halted && node.pending.is_none();
            is_stopped || node.stops.quarantined.is_none() || !may_run(&node.phase)
        });
        match tokio::time::timeout(HALT_WAIT, wait).await {
            Ok(_) => Ok(()),
            Err(_) => Err(refuse(
                Code::FailedPrecondition,
                "not_applied",
                "it is written down, and the node is still being stopped: look at `cbctl status` and `cbctl journal list`".to_owned(),
            )),
        }
    }

    /// Written down first; what cannot be done now is tried again at the agent's next start.
    async fn change_stops(
        &self,
        change: StopsChange,
        reason: String,
        by: String,
    ) -> Result<(), Status> {
        let reason = text("reason", reason).map_err(malformed)?;
        let touches_host = !matches!(change, StopsChange::Frozen(_));
        let by_whom = by.clone();
        let event = Event::ChangeStops { change, reason, by };
        self.engine
            .tell(event, &by_whom)
            .await
            .map_err(engine_error)?;
        if touches_host {
            let stops = self.engine.node().stops.clone();
            let applied = self.world.apply_stops(&stops).await;
            applied.map_err(|error| {
                let text = format!("it is written down, but: {error}");
                refuse(Code::FailedPrecondition, "not_applied", text)
            })?;
        }
        Ok(())
    }
}
