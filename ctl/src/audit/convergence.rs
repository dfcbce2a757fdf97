//! Whether clocks that are behind catch up.

use crate::mesh::{Outcome, Session, client};
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::id::NodeName;
use cbddc_domain::replication::FindingKind;
use cbddc_proto::convert::replication::clock_from_proto;
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
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
    /// How far it is: wall and logic; unset: its clock does not say.
    pub is: Option<(i64, i32)>,
    /// How far others were when it began.
    pub wanted: (i64, i32),
}

/// Waits until every node's clock has reached what it owes, at most for `limit`; returns those that have
/// not. `owed` are the last events that each node lacks and wants, as an audit has seen them elsewhere:
/// a clock alone proves nothing about others.
///
/// A clock that does not name an origin, on a node whose database cannot be read either, does not say
/// how far the node is: it lags, and is never called stalled.
pub async fn converge(
    session: &Session,
    cluster: &str,
    owed: &BTreeMap<NodeName, VectorClock>,
    limit: Duration,
) -> Vec<Late> {
    let until = Instant::now() + limit;
    let owed = Arc::new(owed.clone());
    let mut first: BTreeMap<(NodeName, String), Option<(i64, i32)>> = BTreeMap::new();
    let mut left: BTreeSet<NodeName> = owed.keys().cloned().collect();
    loop {
        let late = behind(session, cluster, &left, &owed).await;
        for one in &late {
            let key = (one.node.clone(), one.origin.clone());
            first.entry(key).or_insert(one.is);
        }
        if late.is_empty() || Instant::now() >= until {
            return late
                .into_iter()
                .map(|late| {
                    let key = (late.node.clone(), late.origin.clone());
                    let stands = late.is.is_some() && first.get(&key) == Some(&late.is);
                    let kind = match stands {
                        true => FindingKind::Stalled,
                        false => FindingKind::Lagging,
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
    owed: &Arc<BTreeMap<NodeName, VectorClock>>,
) -> Vec<Late> {
    let (of, cluster) = (Arc::clone(owed), cluster.to_owned());
    let call = move |node: NodeName, channel| {
        let origins = of.get(&node).map(|clock| clock.0.keys().cloned());
        let request = v1::ReadClockRequest {
            cluster: cluster.clone(),
            origins: origins.into_iter().flatten().collect(),
        };
        async move {
            let mut client = client::replication(channel);
            Ok(client.read_clock(request).await?.into_inner())
        }
    };
    let mut late = Vec::new();
    for (node, outcome) in session.fan_out(nodes, call).await {
        let (Outcome::Ok(answer), Some(owed)) = (outcome, owed.get(&node)) else {
            continue;
        };
        let clock = clock_from_proto(answer.clock);
        for (origin, wanted) in &owed.0 {
            let is = clock.get(origin);
            if is < Some(*wanted) {
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
