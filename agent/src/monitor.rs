//! Watches the node: local checks, a probation's warm-up, a process that ended; and (`news`) asks peers
//! from time to time what they know to be decided.
//!
//! Each check runs in a task of its own (`schedule`); here their results become a verdict.

mod news;
mod schedule;
mod startup;

pub use news::{exchange_with_peers, meet_voters};

use crate::engine::{ACTOR_AGENT, EngineHandle};
use crate::ports::{UnitState, World};
use cbddc_domain::generation::GenerationNumber;
use cbddc_domain::health::{
    CheckState, HealthEntry, HealthEntryKind, Judgement, Measurement, Panel, Status, Tally,
};
use cbddc_domain::node::{Event, Node};
use cbddc_domain::node_starts::NodeStart;
use cbddc_domain::phase::Phase;
use cbddc_domain::plan::Timing;
use cbddc_domain::readiness::ReadyLimits;
use cbddc_domain::warmup::{RunningProcess, Verdict, Warmup, WarmupLimits};
use schedule::{Outcome, Pace, run_checks};
use startup::Startup;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How often a node on probation is looked at.
const PROBATION_INTERVAL: Duration = Duration::from_millis(250);

/// How often the process is looked at while nothing else happens.
const UNIT_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is written down how often each check said what.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Results that wait to be judged; beyond this, checks wait.
const RESULTS_WAITING: usize = 64;

/// How to watch.
#[derive(Debug, Clone, Copy)]
pub struct MonitorSettings {
    /// The longest pause between two looks at a steady node's process.
    pub interval: Duration,
    /// How long a process may take from its start to be healthy before that counts.
    pub grace: Duration,
    /// How many bad judgements in a row a node on probation may have once it was healthy.
    pub fall: u32,
    /// How often one peer is asked for its record.
    pub poll: Duration,
    /// How long a start may take.
    pub ready: ReadyLimits,
}

/// The newest health, for those who ask.
#[derive(Debug, Clone)]
pub struct Health {
    /// The verdict, judged over time.
    pub judgement: Judgement,
    /// Since when its status is what it is, Unix time in milliseconds; zero: not known.
    pub since_wall_ms: i64,
    /// Where each check stands; empty where the node is not watched.
    pub checks: Vec<CheckState>,
    /// The newest result of each check.
    pub measurements: Vec<Measurement>,
    /// The node's process id, if it runs.
    pub pid: Option<u32>,
    /// The process that was measured, with its start.
    pub process: Option<RunningProcess>,
    /// That the node is starting, and what keeps it busy; unset: it is not, or not busy.
    pub starting: Option<String>,
    /// That the next start may take longer than it has time; unset: nothing says so.
    pub start_warning: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self::unknown("nothing was measured yet".to_owned())
    }
}

impl Health {
    fn unknown(reason: String) -> Self {
        Self::without_checks(Status::Unknown, reason)
    }

    fn without_checks(status: Status, reason: String) -> Self {
        let reasons = vec![reason];
        Self {
            judgement: Judgement { status, reasons },
            since_wall_ms: 0,
            checks: Vec::new(),
            measurements: Vec::new(),
            pid: None,
            process: None,
            starting: None,
            start_warning: None,
        }
    }
}

/// Watches the node until `stop`. What changes goes to `history`; what does not fit there is left out.
pub async fn watch_node(
    engine: EngineHandle,
    world: Arc<dyn World>,
    settings: MonitorSettings,
    health: watch::Sender<Health>,
    history: mpsc::Sender<Vec<HealthEntry>>,
    stop: CancellationToken,
) {
    let (pace, paces) = watch::channel(Pace::default());
    let (results, mut coming) = mpsc::channel(RESULTS_WAITING);
    // Ends with this function, and with it every check that still runs.
    let _checks = run_checks(&world, &paces, &results);
    let policies = world.checks();
    let mut watched = Watched {
        tallies: vec![Tally::default(); policies.len()],
        panel: Panel::new(policies, milliseconds(settings.grace)),
        pace,
        history,
        engine,
        world,
        settings,
        health,
        warmup: None,
        last_lines_kept: false,
        startup: None,
        starts: Vec::new(),
        log_looked_ms: None,
        start_warning: None,
    };
    watched.starts = watched.world.node_starts().await;
    let mut changed = watched.engine.watch();
    let mut summary = tokio::time::interval(SUMMARY_INTERVAL);
    summary.reset();
    loop {
        let pause = watched.look().await;
        let next_look = tokio::time::sleep(pause);
        tokio::pin!(next_look);
        loop {
            tokio::select! {
                () = stop.cancelled() => return watched.end().await,
                () = &mut next_look => break,
                Some(outcome) = coming.recv() => watched.take(outcome),
                _ = summary.tick() => watched.summarize(),
                // A new phase is looked at once the node has had a moment.
                _ = changed.changed() => {
                    tokio::time::sleep(PROBATION_INTERVAL.min(pause)).await;
                    changed.mark_unchanged();
                    break;
                }
            }
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

struct Watched {
    engine: EngineHandle,
    world: Arc<dyn World>,
    settings: MonitorSettings,
    health: watch::Sender<Health>,
    history: mpsc::Sender<Vec<HealthEntry>>,
    pace: watch::Sender<Pace>,
    panel: Panel,
    tallies: Vec<Tally>,
    warmup: Option<(GenerationNumber, Warmup)>,
    /// What the node that ended last said is in the journal.
    last_lines_kept: bool,
    /// The start of the process that runs.
    startup: Option<Startup>,
    /// The starts before, newest first.
    starts: Vec<NodeStart>,
    /// When the size of the log was looked at last.
    log_looked_ms: Option<u64>,
    start_warning: Option<String>,
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
                self.measure(None, false);
                if let (Some(process), _) = self.process().await {
                    self.look_at_start(process, false).await;
                }
                let reason = format!("the node is in phase {}", node.phase.word());
                self.show_without_checks(Status::Unknown, reason);
                UNIT_INTERVAL
            }
        }
    }

    /// Lets the checks run for this process, or rest.
    fn measure(&mut self, process: Option<RunningProcess>, quick: bool) {
        if let Some(process) = process {
            let changes = self.panel.begin(process, &self.world.now());
            self.keep(changes);
        }
        let wanted = Pace { process, quick };
        self.pace.send_if_modified(|pace| {
            let other = *pace != wanted;
            *pace = wanted;
            other
        });
    }

    /// Takes in a result, unless it is of a process that is gone.
    fn take(&mut self, outcome: Outcome) {
        let now = self.world.now();
        let wanted = self.pace.borrow().process;
        if wanted != Some(outcome.process) || self.panel.process() != wanted {
            return;
        }
        if let Some(tally) = self.tallies.get_mut(outcome.check) {
            tally.count(&outcome.measurement);
        }
        let changes = self.panel.take(outcome.check, outcome.measurement, &now);
        self.keep(changes);
        self.show_panel();
    }

    fn show_panel(&self) {
        let process = self.panel.process();
        self.health.send_replace(Health {
            judgement: self.panel.judgement(),
            since_wall_ms: self.panel.since_wall_ms(),
            checks: self.panel.states(),
            measurements: self.panel.measurements(),
            pid: process.map(|process| process.pid),
            process,
            starting: self.startup.as_ref().and_then(Startup::text),
            start_warning: self.start_warning.clone(),
        });
    }

    /// Shows a verdict that no check has made, and keeps it where it is new.
    fn show_without_checks(&mut self, status: Status, reason: String) {
        let mut health = Health::without_checks(status, reason);
        health.starting = self.startup.as_ref().and_then(Startup::text);
        health.start_warning = self.start_warning.clone();
        let now = self.world.now();
        let before = self.health.borrow().clone();
        let same = before.judgement == health.judgement && before.since_wall_ms != 0;
        health.since_wall_ms = if same {
            before.since_wall_ms
        } else {
            now.wall_ms
        };
        if !same {
            let entry = self.panel.overrule(&health.judgement, &now);
            self.keep(vec![entry]);
        }
        self.health.send_replace(health);
    }

    fn keep(&self, entries: Vec<HealthEntry>) {
        if !entries.is_empty() && self.history.try_send(entries).is_err() {
            tracing::warn!("the history of health does not keep up; a change is missing there");
        }
    }

    /// Writes down how often each check said what since the last time.
    fn summarize(&mut self) {
        let wall_ms = self.world.now().wall_ms;
        let states = self.panel.states();
        let tallies = std::mem::take(&mut self.tallies);
        self.tallies = vec![Tally::default(); tallies.len()];
        let entries = states.into_iter().zip(tallies);
        let entries = entries.filter(|(_, tally)| *tally != Tally::default());
        let entries = entries.map(|(state, tally)| HealthEntry {
            wall_ms,
            check: state.name,
            kind: HealthEntryKind::Summary,
            status: state.status,
            reason: String::new(),
            tally: Some(tally),
        });
        self.keep(entries.collect());
    }

    /// From here on nobody looks: the history says so.
    async fn end(&mut self) {
        self.summarize();
        self.show_without_checks(Status::Unknown, "the agent ended".to_owned());
    }

    async fn process(&mut self) -> (Option<RunningProcess>, Option<String>) {
        match self.world.unit().await {
            Ok(UnitState::Running { pid, started_ms }) => {
                self.last_lines_kept = false;
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
            return self.tell_ended(how).await;
        }
        let Some(process) = process else { return };
        let now_ms = self.world.now().since_boot_ms;
        if self.warmup.as_ref().is_none_or(|(of, _)| *of != generation) {
            let limits = self.limits(node);
            self.warmup = Some((generation, Warmup::new(limits, process, now_ms)));
        }
        self.measure(Some(process), true);
        let judgement = self.panel.judgement();
        let is_healthy = judgement.status.is_acceptable();
        self.look_at_start(process, is_healthy).await;
        let is_busy = self.startup.as_ref().is_some_and(Startup::is_busy);
        let (after, _) = self.process().await;
        let now_ms = self.world.now().since_boot_ms;
        let Some((_, warmup)) = &mut self.warmup else {
            return;
        };
        match warmup.observe(now_ms, after, &judgement, is_busy) {
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
            busy_ms: self.settings.ready.busy_ms,
        }
    }

    async fn look_at_steady(&mut self, node: &Node) {
        let (process, ended) = self.process().await;
        if let (Some(how), None) = (ended, &node.pending) {
            self.measure(None, false);
            let reason = format!("unit: the node does not run ({how})");
            // The engine first, which starts it again: to triggers that hear of it before, it would be a
            // node that runs and is unhealthy.
            self.tell_ended(how).await;
            return self.show_without_checks(Status::Unhealthy, reason);
        }
        // Where it is not known whether the node runs, the checks go on as they did.
        if let Some(process) = process {
            self.measure(Some(process), false);
            let is_healthy = self.panel.judgement().status.is_acceptable();
            self.look_at_start(process, is_healthy).await;
        }
    }

    /// Says that the node ended, and once for each end what it said last.
    async fn tell_ended(&mut self, how: String) {
        // First, as the engine may start the node again at once.
        if !std::mem::replace(&mut self.last_lines_kept, true) {
            self.world.keep_last_lines().await;
        }
        self.tell(Event::Exited { how }).await;
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
