//! Documents that no event takes to where they are missing.

use crate::mesh::{Outcome, Session, client};
use cbddc_domain::documents::{DocumentVersion, Uneven};
use cbddc_domain::id::NodeName;
use cbddc_proto::convert::replication::{VERSIONS_MAX, version_to_proto, versions_from_proto};
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a node may take to look events up.
const FIND_LIMIT: Duration = Duration::from_secs(60);

/// What no node has an event of, now and a while later: a local write has its event only after the
/// node's next cycle. Where a node does not answer, nothing is said of what it alone may know.
pub(super) async fn without_event(
    session: &Session,
    cluster: &str,
    nodes: &BTreeSet<NodeName>,
    uneven: Vec<Uneven>,
    settle: Duration,
) -> Vec<Uneven> {
    let mut left = uneven;
    for pause in [Duration::ZERO, settle] {
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(pause).await;
        let versions: Vec<&DocumentVersion> = left.iter().map(|one| &one.version).collect();
        let limit = session.timeout().max(FIND_LIMIT);
        let found = find(session, cluster, nodes, &versions, limit).await;
        let mut known = found.into_iter().map(|found| {
            let mut answers = found.values();
            answers.any(|found| found.as_ref().is_none_or(|found| found.has_event))
        });
        left.retain(|_| known.next() == Some(false));
    }
    left
}

/// What each node holds of each document, in their order; unset: it did not say.
async fn find(
    session: &Session,
    cluster: &str,
    nodes: &BTreeSet<NodeName>,
    versions: &[&DocumentVersion],
    limit: Duration,
) -> Vec<BTreeMap<NodeName, Option<v1::FoundDocument>>> {
    let mut all = Vec::with_capacity(versions.len());
    for some in versions.chunks(VERSIONS_MAX) {
        let request = v1::FindDocumentsRequest {
            documents: some
                .iter()
                .map(|version| version_to_proto(version))
                .collect(),
            cluster: cluster.to_owned(),
        };
        let call = move |_, channel| {
            let request = request.clone();
            async move {
                let mut client = client::replication(channel);
                Ok(client.find_documents(request).await?.into_inner().found)
            }
        };
        let outcomes = session
            .fan_out_within(nodes, session.jobs(), limit, call)
            .await;
        for place in 0..some.len() {
            let of_node = |(node, outcome): (&NodeName, &Outcome<Vec<v1::FoundDocument>>)| {
                let found = outcome.ok().and_then(|found| found.get(place).copied());
                (node.clone(), found)
            };
            all.push(outcomes.iter().map(of_node).collect());
        }
    }
    all
}

/// What the stops of a span of time have cost.
#[derive(Debug, Default)]
pub struct Stranded {
    /// The documents, with who has them and who has not.
    pub documents: Vec<Uneven>,
    /// For how long writers went on before a node's stop, in milliseconds; only nodes where they did.
    pub uncovered_ms: BTreeMap<NodeName, u64>,
    /// Nodes of which it is not known, and why.
    pub not_known: BTreeMap<NodeName, String>,
}

/// The documents that were written since `ago` and before their node's last start, that no event explains
/// anywhere, and that are not on all of these nodes. At most 1,000 for each node.
pub async fn stranded_since(
    session: &Session,
    cluster: &str,
    nodes: &BTreeSet<NodeName>,
    ago: Duration,
) -> Stranded {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let request = v1::ListDocumentsWithoutEventRequest {
        since_ago_ms: ms(ago),
        cluster: cluster.to_owned(),
    };
    let call = move |_, channel| {
        let request = request.clone();
        async move {
            let mut client = client::replication(channel);
            let answer = client.list_documents_without_event(request).await?;
            Ok(answer.into_inner())
        }
    };
    let outcomes = session.fan_out(nodes, call).await;
    let mut stranded = Stranded::default();
    let mut versions = BTreeSet::new();
    for (node, outcome) in outcomes {
        let Outcome::Ok(found) = outcome else {
            stranded.not_known.insert(node, outcome.why().to_owned());
            continue;
        };
        if found.uncovered_ms > 0 {
            stranded
                .uncovered_ms
                .insert(node.clone(), found.uncovered_ms);
        }
        match versions_from_proto(found.documents) {
            Ok(found) => versions.extend(found),
            Err(fault) => drop(stranded.not_known.insert(node, fault.to_string())),
        }
    }
    let versions: Vec<DocumentVersion> = versions.into_iter().collect();
    let refs: Vec<&DocumentVersion> = versions.iter().collect();
    let found = find(session, cluster, nodes, &refs, session.timeout()).await;
    for (version, found) in versions.into_iter().zip(found) {
        let has_event = found.values().flatten().any(|found| found.has_event);
        let holds = |found: &Option<v1::FoundDocument>| found.and_then(|it| it.has_document);
        let (on, not_on): (Vec<_>, Vec<_>) = found
            .iter()
            .filter_map(|(node, found)| Some((node.to_string(), holds(found)?)))
            .partition(|(_, holds)| *holds);
        if has_event || not_on.is_empty() {
            continue;
        }
        let names = |nodes: Vec<(String, bool)>| nodes.into_iter().map(|(node, _)| node).collect();
        stranded.documents.push(Uneven {
            version,
            on: names(on),
            not_on: names(not_on),
        });
    }
    stranded
}
