//! `cbctl replication audit`: of nodes that run, and of files.

use super::show::{NodeJson, ReportJson};
use crate::audit::{Audited, Compared, Head, How};
use crate::audit::{audit_files, audit_mesh, compare_documents, converge};
use crate::cli::{Output, ReplicationAuditArgs};
use crate::clusters::groups;
use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client};
use crate::render::{self, NodeRow, Table};
use cbddc_domain::audit::EventFinding;
use cbddc_domain::id::NodeName;
use cbddc_domain::replication::{FindingKind, collection_of};
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What `replication audit -o json` prints.
#[derive(Debug, Default, Serialize)]
struct AuditJson {
    nodes: Vec<NodeRow<NodeJson>>,
    /// Where the compared documents were read from.
    documents_from: BTreeMap<String, String>,
    /// Nodes whose documents were not compared, and why.
    documents_left_out: BTreeMap<String, String>,
    #[serde(flatten)]
    report: ReportJson,
}

/// The same for files.
#[derive(Debug, Serialize)]
struct FilesJson {
    files: BTreeMap<String, NodeJson>,
    #[serde(flatten)]
    report: ReportJson,
}

pub(super) async fn run(
    arguments: &ReplicationAuditArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.targets(&arguments.nodes.node)?;
    let since_wall_ms = match arguments.since {
        None => 0,
        Some(since) => {
            let since_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            now_on(session, &targets)
                .await
                .saturating_sub(since_ms)
                .max(0)
        }
    };
    let mut json = AuditJson::default();
    for ((cluster, _), nodes) in groups(session, &targets).await {
        let (part, rows) =
            audit_cluster(arguments, session, &cluster, &nodes, since_wall_ms).await?;
        json.report.add(part);
        json.nodes.extend(rows.nodes);
        json.documents_from.extend(rows.documents_from);
        json.documents_left_out.extend(rows.documents_left_out);
    }
    json.nodes.sort_by(|a, b| a.node.cmp(&b.node));
    for (node, why) in &json.documents_left_out {
        eprintln!("  {node}: documents are not compared: {why}");
    }
    render::print(output, &json, || {
        let rows = json.nodes.iter();
        let rows = rows.filter_map(|row| {
            let node = row.result.as_ref()?;
            Some((collection_of(&node.cluster, row.node.as_str()), node))
        });
        nodes_table(rows) + "\n" + &json.report.table()
    })?;
    render::complain(&json.nodes);
    if json.report.found {
        return Ok(Exit::FoundWrong);
    }
    let exit = render::exit_of(&json.nodes);
    if exit == Exit::Done && arguments.documents && !json.documents_left_out.is_empty() {
        return Ok(Exit::Partial);
    }
    Ok(exit)
}

/// What is judged together: the nodes of a mesh, or one hosted server.
async fn audit_cluster(
    arguments: &ReplicationAuditArgs,
    session: &Session,
    cluster: &str,
    nodes: &BTreeSet<NodeName>,
    since_wall_ms: i64,
) -> Result<(ReportJson, AuditJson), CtlError> {
    let mut audited = audit_mesh(session, cluster, nodes, since_wall_ms).await?;
    if audited.report.has_suspicions() {
        // Events travel while nodes are read: what is really missing is so a while later, too.
        tokio::time::sleep(arguments.settle).await;
        let mut again = audit_mesh(session, cluster, nodes, since_wall_ms).await?;
        again.report.confirmed_by(&audited.report);
        audited = again;
    }
    tell_of_nodes(&mut audited);
    let answered: BTreeSet<NodeName> = heads(&audited).map(|(node, _)| node.clone()).collect();
    let (owed, quiesce) = (audited.owed(), arguments.quiesce);
    let late = converge(session, cluster, &owed, quiesce).await;
    let documents = if arguments.no_documents {
        Compared::default()
    } else {
        let interests = heads(&audited).map(|(_, head)| &head.interests);
        let how = How {
            settle: arguments.settle,
            by_snapshot: arguments.documents,
        };
        compare_documents(session, cluster, &answered, interests, how).await?
    };
    audited.report.add_all(documents.findings);
    let critical = heads(&audited)
        .flat_map(|(_, head)| head.critical_collections.iter().cloned())
        .collect();
    let report = ReportJson::new(cluster, &audited.report, &late, &critical);
    let rows = std::mem::take(&mut audited.nodes);
    let of_cluster = |texts: BTreeMap<NodeName, String>| {
        let texts = texts.into_iter();
        let texts = texts.map(|(node, text)| (collection_of(cluster, node.as_str()), text));
        texts.collect()
    };
    let rows = AuditJson {
        nodes: rows
            .into_iter()
            .flat_map(|(node, outcome)| {
                let one = BTreeMap::from([(node.clone(), outcome)]);
                render::rows(one, |head: Head| {
                    let (name, report) = (node.as_str(), &audited.report);
                    let node = NodeJson::new(name, &head.origin, &head.read_from, report);
                    Ok(NodeJson {
                        cluster: cluster.to_owned(),
                        ..node
                    })
                })
            })
            .collect(),
        documents_from: of_cluster(documents.read_from),
        documents_left_out: of_cluster(documents.left_out),
        report: ReportJson::default(),
    };
    Ok((report, rows))
}

/// Compares files; needs no mesh.
pub(crate) fn files(
    files: &[PathBuf],
    with_documents: bool,
    output: Output,
) -> Result<Exit, CtlError> {
    let (databases, report) = audit_files(files, with_documents)?;
    let shown = databases.iter().map(|db| {
        let name = db.path().display().to_string();
        let node = NodeJson::new(&name, "", db.schema(), &report);
        (name, node)
    });
    let json = FilesJson {
        files: shown.collect(),
        report: ReportJson::new("", &report, &[], &BTreeSet::new()),
    };
    render::print(output, &json, || {
        let rows = json.files.iter().map(|(name, node)| (name.clone(), node));
        nodes_table(rows) + "\n" + &json.report.table()
    })?;
    Ok(if json.report.found {
        Exit::FoundWrong
    } else {
        Exit::Done
    })
}

fn nodes_table<'a>(rows: impl Iterator<Item = (String, &'a NodeJson)>) -> String {
    let header = [
        "NODE",
        "ROWS",
        "EVENTS",
        "MISSED",
        "BEHIND",
        "NOT WANTED",
        "PRUNED",
        "OLDEST",
        "NEWEST",
        "READ FROM",
    ];
    let mut table = Table::new(&header);
    for (name, node) in rows {
        table.row([
            name,
            node.rows.to_string(),
            node.held.to_string(),
            node.missed.to_string(),
            node.behind.to_string(),
            node.not_wanted.to_string(),
            node.pruned.to_string(),
            node.oldest.clone().unwrap_or_default(),
            node.newest.clone().unwrap_or_default(),
            node.read_from.clone(),
        ]);
    }
    table.render()
}

fn heads(audited: &Audited) -> impl Iterator<Item = (&NodeName, &Head)> {
    let nodes = audited.nodes.iter();
    nodes.filter_map(|(node, outcome)| Some((node, outcome.ok()?)))
}

/// Nodes that refuse the token, and nodes that share an id.
fn tell_of_nodes(audited: &mut Audited) {
    let mut found = Vec::new();
    let mut by_id: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (node, head) in heads(audited) {
        if !head.token_accepted {
            let text = "refuses the cluster's token: its events were not read";
            found.push((FindingKind::AuthRefused, vec![node.to_string()], text));
        }
        let nodes = by_id.entry(head.origin.clone()).or_default();
        nodes.push(node.to_string());
    }
    let shared = by_id
        .into_iter()
        .filter(|(id, nodes)| !id.is_empty() && nodes.len() > 1);
    for (_, nodes) in shared {
        found.push((FindingKind::SharedId, nodes, "answer with one id"));
    }
    let findings = found.into_iter().map(|(kind, on, detail)| EventFinding {
        kind,
        origin: String::new(),
        collection: String::new(),
        key: String::new(),
        wall: 0,
        logic: 0,
        on,
        not_on: Vec::new(),
        detail: detail.to_owned(),
    });
    audited.report.add_all(findings.collect());
}

/// The earliest of the nodes' clocks: events carry those, and an admin's laptop may be wrong.
async fn now_on(session: &Session, nodes: &BTreeSet<NodeName>) -> i64 {
    let request = v1::ObserveReplicationRequest {
        since_wall_ms: i64::MAX / 2,
        limit: 1,
        cluster: String::new(),
        only_look: true,
    };
    let call = move |_, channel| {
        let request = request.clone();
        async move {
            let mut client = client::health(channel);
            Ok(client.observe_replication(request).await?.into_inner())
        }
    };
    let outcomes = session.fan_out(nodes, call).await;
    let clocks = outcomes.values().filter_map(Outcome::ok);
    clocks
        .map(|answer| answer.wall_ms)
        .min()
        .unwrap_or_default()
}
