//! `cbctl health`.

use crate::cli::{HealthCommand, Output};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow, Table};
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
    /// `healthy`, `degraded`, `unhealthy` or `unknown`.
    status: String,
    reasons: Vec<String>,
    checks: Vec<CheckJson>,
}

/// One check.
#[derive(Debug, Serialize)]
struct CheckJson {
    check: String,
    status: String,
    detail: String,
    took_ms: u64,
}

pub(super) async fn run(
    command: HealthCommand,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let HealthCommand::Show(arguments) = command;
    let targets = session.targets(&arguments.node)?;
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
    let check = |measured: v1::Measurement| CheckJson {
        check: measured.check,
        status: measured.status,
        detail: measured.detail,
        took_ms: measured.took_ms,
    };
    JudgementJson {
        status: answer.status,
        reasons: answer.reasons,
        checks: answer.measurements.into_iter().map(check).collect(),
    }
}

fn table(nodes: &[NodeRow<JudgementJson>]) -> String {
    let mut table = Table::new(&["NODE", "CHECK", "STATUS", "TOOK", "WHAT WAS SEEN"]);
    for row in nodes {
        let node = row.node.to_string();
        let Some(judgement) = &row.result else {
            table.row([
                node,
                "all".into(),
                row.outcome.into(),
                String::new(),
                String::new(),
            ]);
            continue;
        };
        let reasons = judgement.reasons.join("; ");
        table.row([
            node.clone(),
            "all".into(),
            judgement.status.clone(),
            String::new(),
            reasons,
        ]);
        for check in &judgement.checks {
            table.row([
                node.clone(),
                check.check.clone(),
                check.status.clone(),
                format!("{}ms", check.took_ms),
                check.detail.clone(),
            ]);
        }
    }
    table.render()
}
