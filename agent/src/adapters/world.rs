//! The world of the engine: every effect goes to the adapter that knows how.

mod data;
mod ready;
mod writers;

pub use writers::Writers;

use writers::put_back;

use crate::adapters::builds::{BuildError, BuildStore};
use crate::adapters::checks::NodeChecks;
use crate::adapters::clock::SystemClock;
use crate::adapters::effort;
use crate::adapters::file_sync::FileSync;
use crate::adapters::health_history::HealthHistory;
use crate::adapters::last_lines::last_lines;
use crate::adapters::nft;
use crate::adapters::node_logs;
use crate::adapters::peers::Peers;
use crate::adapters::quarantine;
use crate::adapters::quiesce::{QuiesceSettings, unquiesce};
use crate::adapters::raised::raised_in;
use crate::adapters::snapshots::{NewSnapshot, SnapshotError, SnapshotStore};
use crate::adapters::sound::{
    clear_for_activation, data_left_behind, look_before_start, make_sound, put_right,
};
use crate::adapters::sqlite::SqliteStore;
use crate::adapters::startable::{Selinux, why_not_startable};
use crate::adoption::entry;
use crate::config::CutOff;
use crate::error_chain;
use crate::ports::{Compared, EffectError, Stop, Supervisor, Told, UnitState, World};
use async_trait::async_trait;
use cbddc_domain::build::BuildRef;
use cbddc_domain::health::{Measurement, Policy};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::Effect;
use cbddc_domain::node_starts::NodeStart;
use cbddc_domain::readiness::{Effort, ReadyLimits};
use cbddc_domain::register::{Answer, Epoch, RegisterView};
use cbddc_domain::starts::Start;
use cbddc_domain::stops::Stops;
use cbddc_domain::time::Now;
use cbddc_domain::trigger::Trigger;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The adapters of one host.
pub struct HostWorld {
    /// Reads the clocks.
    pub clock: SystemClock,
    /// Starts and stops the node.
    pub supervisor: Arc<dyn Supervisor>,
    /// The builds.
    pub builds: BuildStore,
    /// The build that the newest fetch found intact, until it is started: a switch reads it once,
    /// while the node still serves. Never the one that runs meanwhile and may write there.
    pub verified: Mutex<Option<BuildRef>>,
    /// The snapshots.
    pub snapshots: Arc<SnapshotStore>,
    /// The journal.
    pub journal: SqliteStore,
    /// What must not be seen in it: the clusters' tokens.
    pub secrets: Vec<String>,
    /// The node's databases.
    pub databases: Vec<PathBuf>,
    /// Where logs of its databases are kept that could not be put back in their places.
    pub kept_logs: PathBuf,
    /// The data files of its BLite databases.
    pub blite: Vec<PathBuf>,
    /// What is remembered of the node's health, and of its starts.
    pub history: HealthHistory,
    /// Who has the node's files synced; unset: nobody.
    pub sync: Option<Arc<FileSync>>,
    /// How its writers are stopped.
    pub quiesce: QuiesceSettings,
    /// How long a stop may take before the node is killed.
    pub stop_limit: Duration,
    /// How long a node may take to be ready where no probation follows.
    pub ready_limits: ReadyLimits,
    /// The local checks.
    pub checks: NodeChecks,
    /// The other agents.
    pub peers: Peers,
    /// Whether a person stopped the traffic: then a start does not let it go on.
    pub drained: AtomicBool,
    /// Whether this agent has blocked the node's ports.
    pub blocks: AtomicBool,
    /// The ports where clients write, which nftables keeps them from while the node is replaced; none: it
    /// does not.
    pub drain_ports: Vec<u16>,
    /// Where its writers stand.
    pub writers: Writers,
    /// How a quarantine cuts the node off; unset: it is not set up.
    pub cut_off: Option<CutOff>,
    /// Where triggers are raised by files; unset: nowhere.
    pub found_dir: Option<PathBuf>,
}

fn failed(error: &dyn std::error::Error) -> EffectError {
    EffectError(error_chain(error))
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EffectError> + Send + 'static,
) -> Result<T, EffectError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| EffectError("the work was interrupted by a fault in the agent".into()))?
}

#[async_trait]
impl World for HostWorld {
    fn now(&self) -> Now {
        self.clock.now()
    }

    async fn perform(&self, effect: &Effect) -> Result<Option<String>, EffectError> {
        let done = match effect {
            Effect::Fetch(build) => self.fetch(build).await,
            Effect::Drain => self.drain().await,
            Effect::Stop => self.stop().await,
            Effect::Snapshot(id) => self.snapshot(id.clone()).await,
            Effect::Restore(id, kept) => self.restore(id.clone(), kept.clone()).await,
            Effect::Point(build) => self.point(build.clone()).await,
            Effect::Start => self.start().await,
            Effect::Restart => self.restart().await,
            Effect::Halt => self.halt().await,
            Effect::Check => self.check().await,
        };
        // A node that was started and is gone has said why.
        let starts = matches!(effect, Effect::Start | Effect::Restart | Effect::Check);
        if starts && done.is_err() && matches!(self.unit().await, Ok(UnitState::Stopped { .. })) {
            self.keep_last_lines().await;
        }
        done
    }

    async fn check_startable(&self, build: &BuildRef) -> Result<(), EffectError> {
        let link = self.builds.current_link();
        let commands = self.supervisor.commands().await?;
        // A unit that runs something else is refused elsewhere.
        let entries = commands.iter().find_map(|command| entry(command, &link));
        let Some(entry) = entries else { return Ok(()) };
        let (tree, build) = (self.builds.tree(build), build.clone());
        blocking(move || {
            let why = why_not_startable(&tree, &entry, &Selinux::default());
            match why.map_err(|error| failed(&error))? {
                Some(why) => Err(EffectError(format!(
                    "{build} cannot be started here: {why}"
                ))),
                None => Ok(()),
            }
        })
        .await
    }

    async fn unit(&self) -> Result<UnitState, EffectError> {
        self.supervisor.state().await
    }

    async fn effort(&self) -> Option<Effort> {
        let pids = self.supervisor.processes().await.ok()?;
        effort::of_processes(&pids)
    }

    async fn log_bytes(&self) -> Option<u64> {
        let (sqlite, blite) = (self.databases.clone(), self.blite.clone());
        let looking = blocking(move || Ok(node_logs::bytes(&sqlite, &blite)));
        looking.await.ok().flatten()
    }

    async fn node_starts(&self) -> Vec<NodeStart> {
        let starts = self.history.node_starts().await;
        starts.unwrap_or_else(|error| {
            let error = error_chain(&error);
            tracing::warn!(error, "earlier starts of the node are not known");
            Vec::new()
        })
    }

    async fn keep_node_start(&self, start: NodeStart) {
        if let Err(error) = self.history.keep_node_start(start).await {
            let error = error_chain(&error);
            tracing::warn!(error, "how long the node's start took was not written down");
        }
    }

    fn uncovered(&self) -> Option<String> {
        self.writers_go_on()
    }

    async fn history_is_known(&self) {
        self.let_in_after_boot().await;
    }

    fn data_files(&self) -> Vec<PathBuf> {
        self.all_data_files()
    }

    fn keeps_writers_away(&self) -> bool {
        self.writers_go_on().is_none()
    }

    fn uncovered_before_stop(&self, ago_ms: u64) -> u64 {
        self.writers
            .uncovered_within(self.now().since_boot_ms, ago_ms)
    }

    async fn node_is_up(&self) {
        self.writers.served();
        self.let_writers_in().await;
    }

    async fn keep_last_lines(&self) {
        let text = match self.supervisor.log_end().await {
            Ok(text) => text,
            Err(error) => return tracing::warn!(%error, "what the node said last cannot be read"),
        };
        let lines = last_lines(&text, &self.secrets);
        if lines.is_empty() {
            return;
        }
        let text = format!("the node's last lines: {}", lines.join(" | "));
        self.note("node_said", text).await;
    }

    async fn processes(&self) -> Result<Vec<u32>, EffectError> {
        self.supervisor.processes().await
    }

    async fn measure(&self, within: Duration) -> Vec<Measurement> {
        self.checks.measure(within).await
    }

    fn checks(&self) -> Vec<Policy> {
        self.checks.policies()
    }

    async fn measure_one(&self, check: usize) -> Measurement {
        self.checks.measure_one(check).await
    }

    async fn apply_stops(&self, stops: &Stops) -> Result<(), EffectError> {
        let (drained, cut) = (stops.drained.is_some(), stops.quarantined.is_some());
        let quarantined = match (&self.cut_off, cut) {
            (Some(CutOff::Ports(ports)), true) => {
                let blocked = nft::apply("quarantine", &quarantine::quarantine_rules(ports)).await;
                self.blocks.store(blocked.is_ok(), Ordering::Relaxed);
                blocked
            }
            (Some(CutOff::Ports(_)), false) if self.blocks.swap(false, Ordering::Relaxed) => {
                nft::apply("quarantine", &quarantine::release_rules()).await
            }
            // The engine stops the node, and starts it again.
            (Some(CutOff::Stop), true) => Ok(()),
            (Some(_) | None, false) => Ok(()),
            (None, true) => Err(EffectError(
                "neither `ports` nor `by = \"stop\"` stands under [quarantine] in the agent's configuration, so nothing is cut off".into(),
            )),
        };
        if self.drained.swap(drained, Ordering::Relaxed) != drained || drained {
            self.keep_writers_away(drained).await?;
        }
        quarantined
    }

    fn raised(&self) -> BTreeMap<Trigger, String> {
        self.found_dir.as_deref().map(raised_in).unwrap_or_default()
    }

    async fn ask(
        &self,
        voter: &NodeName,
        epoch: Epoch,
    ) -> Result<(Answer, RegisterView), EffectError> {
        self.peers.ask(voter, epoch).await
    }

    async fn register_of(&self, peer: &NodeName, starts: &[Start]) -> Result<Told, EffectError> {
        self.peers.register_of(peer, starts).await
    }

    async fn fence(&self, peer: &NodeName, epoch: Epoch) -> Result<RegisterView, EffectError> {
        self.peers.fence(peer, epoch).await
    }

    fn nonce(&self) -> u64 {
        crate::adapters::clock::nonce()
    }

    fn partner(&self) -> Option<NodeName> {
        self.peers.partner()
    }

    async fn exchange(&self, peer: &NodeName) -> Result<Compared, EffectError> {
        self.peers.exchange(peer, self.clock.now().wall_ms).await
    }
}

impl HostWorld {
    /// Verified here, mended from the kept bundle, or got from a peer.
    async fn fetch(&self, build: &BuildRef) -> Result<Option<String>, EffectError> {
        let (builds, wanted) = (self.builds.clone(), build.clone());
        self.remember_verified(None);
        let here = blocking(move || match builds.make_sound(&wanted) {
            Ok((_, damage)) => Ok(Some(damage.map(|damage| put_right(&damage)))),
            Err(BuildError::NotFound { .. }) => Ok(None),
            Err(error) => {
                tracing::warn!(build = %wanted, error = error_chain(&error), "a stored build is damaged");
                Ok(None)
            }
        });
        if let Some(note) = here.await? {
            self.check_startable(build).await?;
            let runs = self.builds.current().ok().flatten() == Some(build.digest);
            self.remember_verified((!runs).then(|| build.clone()));
            return Ok(note);
        }
        let peer = self.peers.fetch_build(build, &self.builds).await?;
        self.check_startable(build).await?;
        self.remember_verified(Some(build.clone()));
        Ok(Some(format!("{build} came from {peer}")))
    }

    /// Remembers another build, or none, and tells which one it was before.
    fn remember_verified(&self, build: Option<BuildRef>) -> Option<BuildRef> {
        // A poisoned lock still holds a whole value: it is only ever replaced.
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *verified, build)
    }

    async fn stop(&self) -> Result<Option<String>, EffectError> {
        let calmed = self.calm_before_stop().await;
        let began_ms = self.clock.now().since_boot_ms;
        let deleted = self.deleted_logs().await;
        let stopped = self.supervisor.stop(self.stop_limit).await;
        let writers = self.writers.has_stopped();
        let stopped = stopped?;
        let mut put_back = put_back(deleted, self.kept_logs.clone()).await;
        if let Some(Err(error)) = self.sync_files().await {
            put_back.push(error.to_string());
        }
        let took_ms = self.clock.now().since_boot_ms.saturating_sub(began_ms);
        let cost = self.cost_of_stop(took_ms, writers);
        let told = match stopped {
            Stop::WasStopped => None,
            Stop::Asked => cost,
            Stop::Killed => {
                let limit = self.stop_limit.as_secs_f32();
                Some(format!(
                    "the node did not end within {limit} s and was killed: events that it had not flushed are lost"
                ))
            }
        };
        let notes: Vec<String> = calmed.into_iter().chain(told).chain(put_back).collect();
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    async fn snapshot(&self, id: String) -> Result<Option<String>, EffectError> {
        let (snapshots, databases) = (self.snapshots.clone(), self.databases.clone());
        let taken_at_ms = self.clock.now().wall_ms;
        blocking(move || {
            let reason = "before an activation, after the node was stopped".to_owned();
            let new = NewSnapshot {
                id: id.clone(),
                taken_at_ms,
                reason,
                labels: BTreeMap::new(),
            };
            let snapshot = match snapshots.create(&databases, &new) {
                // Taken before a crash: complete, or it would not be there.
                Err(SnapshotError::Exists(_)) => snapshots.verify(&id),
                created => created,
            };
            let snapshot = snapshot.map_err(|error| failed(&error))?;
            Ok(Some(format!(
                "snapshot {id}: {} bytes, verified",
                snapshot.size()
            )))
        })
        .await
    }

    async fn point(&self, build: Option<BuildRef>) -> Result<Option<String>, EffectError> {
        let builds = self.builds.clone();
        let verified = self.remember_verified(None);
        let pointed_to = build.clone();
        let pointed = blocking(move || {
            let mut notes = Vec::new();
            if let Some(build) = &build {
                if verified.as_ref() != Some(build) {
                    notes.extend(make_sound(&builds, build)?);
                }
                notes.extend(clear_for_activation(&builds, build));
            }
            // Told only: here the node is down, and a way back waits for nothing.
            notes.extend(data_left_behind(&builds, build.as_ref()).unwrap_or_default());
            builds
                .point_current(build.as_ref())
                .map_err(|error| failed(&error))?;
            Ok(notes)
        });
        let notes = pointed.await?;
        self.remember_verified(pointed_to);
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    /// What starts is what the manifest says, on every way here: a switch, a revert, a boot.
    async fn start(&self) -> Result<Option<String>, EffectError> {
        let mut notes = Vec::new();
        let (builds, verified) = (self.builds.clone(), self.remember_verified(None));
        notes.extend(blocking(move || look_before_start(&builds, verified)).await?);
        let pid = self.supervisor.start().await?;
        let runs = format!("the node runs as process {pid}");
        if self.drained.load(Ordering::Relaxed) {
            notes.push(format!("{runs}; its traffic stays stopped"));
            return Ok(Some(notes.join("; ")));
        }
        unquiesce(&self.quiesce)
            .await
            .map_err(|error| failed(&error))?;
        self.writers.were_let_go();
        notes.push(runs);
        Ok(Some(notes.join("; ")))
    }

    async fn restart(&self) -> Result<Option<String>, EffectError> {
        let mut notes = self.stop_gently().await?;
        notes.extend(self.start().await?);
        Ok(Some(notes.join("; ")))
    }

    async fn halt(&self) -> Result<Option<String>, EffectError> {
        let notes = match self.supervisor.state().await? {
            UnitState::Running { .. } => self.stop_gently().await?,
            // It is kept from starting all the same.
            UnitState::Stopped { .. } => self.stop().await?.into_iter().collect(),
        };
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }
}
