//! Which clusters the nodes serve, and which of their nodes belong together.

use crate::mesh::{Outcome, Session, client};
use cbddc_domain::id::NodeName;
use cbddc_domain::replication::{Group, Topology, group};
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// The clusters of one node, by name. An agent that does not know the question has one without name.
///
/// # Errors
/// What the agent answers.
pub async fn clusters_of(channel: Channel) -> Result<Vec<(String, Topology)>, Status> {
    let mut client = client::replication(channel);
    let answer = client.list_clusters(v1::ListClustersRequest {}).await;
    let clusters = match answer {
        Ok(answer) => answer.into_inner().clusters,
        Err(status) if status.code() == Code::Unimplemented => vec![v1::Cluster::default()],
        Err(status) => return Err(status),
    };
    let clusters = clusters.into_iter().map(|cluster| {
        let topology = Topology::from_word(&cluster.topology);
        (cluster.name, topology.unwrap_or_default())
    });
    Ok(clusters.collect())
}

/// The nodes of each group. Nodes that cannot be asked are where those without a name are, so that
/// whoever asks there hears why.
pub async fn groups(
    session: &Session,
    nodes: &BTreeSet<NodeName>,
) -> BTreeMap<Group, BTreeSet<NodeName>> {
    let outcomes = session
        .fan_out(nodes, |_, channel| clusters_of(channel))
        .await;
    let mut groups: BTreeMap<Group, BTreeSet<NodeName>> = BTreeMap::new();
    for (node, outcome) in outcomes {
        let clusters = match outcome {
            Outcome::Ok(clusters) => clusters,
            Outcome::Unreachable { .. } | Outcome::Refused { .. } | Outcome::TimedOut => {
                vec![(String::new(), Topology::Mesh)]
            }
        };
        for (name, topology) in clusters {
            let of = group(&name, topology, &node);
            groups.entry(of).or_default().insert(node.clone());
        }
    }
    groups
}
