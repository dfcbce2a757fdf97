//! Follows the node's replication by itself, at a low rate: the node's own recent events, and its
//! peers' clocks, with one short connection to each. Only safe requests. A peer is asked for events
//! only where this node's clock has stood still behind it for long, once for each moment.
//!
//! What is found is for those who ask and for triggers, and each finding is a line of the journal,
//! once in a while.

use crate::adapters::clock::SystemClock;
use crate::adapters::clusters::ClusterAccess;
use crate::adapters::node_protocol::Look;
use crate::adapters::sqlite::SqliteStore;
use crate::engine::{ACTOR_AGENT, EngineHandle};
use crate::error_chain;
use crate::ports::{JournalLine, UnitState, World};
use cbddc_domain::documents::DocumentVersion;
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Node};
use cbddc_domain::phase::Phase;
use cbddc_domain::replication::{Finding, FindingKind, Findings, Follower, Question, WINDOW_MS};
use cbddc_domain::stops::StopsChange;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How old an event of the node's own may be to be missed there: older ones may have been pruned, by
/// default after a day (`NODE.md`, section 3).
const OWN_LOOKED_FOR_MS: i64 = 12 * 3_600_000;

/// A node forgets when it starts: so long after that its clients are kept away for it, in milliseconds.
const FRESH_MS: u64 = 300_000;

/// How long after a boot clients are kept away where no peer tells how far the node's history went, in
/// milliseconds.
const HISTORY_WAIT_MS: u64 = 120_000;

/// Waits until a release comes that was not there before: what is wrong right then is not its doing, and
/// is looked at however long ago the last look was.
async fn comes_next(node: &mut watch::Receiver<Arc<Node>>) {
    let is_next = |node: &Arc<Node>| matches!(node.phase, Phase::Prepared { .. });
    let was_there = is_next(&node.borrow_and_update());
    if was_there && node.wait_for(|node| !is_next(node)).await.is_err() {
        return std::future::pending().await;
    }
    if node.wait_for(is_next).await.is_err() {
        std::future::pending().await
    }
}

/// What the peers of a node show.
#[derive(Default)]
struct Peers {
    /// The clock of each, by its address.
    clocks: BTreeMap<String, VectorClock>,
    /// The collections that each declares, by its id.
    writers: BTreeMap<String, Vec<String>>,
}

impl Peers {
    /// The latest moments that any of their clocks shows.
    fn latest(&self) -> VectorClock {
        let mut latest = VectorClock::default();
        self.clocks.values().for_each(|clock| latest.merge(clock));
        latest
    }
}

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
    /// The host, which keeps clients away.
    pub world: Arc<dyn World>,
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
        let mut node = self.engine.watch();
        // For which start of the node its clients were kept away: a person may have decided since.
        let mut kept_away_of = None;
        let began_ms = self.clock.now().since_boot_ms;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
                () = comes_next(&mut node) => {}
            }
            // Where nobody tells, neither the node nor a peer, the site needs its node all the same.
            let waited_ms = self.clock.now().since_boot_ms.saturating_sub(began_ms);
            if waited_ms >= HISTORY_WAIT_MS {
                self.world.history_is_known().await;
            }
            if self.runs() {
                self.look(&mut follower, &mut kept_away_of).await;
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

    async fn look(&self, follower: &mut Follower, kept_away_of: &mut Option<u64>) {
        let now = self.clock.now();
        if let Some(generation) = self.engine.node().phase.running() {
            follower.runs(now.since_boot_ms, generation);
        }
        let peers = self.peers().await;
        // The node's own clock after its peers': a clock that moves is not called late.
        let window_ms = i64::try_from(WINDOW_MS).unwrap_or(i64::MAX);
        let since_wall_ms = now.wall_ms.saturating_sub(window_ms);
        let protocol = &self.cluster.protocol;
        let reader = &self.cluster.oplog;
        let recent = reader.recent(protocol, since_wall_ms, &peers.writers).await;
        let (look, report) = match recent {
            Ok(recent) => recent,
            Err(error) => {
                // That the node does not answer, or its database is unreadable, other checks say.
                tracing::debug!(error = error_chain(&error), "replication is not followed");
                return;
            }
        };
        let latest = peers.latest();
        let mut clock = look.clock.clone();
        for of_node in report.nodes.values() {
            for (origin, held) in &of_node.latest.0 {
                clock.0.entry(origin.clone()).or_insert(*held);
            }
        }
        let clock = reader.complete(clock, &latest).await;
        let clock = self
            .with_own(clock, &latest, &look.node_id, now.wall_ms)
            .await;
        follower.writes_as(&look.node_id);
        for question in follower.compare(now.since_boot_ms, &clock, &latest) {
            if let Some(is_owed) = self.ask(&peers, &question, &look, since_wall_ms).await {
                follower.is_owed(&question.origin, is_owed);
            }
        }
        let (current, to_tell) = follower.look(now.since_boot_ms, report);
        self.keep_clients_away(&current, kept_away_of).await;
        let forgot = current.iter().any(|it| it.kind == FindingKind::Forgotten);
        // After a start some nodes show an empty clock: then their peers say nothing of this one.
        let told = peers.clocks.values().any(|clock| !clock.0.is_empty());
        if forgot || (told && follower.remembers()) {
            self.world.history_is_known().await;
        }
        for finding in to_tell {
            tracing::warn!("{}", finding.text);
            self.write_down(now.wall_ms, &finding).await;
        }
        let name = self.cluster.name();
        self.findings
            .send_modify(|all| all.take(name, current, now.wall_ms));
    }

    /// The node's clock with what it holds of its own, where peers have seen more of that than its clock
    /// shows: some clocks are empty after a start. Of what is so old that it may have been pruned, nothing
    /// is said.
    async fn with_own(
        &self,
        mut clock: VectorClock,
        peers: &VectorClock,
        own: &str,
        now_wall_ms: i64,
    ) -> VectorClock {
        let Some(wanted) = peers
            .get(own)
            .filter(|wanted| clock.get(own) < Some(*wanted))
        else {
            return clock;
        };
        let is_old = wanted.0 < now_wall_ms.saturating_sub(OWN_LOOKED_FOR_MS);
        let version = DocumentVersion {
            collection: String::new(),
            key: String::new(),
            wall: wanted.0,
            logic: wanted.1,
            origin: own.to_owned(),
        };
        let found = self
            .cluster
            .oplog
            .find(&self.cluster.protocol, vec![version]);
        let holds_it = match is_old {
            true => true,
            // What cannot be told is not held against it.
            false => found
                .await
                .map_or(true, |found| found.iter().all(|found| found.has_event)),
        };
        if holds_it {
            clock.advance(own, wanted);
        }
        clock
    }

    /// A node that has forgotten its history must not write before somebody has decided: its clients are
    /// kept away until then, where that is set up.
    async fn keep_clients_away(&self, current: &[Finding], kept_away_of: &mut Option<u64>) {
        let is_it = |finding: &&Finding| finding.kind == FindingKind::Forgotten;
        let Some(found) = current.iter().find(is_it) else {
            return;
        };
        if !self.world.keeps_writers_away() || self.engine.node().stops.drained.is_some() {
            return;
        }
        // It happens when a node starts; later on somebody may have decided already.
        let now_ms = self.clock.now().since_boot_ms;
        let Ok(UnitState::Running { started_ms, .. }) = self.world.unit().await else {
            return;
        };
        let is_new = now_ms.saturating_sub(started_ms) < FRESH_MS;
        if !is_new || kept_away_of.is_some_and(|of| of == started_ms) {
            return;
        }
        *kept_away_of = Some(started_ms);
        let event = Event::ChangeStops {
            change: StopsChange::Drained(true),
            reason: found.text.clone(),
            by: ACTOR_AGENT.to_owned(),
        };
        if let Err(error) = self.engine.tell(event, ACTOR_AGENT).await {
            return tracing::warn!(%error, "clients are not kept from a node that has forgotten its history");
        }
        let stops = self.engine.node().stops.clone();
        if let Err(error) = self.world.apply_stops(&stops).await {
            tracing::error!(%error, "clients are not kept from a node that has forgotten its history");
        }
    }

    /// What the peers that answer show.
    async fn peers(&self) -> Peers {
        let mut peers = Peers::default();
        let protocol = &self.cluster.protocol;
        for peer in &protocol.settings().expected_peers {
            let address = &peer.address;
            match protocol.look_at(address).await {
                Ok(look) => {
                    peers.writers.insert(look.node_id, look.interests);
                    peers.clocks.insert(address.clone(), look.clock);
                }
                Err(error) => {
                    tracing::debug!(address, error = error_chain(&error), "a peer's clock")
                }
            }
        }
        peers
    }

    /// Whether the peer that is furthest with an origin holds events of it that this node wants and has
    /// not seen; nothing where it does not say.
    async fn ask(
        &self,
        peers: &Peers,
        question: &Question,
        own: &Look,
        since_wall_ms: i64,
    ) -> Option<bool> {
        let of_origin = |clock: &VectorClock| clock.get(&question.origin);
        let clocks = peers.clocks.iter();
        let (address, _) = clocks.max_by_key(|(_, clock)| of_origin(clock))?;
        let after = question.asked_after(since_wall_ms);
        let protocol = &self.cluster.protocol;
        match protocol.events_at(address, after).await {
            Ok(events) => Some(question.is_owed(&events, &own.interests, since_wall_ms)),
            Err(error) => {
                tracing::debug!(address, error = error_chain(&error), "a peer's events");
                None
            }
        }
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
