//! Compares the contents of documents by digests: a few kilobytes, whatever their size.

use super::stranded::without_event;
use crate::error::CtlError;
use crate::mesh::{Outcome, Session, client};
use cbddc_domain::audit::EventFinding;
use cbddc_domain::documents::{
    Comparison, DocumentRow, DocumentRows, Part, Uneven, content_digest,
};
use cbddc_domain::id::NodeName;
use cbddc_oplog::{OplogDb, OplogError};
use cbddc_proto::convert::replication::part_from_proto;
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long making the digests may take, at least.
const DIGEST_LIMIT: Duration = Duration::from_secs(120);

/// How long a node may take to send a snapshot of all that it holds, and the agent to read it.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How to compare.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// The pause before what has no event yet is looked at again.
    pub settle: Duration,
    /// Whether a node whose database does not tell its documents sends a snapshot of them.
    pub by_snapshot: bool,
}

/// What came of comparing.
#[derive(Debug, Default)]
pub struct Compared {
    /// Documents that differ.
    pub findings: Vec<EventFinding>,
    /// Per node that took part: where its documents were read from.
    pub read_from: BTreeMap<NodeName, String>,
    /// Per node that did not: why.
    pub left_out: BTreeMap<NodeName, String>,
}

/// Compares what the nodes hold; of nodes with interests, what all of them want.
///
/// # Errors
/// When an answer makes no sense.
pub async fn compare_documents(
    session: &Session,
    cluster: &str,
    nodes: &BTreeSet<NodeName>,
    interests: impl Iterator<Item = &Vec<String>>,
    how: How,
) -> Result<Compared, CtlError> {
    let mut compared = Compared::default();
    let mut common: Option<BTreeSet<&String>> = None;
    for wanted in interests.filter(|wanted| !wanted.is_empty()) {
        let wanted: BTreeSet<&String> = wanted.iter().collect();
        common = Some(match common {
            None => wanted,
            Some(before) => before.intersection(&wanted).copied().collect(),
        });
    }
    if common.as_ref().is_some_and(BTreeSet::is_empty) {
        return Ok(compared);
    }
    let collections: Vec<String> = common.into_iter().flatten().cloned().collect();
    let mut states: BTreeMap<NodeName, String> = nodes
        .iter()
        .map(|node| (node.clone(), String::new()))
        .collect();
    if how.by_snapshot {
        // One after the other: to make one costs a node time and disk.
        for node in nodes {
            let request = v1::ReadDigestsRequest {
                collections: collections.clone(),
                cluster: cluster.to_owned(),
                by_snapshot: true,
                ..v1::ReadDigestsRequest::default()
            };
            let call = |channel| async {
                let mut client = client::replication(channel);
                Ok(client.read_digests(request).await?.into_inner())
            };
            eprintln!("{node}: reading its documents");
            let outcome = session.call(node, SNAPSHOT_LIMIT, call).await;
            let Outcome::Ok(answer) = outcome else {
                states.remove(node);
                let why = outcome.why().to_owned();
                compared.left_out.insert(node.clone(), why);
                continue;
            };
            states.insert(node.clone(), answer.state);
        }
    }
    let mut comparison = Comparison::default();
    while let Some(path) = comparison.next_part() {
        let asked: BTreeSet<NodeName> = states.keys().cloned().collect();
        let (names, of) = (states.clone(), collections.clone());
        let (asked_path, cluster) = (path.clone(), cluster.to_owned());
        let call = move |node: NodeName, channel| {
            let request = v1::ReadDigestsRequest {
                path: asked_path.clone().into(),
                state: names.get(&node).cloned().unwrap_or_default(),
                collections: of.clone(),
                cluster: cluster.clone(),
                by_snapshot: false,
            };
            async move {
                let mut client = client::replication(channel);
                Ok(client.read_digests(request).await?.into_inner())
            }
        };
        let limit = session.timeout().max(DIGEST_LIMIT);
        let outcomes = session
            .fan_out_within(&asked, session.jobs(), limit, call)
            .await;
        let mut parts: Vec<(String, Part)> = Vec::new();
        for (node, outcome) in outcomes {
            let Outcome::Ok(mut answer) = outcome else {
                states.remove(&node);
                compared.left_out.insert(node, outcome.why().to_owned());
                continue;
            };
            states.insert(node.clone(), std::mem::take(&mut answer.state));
            let from = std::mem::take(&mut answer.read_from);
            compared.read_from.insert(node.clone(), from);
            let part = part_from_proto(answer).map_err(|fault| {
                CtlError::failed(format!("the digests of {node} make no sense: {fault}"))
            })?;
            parts.push((node.to_string(), part));
        }
        comparison.tell(&path, &parts);
    }
    compared
        .read_from
        .retain(|node, _| states.contains_key(node));
    let all = states.into_keys().collect();
    let uneven = comparison.take_uneven();
    compared.findings = comparison.finish();
    let stranded = without_event(session, cluster, &all, uneven, how.settle).await;
    compared
        .findings
        .extend(stranded.into_iter().map(Uneven::without_event));
    Ok(compared)
}

/// The same of files.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn compare_files(databases: &[OplogDb]) -> Result<Vec<EventFinding>, OplogError> {
    let mut tables = Vec::new();
    for db in databases {
        let mut rows = DocumentRows::default();
        db.each_document(|document| {
            rows.push(&DocumentRow {
                collection: document.collection.to_owned(),
                key: document.key.to_owned(),
                version: document.version,
                origin: document.origin.to_owned(),
                digest: document.content.map(content_digest),
            });
        })?;
        tables.push((db.path().display().to_string(), rows.finish()));
    }
    let mut comparison = Comparison::default();
    while let Some(path) = comparison.next_part() {
        let parts = tables.iter();
        let parts: Vec<_> = parts
            .map(|(name, table)| (name.clone(), table.part(&path)))
            .collect();
        comparison.tell(&path, &parts);
    }
    let mut findings = Vec::new();
    for uneven in comparison.take_uneven() {
        let mut has_event = false;
        for db in databases {
            has_event |= db.has_event(&uneven.version)?;
        }
        if !has_event {
            findings.push(uneven.without_event());
        }
    }
    findings.extend(comparison.finish());
    Ok(findings)
}
