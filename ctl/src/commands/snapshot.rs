//! `cbctl snapshot`.

use super::confirm;
use crate::cli::{NodesArgs, Output, SnapshotCommand};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow, Table, values};
use cbddc_domain::id::NodeName;
use cbddc_domain::units::show_size_bytes;
use cbddc_proto::convert::required;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeSet;

/// What `snapshot create` and `snapshot list` print as JSON.
#[derive(Debug, Serialize)]
struct SnapshotsJson {
    nodes: Vec<NodeRow<Vec<SnapshotJson>>>,
}

/// One snapshot.
#[derive(Debug, Serialize)]
struct SnapshotJson {
    id: String,
    taken_at: String,
    size: u64,
    reason: String,
    databases: u32,
}

/// What `snapshot restore -o json` prints.
#[derive(Debug, Serialize)]
struct RestoreJson {
    nodes: Vec<NodeRow<RestoreBegun>>,
}

/// A restore that the agent took on.
#[derive(Debug, Serialize)]
struct RestoreBegun {
    snapshot: String,
}

pub(super) async fn run(
    command: SnapshotCommand,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    match command {
        SnapshotCommand::Create {
            nodes,
            reason,
            confirm,
        } => {
            let targets = session.selected(&nodes.node, &nodes.labels)?;
            if confirm.dry_run {
                eprintln!("would take a snapshot on {}", listed(&targets));
                return Ok(Exit::Done);
            }
            create(&targets, reason, session, output).await
        }
        SnapshotCommand::List(nodes) => list(&nodes, session, output).await,
        SnapshotCommand::Restore {
            snapshot,
            node,
            confirm: asked,
        } => {
            let targets = session.targets(&[node])?;
            let question = format!(
                "Stop {}, put snapshot {snapshot} in its database's place, and start it again?",
                listed(&targets)
            );
            if let Some(exit) = confirm(&question, asked)? {
                return Ok(exit);
            }
            restore(&targets, snapshot, session, output).await
        }
    }
}

fn listed(nodes: &BTreeSet<NodeName>) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

async fn create(
    targets: &BTreeSet<NodeName>,
    reason: String,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    session.set_standing("snapshots that were begun are finished; see `cbctl snapshot list`");
    let outcomes = session
        .fan_out(targets, move |_, channel| {
            let request = v1::CreateSnapshotRequest {
                reason: reason.clone(),
            };
            async move {
                let answer = client::snapshot(channel).create_snapshot(request).await?;
                Ok(answer.into_inner().snapshot)
            }
        })
        .await;
    let nodes = render::rows(outcomes, |taken| {
        Ok(vec![snapshot(required("snapshot", taken)?)])
    });
    print(SnapshotsJson { nodes }, output)
}

async fn list(nodes: &NodesArgs, session: &Session, output: Output) -> Result<Exit, CtlError> {
    let targets = session.selected(&nodes.node, &nodes.labels)?;
    let outcomes = session
        .fan_out(&targets, |_, channel| async move {
            let mut client = client::snapshot(channel);
            let answer = client.list_snapshots(v1::ListSnapshotsRequest {}).await?;
            Ok(answer.into_inner().snapshots)
        })
        .await;
    let convert = |found: Vec<v1::Snapshot>| Ok(found.into_iter().map(snapshot).collect());
    let nodes = render::rows(outcomes, convert);
    print(SnapshotsJson { nodes }, output)
}

async fn restore(
    targets: &BTreeSet<NodeName>,
    id: String,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    session.set_standing("the restore goes on if it was begun; see `cbctl status`");
    let request_id = id.clone();
    let outcomes = session
        .fan_out(targets, move |_, channel| {
            let request = v1::RestoreSnapshotRequest {
                id: request_id.clone(),
            };
            async move {
                client::snapshot(channel).restore_snapshot(request).await?;
                Ok(())
            }
        })
        .await;
    let begun = |()| {
        Ok(RestoreBegun {
            snapshot: id.clone(),
        })
    };
    let json = RestoreJson {
        nodes: render::rows(outcomes, begun),
    };
    render::print(output, &json, || {
        let mut table = Table::new(&["NODE", "RESTORE"]);
        for row in &json.nodes {
            let begun = row.result.as_ref().map_or(row.outcome, |_| "begun");
            table.row([row.node.to_string(), begun.to_owned()]);
        }
        table.render()
    })?;
    render::complain(&json.nodes);
    let exit = render::exit_of(&json.nodes);
    if exit == Exit::Done {
        eprintln!("hint: watch it with `cbctl status`");
    }
    Ok(exit)
}

fn snapshot(given: v1::Snapshot) -> SnapshotJson {
    SnapshotJson {
        id: given.id,
        taken_at: values::moment(given.taken_wall_ms),
        size: given.size,
        reason: given.reason,
        databases: given.databases,
    }
}

fn print(json: SnapshotsJson, output: Output) -> Result<Exit, CtlError> {
    render::print(output, &json, || {
        let mut table = Table::new(&["NODE", "SNAPSHOT", "TAKEN", "SIZE", "DATABASES", "REASON"]);
        for row in &json.nodes {
            for snapshot in row.result.iter().flatten() {
                table.row([
                    row.node.to_string(),
                    snapshot.id.clone(),
                    snapshot.taken_at.clone(),
                    show_size_bytes(snapshot.size),
                    snapshot.databases.to_string(),
                    snapshot.reason.clone(),
                ]);
            }
        }
        table.render()
    })?;
    render::complain(&json.nodes);
    Ok(render::exit_of(&json.nodes))
}
