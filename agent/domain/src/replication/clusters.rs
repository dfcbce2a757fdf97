//! The clusters of a node, and what is judged together.
//!
//! One process may serve several clusters, each with a port, a token and a database of its own. In
//! the topology `mesh` the nodes of a cluster replicate with each other, and are judged together. In
//! the topology `hosted` a server only responds, and clients out of our reach carry the events: each
//! server is judged by what it shows itself, and never by what another one holds.

use super::{Accepted, Arrivals, Finding, Known, MeshWatch, PeerView, Round, words};
use crate::id::NodeName;
use std::collections::{BTreeMap, BTreeSet};

/// How nodes get each other's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Topology {
    /// Each node replicates with its peers.
    #[default]
    Mesh,
    /// Servers that only respond.
    Hosted,
}

impl Topology {
    /// The word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Hosted => "hosted",
        }
    }

    /// The topology of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Mesh, Self::Hosted];
        all.into_iter().find(|topology| topology.word() == word)
    }
}

/// A peer that a node is expected to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedPeer {
    /// Where it listens, `HOST:PORT`.
    pub address: String,
    /// The member of the mesh on whose host it runs. Unset: not told, and it is required.
    pub node: Option<NodeName>,
}

/// What a finding about an event weighs by its collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Grade {
    /// No collection is named as critical, or the finding is about none.
    #[default]
    Unranked,
    /// It is in a critical collection.
    Critical,
    /// It is in another one.
    Ordinary,
}

impl Grade {
    /// The grade of what is found in a collection; `critical` are those that are named.
    pub fn of(critical: &[String], collection: &str) -> Self {
        if critical.is_empty() || collection.is_empty() {
            Self::Unranked
        } else if critical.iter().any(|name| name == collection) {
            Self::Critical
        } else {
            Self::Ordinary
        }
    }
}

/// What one node showed of one of its clusters.
#[derive(Debug, Clone)]
pub struct ClusterShown {
    /// The cluster's name; empty where a node has one without a name.
    pub cluster: String,
    /// How its nodes get events.
    pub topology: Topology,
    /// What it showed, or why it could not be asked.
    pub view: Result<PeerView, String>,
}

/// A cluster, and the one server of it where each is judged by itself.
pub type Group = (String, Option<NodeName>);

/// What is judged together with what a node shows of a cluster.
pub fn group(cluster: &str, topology: Topology, node: &NodeName) -> Group {
    let alone = match topology {
        Topology::Mesh => None,
        Topology::Hosted => Some(node.clone()),
    };
    (cluster.to_owned(), alone)
}

/// A sentence about a cluster that has a name.
pub fn of_cluster(cluster: &str, text: &str) -> String {
    match cluster {
        "" => text.to_owned(),
        name => format!("cluster {name}: {text}"),
    }
}

/// A collection of a cluster that has a name.
pub fn collection_of(cluster: &str, collection: &str) -> String {
    match cluster {
        "" => collection.to_owned(),
        name => format!("{name}/{collection}"),
    }
}

/// A [`MeshWatch`] for each group.
#[derive(Debug)]
pub struct ClusterWatches {
    since_wall_ms: i64,
    stalled_rounds: Option<u32>,
    patience_ms: Option<u64>,
    accepts_unproven: bool,
    accepted: Option<Accepted>,
    now_ms: u64,
    watches: BTreeMap<Group, MeshWatch>,
}

impl ClusterWatches {
    /// Begins with nothing seen, as [`MeshWatch::new`].
    pub fn new(since_wall_ms: i64) -> Self {
        Self {
            since_wall_ms,
            stalled_rounds: None,
            patience_ms: None,
            accepts_unproven: false,
            accepted: None,
            now_ms: 0,
            watches: BTreeMap::new(),
        }
    }

    /// As [`MeshWatch::with_stalled_rounds`].
    pub fn with_stalled_rounds(mut self, rounds: u32) -> Self {
        self.stalled_rounds = Some(rounds);
        self
    }

    /// As [`MeshWatch::with_patience`].
    pub fn with_patience(mut self, patience_ms: u64) -> Self {
        self.patience_ms = Some(patience_ms);
        self
    }

    /// As [`MeshWatch::accepting_unproven`].
    pub fn accepting_unproven(mut self, accepts: bool) -> Self {
        self.accepts_unproven = accepts;
        self
    }

    /// As [`MeshWatch::with_accepted`].
    pub fn with_accepted(mut self, accepted: Option<Accepted>) -> Self {
        self.accepted = accepted;
        self
    }

    /// As [`MeshWatch::at`].
    pub fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// How long events took to be everywhere, whatever their cluster.
    pub fn arrivals(&self) -> Arrivals {
        let mut all = Arrivals::default();
        for watch in self.watches.values() {
            all.merge(watch.arrivals());
        }
        all
    }

    /// Judges one round of every group. `unreachable` are nodes of which no cluster could be asked.
    pub fn observe(
        &mut self,
        shown: BTreeMap<NodeName, Vec<ClusterShown>>,
        unreachable: &BTreeMap<NodeName, String>,
    ) -> Round {
        type Parts = (BTreeMap<NodeName, PeerView>, BTreeMap<NodeName, String>);
        let known = self.watches.keys().cloned();
        let mut groups: BTreeMap<Group, Parts> = known.map(|of| (of, Parts::default())).collect();
        for (node, clusters) in shown {
            for one in clusters {
                let of = group(&one.cluster, one.topology, &node);
                let (views, failed) = groups.entry(of).or_default();
                match one.view {
                    Ok(view) => drop(views.insert(node.clone(), view)),
                    Err(why) => drop(failed.insert(node.clone(), why)),
                }
            }
        }
        let mut silent: BTreeSet<&NodeName> = unreachable.keys().collect();
        for ((_, alone), (_, failed)) in &mut groups {
            for (node, why) in unreachable {
                if alone.as_ref().is_none_or(|server| server == node) {
                    failed.insert(node.clone(), why.clone());
                    silent.remove(node);
                }
            }
        }
        // Nodes of which nothing is known yet must be waited for all the same.
        if !silent.is_empty() || groups.is_empty() {
            let failed = silent.into_iter();
            let failed = failed.map(|node| (node.clone(), unreachable[node].clone()));
            let (_, waited) = groups.entry((String::new(), None)).or_default();
            waited.extend(failed);
        }
        let mut all = Round::default();
        for (of, (views, failed)) in groups {
            let is_new = !self.watches.contains_key(&of);
            if views.is_empty() && (failed.is_empty() || is_new) {
                let failed = failed.iter();
                let told = failed.map(|(node, why)| words::not_asked(node, why));
                all.waiting
                    .extend(told.map(|text| of_cluster(&of.0, &text)));
                continue;
            }
            let cluster = of.0.clone();
            let watch = self
                .watches
                .remove(&of)
                .unwrap_or_else(|| self.new_watch(&cluster));
            let watch = self.watches.entry(of).or_insert(watch);
            watch.at(self.now_ms);
            add(&mut all, &cluster, watch.observe(&views, &failed));
        }
        all.findings.sort_by_key(|finding| finding.kind);
        all
    }

    fn new_watch(&self, cluster: &str) -> MeshWatch {
        let accepted = self.accepted.as_ref().map(|it| it.of_cluster(cluster));
        let watch = MeshWatch::new(self.since_wall_ms).with_accepted(accepted);
        let mut watch = watch.accepting_unproven(self.accepts_unproven);
        if let Some(patience_ms) = self.patience_ms {
            watch = watch.with_patience(patience_ms);
        }
        if let Some(rounds) = self.stalled_rounds {
            watch = watch.with_stalled_rounds(rounds);
        }
        watch
    }
}

fn add(all: &mut Round, cluster: &str, round: Round) {
    let findings = round.findings.into_iter().map(|finding| Finding {
        cluster: cluster.to_owned(),
        text: of_cluster(cluster, &finding.text),
        ..finding
    });
    all.findings.extend(findings);
    let told = |texts: Vec<String>| {
        let texts = texts.into_iter();
        texts.map(|text| of_cluster(cluster, &text))
    };
    all.headlines.extend(told(round.headlines));
    all.totals
        .extend(round.totals.into_iter().map(|known| Known {
            cluster: cluster.to_owned(),
            text: of_cluster(cluster, &known.text),
            ..known
        }));
    all.late.extend(round.late);
    all.excused.extend(round.excused);
    all.waiting.extend(told(round.waiting));
    for (collection, count) in round.moved {
        let name = collection_of(cluster, &collection);
        *all.moved.entry(name).or_default() += count;
    }
    let unproven = round.unproven.iter();
    let unproven = unproven.map(|collection| collection_of(cluster, collection));
    all.unproven.extend(unproven);
}

#[cfg(test)]
mod tests {
    use super::{ClusterShown, ClusterWatches, Topology};
    use crate::hlc::{Hlc, VectorClock};
    use crate::oplog::{Operation, OplogEntry};
    use crate::proposer::MeshVerdict;
    use crate::replication::{FindingKind, PeerView, Round};
    use std::collections::BTreeMap;

    /// A chain of so many events of `writer`.
    fn chain(writer: &str, count: i64) -> Vec<OplogEntry> {
        let mut previous_hash = String::new();
        let events = (1..=count).map(|wall| {
            let event = OplogEntry {
                collection: "orders".into(),
                key: format!("k{wall}"),
                operation: Operation::Put,
                payload: String::new(),
                hlc: Hlc::new(wall, 0, writer),
                hash: String::new(),
                previous_hash: previous_hash.clone(),
            };
            let event = event.seal();
            previous_hash = event.hash.clone();
            event
        });
        events.collect()
    }

    fn view(node: &str, events: Vec<OplogEntry>) -> PeerView {
        let mut clock = VectorClock::default();
        events.iter().for_each(|event| clock.observe(&event.hlc));
        PeerView {
            origin: node.into(),
            token_accepted: true,
            clock_before: clock.clone(),
            clock_after: clock,
            events,
            ..PeerView::default()
        }
    }

    /// Three rounds over what each node shows of each cluster.
    fn rounds(topology: Topology, shown: &[(&str, &str, Vec<OplogEntry>)]) -> Round {
        let mut watches = ClusterWatches::new(0);
        let mut last = Round::default();
        for round in 0..3 {
            let mut all: BTreeMap<_, Vec<ClusterShown>> = BTreeMap::new();
            for (node, cluster, events) in shown {
                let one = ClusterShown {
                    cluster: (*cluster).into(),
                    topology,
                    view: Ok(view(node, events.clone())),
                };
                all.entry(node.parse().unwrap()).or_default().push(one);
            }
            watches.at(round * 400);
            last = watches.observe(all, &BTreeMap::new());
        }
        last
    }

    #[test]
    fn hosted_servers_owe_each_other_nothing() {
        // The second server lacks the last two events, and another one in between.
        let mut part = chain("app", 5);
        part.remove(2);
        let shown = [("n1", "west", chain("app", 9)), ("n2", "west", part)];
        let found = |topology| {
            let round = rounds(topology, &shown);
            let kinds = round.findings.iter().map(|finding| finding.kind);
            let nodes = round.findings.iter().map(|it| it.node.to_string());
            (kinds.collect::<Vec<_>>(), nodes.collect::<Vec<_>>())
        };
        let (kinds, nodes) = found(Topology::Hosted);
        assert_eq!(kinds, [FindingKind::ChainGap], "its own chain has a gap");
        assert_eq!(nodes, ["n2"]);
        assert!(found(Topology::Mesh).0.contains(&FindingKind::Missed));
        let apart = [
            ("n1", "west", chain("app", 9)),
            ("n2", "west", chain("app", 2)),
        ];
        assert_eq!(
            rounds(Topology::Hosted, &apart).verdict(),
            MeshVerdict::Passed
        );
    }

    #[test]
    fn a_finding_names_its_cluster_and_no_other() {
        let mut doubled = chain("n1", 4);
        doubled.push(doubled[3].clone());
        let shown = [("n1", "east", chain("n1", 4)), ("n1", "west", doubled)];
        let round = rounds(Topology::Hosted, &shown);
        let clusters: Vec<&str> = round
            .findings
            .iter()
            .map(|it| it.cluster.as_str())
            .collect();
        assert_eq!(clusters, ["west"]);
        assert!(
            round.headlines[0].starts_with("cluster west: n1 holds"),
            "{round:?}"
        );
        assert_eq!(round.moved.get("east/orders"), Some(&4));
    }

    #[test]
    fn a_node_that_cannot_be_asked_is_waited_for() {
        let mut watches = ClusterWatches::new(0);
        let unreachable = [("n1".parse().unwrap(), "away".to_owned())].into();
        let round = watches.observe(BTreeMap::new(), &unreachable);
        assert_eq!(round.waiting, ["n1 could not be asked: away"]);
        let shown = ClusterShown {
            cluster: "west".into(),
            topology: Topology::Hosted,
            view: Err("port closed".into()),
        };
        let shown = [("n2".parse().unwrap(), vec![shown])].into();
        let round = watches.observe(shown, &BTreeMap::new());
        assert_eq!(
            round.waiting,
            ["cluster west: n2 could not be asked: port closed"]
        );
    }
}
