//! Drives the proposer of the domain over the mesh: performs its commands, tells it what came of
//! them, and says on stderr what happens.

use crate::error::CtlError;
use crate::mesh::{Outcome as Reply, Session, client};
use crate::mesh_check::MeshChecker;
use crate::signatures::Signatures;
use crate::survey::{Shown, Watch};
use cbddc_domain::id::NodeName;
use cbddc_domain::proposer::{Command, Failure, Outcome, Proposal, Proposer, Told};
use cbddc_domain::register::{Record, RegisterView};
use cbddc_proto::convert::required;
use cbddc_proto::v1;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::transport::Channel;

mod amend;

pub use amend::{change_voters, lift};

/// How long to wait before a node that went silent is followed again.
const WATCH_AGAIN: Duration = Duration::from_millis(250);

/// After this a node that shows nothing is followed anew; it would have said each second that
/// nothing has changed.
const SILENT: Duration = Duration::from_secs(5);

/// How often the proposer is told that time has passed.
const TICK: Duration = Duration::from_millis(200);

/// Answers that may wait for the proposer.
const ANSWERS: usize = 256;

/// What the news are told to, line by line.
pub type Say<'a> = &'a mut (dyn FnMut(&str) + Send);

/// Runs a proposal to its end. Dropping the future stops it where it stands.
pub async fn drive(
    session: &Session,
    proposal: Proposal,
    say: Say<'_>,
) -> Result<Outcome, CtlError> {
    let checker = MeshChecker::new(session.clone(), proposal.members.clone());
    drive_checked(session, proposal, checker, say).await
}

/// The same with a mesh check of one's own after each wave.
pub async fn drive_checked(
    session: &Session,
    proposal: Proposal,
    checker: MeshChecker,
    say: Say<'_>,
) -> Result<Outcome, CtlError> {
    run(session, proposal, checker, Proposer::begin, say).await
}

/// The same for a record that a person forces (rule 13).
pub async fn drive_forced(
    session: &Session,
    proposal: Proposal,
    record: Record,
    say: Say<'_>,
) -> Result<Outcome, CtlError> {
    let begin = |proposal, now_ms| Proposer::force(proposal, record, now_ms);
    let checker = MeshChecker::new(session.clone(), proposal.members.clone());
    run(session, proposal, checker, begin, say).await
}

async fn run(
    session: &Session,
    proposal: Proposal,
    checker: MeshChecker,
    begin: impl FnOnce(Proposal, u64) -> (Proposer, Vec<Command>),
    say: Say<'_>,
) -> Result<Outcome, CtlError> {
    let began = Instant::now();
    let now_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (told, mut answers) = mpsc::channel(ANSWERS);
    let driver = Arc::new(Driver {
        session: session.clone(),
        proposal: proposal.clone(),
        turns: Semaphore::new(session.jobs()),
        checker: checker.for_targets(proposal.plan.targets().cloned().collect()),
        signatures: Signatures::new(session.mesh().name.clone(), session.signer()?),
        told,
    });
    // Dropped with this future, the tasks end with it.
    let mut tasks = JoinSet::new();
    for node in &proposal.members {
        tasks.spawn(Arc::clone(&driver).keep_looking(node.clone()));
    }
    let (mut proposer, commands) = begin(proposal, now_ms());
    driver.perform(commands, &mut tasks);
    let mut shown = BTreeMap::new();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        session.set_standing(proposer.standing());
        let told = tokio::select! {
            answer = answers.recv() => match answer {
                Some(Answer::Told(told)) => told,
                Some(Answer::Shown(node, seen)) => {
                    tell_phase(&mut shown, &node, &seen, say);
                    Told::Seen(node, Box::new(seen.view))
                }
                Some(Answer::News(line)) => {
                    say(&line);
                    continue;
                }
                None => Told::Tick,
            },
            _ = ticks.tick() => Told::Tick,
        };
        let commands = proposer.tell(told, now_ms());
        for line in proposer.take_news() {
            say(&line);
        }
        let last = proposer.outcome().cloned();
        driver.perform(commands, &mut tasks);
        if let Some(outcome) = last {
            driver.finish(&mut tasks, &mut answers).await;
            return Ok(outcome);
        }
    }
}

/// What comes back to the loop.
enum Answer {
    Told(Told),
    Shown(NodeName, Box<Shown>),
    News(String),
}

/// The loop has ended.
struct Unheard;

struct Driver {
    session: Session,
    proposal: Proposal,
    turns: Semaphore,
    checker: MeshChecker,
    signatures: Signatures,
    told: mpsc::Sender<Answer>,
}

impl Driver {
    fn perform(self: &Arc<Self>, commands: Vec<Command>, tasks: &mut JoinSet<()>) {
        for command in commands {
            tasks.spawn(Arc::clone(self).perform_one(command));
        }
        // Ended tasks are taken out, so that the set does not grow with the rollout.
        while tasks.try_join_next().is_some() {}
    }

    /// The last commands (closing an epoch, confirming) are given their time.
    async fn finish(&self, tasks: &mut JoinSet<()>, answers: &mut mpsc::Receiver<Answer>) {
        answers.close();
        let members = self.proposal.members.len();
        let all = async {
            // The tasks that look never end by themselves; they notice the closed channel.
            while tasks.join_next().await.is_some() {}
        };
        let limit = self
            .session
            .timeout()
            .min(Duration::from_millis(500 + members as u64 * 10));
        // What does not end in time is cut off: every agent finishes by itself what it has begun.
        drop(timeout(limit, all).await);
    }

    /// Follows a node for as long as anybody listens; begins again when it goes silent.
    async fn keep_looking(self: Arc<Self>, node: NodeName) {
        loop {
            let limit = self.session.timeout();
            if let Reply::Ok(watch) = self.session.call(&node, limit, Watch::begin).await
                && self.follow(&node, watch).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH_AGAIN) => {}
                () = self.told.closed() => return,
            }
        }
    }

    /// Passes on what a node shows until it shows no more; an error: nobody listens any more.
    async fn follow(&self, node: &NodeName, mut watch: Watch) -> Result<(), Unheard> {
        loop {
            let seen = tokio::select! {
                seen = timeout(SILENT, watch.next()) => seen,
                () = self.told.closed() => return Err(Unheard),
            };
            let Ok(Ok(Some(shown))) = seen else {
                return Ok(());
            };
            let answer = Answer::Shown(node.clone(), Box::new(shown));
            self.told.send(answer).await.map_err(|_| Unheard)?;
        }
    }

    async fn perform_one(self: Arc<Self>, command: Command) {
        let told = match command {
            Command::CheckMesh(wave) => {
                let (verdict, news) = self.checker.check(wave).await;
                for line in news {
                    drop(self.told.send(Answer::News(line)).await);
                }
                Told::MeshChecked(wave, verdict)
            }
            Command::Prepare(node, next) => {
                let request = self.prepare_request(next.as_deref());
                let call = |channel| async { prepare(channel, request).await };
                let answer = self.ask(&node, call).await;
                Told::Prepared(node, answer)
            }
            Command::Activate(node) => {
                self.checker.wave_begins().await;
                let request = self.activate_request();
                let call =
                    |channel| async { client::rollout(channel).activate(request).await.map(drop) };
                let answer = self.ask(&node, call).await;
                Told::Activated(node, answer)
            }
            Command::Renew(node) => {
                let lease_ms = self.proposal.plan.timing.probation_ms;
                let request = v1::RenewRequest {
                    epoch: Some(self.proposal.epoch.into()),
                    lease_ms,
                };
                let call =
                    |channel| async { client::rollout(channel).renew(request).await.map(drop) };
                let answer = self.ask(&node, call).await;
                Told::Renewed(node, answer)
            }
            Command::Vote(node, record) => {
                let request = v1::VoteRequest {
                    record: Some((&*record).into()),
                    author: self.signatures.author(&record),
                };
                let call = |channel| async { client::rollout(channel).vote(request).await };
                let answer = self.ask(&node, call).await;
                let answer = answer.map(|voted| {
                    let vote = voted.into_inner().vote;
                    self.signatures.voted(&record, &node, vote);
                });
                Told::Voted(node, answer)
            }
            Command::Confirm(node, record, voted) => {
                let voted = voted.iter().map(ToString::to_string).collect();
                let request = v1::ConfirmRequest {
                    record: Some((&*record).into()),
                    voted,
                    author: self.signatures.author(&record),
                    votes: self.signatures.votes(&record),
                };
                let call =
                    |channel| async { client::rollout(channel).confirm(request).await.map(drop) };
                let answer = self.ask(&node, call).await;
                Told::Confirmed(node, answer)
            }
            Command::Revert(node, cause) => {
                let request = v1::RevertRequest {
                    epoch: Some(self.proposal.epoch.into()),
                    cause,
                };
                let call =
                    |channel| async { client::rollout(channel).revert(request).await.map(drop) };
                let answer = self.ask(&node, call).await;
                Told::Reverted(node, answer)
            }
        };
        drop(self.told.send(Answer::Told(told)).await);
    }

    fn prepare_request(&self, next: Option<&cbddc_domain::release::Release>) -> v1::PrepareRequest {
        let proposal = &self.proposal;
        let remembered = !proposal.plan.waves.is_empty();
        v1::PrepareRequest {
            epoch: Some(proposal.epoch.into()),
            kind: v1::ProposalKind::from(proposal.kind).into(),
            what: format!(
                "{} {}",
                kind_word(proposal.kind),
                proposal.plan.release.build
            ),
            lease_ms: proposal.plan.timing.probation_ms,
            next: next.map(Into::into),
            plan: remembered.then(|| (&proposal.plan).into()),
        }
    }

    fn activate_request(&self) -> v1::ActivateRequest {
        v1::ActivateRequest {
            epoch: Some(self.proposal.epoch.into()),
            release: Some((&self.proposal.plan.release).into()),
            probation_ms: self.proposal.plan.timing.probation_ms,
        }
    }

    async fn ask<T, F, Fut>(&self, node: &NodeName, call: F) -> Result<T, Failure>
    where
        F: FnOnce(Channel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let _turn = self.turns.acquire().await;
        match self.session.call(node, self.session.timeout(), call).await {
            Reply::Ok(answer) => Ok(answer),
            Reply::Refused { word, message } => Err(Failure::Refused {
                word,
                text: message,
            }),
            Reply::Unreachable { why } => Err(Failure::Unreachable(why)),
            Reply::TimedOut => Err(Failure::Unreachable("no answer in time".into())),
        }
    }
}

async fn prepare(
    channel: Channel,
    request: v1::PrepareRequest,
) -> Result<Box<RegisterView>, Status> {
    let answer = client::rollout(channel)
        .prepare(request)
        .await?
        .into_inner();
    let register = required("register", answer.register).and_then(RegisterView::try_from);
    register
        .map(Box::new)
        .map_err(|fault| Status::internal(fault.to_string()))
}

/// What a proposal is called in sentences.
fn kind_word(kind: cbddc_domain::node::ProposalKind) -> &'static str {
    use cbddc_domain::node::ProposalKind;
    match kind {
        ProposalKind::Rollout => "a rollout of",
        ProposalKind::Rollback => "a rollback to",
        ProposalKind::Resume => "going on with the rollout of",
        ProposalKind::Abort => "ending the rollout of",
        ProposalKind::Amend => "a change of the register beside",
    }
}

/// Says where a node stands when that has changed.
fn tell_phase(known: &mut BTreeMap<NodeName, String>, node: &NodeName, seen: &Shown, say: Say<'_>) {
    let clean = if seen.view.clean {
        ", healthy for long enough"
    } else {
        ""
    };
    let text = format!("{}{clean}", seen.phase_text);
    let first = !known.contains_key(node);
    if known
        .insert(node.clone(), text.clone())
        .is_none_or(|before| before != text)
        && !first
    {
        say(&format!("  {node}: {text}"));
    }
}
