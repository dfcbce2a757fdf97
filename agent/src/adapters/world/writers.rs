//! Keeping writers away while the node is replaced, and letting them in again.

use super::{HostWorld, failed};
use crate::adapters::deleted_logs::DeletedLog;
use crate::adapters::quiesce::{quiesce, stop_writers, unquiesce};
use crate::adapters::{deleted_logs, drain, nft};
use crate::ports::{EffectError, World as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether writers go on while a node is stopped.
#[derive(Debug, Default)]
pub struct Uncovered {
    /// They did when the node was last drained, and it has not been stopped since.
    now: AtomicBool,
    /// When the node was last stopped while they did, since the host started, and for how long they had;
    /// in milliseconds.
    stop: Mutex<Option<(u64, u64)>>,
}

impl Uncovered {
    /// For how long before the last stop they went on, if that was within `ago_ms`.
    pub(super) fn within(&self, now_ms: u64, ago_ms: u64) -> u64 {
        let last = *self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|(at_ms, _)| now_ms.saturating_sub(*at_ms) <= ago_ms)
            .map_or(0, |(_, for_ms)| for_ms)
    }
}

impl HostWorld {
    /// Keeps writers away as far as that is set up, and gives events their time. Without the right to, it
    /// goes on: a way back must not wait for rights.
    pub(super) async fn drain(&self) -> Result<Option<String>, EffectError> {
        self.calming.store(true, Ordering::Relaxed);
        let refused = match self.drain_ports.is_empty() {
            true => None,
            false => Some(self.refuse_clients().await),
        };
        let quiesced = quiesce(&self.quiesce).await.map_err(|error| {
            // Nobody stops the node now.
            self.calming.store(false, Ordering::Relaxed);
            failed(&error)
        })?;
        let waited = format!("waited {} ms for two sync cycles", quiesced.waited_ms);
        let covered = quiesced.writers_stopped || matches!(refused, Some(Ok(())));
        self.uncovered.now.store(!covered, Ordering::Relaxed);
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
        self.refuses.store(true, Ordering::Relaxed);
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
        self.awaits_history.store(true, Ordering::Relaxed);
        if let Err(error) = self.refuse_clients().await {
            self.awaits_history.store(false, Ordering::Relaxed);
            tracing::warn!(%error, "clients may write before it is known whether the node holds its own history");
        }
    }

    pub(super) async fn let_in_after_boot(&self) {
        if self.awaits_history.swap(false, Ordering::Relaxed) {
            self.let_writers_in().await;
        }
    }

    /// Takes the rules away that keep clients from the node, unless a person stopped its traffic, or the
    /// node is about to be stopped.
    pub(super) async fn let_writers_in(&self) {
        let must_stay = self.drained.load(Ordering::Relaxed)
            || self.calming.load(Ordering::Relaxed)
            || self.awaits_history.load(Ordering::Relaxed);
        if must_stay || !self.refuses.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = nft::apply("drain", &drain::open_rules()).await {
            self.refuses.store(true, Ordering::Relaxed);
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
    pub(super) fn cost_of_stop(&self, stopping_ms: u64, was_calmed: bool) -> Option<String> {
        let uncovered = self.uncovered.now.swap(false, Ordering::Relaxed);
        let cycle_ms = u64::try_from(self.quiesce.sync_interval.as_millis()).unwrap_or(u64::MAX);
        let for_ms = cycle_ms.saturating_add(stopping_ms);
        // As on the way back from a probation, which waits for nothing.
        let at_once = !was_calmed && !self.drained.load(Ordering::Relaxed);
        if !at_once && !uncovered {
            return None;
        }
        let stop = Some((self.now().since_boot_ms, for_ms));
        let last = &self.uncovered.stop;
        *last.lock().unwrap_or_else(PoisonError::into_inner) = stop;
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
