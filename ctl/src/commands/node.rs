//! `cbctl node`.

mod adopt;
mod reseed;

use super::stops;
use crate::cli::{NodeCommand, Output};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::values::{self, ReleaseJson};
use crate::render::{self, NodeRow, Table};
use cbddc_domain::id::NodeName;
use cbddc_domain::release::Release;
use cbddc_proto::convert::{Malformed, required};
use cbddc_proto::v1;
use serde::Serialize;

/// What `node history -o json` prints.
#[derive(Debug, Serialize)]
struct HistoryJson {
    nodes: Vec<NodeRow<Vec<GenerationJson>>>,
}

/// A release as it was activated on one node.
#[derive(Debug, Serialize)]
struct GenerationJson {
    number: u64,
    release: ReleaseJson,
    activated_at: String,
    activated_by: String,
    committed_by: Option<String>,
    known_good: bool,
    snapshot_before: Option<String>,
    reverted: Option<String>,
    running: bool,
}

pub(super) async fn run(
    command: NodeCommand,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    match command {
        NodeCommand::History { node } => history(node, session, output).await,
        NodeCommand::Drain(arguments) => stops::drain(arguments, true, session, output).await,
        NodeCommand::Undrain(arguments) => stops::drain(arguments, false, session, output).await,
        NodeCommand::Quarantine(arguments) => {
            stops::quarantine(arguments, true, session, output).await
        }
        NodeCommand::Release(arguments) => {
            stops::quarantine(arguments, false, session, output).await
        }
        NodeCommand::Reseed(arguments) => reseed::run(&arguments, session, output).await,
        NodeCommand::Adopt(arguments) => adopt::adopt(arguments, session, output).await,
        NodeCommand::Unadopt { targets, confirm } => {
            adopt::unadopt(&targets, confirm, session, output).await
        }
    }
}

async fn history(node: NodeName, session: &Session, output: Output) -> Result<Exit, CtlError> {
    let targets = session.targets(&[node])?;
    let outcomes = session
        .fan_out(&targets, |_, channel| async move {
            let mut client = client::node(channel);
            let answer = client
                .list_generations(v1::ListGenerationsRequest {})
                .await?;
            Ok(answer.into_inner().generations)
        })
        .await;
    let convert = |found: Vec<v1::Generation>| found.into_iter().map(generation).collect();
    let nodes = render::rows(outcomes, convert);
    let json = HistoryJson { nodes };
    render::print(output, &json, || table(&json.nodes))?;
    render::complain(&json.nodes);
    Ok(render::exit_of(&json.nodes))
}

fn generation(given: v1::Generation) -> Result<GenerationJson, Malformed> {
    let release = Release::try_from(required("generation.release", given.release)?)?;
    let epoch = |given: v1::Epoch| values::epoch(given.into());
    Ok(GenerationJson {
        number: given.number,
        release: (&release).into(),
        activated_at: values::moment(given.activated_wall_ms),
        activated_by: given.activated_by.map(epoch).unwrap_or_default(),
        committed_by: given.committed.map(epoch),
        known_good: given.known_good,
        snapshot_before: Some(given.snapshot_before).filter(|id| !id.is_empty()),
        reverted: Some(given.reverted).filter(|why| !why.is_empty()),
        running: given.running,
    })
}

fn table(nodes: &[NodeRow<Vec<GenerationJson>>]) -> String {
    let mut table = Table::new(&[
        "GEN",
        "RELEASE",
        "ACTIVATED",
        "STATE",
        "SNAPSHOT BEFORE",
        "WENT BACK BECAUSE",
    ]);
    for generation in nodes.iter().filter_map(|row| row.result.as_ref()).flatten() {
        let state = match (
            generation.running,
            generation.known_good,
            &generation.committed_by,
        ) {
            (_, true, _) => "known-good",
            (_, false, Some(_)) => "committed",
            (true, false, None) => "on probation",
            (false, false, None) => "never committed",
        };
        let running = if generation.running { ", runs" } else { "" };
        table.row([
            generation.number.to_string(),
            generation.release.short(),
            generation.activated_at.clone(),
            format!("{state}{running}"),
            generation.snapshot_before.clone().unwrap_or_default(),
            generation.reverted.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}
