//! The steps of a proposer.

use super::builds::build_error;
use super::{Services, engine_error, malformed, person, refuse};
use crate::adapters::disk::free_bytes;
use cbddc_domain::node::{Event, Prepare};
use cbddc_domain::register::Record;
use cbddc_domain::release::Release;
use cbddc_domain::units::show_size_bytes;
use cbddc_proto::convert::{duration_ms, proposal_kind, required, text};
use cbddc_proto::v1;
use cbddc_proto::v1::rollout_service_server::RolloutService;
use std::collections::BTreeSet;
use tonic::{Code, Request, Response, Status};

#[tonic::async_trait]
impl RolloutService for Services {
    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareResponse>, Status> {
        let holder = person(&request)?;
        let request = request.into_inner();
        let next: Option<Release> = request
            .next
            .map(TryInto::try_into)
            .transpose()
            .map_err(malformed)?;
        let prepare = Prepare {
            epoch: required("epoch", request.epoch).map_err(malformed)?.into(),
            kind: proposal_kind(request.kind).map_err(malformed)?,
            holder: holder.clone(),
            what: text("what", request.what).map_err(malformed)?,
            lease_ms: duration_ms("lease_ms", request.lease_ms).map_err(malformed)?,
            next: next.clone(),
            plan: request
                .plan
                .map(TryInto::try_into)
                .transpose()
                .map_err(malformed)?,
        };
        if let Some(next) = &next {
            self.check_ready(next).await?;
        }
        self.engine
            .tell(Event::Prepare(Box::new(prepare)), &holder)
            .await
            .map_err(engine_error)?;
        let register = self
            .engine
            .node()
            .register
            .view(&self.engine.context().voters);
        Ok(Response::new(v1::PrepareResponse {
            register: Some((&register).into()),
        }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let holder = person(&request)?;
        let request = request.into_inner();
        let epoch = required("epoch", request.epoch).map_err(malformed)?.into();
        let lease_ms = duration_ms("lease_ms", request.lease_ms).map_err(malformed)?;
        let renewed = self
            .engine
            .tell(Event::Renew { epoch, lease_ms }, &holder)
            .await;
        renewed.map_err(engine_error)?;
        Ok(Response::new(v1::RenewResponse {}))
    }

    async fn activate(
        &self,
        request: Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::ActivateResponse>, Status> {
        let holder = person(&request)?;
        let request = request.into_inner();
        let release: Release = required("release", request.release)
            .and_then(TryInto::try_into)
            .map_err(malformed)?;
        let changes_persistence = self.changes_persistence(&release).await?;
        let event = Event::Activate {
            epoch: required("epoch", request.epoch).map_err(malformed)?.into(),
            release: Box::new(release),
            probation_ms: duration_ms("probation_ms", request.probation_ms).map_err(malformed)?,
            changes_persistence,
        };
        self.engine
            .tell(event, &holder)
            .await
            .map_err(engine_error)?;
        Ok(Response::new(v1::ActivateResponse {}))
    }

    async fn vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let holder = person(&request)?;
        let record: Record = required("record", request.into_inner().record)
            .and_then(TryInto::try_into)
            .map_err(malformed)?;
        self.engine
            .tell(Event::Vote(Box::new(record)), &holder)
            .await
            .map_err(engine_error)?;
        Ok(Response::new(v1::VoteResponse {}))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let holder = person(&request)?;
        let request = request.into_inner();
        let record: Record = required("record", request.record)
            .and_then(TryInto::try_into)
            .map_err(malformed)?;
        if request.voted.len() > cbddc_proto::convert::NODES_MAX {
            return Err(refuse(
                Code::InvalidArgument,
                "malformed",
                "too many voters",
            ));
        }
        let voted: BTreeSet<_> = request
            .voted
            .into_iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        // Counted again here: each vote is heard like any other, and a majority decides.
        for voter in voted {
            let event = Event::Hear {
                voter,
                record: Box::new(record.clone()),
            };
            self.engine
                .tell(event, &holder)
                .await
                .map_err(engine_error)?;
        }
        if self.engine.node().register.decided_epoch() < record.epoch {
            let text = "the named votes are no majority of this agent's voters";
            return Err(refuse(Code::FailedPrecondition, "not_decided", text));
        }
        Ok(Response::new(v1::ConfirmResponse {}))
    }

    async fn revert(
        &self,
        request: Request<v1::RevertRequest>,
    ) -> Result<Response<v1::RevertResponse>, Status> {
        let holder = person(&request)?;
        let request = request.into_inner();
        let epoch = required("epoch", request.epoch).map_err(malformed)?.into();
        let cause = text("cause", request.cause).map_err(malformed)?;
        self.engine
            .tell(Event::Revert { epoch, cause }, &holder)
            .await
            .map_err(engine_error)?;
        Ok(Response::new(v1::RevertResponse {}))
    }

    async fn list_rollouts(
        &self,
        _: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        let node = self.engine.node();
        let rollouts = node.rollouts.iter().rev().map(|entry| v1::RolloutInfo {
            epoch: Some(entry.epoch.into()),
            plan: Some((&entry.plan).into()),
            started_wall_ms: entry.started_wall_ms,
            outcome: entry.outcome.clone().unwrap_or_default(),
        });
        Ok(Response::new(v1::ListRolloutsResponse {
            rollouts: rollouts.collect(),
        }))
    }
}

impl Services {
    /// The build is here, intact, and could be started, and there is room for the snapshot.
    async fn check_ready(&self, release: &Release) -> Result<(), Status> {
        let (builds, build) = (self.builds.clone(), release.build.clone());
        let verified = tokio::task::spawn_blocking(move || {
            builds.check_writable()?;
            builds.verify(&build)
        });
        let verified = verified.await;
        verified
            .map_err(|_| Status::internal("a fault in the agent; see its log"))?
            .map_err(|error| build_error(&error))?;
        let startable = self.world.check_startable(&release.build).await;
        startable.map_err(|error| {
            refuse(Code::FailedPrecondition, "not_startable", error.to_string())
        })?;
        let size = |path: &std::path::PathBuf| {
            std::fs::metadata(path).map_or(0, |metadata| metadata.len())
        };
        // The snapshot, and as much again for the node to go on.
        let needed = 2 * self.databases.iter().map(size).sum::<u64>();
        let free = free_bytes(&self.state_dir).map_err(|error| {
            let text = format!("cannot tell how much room the disk has: {error}");
            refuse(Code::Internal, "disk", text)
        })?;
        if free < needed {
            let (free, needed) = (show_size_bytes(free), show_size_bytes(needed));
            let text = format!(
                "disk-space: {free} free, {needed} needed for the snapshot before the activation: free some space on the disk of the agent's state folder"
            );
            return Err(refuse(Code::ResourceExhausted, "no_space", text));
        }
        Ok(())
    }

    async fn changes_persistence(&self, release: &Release) -> Result<bool, Status> {
        let (builds, digest) = (self.builds.clone(), release.build.digest);
        let found = tokio::task::spawn_blocking(move || builds.get(&digest)).await;
        let found = found.map_err(|_| Status::internal("a fault in the agent; see its log"))?;
        let found = found.map_err(|error| build_error(&error))?;
        Ok(found.is_some_and(|stored| stored.manifest.changes_persistence()))
    }
}
