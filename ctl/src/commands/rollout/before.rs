//! Replication before anything changes: a mesh that is damaged already is not rolled out to unless a
//! person takes it as it is.

use crate::cli::PlanArgs;
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::mesh_check::{Looked, MeshChecker};
use crate::survey::Survey;
use cbddc_domain::id::NodeName;
use cbddc_domain::plan::Plan;
use cbddc_domain::proposer::MeshVerdict;
use cbddc_domain::replication::{ACCEPTED_MAX, ACCEPTED_TEXT_MAX, Accepted};
use cbddc_proto::convert::TEXT_BYTES_MAX;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How far back events count, as in `replication check`.
const WINDOW: Duration = Duration::from_secs(60);

/// How long is looked where something is found, so that what is only on its way is told apart.
const CONFIRM: Duration = Duration::from_secs(5);

/// How many sentences an error repeats.
const TOLD_MAX: usize = 20;

/// Looks at the nodes that answer; puts into the plan what is taken as it is. Changes nothing.
///
/// # Errors
/// When something is wrong and nobody takes it as it is.
pub(super) async fn look(
    arguments: &PlanArgs,
    session: &Session,
    survey: &Survey,
    plan: &mut Plan,
) -> Result<(), CtlError> {
    if let Some(reason) = &arguments.accept_findings
        && (reason.trim().is_empty() || reason.len() > TEXT_BYTES_MAX)
    {
        let what = format!("--accept-findings takes a reason of 1 to {TEXT_BYTES_MAX} bytes");
        return Err(CtlError::usage(what));
    }
    let answer = survey.nodes.iter();
    let answer = answer.filter(|(_, outcome)| outcome.ok().is_some());
    let mut nodes: BTreeSet<NodeName> = answer.map(|(node, _)| node.clone()).collect();
    let began = Instant::now();
    let (looked, window_ms) = loop {
        let (looked, window_ms) = look_at(session, &nodes, arguments.agree, began).await;
        if looked.silent.is_empty() {
            break (looked, window_ms);
        }
        for (node, why) in &looked.silent {
            eprintln!("  {node}: replication is not looked at: {why}");
            nodes.remove(node);
        }
    };
    let Some(round) = looked.round else {
        return Ok(());
    };
    let found = match looked.verdict {
        MeshVerdict::Passed => return Ok(()),
        MeshVerdict::Failed(_) => &round.headlines,
        MeshVerdict::Pending(_) => &round.waiting,
    };
    let Some(reason) = &arguments.accept_findings else {
        let what = "replication is not in order before the rollout: nothing was changed";
        let mut error = CtlError::new(Exit::Refused, what);
        for line in found.iter().take(TOLD_MAX) {
            error = error.detail(line.clone());
        }
        if found.len() > TOLD_MAX {
            error = error.detail(format!("and {} more", found.len() - TOLD_MAX));
        }
        return Err(error.hint(
            "see `cbctl replication check` and `replication audit`, and mend it; or take it as it is with --accept-findings REASON",
        ));
    };
    let found = round.totals.into_iter().take(ACCEPTED_MAX);
    let found = found.map(|mut known| {
        let end = known.text.floor_char_boundary(ACCEPTED_TEXT_MAX);
        known.text.truncate(end);
        known
    });
    plan.accepted = Some(Accepted {
        reason: reason.clone(),
        window_ms,
        found: found.collect(),
        late: round.late,
    });
    Ok(())
}

/// Looks until the nodes agree, or did not in time. Ends early where one of them does not answer.
async fn look_at(
    session: &Session,
    nodes: &BTreeSet<NodeName>,
    agree: Duration,
    began: Instant,
) -> (Looked, u64) {
    let checker = MeshChecker::new(session.clone(), nodes.clone())
        .with_patience(Duration::ZERO)
        .accepting_unproven(true)
        .only_looking();
    let window_ms = checker.begin_since(WINDOW).await;
    loop {
        let looked = checker.look(0).await;
        let limit = match &looked.verdict {
            MeshVerdict::Passed => Duration::ZERO,
            MeshVerdict::Failed(_) => CONFIRM,
            MeshVerdict::Pending(_) => agree,
        };
        if began.elapsed() >= limit || !looked.silent.is_empty() {
            return (looked, window_ms);
        }
    }
}
