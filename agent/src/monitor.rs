//! Watches the node: local checks, a probation's warm-up, a process that ended; and asks peers from
//! time to time what they know to be decided.

use crate::engine::{ACTOR_AGENT, EngineHandle, events_of};
use crate::ports::{UnitState, World};
use cbddc_domain::generation::GenerationNumber;
use cbddc_domain::health::{Judgement, Measurement, Status, judge};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Node};
use cbddc_domain::phase::Phase;
use cbddc_domain::plan::Timing;
use cbddc_domain::register::is_majority;
use cbddc_domain::warmup::{RunningProcess, Verdict, Warmup, WarmupLimits};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a node on probation is looked at.
const PROBATION_INTERVAL: Duration = Duration::from_millis(250);

/// How often the process is looked at while nothing else happens.
const UNIT_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before a voter that did not answer is asked again.
const MEET_AGAIN: Duration = Duration::from_secs(1);

/// How to watch.
#[derive(Debug, Clone, Copy)]
pub struct MonitorSettings {
    /// How often a steady node is measured.
    pub interval: Duration,
    /// How many bad judgements in a row a node on probation may have once it was healthy.
    pub fall: u32,
    /// How often one peer is asked for its record.
    pub poll: Duration,
}

/// The newest health, for those who ask.
#[derive(Debug, Clone)]
pub struct Health {
    /// The verdict.
    pub judgement: Judgement,
    /// What it was made from.
    pub measurements: Vec<Measurement>,
    /// The node's process id, if it runs.
    pub pid: Option<u32>,
}

impl Default for Health {
    fn default() -> Self {
        let reasons = vec!["nothing was measured yet".to_owned()];
        Self {
            judgement: Judgement {
                status: Status::Unknown,
                reasons,
            },
            measurements: Vec::new(),
            pid: None,
        }
    }
}

/// Watches the node until `stop`.
pub async fn watch_node(
    engine: EngineHandle,
    world: Arc<dyn World>,
    settings: MonitorSettings,
    health: watch::Sender<Health>,
    stop: CancellationToken,
) {
    let mut watched = Watched {
        engine,
        world,
        settings,
        health,
        warmup: None,
        measured_ms: None,
    };
    let mut changed = watched.engine.watch();
    loop {
        let pause = watched.look().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            // A new phase is looked at once the node has had a moment.
            _ = changed.changed() => {
                tokio::time::sleep(PROBATION_INTERVAL.min(pause)).await;
                changed.mark_unchanged();
            }
        }
    }
}

struct Watched {
    engine: EngineHandle,
    world: Arc<dyn World>,
    settings: MonitorSettings,
    health: watch::Sender<Health>,
    warmup: Option<(GenerationNumber, Warmup)>,
    measured_ms: Option<u64>,
}

impl Watched {
    /// Looks once; returns how long to wait before the next time.
    async fn look(&mut self) -> Duration {
        let node = self.engine.node();
        match &node.phase {
            Phase::Probation(probation) => {
                self.look_at_probation(&node, probation.running).await;
                PROBATION_INTERVAL
            }
            Phase::Steady { running: Some(_) }
            | Phase::Prepared {
                running: Some(_), ..
            } => {
                self.warmup = None;
                self.look_at_steady(&node).await;
                UNIT_INTERVAL.min(self.settings.interval)
            }
            Phase::Steady { running: None }
            | Phase::Prepared { running: None, .. }
            | Phase::Switching(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. } => {
                self.warmup = None;
                self.measured_ms = None;
                let reasons = vec![format!("the node is in phase {}", node.phase.word())];
                let judgement = Judgement {
                    status: Status::Unknown,
                    reasons,
                };
                self.show(Health {
                    judgement,
                    ..Health::default()
                });
                UNIT_INTERVAL
            }
        }
    }

    fn show(&self, health: Health) {
        self.health.send_replace(health);
    }

    async fn process(&self) -> (Option<RunningProcess>, Option<String>) {
        match self.world.unit().await {
            Ok(UnitState::Running { pid, started_ms }) => {
                (Some(RunningProcess { pid, started_ms }), None)
            }
            Ok(UnitState::Stopped { last_exit }) => {
                (None, Some(last_exit.unwrap_or_else(|| "it is gone".into())))
            }
            // Not known is not ended: the service manager may be away for a moment.
            Err(error) => {
                tracing::warn!(%error, "cannot tell whether the node runs");
                (None, None)
            }
        }
    }

    async fn look_at_probation(&mut self, node: &Node, generation: GenerationNumber) {
        let (process, ended) = self.process().await;
        // No failed check: after a boot it has not been started yet, and waits for the voters' answers.
        if let Some(how) = ended {
            return self.tell(Event::Exited { how }).await;
        }
        let Some(process) = process else { return };
        let now_ms = self.world.now().since_boot_ms;
        if self.warmup.as_ref().is_none_or(|(of, _)| *of != generation) {
            let limits = self.limits(node);
            self.warmup = Some((generation, Warmup::new(limits, process, now_ms)));
        }
        let measurements = self.world.measure().await;
        let judgement = judge(&measurements);
        let (after, _) = self.process().await;
        self.show(Health {
            judgement: judgement.clone(),
            measurements,
            pid: Some(process.pid),
        });
        let now_ms = self.world.now().since_boot_ms;
        let Some((_, warmup)) = &mut self.warmup else {
            return;
        };
        match warmup.observe(now_ms, after, &judgement) {
            Verdict::Pending { .. } => {}
            Verdict::Clean => self.tell(Event::Clean(generation)).await,
            Verdict::Failed { reason } => {
                self.tell(Event::CheckFailed {
                    generation,
                    cause: reason,
                })
                .await;
            }
        }
    }

    fn limits(&self, node: &Node) -> WarmupLimits {
        let timing = node
            .rollouts
            .last()
            .map_or_else(Timing::default, |entry| entry.plan.timing);
        WarmupLimits {
            healthy_for_ms: timing.healthy_ms,
            ready_within_ms: timing.verify_ms,
            fall: self.settings.fall,
        }
    }

    async fn look_at_steady(&mut self, node: &Node) {
        let (process, ended) = self.process().await;
        if let (Some(how), None) = (ended, &node.pending) {
            let reasons = vec![format!("unit: the node does not run ({how})")];
            let judgement = Judgement {
                status: Status::Unhealthy,
                reasons,
            };
            self.show(Health {
                judgement,
                ..Health::default()
            });
            return self.tell(Event::Exited { how }).await;
        }
        let now_ms = self.world.now().since_boot_ms;
        let interval_ms = self
            .settings
            .interval
            .as_millis()
            .try_into()
            .unwrap_or(u64::MAX);
        let due = self
            .measured_ms
            .is_none_or(|before| now_ms.saturating_sub(before) >= interval_ms);
        if due && let Some(process) = process {
            self.measured_ms = Some(now_ms);
            let measurements = self.world.measure().await;
            let judgement = judge(&measurements);
            self.show(Health {
                judgement,
                measurements,
                pid: Some(process.pid),
            });
        }
    }

    async fn tell(&self, event: Event) {
        if matches!(&event, Event::Clean(of) if self.is_clean(*of)) {
            return;
        }
        if let Err(error) = self.engine.tell(event, ACTOR_AGENT).await {
            tracing::warn!(%error, "what the checks found was not taken");
        }
    }

    fn is_clean(&self, generation: GenerationNumber) -> bool {
        matches!(&self.engine.node().phase, Phase::Probation(p) if p.running == generation && p.clean)
    }
}

/// Asks one peer after another what it has voted for and learnt, so that a decided record reaches
/// nodes that its proposer could not reach (rule 7).
pub async fn poll_peers(
    engine: EngineHandle,
    world: Arc<dyn World>,
    peers: Vec<NodeName>,
    poll: Duration,
    stop: CancellationToken,
) {
    if peers.is_empty() {
        return stop.cancelled().await;
    }
    let mut next = usize::try_from(world.now().since_boot_ms).unwrap_or(0) % peers.len();
    loop {
        let peer = &peers[next % peers.len()];
        next += 1;
        match world.register_of(peer).await {
            Ok(register) => {
                for event in events_of(peer, register) {
                    if let Err(error) = engine.tell(event, ACTOR_AGENT).await {
                        tracing::warn!(%peer, %error, "what a peer knows was not taken");
                    }
                }
            }
            Err(error) => tracing::debug!(%peer, %error, "a peer could not be asked"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(poll) => {}
        }
    }
}

/// Asks all voters at once what they know, until a majority has told; then says so to the engine
/// and to `met` (rule 17).
pub async fn meet_voters(
    engine: EngineHandle,
    world: Arc<dyn World>,
    met: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let context = engine.context().clone();
    let mut asked = tokio::task::JoinSet::new();
    let mut heard = 0;
    for voter in context.voters.clone() {
        if voter == context.name {
            heard += 1;
        } else {
            asked.spawn(hear_of(engine.clone(), world.clone(), voter));
        }
    }
    while !is_majority(heard, context.voters.len()) {
        tokio::select! {
            () = stop.cancelled() => return,
            answered = asked.join_next() => match answered {
                Some(Ok(())) => heard += 1,
                Some(Err(_)) => {}
                None => return,
            },
        }
    }
    if let Err(error) = engine.tell(Event::Met, ACTOR_AGENT).await {
        tracing::warn!(%error, "that a majority was heard was not taken");
    }
    met.send_replace(true);
}

/// Asks a voter until it answers, and passes on what it knows.
async fn hear_of(engine: EngineHandle, world: Arc<dyn World>, voter: NodeName) {
    loop {
        match world.register_of(&voter).await {
            Ok(register) => {
                for event in events_of(&voter, register) {
                    if let Err(error) = engine.tell(event, ACTOR_AGENT).await {
                        tracing::warn!(%voter, %error, "what a voter knows was not taken");
                    }
                }
                return;
            }
            Err(error) => tracing::debug!(%voter, %error, "a voter could not be asked"),
        }
        tokio::time::sleep(MEET_AGAIN).await;
    }
}
