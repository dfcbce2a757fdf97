//! `cbctl health`.

mod history;
mod line;

use crate::cli::{HealthCommand, Output};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow, Table, values};
use cbddc_proto::v1;
use serde::Serialize;

/// What `health show -o json` prints.
#[derive(Debug, Serialize)]
struct HealthJson {
    nodes: Vec<NodeRow<JudgementJson>>,
}

/// The judgement of one node.
#[derive(Debug, Serialize)]
struct JudgementJson {
    /// `healthy`, `degraded`, `unhealthy` or `unknown`: the worse of now and over time.
    status: String,
    reasons: Vec<String>,
    /// The judgement over time alone.
    judged: String,
    /// Since when it is that.
    since: Option<String>,
    checks: Vec<CheckJson>,
}

/// One check.
#[derive(Debug, Serialize)]
struct CheckJson {
    /// Its name.
    name: String,
    /// What it measures.
    check: String,
    /// `critical` or `warning`.
    severity: String,
    /// What was measured now.
    status: String,
    detail: String,
    took_ms: u64,
    /// As judged over time, and why; nothing where it is not judged.
    judged: Option<String>,
    reason: Option<String>,
    since: Option<String>,
    flapping: bool,
    figures: Vec<FigureJson>,
}

/// A number that came with a measurement.
#[derive(Debug, Serialize)]
struct FigureJson {
    label: String,
    value: f64,
    unit: String,
}

pub(super) async fn run(
    command: HealthCommand,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let arguments = match command {
        HealthCommand::Show(arguments) => arguments,
        HealthCommand::History(arguments) => return history::run(arguments, session, output).await,
    };
    let targets = session.selected(&arguments.node, &arguments.labels)?;
    let outcomes = session
        .fan_out(&targets, |_, channel| async move {
            let answer = client::health(channel)
                .get_health(v1::GetHealthRequest {})
                .await?;
            Ok(answer.into_inner())
        })
        .await;
    let json = HealthJson {
        nodes: render::rows(outcomes, |answer| Ok(judgement(answer))),
    };
    render::print(output, &json, || table(&json.nodes))?;
    render::complain(&json.nodes);
    let sick = |row: &NodeRow<JudgementJson>| {
        let judgement = row.result.as_ref();
        judgement.is_some_and(|judgement| judgement.status != "healthy")
    };
    if json.nodes.iter().any(sick) {
        return Ok(Exit::FoundWrong);
    }
    Ok(render::exit_of(&json.nodes))
}

fn judgement(answer: v1::GetHealthResponse) -> JudgementJson {
    let states = answer.checks;
    let check = |measured: v1::Measurement| {
        let name = match measured.name.as_str() {
            "" => measured.check.clone(),
            name => name.to_owned(),
        };
        let state = states.iter().find(|state| state.name == name);
        CheckJson {
            check: measured.check,
            severity: measured.severity,
            status: measured.status,
            detail: measured.detail,
            took_ms: measured.took_ms,
            judged: state.map(|state| state.status.clone()),
            reason: state.map(|state| state.reason.clone()),
            since: state.and_then(|state| moment(state.since_wall_ms)),
            flapping: state.is_some_and(|state| state.flapping),
            figures: measured.figures.into_iter().map(figure).collect(),
            name,
        }
    };
    JudgementJson {
        status: answer.status,
        reasons: answer.reasons,
        judged: answer.judged,
        since: moment(answer.since_wall_ms),
        checks: answer.measurements.into_iter().map(check).collect(),
    }
}

fn figure(given: v1::Figure) -> FigureJson {
    FigureJson {
        label: given.label,
        value: given.value,
        unit: given.unit,
    }
}

fn moment(wall_ms: i64) -> Option<String> {
    (wall_ms > 0).then(|| values::moment(wall_ms))
}

fn table(nodes: &[NodeRow<JudgementJson>]) -> String {
    let header = [
        "NODE",
        "CHECK",
        "STATUS",
        "SINCE",
        "NOW",
        "TOOK",
        "WHAT WAS SEEN",
    ];
    let mut table = Table::new(&header);
    for row in nodes {
        let node = row.node.to_string();
        let Some(judgement) = &row.result else {
            let mut cells = [const { String::new() }; 7];
            cells[0] = node;
            cells[1] = "all".into();
            cells[2] = row.outcome.into();
            table.row(cells);
            continue;
        };
        table.row([
            node.clone(),
            "all".into(),
            judgement.judged.clone(),
            judgement.since.clone().unwrap_or_default(),
            judgement.status.clone(),
            String::new(),
            judgement.reasons.join("; "),
        ]);
        for check in &judgement.checks {
            // What is judged otherwise than it was measured is what one wants to know the reason of.
            let seen = match &check.reason {
                Some(reason) if check.flapping => reason,
                Some(_) | None => &check.detail,
            };
            table.row([
                node.clone(),
                check.name.clone(),
                check.judged.clone().unwrap_or_default(),
                check.since.clone().unwrap_or_default(),
                check.status.clone(),
                format!("{}ms", check.took_ms),
                seen.clone(),
            ]);
        }
    }
    table.render()
}
