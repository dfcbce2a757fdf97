//! The steps of a proposer.

use super::builds::build_error;
use super::{Services, caller, engine_error, malformed, person, refuse};
use crate::adapters::disk::free_bytes;
use crate::adapters::evidence::Disbelief;
use crate::adapters::tls::Caller;
use crate::engine::{EngineError, hear_peer};
use cbddc_domain::node::{Event, Prepare, ProposalKind, Refusal};
use cbddc_domain::register::{EpochRefusal, Record, RecordKind};
use cbddc_domain::release::Release;
use cbddc_domain::trigger::VOTES_MS;
use cbddc_domain::units::show_size_bytes;
use cbddc_proto::convert::{duration_ms, proposal_kind, required, text};
use cbddc_proto::v1;
use cbddc_proto::v1::rollout_service_server::RolloutService;
use tonic::{Code, Request, Response, Status};

#[tonic::async_trait]
impl RolloutService for Services {
    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareResponse>, Status> {
        let (holder, is_agent) = proposer(&request)?;
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
        if is_agent {
            check_agent_asks(&prepare)?;
        }
        if let Some(next) = &next {
            self.check_ready(next).await?;
            if prepare.kind == ProposalKind::Rollout {
                self.refuse_data_inside(&next.build).await?;
            }
        }
        self.engine
            .tell(Event::Prepare(Box::new(prepare)), &holder)
            .await
            .map_err(engine_error)?;
        Ok(Response::new(v1::PrepareResponse {
            register: Some(self.register_view().await),
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
        // Looked at again: waves and soaks may lie between. Here the node still serves, and to refuse
        // costs it nothing; once it is stopped, what is found is told and stops nobody.
        self.refuse_data_inside(&release.build).await?;
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
        let (holder, is_agent) = proposer(&request)?;
        let request = request.into_inner();
        let record: Record = required("record", request.record)
            .and_then(TryInto::try_into)
            .map_err(malformed)?;
        match &request.author {
            Some(author) => {
                let admitted = self.evidence.admit(&record, author).await;
                admitted.map_err(|fault| disbelieved(&fault))?;
            }
            // Nobody else has to believe it.
            None if record.voters.iter().eq([&self.engine.context().name]) => {}
            None => return Err(disbelieved(&Disbelief::Unsigned)),
        }
        // Whoever brings it: what an agent wrote may only go back.
        let event = match is_agent || record.proposed_by.starts_with(AGENT) {
            true => Event::VoteBack(Box::new(record.clone())),
            false => Event::Vote(Box::new(record.clone())),
        };
        let mut answer = self.engine.tell(event.clone(), &holder).await;
        if let Err(EngineError::Refused(Refusal::Epoch(
            EpochRefusal::OtherVoters | EpochRefusal::ChangesMore,
        ))) = &answer
        {
            // It may have been away while the record was decided that this one goes on from (15).
            self.catch_up(&record).await;
            answer = self.engine.tell(event, &holder).await;
        }
        answer.map_err(engine_error)?;
        let vote = self.evidence.vote(&record).await;
        let vote = Some(vote.map_err(|fault| disbelieved(&fault))?);
        Ok(Response::new(v1::VoteResponse { vote }))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let (holder, is_agent) = proposer(&request)?;
        let request = request.into_inner();
        let record: Record = required("record", request.record.clone())
            .and_then(TryInto::try_into)
            .map_err(malformed)?;
        if is_agent && (record.kind != RecordKind::Rollback || record.forced) {
            return Err(not_back(
                "an agent may confirm nothing but a rollback that was voted for",
            ));
        }
        if self.engine.node().register.decided_epoch() >= record.epoch {
            return Ok(Response::new(v1::ConfirmResponse {}));
        }
        let signed = v1::SignedRecord {
            record: request.record,
            author: request.author,
            votes: request.votes,
        };
        // Counted again here: by the voters' signatures, whoever brings them.
        let believed = self.evidence.believe(signed).await;
        let believed = believed.map_err(|fault| disbelieved(&fault))?;
        if !believed.decided {
            let text = "the votes that were brought are no majority of the record's voters";
            return Err(refuse(Code::FailedPrecondition, "not_decided", text));
        }
        let record = Box::new(believed.record);
        let event = match record.forced {
            true => Event::Force(record),
            false => Event::Learn(record),
        };
        self.engine
            .tell(event, &holder)
            .await
            .map_err(engine_error)?;
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
    /// Asks the other voters at once for what was decided.
    async fn catch_up(&self, record: &Record) {
        let starts = self.engine.node().starts.known.clone();
        let mut asked = tokio::task::JoinSet::new();
        for peer in record.electorate() {
            let (world, starts) = (self.world.clone(), starts.clone());
            if peer != self.engine.context().name {
                asked.spawn(async move { (world.register_of(&peer, &starts).await, peer) });
            }
        }
        while let Some(answered) = asked.join_next().await {
            if let Ok((Ok(told), peer)) = answered {
                hear_peer(&self.engine, &peer, told).await;
            }
        }
    }

    /// The build is here, intact, and could be started, and there is room for the snapshot.
    async fn check_ready(&self, release: &Release) -> Result<(), Status> {
        let (builds, build) = (self.builds.clone(), release.build.clone());
        let verified = tokio::task::spawn_blocking(move || {
            builds.check_writable()?;
            builds.make_sound(&build)
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

/// How the name of an agent begins where it is an author; no person's name has a space.
const AGENT: &str = "node ";

/// Who proposes, and whether that is an agent.
fn proposer<T>(request: &Request<T>) -> Result<(String, bool), Status> {
    match caller(request)? {
        Caller::Agent { name, .. } => Ok((format!("{AGENT}{name}"), true)),
        Caller::Person { .. } | Caller::Stranger => Ok((person(request)?, false)),
    }
}

/// An agent is promised nothing but a rollback, and keeps others out for no longer than it takes.
fn check_agent_asks(prepare: &Prepare) -> Result<(), Status> {
    let plain = prepare.kind == ProposalKind::Rollback
        && prepare.next.is_none()
        && prepare.plan.is_none()
        && prepare.lease_ms <= VOTES_MS;
    match plain {
        true => Ok(()),
        false => Err(not_back("an agent may propose nothing but a rollback")),
    }
}

fn not_back(text: &str) -> Status {
    refuse(Code::PermissionDenied, "not_back", text)
}

fn disbelieved(fault: &Disbelief) -> Status {
    let text = crate::error_chain(fault);
    match fault {
        Disbelief::Malformed(_) => refuse(Code::InvalidArgument, "malformed", text),
        Disbelief::NotSaved(_) => refuse(Code::Unavailable, "not_saved", text),
        Disbelief::Unsigned
        | Disbelief::Signature { .. }
        | Disbelief::Role { .. }
        | Disbelief::Removed(_)
        | Disbelief::Name { .. } => refuse(Code::PermissionDenied, "distrusted", text),
    }
}
