//! The mesh check between waves: asks every agent what its node holds and lets the domain judge.

use crate::mesh::{Outcome, Session, client};
use cbddc_domain::hlc::{Hlc, VectorClock};
use cbddc_domain::id::NodeName;
use cbddc_domain::oplog::{Operation, OplogEntry};
use cbddc_domain::proposer::MeshVerdict;
use cbddc_domain::replication::{MeshWatch, PeerView};
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The pause between two looks at all nodes.
const PAUSE: Duration = Duration::from_millis(400);

/// Looks at replication, wave by wave.
pub struct MeshChecker {
    session: Session,
    members: BTreeSet<NodeName>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The moment from which events count, by the nodes' own clocks.
    since_wall_ms: Option<i64>,
    watch: Option<(usize, MeshWatch)>,
    looked: Option<Instant>,
    /// The wave that has passed, until the next one begins.
    passed: Option<usize>,
    said: BTreeSet<String>,
}

impl MeshChecker {
    /// Nothing is asked yet.
    pub fn new(session: Session, members: BTreeSet<NodeName>) -> Self {
        Self {
            session,
            members,
            memory: Mutex::default(),
        }
    }

    /// A node of a wave is about to change: events from now on count. The moment is taken from the
    /// nodes' clocks, because events carry those; an admin's laptop may be wrong.
    pub async fn wave_begins(&self) {
        let mut memory = self.memory.lock().await;
        if memory.since_wall_ms.is_some() && memory.passed.is_none() {
            return;
        }
        memory.passed = None;
        let outcomes = self.observe(i64::MAX / 2, 1).await;
        let clocks = outcomes
            .values()
            .filter_map(|outcome| Some(outcome.ok()?.wall_ms));
        memory.since_wall_ms = clocks.min();
    }

    /// Looks once more; returns the verdict for this wave and what is worth saying.
    pub async fn check(&self, wave: usize) -> (MeshVerdict, Vec<String>) {
        let mut memory = self.memory.lock().await;
        if let Some(looked) = memory.looked {
            tokio::time::sleep_until(looked + PAUSE).await;
        }
        let since_wall_ms = memory.since_wall_ms.unwrap_or_default();
        let (mut views, mut silent, mut news) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (node, outcome) in self.observe(since_wall_ms, 0).await {
            match outcome {
                Outcome::Ok(answer) => drop(views.insert(node, view(answer))),
                Outcome::Refused { word, message }
                    if word == "not_configured" || word == "nothing_runs" =>
                {
                    news.push(format!("{node} is left out of the mesh check: {message}"));
                }
                Outcome::Refused { .. } | Outcome::Unreachable { .. } | Outcome::TimedOut => {
                    silent.insert(node, outcome.why().to_owned());
                }
            }
        }
        memory.looked = Some(Instant::now());
        if memory.watch.as_ref().is_none_or(|(of, _)| *of != wave) {
            memory.watch = Some((wave, MeshWatch::new(since_wall_ms)));
        }
        let soaks = memory.passed == Some(wave);
        let verdict = match &mut memory.watch {
            _ if views.is_empty() && silent.is_empty() => MeshVerdict::Passed,
            Some((_, watch)) => {
                let round = watch.observe(&views, &silent);
                let verdict = round.verdict();
                if verdict == MeshVerdict::Passed && !soaks {
                    news.push(format!("mesh check: {}", round.proof()));
                    memory.passed = Some(wave);
                }
                if let (MeshVerdict::Pending(why), false) = (&verdict, soaks) {
                    news.push(format!("mesh check: waiting: {why}"));
                }
                verdict
            }
            None => MeshVerdict::Pending("not looked yet".into()),
        };
        news.retain(|line| memory.said.insert(format!("{wave} {line}")));
        (verdict, news)
    }

    async fn observe(
        &self,
        since_wall_ms: i64,
        limit: u32,
    ) -> BTreeMap<NodeName, Outcome<v1::ObserveReplicationResponse>> {
        let request = v1::ObserveReplicationRequest {
            since_wall_ms,
            limit,
        };
        let call = move |_, channel| async move {
            Ok(client::health(channel)
                .observe_replication(request)
                .await?
                .into_inner())
        };
        self.session.fan_out(&self.members, call).await
    }
}

fn view(answer: v1::ObserveReplicationResponse) -> PeerView {
    PeerView {
        origin: answer.node_id,
        token_accepted: answer.token_accepted,
        interests: answer.interests,
        clock_before: clock(answer.clock_before),
        events: answer.events.into_iter().map(entry).collect(),
        clock_after: clock(answer.clock_after),
        truncated: answer.truncated,
        joined: answer.joined_known.then_some(answer.joined),
        expected: answer.expected,
        target_collections: answer.target_collections,
    }
}

fn clock(entries: Vec<v1::ClockEntry>) -> VectorClock {
    let entries = entries
        .into_iter()
        .map(|entry| (entry.origin, (entry.wall, entry.logic)));
    VectorClock(entries.collect())
}

fn entry(event: v1::OplogEvent) -> OplogEntry {
    OplogEntry {
        collection: event.collection,
        key: event.key,
        operation: if event.delete {
            Operation::Delete
        } else {
            Operation::Put
        },
        payload: String::new(),
        hlc: Hlc::new(event.wall, event.logic, event.origin),
        hash: event.hash,
        previous_hash: event.previous_hash,
    }
}
