//! The mesh check between waves: asks every agent what its node holds and lets the domain judge.

use crate::clusters::clusters_of;
use crate::mesh::{Outcome, Session, client};
use cbddc_domain::hlc::{Hlc, VectorClock};
use cbddc_domain::id::NodeName;
use cbddc_domain::oplog::{Operation, OplogEntry};
use cbddc_domain::proposer::MeshVerdict;
use cbddc_domain::replication::{
    Accepted, Arrivals, ClusterShown, ClusterWatches, Group, PeerView, Round, Topology, group,
    reach_back,
};
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

/// How far back events are read at most where clocks differ: CBDDC nodes keep events for 24 h
/// (`OplogRetentionHours`).
const REACH_MAX: Duration = Duration::from_secs(24 * 3600);

/// The pause between two looks at all nodes.
const PAUSE: Duration = Duration::from_millis(400);

/// Looks at replication, wave by wave.
pub struct MeshChecker {
    session: Session,
    members: BTreeSet<NodeName>,
    /// What changes; empty: nothing does.
    targets: BTreeSet<NodeName>,
    /// Instead of what the agents' configurations name; empty: those.
    collections: Vec<String>,
    quiesce: Option<Duration>,
    patience: Option<Duration>,
    accepts_unproven: bool,
    accepted: Option<Accepted>,
    only_looks: bool,
    began: Instant,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The moment from which events count, by the nodes' own clocks.
    since_wall_ms: Option<i64>,
    watch: Option<(usize, ClusterWatches)>,
    looked: Option<Instant>,
    /// Who was away from the beginning, and is no target.
    away: BTreeSet<NodeName>,
    /// The wave that has passed, until the next one begins.
    passed: Option<usize>,
    said: BTreeSet<String>,
}

/// What one look came to.
pub struct Looked {
    /// The verdict.
    pub verdict: MeshVerdict,
    /// What it was made from; unset: no node could be looked at.
    pub round: Option<Round>,
    /// How many nodes showed something.
    pub asked: usize,
    /// Nodes on which nothing can be looked at, and why.
    pub left_out: BTreeMap<NodeName, String>,
    /// Nodes that did not answer, and why.
    pub silent: BTreeMap<NodeName, String>,
    /// What agents could not look at or do, and on which node.
    pub not_checked: BTreeSet<(NodeName, String)>,
    /// How long events took so far.
    pub arrivals: Arrivals,
}

impl MeshChecker {
    /// Nothing is asked yet.
    pub fn new(session: Session, members: BTreeSet<NodeName>) -> Self {
        Self {
            session,
            members,
            targets: BTreeSet::new(),
            collections: Vec::new(),
            quiesce: None,
            patience: None,
            accepts_unproven: false,
            accepted: None,
            only_looks: false,
            began: Instant::now(),
            memory: Mutex::default(),
        }
    }

    /// Events of these collections must be seen, whatever the agents' configurations name.
    pub fn with_collections(mut self, collections: Vec<String>) -> Self {
        self.collections = collections;
        self
    }

    /// A clock that is behind may stand still for so long.
    pub fn with_quiesce(mut self, quiesce: Duration) -> Self {
        self.quiesce = Some(quiesce);
        self
    }

    /// How long to look for events where nobody writes.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Members that are away when the first wave begins, and are none of these, are left out.
    pub fn for_targets(mut self, targets: BTreeSet<NodeName>) -> Self {
        self.targets = targets;
        self
    }

    /// Passes in the end although no event of a target collection was seen to arrive.
    pub fn accepting_unproven(mut self, accepts: bool) -> Self {
        self.accepts_unproven = accepts;
        self
    }

    /// Takes what was found before the rollout as it is.
    pub fn with_accepted(mut self, accepted: Option<Accepted>) -> Self {
        self.accepted = accepted;
        self
    }

    /// Lets no agent write an event on purpose.
    pub fn only_looking(mut self) -> Self {
        self.only_looks = true;
        self
    }

    /// Lets events of this last while count, and those from where on clocks differ, at most of a day.
    ///
    /// Returns how long that is, in milliseconds; zero: nobody could be looked at.
    pub async fn begin_since(&self, window: Duration) -> u64 {
        let outcomes = self.observe(i64::MAX / 2, 1).await;
        let asked = outcomes
            .iter()
            .filter_map(|(node, it)| Some((node, it.ok()?)));
        let answers = asked.clone().flat_map(|(_, asked)| answers(asked));
        let Some(now_ms) = answers.clone().map(|answer| answer.wall_ms).min() else {
            return 0;
        };
        let back = |window: Duration| {
            let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
            now_ms.saturating_sub(window_ms)
        };
        // What one node has pruned and another has not proves nothing.
        let pruned = answers.map(|answer| answer.pruned_wall_ms.saturating_add(1));
        let pruned_ms = pruned.max().unwrap_or_default();
        let mut clocks: BTreeMap<Group, Vec<VectorClock>> = BTreeMap::new();
        for (node, asked) in asked {
            for one in asked {
                if let Ok(answer) = &one.answer {
                    let of = group(&one.cluster, one.topology, node);
                    let shown = clock(answer.clock_before.clone());
                    clocks.entry(of).or_default().push(shown);
                }
            }
        }
        let floor_ms = back(REACH_MAX).max(pruned_ms);
        let since = back(window).max(pruned_ms);
        let reached = clocks.values().map(|of| reach_back(of, since, floor_ms));
        let begins_ms = reached.min();
        self.memory.lock().await.since_wall_ms = begins_ms;
        let reach_ms = begins_ms.map(|begins_ms| now_ms.saturating_sub(begins_ms));
        reach_ms
            .and_then(|ms| u64::try_from(ms).ok())
            .unwrap_or_default()
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
        if memory.since_wall_ms.is_none() {
            let away = outcomes.iter().filter(|(node, outcome)| {
                let silent = matches!(outcome, Outcome::Unreachable { .. } | Outcome::TimedOut);
                silent && !self.targets.contains(*node)
            });
            memory.away = away.map(|(node, _)| node.clone()).collect();
        }
        let answers = outcomes
            .values()
            .filter_map(Outcome::ok)
            .flat_map(|asked| answers(asked));
        memory.since_wall_ms = answers.map(|answer| answer.wall_ms).min();
    }

    /// Looks once more; returns the verdict for this wave and what is worth saying.
    pub async fn check(&self, wave: usize) -> (MeshVerdict, Vec<String>) {
        let looked = self.look(wave).await;
        let mut memory = self.memory.lock().await;
        let left_out = looked.left_out.iter();
        let mut news: Vec<String> = left_out
            .map(|(node, why)| format!("{node} is left out of the mesh check: {why}"))
            .collect();
        let not_checked = looked.not_checked.iter();
        news.extend(not_checked.map(|(node, what)| format!("{node}: not checked: {what}")));
        let soaks = memory.passed == Some(wave);
        match (&looked.verdict, &looked.round) {
            (MeshVerdict::Passed, Some(round)) if !soaks => {
                news.push(format!("mesh check: {}", round.proof()));
                memory.passed = Some(wave);
            }
            (MeshVerdict::Pending(why), _) if !soaks => {
                news.push(format!("mesh check: waiting: {why}"));
            }
            (MeshVerdict::Passed | MeshVerdict::Pending(_) | MeshVerdict::Failed(_), _) => {}
        }
        news.retain(|line| memory.said.insert(format!("{wave} {line}")));
        (looked.verdict, news)
    }

    /// Looks once more, and says everything.
    pub async fn look(&self, wave: usize) -> Looked {
        let mut memory = self.memory.lock().await;
        if let Some(looked) = memory.looked {
            tokio::time::sleep_until(looked + PAUSE).await;
        }
        let since_wall_ms = memory.since_wall_ms.unwrap_or_default();
        let mut looked = Looked {
            verdict: MeshVerdict::Passed,
            round: None,
            asked: 0,
            left_out: BTreeMap::new(),
            silent: BTreeMap::new(),
            not_checked: BTreeSet::new(),
            arrivals: Arrivals::default(),
        };
        let mut views = BTreeMap::new();
        for (node, outcome) in self.observe(since_wall_ms, 0).await {
            match outcome {
                Outcome::Ok(asked) if asked.iter().all(|one| one.answer.is_err()) => {
                    looked.silent.insert(node, why_nothing(&asked));
                }
                Outcome::Ok(asked) => {
                    let not_checked = answers(&asked).flat_map(|answer| &answer.not_checked);
                    let of_node = not_checked.map(|what| (node.clone(), what.clone()));
                    looked.not_checked.extend(of_node);
                    let shown = asked.into_iter().map(|one| self.shown(one));
                    views.insert(node, shown.collect());
                }
                Outcome::Refused { word, message }
                    if word == "not_configured" || word == "nothing_runs" =>
                {
                    looked.left_out.insert(node, message);
                }
                Outcome::Unreachable { .. } | Outcome::TimedOut if memory.away.contains(&node) => {
                    let why = "it is away, and no target".to_owned();
                    looked.left_out.insert(node, why);
                }
                Outcome::Refused { .. } | Outcome::Unreachable { .. } | Outcome::TimedOut => {
                    looked.silent.insert(node, outcome.why().to_owned());
                }
            }
        }
        memory.looked = Some(Instant::now());
        looked.asked = views.len();
        if views.is_empty() && looked.silent.is_empty() {
            return looked;
        }
        let new = || (wave, self.new_watch(since_wall_ms));
        let watch = memory.watch.take().filter(|(of, _)| *of == wave);
        let (_, watch) = memory.watch.insert(watch.unwrap_or_else(new));
        let now_ms = self.began.elapsed().as_millis();
        watch.at(u64::try_from(now_ms).unwrap_or(u64::MAX));
        let round = watch.observe(views, &looked.silent);
        looked.verdict = round.verdict();
        looked.arrivals = watch.arrivals();
        looked.round = Some(round);
        looked
    }

    fn new_watch(&self, since_wall_ms: i64) -> ClusterWatches {
        let mut watch =
            ClusterWatches::new(since_wall_ms).accepting_unproven(self.accepts_unproven);
        watch = watch.with_accepted(self.accepted.clone());
        if let Some(patience) = self.patience {
            watch = watch.with_patience(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        }
        let Some(quiesce) = self.quiesce else {
            return watch;
        };
        let rounds = quiesce.as_millis() / PAUSE.as_millis();
        watch.with_stalled_rounds(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    fn shown(&self, asked: Asked) -> ClusterShown {
        let view = asked.answer.map(|answer| {
            let mut view = view(answer);
            if !self.collections.is_empty() {
                view.target_collections = wanted_in(&asked.cluster, &self.collections);
            }
            view
        });
        ClusterShown {
            cluster: asked.cluster,
            topology: asked.topology,
            view: view.map_err(|status| status.message().to_owned()),
        }
    }

    async fn observe(
        &self,
        since_wall_ms: i64,
        limit: u32,
    ) -> BTreeMap<NodeName, Outcome<Vec<Asked>>> {
        let only_look = self.only_looks;
        let call = move |_, channel: Channel| async move {
            let mut asked = Vec::new();
            for (cluster, topology) in clusters_of(channel.clone()).await? {
                let request = v1::ObserveReplicationRequest {
                    since_wall_ms,
                    limit,
                    cluster: cluster.clone(),
                    only_look,
                };
                let mut client = client::health(channel.clone());
                let answer = client.observe_replication(request).await;
                asked.push(Asked {
                    cluster,
                    topology,
                    answer: answer.map(tonic::Response::into_inner),
                });
            }
            Ok(asked)
        };
        self.session.fan_out(&self.members, call).await
    }
}

/// What a node answered about one of its clusters.
struct Asked {
    cluster: String,
    topology: Topology,
    answer: Result<v1::ObserveReplicationResponse, Status>,
}

fn answers(asked: &[Asked]) -> impl Iterator<Item = &v1::ObserveReplicationResponse> + Clone {
    asked.iter().filter_map(|one| one.answer.as_ref().ok())
}

/// Of the collections that somebody named those of one cluster; those without a cluster are of each.
fn wanted_in(cluster: &str, collections: &[String]) -> Vec<String> {
    let of_it = collections.iter().filter_map(|wanted| {
        match wanted.split_once('/').filter(|_| !cluster.is_empty()) {
            Some((name, collection)) => (name == cluster).then_some(collection),
            None => Some(wanted.as_str()),
        }
    });
    of_it.map(str::to_owned).collect()
}

/// Why not one cluster of a node could be looked at.
fn why_nothing(asked: &[Asked]) -> String {
    let mut failed = asked.iter().filter_map(|one| one.answer.as_ref().err());
    let why = failed.next().map(|status| status.message().to_owned());
    why.unwrap_or_else(|| "it names no cluster".to_owned())
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

#[cfg(test)]
mod tests {
    use super::wanted_in;

    #[test]
    fn a_collection_may_be_that_of_one_cluster() {
        let wanted = ["orders", "west/stock"].map(str::to_owned);
        assert_eq!(wanted_in("west", &wanted), ["orders", "stock"]);
        assert_eq!(wanted_in("east", &wanted), ["orders"]);
        // Without clusters a name may have a stroke of its own.
        assert_eq!(wanted_in("", &wanted), wanted);
    }
}
