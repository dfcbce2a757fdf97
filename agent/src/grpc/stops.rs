//! Stopping traffic, peers and rollouts on this host, and letting them go.

use super::{Services, engine_error, malformed, person, refuse};
use cbddc_domain::node::Event;
use cbddc_domain::stops::StopsChange;
use cbddc_proto::convert::{duration_ms, text};
use cbddc_proto::v1;
use tonic::{Code, Request, Response, Status};

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
