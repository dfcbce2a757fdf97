//! The rollouts that the nodes remember.

use crate::cli::Output;
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, Table, values};
use crate::survey::Survey;
use cbddc_domain::id::NodeName;
use cbddc_domain::plan::Plan;
use cbddc_domain::register::Epoch;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

/// One rollout, put together from what the nodes remember.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) epoch: Epoch,
    pub(super) plan: Plan,
    started_wall_ms: i64,
    /// How it ended on each node; empty where it has not.
    outcomes: BTreeMap<NodeName, String>,
}

impl Remembered {
    /// How it ended: the same word everywhere, or what differs.
    fn outcome(&self) -> String {
        if self.is_open() {
            return "under way".into();
        }
        let committed = self.outcomes.values().any(|outcome| outcome == "committed");
        let first = self.outcomes.values().next().cloned().unwrap_or_default();
        if committed { "committed".into() } else { first }
    }

    fn is_open(&self) -> bool {
        self.outcomes.values().any(String::is_empty)
            && !self.outcomes.values().any(|outcome| outcome == "committed")
    }
}

/// What `rollout list` and `rollout status` print as JSON.
#[derive(Debug, Serialize)]
struct RolloutJson {
    id: String,
    epoch: String,
    release: values::ReleaseJson,
    started_at: String,
    started_by: String,
    reason: String,
    outcome: String,
    waves: Vec<Vec<NodeName>>,
    /// How it ended on each node; empty where it has not.
    nodes: BTreeMap<NodeName, String>,
}

#[derive(Debug, Serialize)]
struct RolloutsJson {
    rollouts: Vec<RolloutJson>,
}

fn json(remembered: &Remembered) -> RolloutJson {
    let plan = &remembered.plan;
    RolloutJson {
        id: plan.id.clone(),
        epoch: remembered.epoch.to_string(),
        release: (&plan.release).into(),
        started_at: values::moment(remembered.started_wall_ms),
        started_by: plan.started_by.clone(),
        reason: plan.reason.clone(),
        outcome: remembered.outcome(),
        waves: plan.waves.clone(),
        nodes: remembered.outcomes.clone(),
    }
}

/// All rollouts, newest first.
async fn all(session: &Session) -> Result<Vec<Remembered>, CtlError> {
    let nodes = session.nodes();
    let outcomes = session.fan_out(&nodes, |_, channel| async move {
        let answer = client::rollout(channel)
            .list_rollouts(v1::ListRolloutsRequest {})
            .await?;
        Ok(answer.into_inner().rollouts)
    });
    let mut rollouts: BTreeMap<Epoch, Remembered> = BTreeMap::new();
    let mut silent = CtlError::failed("no node of the mesh could be reached");
    let mut reached = false;
    for (node, outcome) in outcomes.await {
        let Some(infos) = outcome.ok() else {
            eprintln!("{node}: {}", outcome.why());
            silent = silent.detail(format!("{node}: {}", outcome.why()));
            continue;
        };
        reached = true;
        for info in infos.clone() {
            let plan = info.plan.and_then(|plan| Plan::try_from(plan).ok());
            let (Some(epoch), Some(plan)) = (info.epoch.map(Epoch::from), plan) else {
                continue;
            };
            let remembered = rollouts.entry(epoch).or_insert_with(|| Remembered {
                epoch,
                plan,
                started_wall_ms: info.started_wall_ms,
                outcomes: BTreeMap::new(),
            });
            remembered.outcomes.insert(node.clone(), info.outcome);
        }
    }
    if reached {
        Ok(rollouts.into_values().rev().collect())
    } else {
        Err(silent)
    }
}

pub(super) async fn list(session: &Session, output: Output) -> Result<Exit, CtlError> {
    let rollouts = all(session).await?;
    let json = RolloutsJson {
        rollouts: rollouts.iter().map(json).collect(),
    };
    render::print(output, &json, || {
        let mut table = Table::new(&["ROLLOUT", "RELEASE", "STARTED", "BY", "OUTCOME", "REASON"]);
        for rollout in &json.rollouts {
            table.row([
                rollout.id.clone(),
                rollout.release.short(),
                rollout.started_at.clone(),
                rollout.started_by.clone(),
                rollout.outcome.clone(),
                rollout.reason.clone(),
            ]);
        }
        table.render()
    })?;
    Ok(Exit::Done)
}

pub(super) async fn status(
    id: Option<&str>,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let rollouts = all(session).await?;
    let found = rollouts
        .iter()
        .find(|rollout| id.is_none_or(|id| rollout.plan.id == id));
    let Some(found) = found else {
        return Err(unknown(id));
    };
    let survey = Survey::take(session).await?;
    let json = json(found);
    render::print(output, &json, || {
        let mut table = Table::new(&["WAVE", "NODE", "PHASE", "HEALTH", "OUTCOME"]);
        for (number, wave) in json.waves.iter().enumerate() {
            for node in wave {
                let shown = survey.nodes.get(node).and_then(|outcome| outcome.ok());
                table.row([
                    (number + 1).to_string(),
                    node.to_string(),
                    shown.map_or_else(|| "not reached".into(), |shown| shown.phase.clone()),
                    shown.map_or_else(|| "-".into(), |shown| shown.health.clone()),
                    json.nodes.get(node).cloned().unwrap_or_default(),
                ]);
            }
        }
        table.render()
    })?;
    eprintln!(
        "rollout {} of {} by {}: {}",
        json.id,
        json.release.short(),
        json.started_by,
        json.outcome
    );
    Ok(Exit::Done)
}

/// The rollout to go on with or to end: the named one, or the one under way. One whose vote is
/// undecided counts as under way, whatever its nodes have done since.
pub(super) async fn find(
    id: Option<&str>,
    session: &Session,
    survey: &Survey,
) -> Result<Remembered, CtlError> {
    let rollouts = all(session).await?;
    let undecided = survey.undecided().map(|vote| vote.epoch);
    let named = |rollout: &&Remembered| id.is_none_or(|id| rollout.plan.id == id);
    let open = rollouts
        .iter()
        .filter(named)
        .find(|rollout| rollout.is_open() || undecided == Some(rollout.epoch));
    if let Some(open) = open {
        return Ok(open.clone());
    }
    match rollouts.iter().find(named) {
        Some(ended) if id.is_some() => Err(CtlError::failed(format!(
            "rollout {} has ended: {}",
            ended.plan.id,
            ended.outcome()
        ))
        .hint("`cbctl rollout list` shows them all")),
        Some(_) | None => Err(unknown(id)),
    }
}

fn unknown(id: Option<&str>) -> CtlError {
    let what = match id {
        Some(id) => format!("no node remembers a rollout `{id}`"),
        None => "no rollout is under way".to_owned(),
    };
    CtlError::failed(what).hint("`cbctl rollout list` shows those that the nodes remember")
}
