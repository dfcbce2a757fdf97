//! `cbctl replication check`: the judgement between waves, for whoever wants it now.

use super::show::weight;
use crate::cli::{Output, ReplicationCheckArgs};
use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client};
use crate::mesh_check::{Looked, MeshChecker};
use crate::render::{self, Table};
use cbddc_domain::id::NodeName;
use cbddc_domain::proposer::MeshVerdict;
use cbddc_domain::replication::Round;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// What `replication check -o json` prints.
#[derive(Debug, Serialize)]
struct CheckJson {
    /// `passed`, `unproven`, `waiting` or `failed`.
    verdict: &'static str,
    /// What was proven, in a sentence.
    proof: String,
    findings: Vec<FindingJson>,
    /// What the agents have found by themselves and still see.
    found_by_agents: Vec<FindingJson>,
    /// What was not there in the end.
    waiting: Vec<String>,
    /// Events per collection that arrived everywhere exactly once.
    arrived: BTreeMap<String, u64>,
    /// Collections in which events should be seen and were not.
    unproven: BTreeSet<String>,
    /// How long events took to be everywhere.
    arrival: ArrivalJson,
    /// What agents could not look at or do, and on which node.
    not_checked: Vec<NotCheckedJson>,
    /// Nodes that were left out, and why.
    left_out: BTreeMap<String, String>,
    /// Nodes that could not be asked, and why.
    unreachable: BTreeMap<String, String>,
}

/// Times to arrive everywhere: upper bounds, since nodes are looked at every so often.
#[derive(Debug, Serialize)]
struct ArrivalJson {
    events: usize,
    p50_ms: Option<u64>,
    p99_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct NotCheckedJson {
    node: String,
    what: String,
}

#[derive(Debug, Serialize)]
struct FindingJson {
    kind: String,
    weight: &'static str,
    node: String,
    /// The cluster; empty where it has no name.
    cluster: String,
    origin: String,
    text: String,
}

pub(super) async fn run(
    arguments: &ReplicationCheckArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.targets(&arguments.nodes.node)?;
    let checker = MeshChecker::new(session.clone(), targets.clone())
        .with_collections(arguments.collections.clone())
        .with_quiesce(arguments.quiesce)
        .with_patience(arguments.patience)
        .accepting_unproven(arguments.accept_unproven);
    checker.begin_since(arguments.since).await;
    let began = Instant::now();
    let last = loop {
        let looked = checker.look(0).await;
        let measured = began.elapsed() >= arguments.measure;
        match looked.verdict {
            MeshVerdict::Failed(_) => break looked,
            MeshVerdict::Passed if measured => break looked,
            MeshVerdict::Pending(_) if began.elapsed() >= arguments.wait => break looked,
            MeshVerdict::Passed | MeshVerdict::Pending(_) => {}
        }
    };
    let of_agents = agents_findings(session, &targets).await;
    let mut exit = exit_of(&last);
    if of_agents.iter().any(|finding| finding.weight == "finding") {
        exit = Exit::FoundWrong;
    }
    let mut json = json_of(last);
    json.found_by_agents = of_agents;
    render::print(output, &json, || table(&json))?;
    for (node, why) in json.unreachable.iter().chain(&json.left_out) {
        eprintln!("  {node}: {why}");
    }
    Ok(exit)
}

/// A mesh with nodes that cannot be asked is partial; what was found is found all the same.
fn exit_of(last: &Looked) -> Exit {
    match &last.verdict {
        MeshVerdict::Failed(_) => Exit::FoundWrong,
        MeshVerdict::Passed if last.round.is_none() => Exit::Failed,
        MeshVerdict::Passed => Exit::Done,
        MeshVerdict::Pending(_) if last.asked == 0 => Exit::Failed,
        MeshVerdict::Pending(_) if last.silent.is_empty() => Exit::FoundWrong,
        MeshVerdict::Pending(_) => Exit::Partial,
    }
}

async fn agents_findings(session: &Session, nodes: &BTreeSet<NodeName>) -> Vec<FindingJson> {
    let call = |_, channel| async move {
        let mut client = client::replication(channel);
        let answer = client.list_findings(v1::ListFindingsRequest {}).await?;
        Ok(answer.into_inner().findings)
    };
    let outcomes = session.fan_out(nodes, call).await;
    let found = outcomes.into_values().filter_map(|outcome| match outcome {
        Outcome::Ok(findings) => Some(findings),
        // A node that did not answer is told of already.
        Outcome::Unreachable { .. } | Outcome::Refused { .. } | Outcome::TimedOut => None,
    });
    found
        .flatten()
        .map(|finding| FindingJson {
            kind: finding.kind,
            weight: weight(finding.is_definite),
            node: finding.node,
            cluster: finding.cluster,
            origin: finding.origin,
            text: finding.text,
        })
        .collect()
}

fn json_of(last: Looked) -> CheckJson {
    let round = last.round.unwrap_or_default();
    let findings = round.findings.iter().map(|finding| FindingJson {
        kind: finding.kind.to_string(),
        weight: weight(finding.kind.is_definite()),
        node: finding.node.to_string(),
        cluster: finding.cluster.clone(),
        origin: finding.origin.clone(),
        text: finding.text.clone(),
    });
    let named = |nodes: BTreeMap<_, String>| {
        let nodes = nodes.into_iter();
        nodes
            .map(|(node, why): (NodeName, String)| (node.to_string(), why))
            .collect()
    };
    let not_checked = last
        .not_checked
        .into_iter()
        .map(|(node, what)| NotCheckedJson {
            node: node.to_string(),
            what,
        });
    CheckJson {
        verdict: word(&last.verdict, &round),
        proof: round.proof(),
        findings: findings.collect(),
        found_by_agents: Vec::new(),
        waiting: round.waiting,
        arrived: round.moved,
        unproven: round.unproven,
        arrival: ArrivalJson {
            events: last.arrivals.count(),
            p50_ms: last.arrivals.percentile(50),
            p99_ms: last.arrivals.percentile(99),
        },
        not_checked: not_checked.collect(),
        left_out: named(last.left_out),
        unreachable: named(last.silent),
    }
}

fn word(verdict: &MeshVerdict, round: &Round) -> &'static str {
    match verdict {
        MeshVerdict::Failed(_) => "failed",
        MeshVerdict::Pending(_) => "waiting",
        MeshVerdict::Passed if round.moved.is_empty() => "unproven",
        MeshVerdict::Passed => "passed",
    }
}

fn table(json: &CheckJson) -> String {
    let mut text = format!("{}: {}\n", json.verdict, json.proof);
    if let (Some(p50), Some(p99)) = (json.arrival.p50_ms, json.arrival.p99_ms) {
        let events = json.arrival.events;
        text.push_str(&format!(
            "{events} events were seen from their beginning: everywhere within {p50} ms (p50), {p99} ms (p99)\n"
        ));
    }
    for line in &json.waiting {
        text.push_str(&format!("waiting: {line}\n"));
    }
    for NotCheckedJson { node, what } in &json.not_checked {
        text.push_str(&format!("{node}: not checked: {what}\n"));
    }
    let mut findings = json.findings.iter().chain(&json.found_by_agents).peekable();
    if findings.peek().is_some() {
        let mut table = Table::new(&["KIND", "NODE", "WHAT"]);
        for finding in findings {
            table.row([
                finding.kind.clone(),
                finding.node.clone(),
                finding.text.clone(),
            ]);
        }
        text.push_str(&table.render());
    }
    text
}
