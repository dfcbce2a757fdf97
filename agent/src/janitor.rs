//! After the node has come to rest: takes away snapshots that no way back needs any more, and looks at
//! what the node writes into its build's folder, now and then again.

use crate::adapters::builds::BuildStore;
use crate::adapters::snapshots::SnapshotStore;
use crate::adapters::sqlite::SqliteStore;
use crate::engine::{ACTOR_AGENT, EngineHandle};
use crate::error_chain;
use crate::ports::{JournalLine, World};
use cbddc_domain::phase::Phase;
use cbddc_domain::retention::surplus_snapshots;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the folder is not looked at where nothing happens: a look reads a few hundred names.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// What the janitor works with.
pub struct Janitor {
    /// Tells when the node comes to rest.
    pub engine: EngineHandle,
    /// The clocks.
    pub world: Arc<dyn World>,
    /// The journal.
    pub store: SqliteStore,
    /// The builds.
    pub builds: BuildStore,
    /// The snapshots.
    pub snapshots: Arc<SnapshotStore>,
    /// How many automatic snapshots stay.
    pub kept: usize,
}

impl Janitor {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut changed = self.engine.watch();
        let mut tidied = None;
        loop {
            let running = match self.engine.node().phase {
                Phase::Steady { running } => running,
                Phase::Prepared { .. }
                | Phase::Switching(_)
                | Phase::Probation(_)
                | Phase::Reverting(_)
                | Phase::Stuck { .. } => None,
            };
            if running.is_some() && running != tidied {
                tidied = running;
                self.tidy().await;
                self.look().await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => self.look().await,
                news = changed.changed() => if news.is_err() { return },
            }
        }
    }

    /// Looks at what the node has written into its build's folder: its status tells the newest look.
    async fn look(&self) {
        let node = self.engine.node();
        let running = node.phase.running();
        let Some(running) = running.and_then(|number| node.history.get(number)) else {
            return;
        };
        let (builds, build) = (self.builds.clone(), running.release.build.clone());
        let looked = tokio::task::spawn_blocking(move || builds.grown(&build)).await;
        if let Ok(Err(error)) = looked {
            tracing::warn!(
                error = error_chain(&error),
                "the build's folder was not looked at"
            );
        }
    }

    async fn tidy(&self) {
        let (node, snapshots, kept) = (self.engine.node(), self.snapshots.clone(), self.kept);
        let removed = tokio::task::spawn_blocking(move || {
            let all = snapshots
                .list()?
                .into_iter()
                .map(|snapshot| snapshot.id)
                .collect::<Vec<_>>();
            let surplus = surplus_snapshots(&node, &all, kept);
            for id in &surplus {
                snapshots.remove(id)?;
            }
            Ok::<_, crate::adapters::snapshots::SnapshotError>(surplus)
        });
        let removed = match removed.await {
            Ok(Ok(removed)) => removed,
            Ok(Err(error)) => {
                return tracing::warn!(error = error_chain(&error), "old snapshots stay");
            }
            Err(error) => return tracing::warn!(%error, "old snapshots stay"),
        };
        if removed.is_empty() {
            return;
        }
        let line = JournalLine {
            wall_ms: self.world.now().wall_ms,
            kind: "snapshots_removed".to_owned(),
            epoch: None,
            generation: None,
            actor: ACTOR_AGENT.to_owned(),
            text: format!("no way back needs them any more: {}", removed.join(", ")),
        };
        if let Err(error) = self.store.note(line).await {
            tracing::warn!(
                error = error_chain(&error),
                "the removal of snapshots was not written down"
            );
        }
    }
}
