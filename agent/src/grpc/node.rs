//! What the node runs, ran and stands at.

use super::{Services, person};
use crate::adapters::clock::own_pid;
use crate::monitor::Health;
use cbddc_domain::generation::{Fallback, Generation};
use cbddc_domain::node::Node;
use cbddc_domain::phase::{Phase, Purpose, SwitchStep};
use cbddc_domain::register::Epoch;
use cbddc_domain::stops::Stopped;
use cbddc_domain::time::Now;
use cbddc_proto::v1;
use cbddc_proto::v1::node_service_server::NodeService;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// How often one who watches hears that nothing has changed.
const WATCH_UNCHANGED: Duration = Duration::from_secs(1);

/// Within this after a change, further ones are told together with it.
const WATCH_GAP: Duration = Duration::from_millis(10);

#[tonic::async_trait]
impl NodeService for Services {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let node = self.engine.node();
        let health = self.health.borrow().clone();
        Ok(Response::new(self.status(
            &node,
            &health,
            &self.world.now(),
        )))
    }

    type WatchStatusStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchStatusResponse, Status>> + Send>>;

    async fn watch_status(
        &self,
        _: Request<v1::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(self.clone().watch(answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn adopt(
        &self,
        request: Request<v1::AdoptRequest>,
    ) -> Result<Response<v1::AdoptResponse>, Status> {
        let by = person(&request)?;
        let answer = self.adopt_unit(request.into_inner(), &by).await?;
        Ok(Response::new(answer))
    }

    async fn unadopt(
        &self,
        request: Request<v1::UnadoptRequest>,
    ) -> Result<Response<v1::UnadoptResponse>, Status> {
        let by = person(&request)?;
        let answer = self.unadopt_unit(request.into_inner(), &by).await?;
        Ok(Response::new(answer))
    }

    async fn set_drained(
        &self,
        request: Request<v1::SetDrainedRequest>,
    ) -> Result<Response<v1::SetDrainedResponse>, Status> {
        self.set_drained_here(request).await
    }

    async fn set_quarantined(
        &self,
        request: Request<v1::SetQuarantinedRequest>,
    ) -> Result<Response<v1::SetQuarantinedResponse>, Status> {
        self.set_quarantined_here(request).await
    }

    async fn set_frozen(
        &self,
        request: Request<v1::SetFrozenRequest>,
    ) -> Result<Response<v1::SetFrozenResponse>, Status> {
        self.set_frozen_here(request).await
    }

    async fn list_generations(
        &self,
        _: Request<v1::ListGenerationsRequest>,
    ) -> Result<Response<v1::ListGenerationsResponse>, Status> {
        let node = self.engine.node();
        let running = node.phase.running();
        let message = |generation: &Generation| v1::Generation {
            number: generation.number,
            release: Some((&generation.release).into()),
            activated_wall_ms: generation.activated_wall_ms,
            activated_by: Some(generation.activated_by.into()),
            committed: generation.committed.map(Into::into),
            known_good: generation.known_good,
            snapshot_before: generation.snapshot_before.clone().unwrap_or_default(),
            reverted: generation.reverted.clone().unwrap_or_default(),
            running: running == Some(generation.number),
        };
        let generations = node.history.iter().rev().map(message).collect();
        Ok(Response::new(v1::ListGenerationsResponse { generations }))
    }
}

impl Services {
    /// Sends the status whenever it changes, until the watcher hangs up or the engine ends.
    async fn watch(self, answers: mpsc::Sender<Result<v1::WatchStatusResponse, Status>>) {
        let (mut node, mut health) = (self.engine.watch(), self.health.clone());
        loop {
            let status = {
                let health = health.borrow_and_update();
                let node = node.borrow_and_update();
                self.status(&node, &health, &self.world.now())
            };
            let status = Some(status);
            if answers
                .send(Ok(v1::WatchStatusResponse { status }))
                .await
                .is_err()
            {
                return;
            }
            tokio::select! {
                changed = node.changed() => if changed.is_err() { return },
                changed = health.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(WATCH_UNCHANGED) => continue,
                () = answers.closed() => return,
            }
            tokio::time::sleep(WATCH_GAP).await;
        }
    }

    fn status(&self, node: &Node, health: &Health, now: &Now) -> v1::GetStatusResponse {
        let context = self.engine.context();
        let running = node
            .phase
            .running()
            .and_then(|number| node.history.get(number));
        let (probation_left_ms, probation_clean) = match &node.phase {
            Phase::Probation(probation) => (probation.deadline.left_ms(now), probation.clean),
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => (0, false),
        };
        let stuck = match &node.phase {
            Phase::Stuck { cause, remedy, .. } => format!("{cause}: {remedy}"),
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Probation(_)
            | Phase::Reverting(_) => String::new(),
        };
        let lease = node.lease.as_ref().filter(|lease| !lease.until.passed(now));
        let last_rollout = node.rollouts.last();
        v1::GetStatusResponse {
            node: context.name.to_string(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            mesh: self.tls.mesh().to_owned(),
            phase: node.phase.word().to_owned(),
            phase_text: match &health.starting {
                Some(starting) => format!("{}; {starting}", phase_text(node)),
                None => phase_text(node),
            },
            generation: running.map_or(0, |generation| generation.number),
            release: running.map(|generation| (&generation.release).into()),
            committed: running.is_some_and(|generation| generation.committed.is_some()),
            known_good: running.is_some_and(|generation| generation.known_good),
            epoch: rollout_epoch(node).map(Into::into),
            probation_left_ms,
            probation_clean,
            health: health.judgement.status.as_str().to_lowercase(),
            health_reasons: health.judgement.reasons.clone(),
            lease_holder: lease.map(|lease| lease.holder.clone()).unwrap_or_default(),
            lease_what: lease.map(|lease| lease.what.clone()).unwrap_or_default(),
            lease_left_ms: lease.map_or(0, |lease| lease.until.left_ms(now)),
            register: Some((&node.register.view(&context.voters)).into()),
            drift: node.drift(context).unwrap_or_default(),
            owed: node.owed.clone(),
            node_pid: health.pid.unwrap_or_default(),
            last_rollout: last_rollout.map(|entry| entry.epoch.into()),
            last_rollout_outcome: last_rollout
                .and_then(|entry| entry.outcome.clone())
                .unwrap_or_default(),
            committed_epoch: running
                .and_then(|generation| generation.committed)
                .map(Into::into),
            stuck,
            unverified: !*self.met.borrow(),
            agent_pid: own_pid(),
            bake_left_ms: node
                .bake
                .as_ref()
                .map_or(0, |bake| bake.until.left_ms(now).max(1)),
            alarms: node.alarm_words(),
            findings: self.findings_now(),
            drained: node.stops.drained.as_ref().map(stopped),
            quarantined: node.stops.quarantined.as_ref().map(stopped),
            frozen: node.stops.freeze_at(now.wall_ms).map(|freeze| v1::Freeze {
                by: freeze.by.clone(),
                reason: freeze.reason.clone(),
                until_wall_ms: freeze.until_wall_ms,
            }),
            notes: running
                .and_then(|generation| self.grown_note(&generation.release.build))
                .into_iter()
                .chain(health.start_warning.clone())
                .collect(),
            starting: health.starting.clone().unwrap_or_default(),
            start_warning: health.start_warning.clone().unwrap_or_default(),
            uncovered: self.world.uncovered().unwrap_or_default(),
        }
    }
}

fn stopped(of: &Stopped) -> v1::Stopped {
    v1::Stopped {
        by: of.by.clone(),
        reason: of.reason.clone(),
    }
}

/// The rollout that is on probation or under way here.
fn rollout_epoch(node: &Node) -> Option<Epoch> {
    match &node.phase {
        Phase::Probation(probation) => Some(probation.epoch),
        Phase::Switching(switch) => match switch.purpose {
            Purpose::Rollout { epoch, .. } | Purpose::Converge { epoch } => Some(epoch),
            Purpose::Restore => None,
        },
        Phase::Steady { .. }
        | Phase::Prepared { .. }
        | Phase::Reverting(_)
        | Phase::Stuck { .. } => None,
    }
}

/// What the node does, in a sentence.
pub(crate) fn phase_text(node: &Node) -> String {
    let runs = |number: u64| match node.history.get(number) {
        Some(generation) => format!("generation {number}, {}", generation.release),
        None => format!("generation {number}"),
    };
    match &node.phase {
        Phase::Steady { running: None } => "nothing was rolled out yet".into(),
        Phase::Steady {
            running: Some(number),
        } if node.stops.halted => format!("stopped for its quarantine; {} follows", runs(*number)),
        Phase::Steady {
            running: Some(number),
        } => format!("runs {}", runs(*number)),
        Phase::Prepared { next, .. } => format!("prepared for {next}"),
        Phase::Switching(switch) => {
            let step = match switch.at {
                SwitchStep::Fetch => "getting the build",
                SwitchStep::Drain => "letting events reach the peers",
                SwitchStep::Stop => "stopping",
                SwitchStep::Snapshot => "taking a snapshot",
                SwitchStep::Restore => "restoring a snapshot",
                SwitchStep::Point => "pointing to the build",
                SwitchStep::Start => "starting",
                SwitchStep::Check => "checking",
            };
            format!("switching to {}: {step}", runs(switch.to))
        }
        Phase::Probation(probation) => {
            let asking = if probation.asking.is_some() {
                "; it ended, and the voters are being asked"
            } else {
                ""
            };
            format!("on probation with {}{asking}", runs(probation.running))
        }
        Phase::Reverting(revert) => {
            let to = match revert.to {
                Some(Fallback::Generation(number)) => runs(number),
                Some(Fallback::Nothing) => "nothing, as before".into(),
                None => "nowhere: no committed generation is left".into(),
            };
            format!("going back to {to}, because: {}", revert.cause.text)
        }
        Phase::Stuck { cause, remedy, .. } => format!("stuck: {cause}: {remedy}"),
    }
}
