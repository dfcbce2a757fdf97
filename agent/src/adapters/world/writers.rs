//! Keeping writers away while the node is replaced, and letting them in again.

use super::{HostWorld, failed};
use crate::adapters::deleted_logs::DeletedLog;
use crate::adapters::quiesce::{quiesce, stop_writers, unquiesce};
use crate::adapters::{deleted_logs, drain, nft};
use crate::ports::{EffectError, UnitState, World as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// What a drain command may take of a stop that no drain was ordered for, beside the two cycles.
const CALM_MARGIN: Duration = Duration::from_secs(2);

/// Where a node's writers stand.
#[derive(Debug, Default)]
pub struct Writers {
    /// Rules that refuse them may be there.
    refused: AtomicBool,
    /// They are kept away since the host started, until the node is known to hold its history.
    await_history: AtomicBool,
    /// They were stopped, as far as that could be had, and the node is about to be stopped: then it does not
    /// count that it is up.
    calming: AtomicBool,
    /// They may have written since the node's start.
    served: AtomicBool,
    /// They went on when the node was last drained, and it has not been stopped since.
    uncovered: AtomicBool,
    /// When the node was last stopped while they went on, since the host started, and for how long they had;
    /// in milliseconds.
    uncovered_stop: Mutex<Option<(u64, u64)>>,
}

impl Writers {
    /// `refused`: rules of an earlier start of the agent may be there.
    pub fn new(refused: bool) -> Self {
        Self {
            refused: AtomicBool::new(refused),
            ..Self::default()
        }
    }

    /// For how long before the last stop they went on, if that was within `ago_ms`.
    pub(super) fn uncovered_within(&self, now_ms: u64, ago_ms: u64) -> u64 {
        let last = *self.lock_stop();
        last.filter(|(at_ms, _)| now_ms.saturating_sub(*at_ms) <= ago_ms)
            .map_or(0, |(_, for_ms)| for_ms)
    }

    /// The node was started, and its writers were let go: they may write unless they are refused until it is
    /// up.
    pub(super) fn were_let_go(&self) {
        let refused = self.refused.load(Ordering::Relaxed);
        self.served.store(!refused, Ordering::Relaxed);
    }

    /// The node is up.
    pub(super) fn served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// The node was stopped, or could not be; returns whether they may have written, and whether they were
    /// stopped before.
    pub(super) fn has_stopped(&self) -> (bool, bool) {
        let served = self.served.swap(false, Ordering::Relaxed);
        (served, self.calming.swap(false, Ordering::Relaxed))
    }

    fn lock_stop(&self) -> MutexGuard<'_, Option<(u64, u64)>> {
        self.uncovered_stop
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostWorld {
    /// Keeps writers away as far as that is set up, and gives events their time. Without the right to, it
    /// goes on: a way back must not wait for rights.
    pub(super) async fn drain(&self) -> Result<Option<String>, EffectError> {
        self.writers.calming.store(true, Ordering::Relaxed);
        let refused = match self.drain_ports.is_empty() {
            true => None,
            false => Some(self.refuse_clients().await),
        };
        let quiesced = quiesce(&self.quiesce).await.map_err(|error| {
            // Nobody stops the node now.
            self.writers.calming.store(false, Ordering::Relaxed);
            failed(&error)
        })?;
        let waited = format!("waited {} ms for two sync cycles", quiesced.waited_ms);
        let covered = quiesced.writers_stopped || matches!(refused, Some(Ok(())));
        self.writers.uncovered.store(!covered, Ordering::Relaxed);
        Ok(Some(match (refused, covered) {
            (Some(Err(error)), true) => {
                format!("the drain command stopped the writers, [drain] did not: {error}; {waited}")
            }
            (_, true) => format!("the writers were stopped; {waited}"),
            (Some(Err(error)), false) => {
                format!("{error}, so the writers were not stopped; {waited}")
            }
            (_, false) => format!(
                "neither [drain] nor a drain command is configured, so the writers were not stopped; {waited}"
            ),
        }))
    }

    /// Every stop of a node that has served drains first, also one that no drain was ordered for, as on the way
    /// back from a probation (rule 11). That must not wait for long: it takes what can be had in its time.
    pub(super) async fn calm_before_stop(&self) -> Option<String> {
        let is_calm = self.writers.calming.load(Ordering::Relaxed);
        let has_served = self.writers.served.load(Ordering::Relaxed);
        if is_calm || !has_served || self.drained.load(Ordering::Relaxed) {
            return None;
        }
        if !matches!(self.supervisor.state().await, Ok(UnitState::Running { .. })) {
            return None;
        }
        let cycles = self.quiesce.sync_interval.saturating_mul(2);
        let limit = cycles
            .saturating_add(self.quiesce.margin)
            .saturating_add(CALM_MARGIN);
        match timeout(limit, self.drain()).await {
            Ok(Ok(note)) => note,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                self.writers.calming.store(false, Ordering::Relaxed);
                Some(format!(
                    "its writers were not stopped within {} ms, and it is stopped all the same",
                    limit.as_millis()
                ))
            }
        }
    }

    /// That writers go on while the node is replaced, where nothing is set up against it.
    pub(super) fn writers_go_on(&self) -> Option<String> {
        if !self.drain_ports.is_empty() || self.quiesce.drain.is_some() {
            return None;
        }
        Some(format!(
            "writers go on while it is replaced, and what it acknowledges in the last {} ms before its stop may be \
             lost: set up [drain] in the agent's configuration",
            self.quiesce.sync_interval.as_millis()
        ))
    }

    async fn refuse_clients(&self) -> Result<(), EffectError> {
        // Before its effect: what was begun is taken away again, also where it failed half-way.
        self.writers.refused.store(true, Ordering::Relaxed);
        nft::apply("drain", &drain::refusing_rules(&self.drain_ports)).await
    }

    /// Does what a person asked for, who stops the node's traffic or lets it go on.
    pub(super) async fn keep_writers_away(&self, away: bool) -> Result<(), EffectError> {
        if away {
            if !self.drain_ports.is_empty() {
                self.refuse_clients().await?;
            }
            return stop_writers(&self.quiesce)
                .await
                .map_err(|error| failed(&error));
        }
        self.let_writers_in().await;
        unquiesce(&self.quiesce)
            .await
            .map_err(|error| failed(&error))
    }

    /// After a boot, before the node may start: a power cut may have taken a part of its own history, and
    /// with its next write it would begin that anew.
    pub async fn keep_clients_away_at_boot(&self) {
        if self.drain_ports.is_empty() {
            return;
        }
        self.writers.await_history.store(true, Ordering::Relaxed);
        if let Err(error) = self.refuse_clients().await {
            self.writers.await_history.store(false, Ordering::Relaxed);
            tracing::warn!(%error, "clients may write before it is known whether the node holds its own history");
        }
    }

    pub(super) async fn let_in_after_boot(&self) {
        if self.writers.await_history.swap(false, Ordering::Relaxed) {
            self.let_writers_in().await;
        }
    }

    /// Takes the rules away that keep clients from the node, unless a person stopped its traffic, or the
    /// node is about to be stopped.
    pub(super) async fn let_writers_in(&self) {
        let must_stay = self.drained.load(Ordering::Relaxed)
            || self.writers.calming.load(Ordering::Relaxed)
            || self.writers.await_history.load(Ordering::Relaxed);
        if must_stay || !self.writers.refused.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = nft::apply("drain", &drain::open_rules()).await {
            self.writers.refused.store(true, Ordering::Relaxed);
            tracing::error!(%error, "clients are kept from the node still");
        }
    }

    /// The logs of the node's databases that were deleted under it: held open, they outlast its end.
    pub(super) async fn deleted_logs(&self) -> Vec<DeletedLog> {
        let pids = self.supervisor.processes().await.unwrap_or_default();
        let databases = self.databases.clone();
        let looking = tokio::task::spawn_blocking(move || deleted_logs::find(&pids, &databases));
        looking.await.unwrap_or_default()
    }

    /// Once more after each stop: what the node wrote last is synced by nobody else.
    pub(super) async fn sync_files(&self) -> Option<Result<(), EffectError>> {
        match &self.sync {
            Some(sync) => Some(sync.sync().await),
            None => None,
        }
    }

    /// What a stop has cost, or may have, of documents that the node acknowledged: in its memory they wait
    /// for up to a sync cycle.
    pub(super) fn cost_of_stop(
        &self,
        stopping_ms: u64,
        (served, was_calmed): (bool, bool),
    ) -> Option<String> {
        let uncovered = self.writers.uncovered.swap(false, Ordering::Relaxed);
        let cycle_ms = u64::try_from(self.quiesce.sync_interval.as_millis()).unwrap_or(u64::MAX);
        let for_ms = cycle_ms.saturating_add(stopping_ms);
        let at_once = !was_calmed && served && !self.drained.load(Ordering::Relaxed);
        if !at_once && !uncovered {
            return None;
        }
        let stop = Some((self.now().since_boot_ms, for_ms));
        *self.writers.lock_stop() = stop;
        Some(match at_once {
            true => format!(
                "it was stopped at once, without keeping its writers away: what it acknowledged in the last {for_ms} ms \
                 before it ended may be lost"
            ),
            false => format!(
                "writers went on for the last {for_ms} ms before it ended: what it acknowledged then may be lost"
            ),
        })
    }

    /// Its events are given their time, as before a switch; what cannot be had is gone without.
    pub(super) async fn stop_gently(&self) -> Result<Vec<String>, EffectError> {
        let mut notes = Vec::new();
        match self.drain().await {
            Ok(note) => notes.extend(note),
            Err(error) => notes.push(error.to_string()),
        }
        notes.extend(self.stop().await?);
        Ok(notes)
    }
}

/// Puts logs back in their places, or keeps them in a folder; returns what there is to say.
pub(super) async fn put_back(deleted: Vec<DeletedLog>, kept_logs: PathBuf) -> Vec<String> {
    if deleted.is_empty() {
        return Vec::new();
    }
    let putting = tokio::task::spawn_blocking(move || {
        let each = deleted.into_iter().map(|mut log| {
            let database = log.database.display().to_string();
            log.put_back(&kept_logs).unwrap_or_else(|error| {
                tracing::error!(%error, database, "a log that the node wrote into is lost");
                format!("the node wrote into a log of {database} that was deleted, and it could neither be put back nor kept: {error}")
            })
        });
        each.collect()
    });
    putting.await.unwrap_or_default()
}
