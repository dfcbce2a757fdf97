//! The one loop: receive an event, step the state machine, save, answer, perform.
//!
//! One task owns the node's state; everybody else holds an [`EngineHandle`]. Whatever is decided is
//! in the journal before anybody hears of it and before anything is done about it. If it cannot be
//! saved, it has not happened.

use crate::ports::{EffectError, JournalLine, Store, Told, World};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Action, Context, Event, Node, Pending, Refusal, Reply};
use cbddc_domain::register::Epoch;
use cbddc_domain::starts::{Recall, recall};
use cbddc_domain::step::step;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Requests waiting for the engine; beyond this, callers wait.
const MAILBOX: usize = 128;

/// How often time is looked at. Deadlines are seconds; a tick that changes nothing costs nothing.
const TICK: Duration = Duration::from_millis(250);

/// How long to wait before an outcome that could not be saved is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// How long a node waits for the voters after its host has started (rule 17).
pub const START_WAIT: Duration = Duration::from_secs(60);

/// Who caused what the agent did by itself.
pub const ACTOR_AGENT: &str = "agent";

/// Why a request was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The rules do not allow it; nothing has changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be written down, so it has not happened.
    #[error("it could not be written down, so nothing has changed: {0}")]
    NotSaved(String),
    /// The agent is shutting down.
    #[error("the agent is shutting down; the node keeps running")]
    Stopping,
}

struct Request {
    event: Event,
    actor: String,
    answer: oneshot::Sender<Result<Reply, EngineError>>,
}

/// A way to the engine.
#[derive(Clone)]
pub struct EngineHandle {
    mailbox: mpsc::Sender<Request>,
    node: watch::Receiver<Arc<Node>>,
    context: Arc<Context>,
}

impl EngineHandle {
    /// Hands an event over and waits until it is decided and saved.
    pub async fn tell(&self, event: Event, actor: &str) -> Result<Reply, EngineError> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            event,
            actor: actor.to_owned(),
            answer,
        };
        self.mailbox
            .send(request)
            .await
            .map_err(|_| EngineError::Stopping)?;
        answered.await.map_err(|_| EngineError::Stopping)?
    }

    /// The state as it was last saved.
    pub fn node(&self) -> Arc<Node> {
        self.node.borrow().clone()
    }

    /// Tells when the state changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Node>> {
        self.node.clone()
    }

    /// What no event changes.
    pub fn context(&self) -> &Context {
        &self.context
    }
}

/// The loop's own side.
pub struct Engine {
    context: Arc<Context>,
    world: Arc<dyn World>,
    store: Arc<dyn Store>,
    node: Node,
    shown: watch::Sender<Arc<Node>>,
    requests: mpsc::Receiver<Request>,
    outcomes: mpsc::Sender<Event>,
    outcomes_in: mpsc::Receiver<Event>,
    start_wait_ms: u64,
}

impl Engine {
    /// An engine with the state that the store held, and a way to it.
    pub fn new(
        context: Context,
        node: Node,
        world: Arc<dyn World>,
        store: Arc<dyn Store>,
    ) -> (Self, EngineHandle) {
        let context = Arc::new(context);
        let (mailbox, requests) = mpsc::channel(MAILBOX);
        let (shown, watched) = watch::channel(Arc::new(node.clone()));
        let (outcomes, outcomes_in) = mpsc::channel(MAILBOX);
        let handle = EngineHandle {
            mailbox,
            node: watched,
            context: context.clone(),
        };
        let engine = Self {
            context,
            world,
            store,
            node,
            shown,
            requests,
            outcomes,
            outcomes_in,
            start_wait_ms: 0,
        };
        (engine, handle)
    }

    /// The host has just started: a node that does not run waits this long for the voters.
    pub fn wait_before_start(&mut self, limit: Duration) {
        self.start_wait_ms = limit.as_millis().try_into().unwrap_or(u64::MAX);
    }

    /// Runs until `stop` is cancelled. Effects under way go on until they end or the process does;
    /// the next start finishes or undoes them.
    pub async fn run(mut self, stop: CancellationToken) {
        let node_runs = self.node_runs().await;
        let wait_ms = if node_runs { 0 } else { self.start_wait_ms };
        let started = Event::Started {
            node_runs,
            wait_ms,
            nonce: self.world.nonce(),
        };
        self.take_until_saved(started).await;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(outcome) = self.outcomes_in.recv() => self.take_until_saved(outcome).await,
                Some(request) = self.requests.recv() => {
                    let answer = self.take(request.event, &request.actor).await;
                    // The caller may have gone away; what was decided stands.
                    let _ = request.answer.send(answer);
                }
                _ = ticks.tick() => {
                    if let Err(error) = self.take(Event::Tick, ACTOR_AGENT).await {
                        tracing::error!(%error, "a deadline could not be acted upon");
                    }
                }
            }
        }
    }

    async fn node_runs(&self) -> bool {
        loop {
            match self.world.unit().await {
                Ok(state) => return matches!(state, crate::ports::UnitState::Running { .. }),
                Err(error) => {
                    tracing::error!(%error, "cannot tell whether the node runs; trying again");
                    tokio::time::sleep(SAVE_AGAIN).await;
                }
            }
        }
    }

    /// An outcome must not be lost: the state machine waits for it.
    async fn take_until_saved(&mut self, event: Event) {
        while let Err(error) = self.take(event.clone(), ACTOR_AGENT).await {
            match error {
                EngineError::NotSaved(why) => {
                    tracing::error!(why, "an outcome could not be written down; trying again");
                    tokio::time::sleep(SAVE_AGAIN).await;
                }
                EngineError::Refused(refusal) => {
                    tracing::warn!(%refusal, "an outcome was refused");
                    return;
                }
                EngineError::Stopping => return,
            }
        }
    }

    async fn take(&mut self, event: Event, actor: &str) -> Result<Reply, EngineError> {
        let now = self.world.now();
        let decided = step(&self.context, &self.node, event, &now)?;
        if decided.node != self.node || !decided.entries.is_empty() {
            let lines = decided.entries.into_iter().map(|entry| {
                let text = entry.text;
                tracing::info!(kind = entry.kind, actor, "{text}");
                JournalLine {
                    wall_ms: now.wall_ms,
                    kind: entry.kind.to_owned(),
                    epoch: entry.epoch,
                    generation: entry.generation,
                    actor: actor.to_owned(),
                    text,
                }
            });
            let saved = self.store.save(&decided.node, lines.collect()).await;
            saved.map_err(|EffectError(why)| EngineError::NotSaved(why))?;
            self.node = decided.node;
            self.shown.send_replace(Arc::new(self.node.clone()));
        }
        for action in decided.actions {
            match action {
                Action::Perform(pending) => self.perform(pending),
                Action::AskVoters(epoch, voters) => self.ask_voters(epoch, voters),
                Action::Recover(epoch, others) => self.fence_others(epoch, others),
            }
        }
        Ok(decided.reply)
    }

    fn perform(&self, pending: Pending) {
        let (world, outcomes) = (self.world.clone(), self.outcomes.clone());
        tokio::spawn(async move {
            let number = pending.number;
            let event = match world.perform(&pending.effect).await {
                Ok(note) => Event::Done { number, note },
                Err(EffectError(error)) => Event::Failed { number, error },
            };
            // Fails only when the engine has stopped; the next start looks for itself.
            let _ = outcomes.send(event).await;
        });
    }

    fn ask_voters(&self, epoch: Epoch, voters: BTreeSet<NodeName>) {
        for voter in voters {
            let (world, outcomes) = (self.world.clone(), self.outcomes.clone());
            tokio::spawn(ask(world, outcomes, voter, epoch));
        }
    }

    fn fence_others(&self, epoch: Epoch, others: BTreeSet<NodeName>) {
        for peer in others {
            let (world, outcomes) = (self.world.clone(), self.outcomes.clone());
            tokio::spawn(async move {
                match world.fence(&peer, epoch).await {
                    Ok(register) => {
                        let promised = register.promised;
                        for event in events_of(&peer, register) {
                            let _ = outcomes.send(event).await;
                        }
                        let fenced = Event::Fenced {
                            peer,
                            epoch,
                            promised,
                        };
                        let _ = outcomes.send(fenced).await;
                    }
                    Err(error) => tracing::warn!(%peer, %error, "a voter did not promise"),
                }
            });
        }
    }
}

async fn ask(world: Arc<dyn World>, outcomes: mpsc::Sender<Event>, voter: NodeName, epoch: Epoch) {
    let (answer, register) = match world.ask(&voter, epoch).await {
        Ok(answered) => answered,
        Err(error) => {
            tracing::warn!(%voter, %error, "a voter did not answer");
            return;
        }
    };
    let voted = register
        .votes
        .iter()
        .find(|vote| vote.epoch == epoch)
        .cloned()
        .map(Box::new);
    for event in events_of(&voter, register) {
        let _ = outcomes.send(event).await;
    }
    let _ = outcomes
        .send(Event::Answered {
            voter,
            epoch,
            answer,
            voted,
        })
        .await;
}

/// What a peer's register tells this agent.
pub fn events_of(peer: &NodeName, register: cbddc_domain::register::RegisterView) -> Vec<Event> {
    let mut events = Vec::new();
    // First who votes, then what stands, then the votes: they are judged by what came before.
    let learnt = register.elected.into_iter().chain(register.decided);
    events.extend(learnt.map(|record| Event::Learn(Box::new(record))));
    if !register.revocations.is_empty() {
        events.push(Event::HearRevocations(register.revocations));
    }
    let hear = |record| Event::Hear {
        voter: peer.clone(),
        record: Box::new(record),
    };
    events.extend(register.votes.into_iter().map(hear));
    events
}

/// Hands on what a peer told, as far as it is news.
pub async fn hear_peer(engine: &EngineHandle, peer: &NodeName, told: Told) {
    let mut events = events_of(peer, told.register);
    let node = engine.node();
    if node.peers.get(peer) != told.starts.last() {
        let (peer, starts) = (peer.clone(), told.starts);
        events.push(Event::PeerStarts { peer, starts });
    }
    let remembered = told.remembered;
    let lost = recall(remembered, &node.starts.known) == Recall::Mismatch;
    if lost || !node.starts.is_sound() {
        let peer = peer.clone();
        events.push(Event::Recalled { peer, remembered });
    }
    for event in events {
        if let Err(error) = engine.tell(event, ACTOR_AGENT).await {
            tracing::warn!(%peer, %error, "what a peer knows was not taken");
        }
    }
}
