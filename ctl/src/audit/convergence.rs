//! Whether clocks that are behind catch up.

use crate::mesh::{Outcome, Session, client};
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::id::NodeName;
use cbddc_domain::replication::FindingKind;
use cbddc_proto::convert::replication::clock_from_proto;
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// The pause between two looks at clocks.
const PAUSE: Duration = Duration::from_secs(1);

/// A node that has not seen what others have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Stalled, or lagging where it still moves.
    pub kind: FindingKind,
    /// Which node.
    pub node: NodeName,
    /// Whose events.
    pub origin: String,
    /// How far it is: wall and logic.
    pub is: (i64, i32),
    /// How far others were when it began.
    pub wanted: (i64, i32),
}

/// Waits until every clock has reached `goal`, at most for `limit`; returns those that have not.
///
/// A clock that shows nothing of an origin says nothing: some nodes forget theirs at a restart. A
/// node with interests need not reach anything.
pub async fn converge(
    session: &Session,
    cluster: &str,
    nodes: &BTreeSet<NodeName>,
    goal: &VectorClock,
    limit: Duration,
) -> Vec<Late> {
    let until = Instant::now() + limit;
    let mut first: BTreeMap<(NodeName, String), (i64, i32)> = BTreeMap::new();
    let mut left = nodes.clone();
    loop {
        let late = behind(session, cluster, &left, goal).await;
        for one in &late {
            let key = (one.node.clone(), one.origin.clone());
            first.entry(key).or_insert(one.is);
        }
        if late.is_empty() || Instant::now() >= until {
            return late
                .into_iter()
                .map(|late| {
                    let key = (late.node.clone(), late.origin.clone());
                    let kind = if first.get(&key) == Some(&late.is) {
                        FindingKind::Stalled
                    } else {
                        FindingKind::Lagging
                    };
                    Late { kind, ..late }
                })
                .collect();
        }
        left = late.into_iter().map(|late| late.node).collect();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn behind(
    session: &Session,
    cluster: &str,
    nodes: &BTreeSet<NodeName>,
    goal: &VectorClock,
) -> Vec<Late> {
    let request = v1::ReadClockRequest {
        cluster: cluster.to_owned(),
    };
    let call = move |_, channel| {
        let request = request.clone();
        async move {
            let mut client = client::replication(channel);
            Ok(client.read_clock(request).await?.into_inner())
        }
    };
    let mut late = Vec::new();
    for (node, outcome) in session.fan_out(nodes, call).await {
        let Outcome::Ok(answer) = outcome else {
            continue;
        };
        if !answer.interests.is_empty() {
            continue;
        }
        let clock = clock_from_proto(answer.clock);
        for (origin, wanted) in &goal.0 {
            if let Some(is) = clock.get(origin).filter(|is| is < wanted) {
                late.push(Late {
                    kind: FindingKind::Lagging,
                    node: node.clone(),
                    origin: origin.clone(),
                    is,
                    wanted: *wanted,
                });
            }
        }
    }
    late
}
