//! What `mesh enrol` prints.

use super::Planned;
use crate::render::NodeRow;
use cbddc_domain::id::NodeName;
use serde::Serialize;
use std::fmt::Write as _;

/// What came of one host.
pub(super) type Row = NodeRow<EnrolledJson>;

/// What `mesh enrol -o json` prints.
#[derive(Debug, Serialize)]
pub(super) struct EnrolJson {
    pub(super) nodes: Vec<Row>,
    dry_run: bool,
    /// Members whose hosts hold an older mesh file.
    pub(super) stale: Vec<NodeName>,
}

impl EnrolJson {
    pub(super) fn new(mut nodes: Vec<Row>, dry_run: bool, stale: Vec<NodeName>) -> Self {
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        Self {
            nodes,
            dry_run,
            stale,
        }
    }
}

/// A host that was, or would be, enrolled.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EnrolledJson {
    /// Where ssh goes.
    destination: String,
    /// Where the agent listens.
    address: String,
    /// The agent's version before; null where none was installed.
    agent_before: Option<String>,
    /// What was done, or would be, in this order.
    steps: Vec<String>,
}

pub(super) fn row(planned: &Planned) -> Row {
    let target = &planned.target;
    NodeRow {
        node: target.node.clone(),
        outcome: "ok",
        word: None,
        message: None,
        result: Some(EnrolledJson {
            destination: target.host.destination.clone(),
            address: target.address.clone(),
            agent_before: planned.look.agent.clone(),
            steps: planned.steps.iter().map(ToString::to_string).collect(),
        }),
    }
}

/// A host that is left as it is, or on which something went wrong.
pub(super) fn failed(
    node: &NodeName,
    outcome: &'static str,
    word: Option<&str>,
    why: String,
) -> Box<Row> {
    Box::new(NodeRow {
        node: node.clone(),
        outcome,
        word: word.map(str::to_owned),
        message: Some(why),
        result: None,
    })
}

/// What would be done, host by host.
pub(super) fn plans(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let Some(plan) = &row.result else { continue };
        let _ = writeln!(
            text,
            "{}: ssh {}, agent at {}",
            row.node, plan.destination, plan.address
        );
        for step in &plan.steps {
            let _ = writeln!(text, "  {step}");
        }
    }
    text
}

/// What was done.
pub(super) fn done(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let Some(done) = &row.result else { continue };
        let _ = writeln!(
            text,
            "{}: enrolled; its agent answers at {}",
            row.node, done.address
        );
    }
    text
}

pub(super) fn hint_stale(stale: &[NodeName], dry_run: bool) {
    if stale.is_empty() {
        return;
    }
    let would = if dry_run { "would then hold" } else { "hold" };
    eprintln!(
        "hint: these hosts {would} an older mesh.toml: {}; bring it with `cbctl mesh enrol --replace`, \
         or copy it to their /etc/cbagent and restart their cbagent",
        listed(stale.iter())
    );
}

/// Names in one line.
pub(super) fn listed<'a>(nodes: impl Iterator<Item = &'a NodeName>) -> String {
    let names: Vec<&str> = nodes.map(NodeName::as_str).collect();
    names.join(", ")
}
