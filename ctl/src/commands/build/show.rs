//! `cbctl build show`: one build on each node, and what its folder has grown there.

use crate::cli::{Output, ShowBuildArgs};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow, Table};
use cbddc_domain::build::BuildRef;
use cbddc_domain::units::show_size_bytes;
use cbddc_proto::convert::{Malformed, required};
use cbddc_proto::v1;
use serde::Serialize;
use std::fmt::Write as _;

/// What `build show -o json` prints.
#[derive(Debug, Serialize)]
struct ShownJson {
    nodes: Vec<NodeRow<Shown>>,
}

/// The build on one node.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    build: super::BuildJson,
    grown: GrownJson,
    /// Files in its folder that the running node has open for writing, databases left out.
    written: Vec<String>,
    /// Why those are not known.
    written_unknown: Option<String>,
}

/// What lies in its folder and is not part of it.
#[derive(Debug, Serialize)]
struct GrownJson {
    files: u64,
    bytes: u64,
    /// The first of them, a folder as one.
    names: Vec<String>,
    databases: Vec<String>,
    /// True where there was more than is looked at.
    more: bool,
}

pub(super) async fn run(
    arguments: &ShowBuildArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.selected(&arguments.nodes.node, &arguments.nodes.labels)?;
    let build = arguments.build.to_string();
    let outcomes = session
        .fan_out(&targets, move |_, channel| {
            let build = build.clone();
            async move {
                let request = v1::ShowBuildRequest { build };
                Ok(client::build(channel)
                    .show_build(request)
                    .await?
                    .into_inner())
            }
        })
        .await;
    let json = ShownJson {
        nodes: render::rows(outcomes, shown),
    };
    render::print(output, &json, || table(&json.nodes))?;
    render::complain(&json.nodes);
    Ok(render::exit_of(&json.nodes))
}

fn shown(answer: v1::ShowBuildResponse) -> Result<Shown, Malformed> {
    let info = required("info", answer.info)?;
    let build = BuildRef::try_from(required("build", info.build.clone())?)?;
    let grown = required("grown", answer.grown)?;
    Ok(Shown {
        build: super::build_json(&build, info),
        grown: GrownJson {
            files: grown.files,
            bytes: grown.bytes,
            names: grown.names,
            databases: grown.databases,
            more: grown.more,
        },
        written: answer.written,
        written_unknown: Some(answer.written_unknown).filter(|why| !why.is_empty()),
    })
}

fn table(nodes: &[NodeRow<Shown>]) -> String {
    let mut table = Table::new(&super::COLUMNS);
    for row in nodes {
        if let Some(shown) = &row.result {
            table.row(super::cells(&row.node, &shown.build));
        }
    }
    let mut text = table.render();
    for row in nodes {
        for note in row.result.iter().flat_map(notes) {
            let _ = write!(text, "\nnote: {}: {note}", row.node);
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// What is worth knowing of the build's folder, a sentence each.
fn notes(shown: &Shown) -> Vec<String> {
    let grown = &shown.grown;
    let mut notes = Vec::new();
    if grown.files > 0 {
        let beyond = if grown.more { "more than " } else { "" };
        let names = grown.names.join(", ");
        notes.push(format!(
            "in its folder lies what is not part of it, {beyond}{} in {}: {names}",
            show_size_bytes(grown.bytes),
            match grown.files {
                1 => "1 file".to_owned(),
                files => format!("{files} files"),
            },
        ));
    }
    if !grown.databases.is_empty() {
        notes.push(format!(
            "databases are in its folder, so it is not removed, and no rollout leads from it or to it: {}",
            grown.databases.join(", ")
        ));
    }
    if !shown.written.is_empty() {
        notes.push(format!(
            "the node has files open for writing in its folder: {}",
            shown.written.join(", ")
        ));
    }
    notes.extend(shown.written_unknown.clone());
    notes
}
