//! Follows the node's replication by itself, at a low rate: the node's own recent events, and its
//! peers' clocks, with one short connection to each. Only safe requests.
//!
//! What is found is for those who ask and for triggers, and each finding is a line of the journal,
//! once in a while.

use crate::adapters::clock::SystemClock;
use crate::adapters::clusters::ClusterAccess;
use crate::adapters::sqlite::SqliteStore;
use crate::engine::{ACTOR_AGENT, EngineHandle};
use crate::error_chain;
use crate::ports::JournalLine;
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::id::NodeName;
use cbddc_domain::phase::Phase;
use cbddc_domain::replication::{Finding, Findings, Follower};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How far back the node's own events are looked at: five minutes, in milliseconds.
const WINDOW_MS: i64 = 300_000;

/// What following needs.
pub struct Following {
    /// This node.
    pub node: NodeName,
    /// The cluster: its port, and its database.
    pub cluster: ClusterAccess,
    /// The journal.
    pub store: SqliteStore,
    /// Whether something runs.
    pub engine: EngineHandle,
    /// The time.
    pub clock: SystemClock,
    /// Pause between two looks.
    pub interval: Duration,
    /// A clock that is behind and has not moved for this long is stalled.
    pub stalled_after: Duration,
    /// What is found now, in all clusters.
    pub findings: Arc<watch::Sender<Findings>>,
}

impl Following {
    /// Follows until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let limit_ms = u64::try_from(self.stalled_after.as_millis()).unwrap_or(u64::MAX);
        let settings = self.cluster.protocol.settings();
        let mut follower = Follower::new(self.node.clone(), limit_ms)
            .of_cluster(&settings.cluster)
            .with_critical(settings.critical_collections.clone());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            if self.runs() {
                self.look(&mut follower).await;
            }
        }
    }

    /// Between two releases nothing is looked at: the mesh check does.
    fn runs(&self) -> bool {
        match self.engine.node().phase {
            Phase::Steady { running } | Phase::Prepared { running, .. } => running.is_some(),
            Phase::Probation(_) => true,
            Phase::Switching(_) | Phase::Reverting(_) | Phase::Stuck { .. } => false,
        }
    }

    async fn look(&self, follower: &mut Follower) {
        let now = self.clock.now();
        let mut peers = VectorClock::default();
        let protocol = &self.cluster.protocol;
        for peer in &protocol.settings().expected_peers {
            let address = &peer.address;
            match protocol.look_at(address).await {
                Ok(look) => peers.merge(&look.clock),
                Err(error) => {
                    tracing::debug!(address, error = error_chain(&error), "a peer's clock")
                }
            }
        }
        // The node's own clock after its peers': a clock that moves is not called late.
        let since_wall_ms = now.wall_ms.saturating_sub(WINDOW_MS);
        let recent = self.cluster.oplog.recent(protocol, since_wall_ms).await;
        let (look, report) = match recent {
            Ok(recent) => recent,
            Err(error) => {
                // That the node does not answer, or its database is unreadable, other checks say.
                tracing::debug!(error = error_chain(&error), "replication is not followed");
                return;
            }
        };
        if !look.interests.is_empty() {
            peers = VectorClock::default();
        }
        let (current, to_tell) = follower.look(now.since_boot_ms, report, &look.clock, &peers);
        for finding in to_tell {
            tracing::warn!("{}", finding.text);
            self.write_down(now.wall_ms, &finding).await;
        }
        let name = self.cluster.name();
        self.findings
            .send_modify(|all| all.take(name, current, now.wall_ms));
    }

    async fn write_down(&self, wall_ms: i64, finding: &Finding) {
        let line = JournalLine {
            wall_ms,
            kind: "replication".to_owned(),
            epoch: None,
            generation: None,
            actor: ACTOR_AGENT.to_owned(),
            text: format!("{}: {}", finding.kind, finding.text),
        };
        if let Err(error) = self.store.note(line).await {
            tracing::warn!(
                error = error_chain(&error),
                "a finding is not in the journal"
            );
        }
    }
}
