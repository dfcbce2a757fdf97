//! `cbctl status`: where every node stands, and what the mesh has decided.

mod judge;

use crate::cli::{NodesArgs, Output};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::values::{self, RecordJson, ReleaseJson};
use crate::render::{self, NodeRow, Table};
use cbddc_domain::id::NodeName;
use cbddc_domain::register::{Epoch, RegisterView};
use cbddc_domain::release::Release;
use cbddc_domain::units::show_duration_ms;
use cbddc_proto::convert::{Malformed, required};
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

/// What `status -o json` prints.
#[derive(Debug, Serialize)]
struct StatusJson {
    mesh: String,
    nodes: Vec<NodeRow<NodeStatus>>,
    summary: Summary,
}

/// Where one node stands.
#[derive(Debug, Clone, Serialize)]
struct NodeStatus {
    agent_version: String,
    phase: String,
    phase_text: String,
    generation: Option<u64>,
    release: Option<ReleaseJson>,
    committed: bool,
    known_good: bool,
    epoch: Option<String>,
    probation_left_ms: u64,
    probation_clean: bool,
    health: String,
    health_reasons: Vec<String>,
    lock: Option<Lock>,
    drift: Option<String>,
    owed: Vec<String>,
    unverified: bool,
    bake_left_ms: u64,
    alarms: Vec<String>,
    /// What its agent finds wrong with replication now.
    findings: Vec<String>,
    drained: Option<Stop>,
    quarantined: Option<Stop>,
    frozen: Option<Stop>,
    notes: Vec<String>,
    node_pid: Option<u32>,
    #[serde(skip)]
    held_epoch: Epoch,
    #[serde(skip)]
    register: RegisterView,
}

/// Who stopped something, and why.
#[derive(Debug, Clone, Serialize)]
struct Stop {
    by: String,
    reason: String,
    until: Option<String>,
}

/// Who holds a node.
#[derive(Debug, Clone, Serialize)]
struct Lock {
    holder: String,
    what: String,
    left_ms: u64,
}

/// What the nodes' answers say together.
#[derive(Debug, Serialize)]
struct Summary {
    /// The decided record with the highest epoch that any node knows.
    decided: Option<RecordJson>,
    voters_reached: usize,
    voters: usize,
    /// Epochs of records that were voted for, are not decided, and nobody is working on.
    in_doubt: Vec<String>,
    /// Nodes that are stuck.
    stuck: Vec<NodeName>,
    /// Nodes whose hosts have started and heard no majority since.
    unverified: Vec<NodeName>,
    /// States that a restore set aside, as `NODE: SNAPSHOT`.
    owed: Vec<String>,
    /// What agents find wrong with replication now, a sentence each.
    findings: Vec<String>,
    /// What triggers have come to, and what is stopped until further notice, as `NODE: SENTENCE`.
    stops: Vec<String>,
    /// What is worth knowing and needs nobody now, as `SENTENCE (NODES)`.
    notes: Vec<String>,
    /// The members that hold the issuing authority; `null`: no member said.
    issuers: Option<Vec<NodeName>>,
    /// Members that the mesh counts on, and that do not vote.
    voteless: Vec<NodeName>,
    /// When members that did not answer were last heard of by another one; `null`: it never did.
    last_seen: BTreeMap<NodeName, Option<String>>,
    /// Whether to say that there are too few issuers.
    #[serde(skip)]
    few_issuers: bool,
}

pub(super) async fn run(
    arguments: &NodesArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.selected(&arguments.node, &arguments.labels)?;
    let outcomes = session
        .fan_out(&targets, |_, channel| async move {
            let answer = client::node(channel)
                .get_status(v1::GetStatusRequest {})
                .await?;
            Ok(answer.into_inner())
        })
        .await;
    let nodes = render::rows(outcomes, node_status);
    let file = session.mesh().voters();
    let mut summary = judge::summary(&nodes, &file);
    if let Some(heard) = session.heard() {
        judge::membership(&mut summary, heard, session.mesh().environment);
    }
    let json = StatusJson {
        mesh: session.mesh().name.clone(),
        nodes,
        summary,
    };
    render::print(output, &json, || {
        format!("{}{}", table(&json.nodes), judge::sentences(&json.summary))
    })?;
    render::complain(&json.nodes);
    Ok(judge::exit(&json.nodes, &json.summary))
}

fn node_status(given: v1::GetStatusResponse) -> Result<NodeStatus, Malformed> {
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let release = given.release.map(Release::try_from).transpose()?;
    let held_epoch = given.epoch.map_or_else(Epoch::default, Epoch::from);
    let (what, left_ms) = (given.lease_what, given.lease_left_ms);
    Ok(NodeStatus {
        agent_version: given.agent_version,
        phase: given.phase,
        phase_text: given.phase_text,
        generation: Some(given.generation).filter(|number| *number > 0),
        release: release.as_ref().map(Into::into),
        committed: given.committed,
        known_good: given.known_good,
        epoch: filled(values::epoch(held_epoch)),
        probation_left_ms: given.probation_left_ms,
        probation_clean: given.probation_clean,
        health: given.health,
        health_reasons: given.health_reasons,
        lock: filled(given.lease_holder).map(|holder| Lock {
            holder,
            what,
            left_ms,
        }),
        drift: filled(given.drift),
        owed: given.owed,
        unverified: given.unverified,
        bake_left_ms: given.bake_left_ms,
        alarms: given.alarms,
        findings: given.findings,
        drained: given.drained.map(stop),
        quarantined: given.quarantined.map(stop),
        frozen: given.frozen.map(|freeze| Stop {
            by: freeze.by,
            reason: freeze.reason,
            until: Some(values::moment(freeze.until_wall_ms)),
        }),
        notes: given.notes,
        node_pid: Some(given.node_pid).filter(|pid| *pid > 0),
        held_epoch,
        register: required("register", given.register)?.try_into()?,
    })
}

fn stop(given: v1::Stopped) -> Stop {
    Stop {
        by: given.by,
        reason: given.reason,
        until: None,
    }
}

fn table(nodes: &[NodeRow<NodeStatus>]) -> String {
    let mut table = Table::new(&["NODE", "PHASE", "RELEASE", "GEN", "HEALTH", "LOCK", "DRIFT"]);
    for row in nodes {
        let Some(status) = &row.result else {
            let nothing = std::iter::repeat_n(String::new(), 5);
            table.row(
                [row.node.to_string(), row.outcome.to_owned()]
                    .into_iter()
                    .chain(nothing),
            );
            continue;
        };
        let lock = status.lock.as_ref().map(|lock| {
            let left = show_duration_ms(lock.left_ms);
            format!("{}: {}, {left} left", lock.holder, lock.what)
        });
        table.row([
            row.node.to_string(),
            phase_cell(status),
            status
                .release
                .as_ref()
                .map(ReleaseJson::short)
                .unwrap_or_default(),
            status
                .generation
                .map(|number| number.to_string())
                .unwrap_or_default(),
            status.health.clone(),
            lock.unwrap_or_default(),
            drift_cell(status),
        ]);
    }
    table.render()
}

/// Why it does not run what is decided; what is not known to be decided is no drift yet (rule 17).
fn drift_cell(status: &NodeStatus) -> String {
    match &status.drift {
        Some(drift) => drift.clone(),
        None if status.unverified => {
            "unverified: no majority of the voters was heard since it started".to_owned()
        }
        None => String::new(),
    }
}

fn phase_cell(status: &NodeStatus) -> String {
    match status.phase.as_str() {
        "probation" => format!(
            "probation, {} left",
            show_duration_ms(status.probation_left_ms)
        ),
        phase => phase.to_owned(),
    }
}
