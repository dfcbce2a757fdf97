//! Proposes the rollback of the mesh that a trigger asks for, without any client: the proposer of the
//! domain, driven over calls to the other agents. What is proposed, and when, is in the saved state;
//! every voter holds an agent to going back.

use crate::adapters::evidence::EvidenceKeeper;
use crate::adapters::peers::Peers;
use crate::adapters::roster::signature_message;
use crate::adapters::tls::Tls;
use crate::engine::{ACTOR_AGENT, EngineError, EngineHandle, hear_peer};
use crate::error_chain;
use crate::ports::World;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Prepare, ProposalKind};
use cbddc_domain::proposer::{Command, Failure, Outcome, Proposal, Proposer, Told};
use cbddc_domain::register::{Epoch, Record, RegisterView};
use cbddc_domain::rollback::Known;
use cbddc_domain::trigger::{OwnRollback, Surroundings, proposal};
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often is looked whether there is something to propose, and time passes for the proposer.
const LOOK: Duration = Duration::from_millis(250);

/// Calls at once.
const CALLS_MAX: usize = 32;

/// Answers that may wait for the proposer.
const ANSWERS: usize = 64;

/// What agents wait beyond the usual pause, at most and drawn at random, so that two of them do not
/// take the promises from each other again and again.
const JITTER_MS: u64 = 3_000;

/// Proposes rollbacks. Cheap to clone.
#[derive(Clone)]
pub struct RollbackProposer {
    /// The state, and the own promise and vote.
    pub engine: EngineHandle,
    /// Clock and chance.
    pub world: Arc<dyn World>,
    /// The other agents.
    pub peers: Peers,
    /// Checks and keeps signatures.
    pub evidence: EvidenceKeeper,
    /// Signs.
    pub tls: Tls,
}

/// Why an attempt came to nothing.
struct Failed {
    why: String,
    nowhere: bool,
}

impl RollbackProposer {
    /// Proposes what there is to propose until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let node = self.engine.node();
            let Some(own) = node.vigil.rollback.clone() else {
                continue;
            };
            if !own.at.passed(&self.world.now()) {
                continue;
            }
            let failed = tokio::select! {
                () = stop.cancelled() => return,
                tried = self.attempt(&own) => tried.err(),
            };
            if let Some(Failed { why, nowhere }) = failed {
                let jitter_ms = self.world.nonce() % JITTER_MS;
                let tried = Event::RollbackTried {
                    why,
                    nowhere,
                    jitter_ms,
                };
                if let Err(error) = self.engine.tell(tried, ACTOR_AGENT).await {
                    tracing::warn!(%error, "what became of a rollback was not taken");
                }
            }
        }
    }

    async fn attempt(&self, own: &OwnRollback) -> Result<(), Failed> {
        let name = self.tls.node().clone();
        let members: BTreeSet<NodeName> = self
            .peers
            .others()
            .into_iter()
            .chain([name.clone()])
            .collect();
        let (known, highest) = self.look_around(&members).await;
        let all = known.len() == members.len();
        let register = self.engine.node().register.clone();
        // What the others told may have made it needless; the engine notices by itself.
        if own.is_needless(&register, &name) {
            return Ok(());
        }
        let around = Surroundings {
            name: &name,
            members: &members,
            genesis: &self.engine.context().voters,
            known: &known,
            highest,
            nonce: self.world.nonce(),
        };
        let proposal = proposal(own, &register, &around).map_err(|error| Failed {
            why: error.to_string(),
            nowhere: all,
        })?;
        let outcome = self.drive(proposal).await;
        if matches!(outcome, Outcome::Decided { .. }) {
            return Ok(());
        }
        Err(Failed {
            why: words(&outcome),
            nowhere: false,
        })
    }

    /// What the members know of releases and records; takes over what is news here.
    async fn look_around(
        &self,
        members: &BTreeSet<NodeName>,
    ) -> (BTreeMap<NodeName, Vec<Known>>, Epoch) {
        let turns = Arc::new(Semaphore::new(CALLS_MAX));
        let mut asking = JoinSet::new();
        for peer in members.iter().filter(|peer| *peer != self.tls.node()) {
            let (it, peer, turns) = (self.clone(), peer.clone(), Arc::clone(&turns));
            asking.spawn(async move {
                let _turn = turns.acquire().await;
                let known = it.peers.releases(&peer).await.ok()?;
                let starts = it.engine.node().starts.known.clone();
                let told = it.world.register_of(&peer, &starts).await.ok()?;
                let highest = told.register.highest;
                hear_peer(&it.engine, &peer, told).await;
                Some((peer, known, highest))
            });
        }
        let node = self.engine.node();
        let own = node.history.iter().map(|generation| Known {
            release: generation.release.clone(),
            committed: generation.committed,
            known_good: generation.known_good,
        });
        let mut known = BTreeMap::from([(self.tls.node().clone(), distinct(own))]);
        let mut highest = Epoch::default();
        while let Some(answered) = asking.join_next().await {
            if let Ok(Some((peer, releases, heard))) = answered {
                known.insert(peer, releases);
                highest = highest.max(heard);
            }
        }
        (known, highest)
    }

    async fn drive(&self, proposal: Proposal) -> Outcome {
        let began = Instant::now();
        let now_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (told, mut answers) = mpsc::channel(ANSWERS);
        let run = Arc::new(Run {
            it: self.clone(),
            proposal: proposal.clone(),
            turns: Semaphore::new(CALLS_MAX),
            votes: Mutex::default(),
            told,
        });
        let mut tasks = JoinSet::new();
        let (mut proposer, mut commands) = Proposer::begin(proposal, now_ms());
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            for command in commands.drain(..) {
                tasks.spawn(Arc::clone(&run).perform(command));
            }
            while tasks.try_join_next().is_some() {}
            if let Some(outcome) = proposer.outcome() {
                return outcome.clone();
            }
            let told = tokio::select! {
                Some(told) = answers.recv() => told,
                _ = ticks.tick() => Told::Tick,
            };
            commands = proposer.tell(told, now_ms());
            for line in proposer.take_news() {
                tracing::info!("rollback of the mesh: {line}");
            }
        }
    }
}

/// Per release the best that is known of it.
fn distinct(known: impl Iterator<Item = Known>) -> Vec<Known> {
    let mut best: Vec<Known> = Vec::new();
    for one in known {
        match best.iter_mut().find(|held| held.release == one.release) {
            Some(held) => {
                held.committed = held.committed.max(one.committed);
                held.known_good |= one.known_good;
            }
            None => best.push(one),
        }
    }
    best
}

fn words(outcome: &Outcome) -> String {
    let list = |failures: &BTreeMap<NodeName, Failure>| {
        let each = failures
            .iter()
            .map(|(node, one)| format!("{node}: {}", one.text()));
        each.collect::<Vec<_>>().join("; ")
    };
    match outcome {
        Outcome::Decided { .. } => "decided".into(),
        Outcome::Refused(failures) => format!("no majority promised: {}", list(failures)),
        Outcome::Locked(failures) => format!("another command was faster: {}", list(failures)),
        Outcome::Undecided(epoch) => format!("a vote of epoch {epoch} is undecided"),
        Outcome::Changed => "the mesh's record has changed meanwhile".into(),
        Outcome::TakenOver(by) => by.clone(),
        Outcome::Reverted { cause, .. } => cause.clone(),
        Outcome::InDoubt(silent) => {
            let each = silent.iter().map(|(node, why)| format!("{node}: {why}"));
            let each = each.collect::<Vec<_>>().join("; ");
            format!("no majority voted in time: {each}")
        }
    }
}

/// One attempt.
struct Run {
    it: RollbackProposer,
    proposal: Proposal,
    turns: Semaphore,
    votes: Mutex<BTreeMap<NodeName, v1::Signature>>,
    told: mpsc::Sender<Told>,
}

impl Run {
    async fn perform(self: Arc<Self>, command: Command) {
        let _turn = self.turns.acquire().await;
        let told = match command {
            Command::Prepare(node, _) => {
                let answer = self.prepare(&node).await;
                Told::Prepared(node, answer.map(Box::new))
            }
            Command::Vote(node, record) => {
                let answer = self.vote(&node, &record).await;
                Told::Voted(node, answer)
            }
            Command::Confirm(node, record, _) => {
                let answer = self.confirm(&node, &record).await;
                Told::Confirmed(node, answer)
            }
            // A rollback activates, renews, checks and reverts nothing.
            Command::Activate(_)
            | Command::Renew(_)
            | Command::CheckMesh(_)
            | Command::Revert(..) => return,
        };
        // Nobody listens any more once it has ended.
        drop(self.told.send(told).await);
    }

    fn is_own(&self, node: &NodeName) -> bool {
        node == self.it.tls.node()
    }

    fn author(&self, record: &Record) -> v1::Signature {
        let tls = &self.it.tls;
        signature_message(tls.sign(&record.signing_bytes(tls.mesh())))
    }

    async fn prepare(&self, node: &NodeName) -> Result<RegisterView, Failure> {
        let proposal = &self.proposal;
        let what = format!("a rollback to {}", proposal.plan.release.build);
        let lease_ms = proposal.plan.timing.probation_ms;
        if self.is_own(node) {
            let prepare = Prepare {
                epoch: proposal.epoch,
                kind: ProposalKind::Rollback,
                holder: proposal.draft.proposed_by.clone(),
                what,
                lease_ms,
                next: None,
                plan: None,
            };
            self.tell(Event::Prepare(Box::new(prepare))).await?;
            let engine = &self.it.engine;
            return Ok(engine.node().register.view(&engine.context().voters));
        }
        let request = v1::PrepareRequest {
            epoch: Some(proposal.epoch.into()),
            kind: v1::ProposalKind::from(ProposalKind::Rollback).into(),
            what,
            lease_ms,
            next: None,
            plan: None,
        };
        self.it.peers.prepare(node, request).await
    }

    async fn vote(&self, node: &NodeName, record: &Record) -> Result<(), Failure> {
        let author = self.author(record);
        let disbelieved = |fault: &dyn std::error::Error| Failure::Refused {
            word: "distrusted".into(),
            text: error_chain(fault),
        };
        let vote = if self.is_own(node) {
            let evidence = &self.it.evidence;
            let admitted = evidence.admit(record, &author).await;
            admitted.map_err(|fault| disbelieved(&fault))?;
            self.tell(Event::VoteBack(Box::new(record.clone()))).await?;
            let vote = evidence.vote(record).await;
            Some(vote.map_err(|fault| disbelieved(&fault))?)
        } else {
            let request = v1::VoteRequest {
                record: Some(record.into()),
                author: Some(author),
            };
            self.it.peers.vote(node, request).await?
        };
        if let Some(vote) = vote {
            let mut votes = self.votes.lock().unwrap_or_else(PoisonError::into_inner);
            votes.insert(node.clone(), vote);
        }
        Ok(())
    }

    async fn confirm(&self, node: &NodeName, record: &Record) -> Result<(), Failure> {
        let votes: Vec<v1::Signature> = {
            let votes = self.votes.lock().unwrap_or_else(PoisonError::into_inner);
            votes.values().cloned().collect()
        };
        let author = Some(self.author(record));
        if self.is_own(node) {
            let signed = v1::SignedRecord {
                record: Some(record.into()),
                author,
                votes,
            };
            let believed = self.it.evidence.believe(signed).await;
            return match believed {
                Ok(believed) if believed.decided => {
                    self.tell(Event::Learn(Box::new(believed.record))).await
                }
                Ok(_) => Err(Failure::Unreachable("the votes are no majority".into())),
                Err(fault) => Err(Failure::Unreachable(error_chain(&fault))),
            };
        }
        let request = v1::ConfirmRequest {
            record: Some(record.into()),
            voted: Vec::new(),
            author,
            votes,
        };
        self.it.peers.confirm(node, request).await
    }

    /// The own agent takes part like every other.
    async fn tell(&self, event: Event) -> Result<(), Failure> {
        match self.it.engine.tell(event, ACTOR_AGENT).await {
            Ok(_) => Ok(()),
            Err(EngineError::Refused(refusal)) => Err(Failure::Refused {
                word: refusal.word().to_owned(),
                text: refusal.to_string(),
            }),
            Err(error) => Err(Failure::Unreachable(error.to_string())),
        }
    }
}
