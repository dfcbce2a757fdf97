//! `cbctl build rm` and `cbctl build gc`: first what would go and what stays, then the question.

use super::BuildJson;
use crate::cli::{ConfirmArgs, NodesArgs, Output};
use crate::commands::confirm;
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow, Table};
use cbddc_domain::build::BuildRef;
use cbddc_domain::id::NodeName;
use cbddc_domain::units::show_size_bytes;
use cbddc_proto::convert::{Malformed, required};
use cbddc_proto::v1;
use cbddc_proto::v1::remove_builds_request::What;
use serde::Serialize;
use std::collections::BTreeSet;

/// What `build rm -o json` and `build gc -o json` print.
#[derive(Debug, Serialize)]
struct RemovedJson {
    dry_run: bool,
    nodes: Vec<NodeRow<OnNode>>,
}

/// What went from one node, and what stays.
#[derive(Debug, Serialize)]
struct OnNode {
    removed: Vec<BuildJson>,
    kept: Vec<KeptJson>,
}

/// A build that stays.
#[derive(Debug, Serialize)]
struct KeptJson {
    #[serde(flatten)]
    build: BuildJson,
    why: String,
}

pub(super) async fn run(
    what: What,
    nodes: &NodesArgs,
    asked: ConfirmArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.selected(&nodes.node, &nodes.labels)?;
    let named = matches!(what, What::Build(_));
    if !asked.yes || asked.dry_run {
        let rows = ask(what.clone(), true, &targets, session).await;
        if asked.dry_run {
            return finish(true, named, rows, output);
        }
        // The answer to the question is what is printed in the end.
        eprint!("{}", table(true, &rows));
        render::complain(&rows);
        if rows.iter().all(|row| going(row) == 0) {
            return finish(false, named, rows, output);
        }
        if let Some(exit) = confirm("Remove these builds?", asked)? {
            return Ok(exit);
        }
    }
    session.set_standing("builds that were removed are gone; run the same command again");
    let rows = ask(what, false, &targets, session).await;
    finish(false, named, rows, output)
}

async fn ask(
    what: What,
    dry_run: bool,
    targets: &BTreeSet<NodeName>,
    session: &Session,
) -> Vec<NodeRow<OnNode>> {
    let outcomes = session
        .fan_out(targets, move |_, channel| {
            let request = v1::RemoveBuildsRequest {
                dry_run,
                what: Some(what.clone()),
            };
            async move {
                let answer = client::build(channel).remove_builds(request).await?;
                Ok(answer.into_inner())
            }
        })
        .await;
    render::rows(outcomes, on_node)
}

fn on_node(answer: v1::RemoveBuildsResponse) -> Result<OnNode, Malformed> {
    let build = |info: v1::BuildInfo| {
        let build = BuildRef::try_from(required("build", info.build.clone())?)?;
        Ok(super::build_json(&build, info))
    };
    let kept = |kept: v1::BuildKept| {
        Ok(KeptJson {
            build: build(required("info", kept.info)?)?,
            why: kept.why,
        })
    };
    Ok(OnNode {
        removed: answer
            .removed
            .into_iter()
            .map(build)
            .collect::<Result<_, Malformed>>()?,
        kept: answer
            .kept
            .into_iter()
            .map(kept)
            .collect::<Result<_, Malformed>>()?,
    })
}

fn going(row: &NodeRow<OnNode>) -> usize {
    row.result.as_ref().map_or(0, |found| found.removed.len())
}

/// Prints what went. A build that was named and stays on some node is a refusal.
fn finish(
    dry_run: bool,
    named: bool,
    nodes: Vec<NodeRow<OnNode>>,
    output: Output,
) -> Result<Exit, CtlError> {
    let json = RemovedJson { dry_run, nodes };
    render::print(output, &json, || table(dry_run, &json.nodes))?;
    render::complain(&json.nodes);
    let exit = render::exit_of(&json.nodes);
    let mut found = json.nodes.iter().flat_map(|row| &row.result);
    if exit == Exit::Done && named && found.any(|found| !found.kept.is_empty()) {
        return Ok(Exit::Refused);
    }
    Ok(exit)
}

fn table(dry_run: bool, nodes: &[NodeRow<OnNode>]) -> String {
    let gone = if dry_run { "would go" } else { "removed" };
    let mut table = Table::new(&["NODE", "BUILD", "DIGEST", "SIZE", "OUTCOME"]);
    for row in nodes {
        let Some(found) = &row.result else { continue };
        let removed = found.removed.iter().map(|build| (build, gone.to_owned()));
        let kept = found.kept.iter();
        let kept = kept.map(|kept| (&kept.build, format!("stays: {}", kept.why)));
        for (build, outcome) in removed.chain(kept) {
            table.row([
                row.node.to_string(),
                build.build.clone(),
                build.digest.chars().take(12).collect(),
                show_size_bytes(build.size),
                outcome,
            ]);
        }
    }
    table.render()
}
