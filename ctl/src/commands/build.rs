//! `cbctl build`.

mod remove;
mod show;

use crate::cli::{BuildCommand, NodesArgs, Output, PackArgs, PushArgs};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow, Table};
use cbddc_domain::build::BuildRef;
use cbddc_domain::id::NodeName;
use cbddc_domain::units::show_size_bytes;
use cbddc_pack::{self as pack, PackOptions};
use cbddc_proto::convert::{Malformed, required};
use cbddc_proto::v1::remove_builds_request::What;
use cbddc_proto::{CHUNK_BYTES, v1};
use serde::Serialize;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

/// How many chunks of a bundle wait in memory for one node. With [`CHUNK_BYTES`] and the default
/// `--jobs` this is at most 64 MiB.
const CHUNKS_AHEAD: usize = 4;

/// What `build list -o json` prints.
#[derive(Debug, Serialize)]
struct BuildsJson {
    nodes: Vec<NodeRow<BuildsOnNode>>,
}

/// The builds on one node.
#[derive(Debug, Serialize)]
struct BuildsOnNode {
    builds: Vec<BuildJson>,
    free_bytes: u64,
}

/// One build.
#[derive(Debug, Serialize)]
struct BuildJson {
    build: String,
    digest: String,
    size: u64,
    files: u64,
    current: bool,
    revoked: Option<String>,
    changes_persistence: bool,
}

/// What `build push -o json` prints.
#[derive(Debug, Serialize)]
struct PushJson {
    build: String,
    digest: String,
    nodes: Vec<NodeRow<Pushed>>,
}

/// A build that one node stored.
#[derive(Debug, Serialize)]
struct Pushed {
    already_present: bool,
    size: u64,
}

/// What `build pack -o json` prints.
#[derive(Debug, Serialize)]
struct PackedJson {
    build: String,
    build_digest: String,
    bundle: String,
}

/// Runs `build pack`, which needs no mesh.
pub(super) fn pack(arguments: &PackArgs, output: Output) -> Result<Exit, CtlError> {
    let id = &arguments.build;
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| format!("{id}.cbundle").into());
    let options = PackOptions {
        changes_persistence: arguments.changes_persistence,
        ..PackOptions::default()
    };
    let build = pack::pack(&arguments.dir, id.clone(), &options, &out)
        .map_err(|error| CtlError::failed(format!("{id} was not packed")).because(error))?;
    let json = PackedJson {
        build: build.id.to_string(),
        build_digest: build.digest.to_string(),
        bundle: out.display().to_string(),
    };
    render::print(output, &json, || {
        format!("{}  {}  {}\n", json.build, json.build_digest, json.bundle)
    })?;
    Ok(Exit::Done)
}

/// Reads what a bundle says it holds, without checking its files.
fn read_header(path: &Path) -> Result<BuildRef, CtlError> {
    let header = pack::read_bundle_header(path);
    header
        .map_err(|error| CtlError::failed(format!("cannot use {}", path.display())).because(error))
}

/// Runs the commands that need one.
pub(super) async fn run(
    command: BuildCommand,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    match command {
        BuildCommand::Pack(arguments) => pack(&arguments, output),
        BuildCommand::Push(arguments) => push(&arguments, session, output).await,
        BuildCommand::List(arguments) => list(&arguments, session, output).await,
        BuildCommand::Show(arguments) => show::run(&arguments, session, output).await,
        BuildCommand::Rm(arguments) => {
            let what = What::Build(arguments.build.to_string());
            remove::run(what, &arguments.nodes, arguments.confirm, session, output).await
        }
        BuildCommand::Gc(arguments) => {
            let what = What::AllButNewest(arguments.keep);
            remove::run(what, &arguments.nodes, arguments.confirm, session, output).await
        }
    }
}

async fn push(arguments: &PushArgs, session: &Session, output: Output) -> Result<Exit, CtlError> {
    let build = read_header(&arguments.bundle)?;
    let targets = session.selected(&arguments.nodes.node, &arguments.nodes.labels)?;
    if arguments.dry_run {
        let names: Vec<&str> = targets.iter().map(|name| name.as_str()).collect();
        eprintln!("would send {build} to {}", names.join(", "));
        return Ok(Exit::Done);
    }
    session.set_standing("nodes that had stored the build keep it; run the same command again");
    let (path, sent) = (arguments.bundle.clone(), build.clone());
    let outcomes = session
        .fan_out_within(
            &targets,
            session.jobs(),
            arguments.transfer_limit,
            move |_, channel| push_one(channel, path.clone(), sent.clone()),
        )
        .await;
    let pushed = |answer: v1::PushBuildResponse| {
        Ok(Pushed {
            already_present: answer.already_present,
            size: answer.size,
        })
    };
    let json = PushJson {
        build: build.id.to_string(),
        digest: build.digest.to_string(),
        nodes: render::rows(outcomes, pushed),
    };
    render::print(output, &json, || push_table(&json))?;
    render::complain(&json.nodes);
    Ok(render::exit_of(&json.nodes))
}

/// Sends the bundle to one node. Each node reads the file for itself at its own pace: memory stays
/// bounded, and a slow node holds up no other.
async fn push_one(
    channel: Channel,
    path: PathBuf,
    build: BuildRef,
) -> Result<v1::PushBuildResponse, Status> {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    let reading = tokio::spawn(async move { read_chunks(&path, &sender).await });
    let first = v1::PushBuildRequest {
        part: Some(v1::push_build_request::Part::Build((&build).into())),
    };
    let parts = tokio_stream::once(first).chain(ReceiverStream::new(chunks));
    let answer = client::build(channel).push_build(parts).await;
    match reading.await {
        // A file that breaks off here would look like a truncated bundle there.
        Ok(Err(error)) => Err(Status::failed_precondition(format!(
            "the bundle could not be read here: {error}"
        ))),
        Ok(Ok(())) | Err(_) => answer.map(tonic::Response::into_inner),
    }
}

async fn read_chunks(
    path: &Path,
    sender: &mpsc::Sender<v1::PushBuildRequest>,
) -> std::io::Result<()> {
    let mut file = tokio::fs::File::open(path).await?;
    file.set_max_buf_size(CHUNK_BYTES);
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        if (&mut file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk)
            .await?
            == 0
        {
            return Ok(());
        }
        let part = v1::push_build_request::Part::Chunk(chunk.into());
        let request = v1::PushBuildRequest { part: Some(part) };
        // The call has ended: its answer says why.
        if sender.send(request).await.is_err() {
            return Ok(());
        }
    }
}

fn push_table(json: &PushJson) -> String {
    let mut table = Table::new(&["NODE", "BUILD", "OUTCOME", "UNPACKED"]);
    for row in &json.nodes {
        let outcome = match &row.result {
            Some(pushed) if pushed.already_present => "was there",
            Some(_) => "stored",
            None => row.outcome,
        };
        let size = row
            .result
            .as_ref()
            .map(|pushed| show_size_bytes(pushed.size));
        table.row([
            row.node.to_string(),
            json.build.clone(),
            outcome.to_owned(),
            size.unwrap_or_default(),
        ]);
    }
    table.render()
}

async fn list(arguments: &NodesArgs, session: &Session, output: Output) -> Result<Exit, CtlError> {
    let targets = session.selected(&arguments.node, &arguments.labels)?;
    let outcomes = session
        .fan_out(&targets, |_, channel| async move {
            let answer = client::build(channel)
                .list_builds(v1::ListBuildsRequest {})
                .await?;
            Ok(answer.into_inner())
        })
        .await;
    let json = BuildsJson {
        nodes: render::rows(outcomes, builds),
    };
    render::print(output, &json, || list_table(&json.nodes))?;
    render::complain(&json.nodes);
    Ok(render::exit_of(&json.nodes))
}

fn builds(answer: v1::ListBuildsResponse) -> Result<BuildsOnNode, Malformed> {
    let build = |info: v1::BuildInfo| {
        let build = BuildRef::try_from(required("build", info.build.clone())?)?;
        Ok(build_json(&build, info))
    };
    Ok(BuildsOnNode {
        builds: answer
            .builds
            .into_iter()
            .map(build)
            .collect::<Result<_, Malformed>>()?,
        free_bytes: answer.free_bytes,
    })
}

fn build_json(build: &BuildRef, info: v1::BuildInfo) -> BuildJson {
    BuildJson {
        build: build.id.to_string(),
        digest: build.digest.to_string(),
        size: info.size,
        files: info.files,
        current: info.current,
        revoked: Some(info.revoked).filter(|why| !why.is_empty()),
        changes_persistence: info.changes_persistence,
    }
}

/// The columns of tables with builds.
const COLUMNS: [&str; 7] = [
    "NODE", "BUILD", "DIGEST", "SIZE", "FILES", "CURRENT", "REVOKED",
];

/// A build's row.
fn cells(node: &NodeName, build: &BuildJson) -> [String; COLUMNS.len()] {
    [
        node.to_string(),
        build.build.clone(),
        build.digest.chars().take(12).collect(),
        show_size_bytes(build.size),
        build.files.to_string(),
        if build.current { "yes" } else { "no" }.to_owned(),
        build.revoked.clone().unwrap_or_default(),
    ]
}

fn list_table(nodes: &[NodeRow<BuildsOnNode>]) -> String {
    let mut table = Table::new(&COLUMNS);
    for row in nodes {
        for build in row.result.iter().flat_map(|found| &found.builds) {
            table.row(cells(&row.node, build));
        }
    }
    table.render()
}
