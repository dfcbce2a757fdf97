//! `cbctl journal`.
//!
//! Entries of several nodes are put in the order of the nodes' clocks, which differ: within one node
//! the order is certain, between nodes it is as good as their clocks.

use super::following::{self, Followed, follow_all};
use crate::cli::{JournalCommand, Output};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow, Table, values};
use cbddc_domain::id::NodeName;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeSet;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// What `journal list -o json` prints; `journal follow -o json` prints one [`EntryJson`] a line.
#[derive(Debug, Serialize)]
struct JournalJson {
    /// By the nodes' clocks, then node, then number.
    entries: Vec<EntryJson>,
    /// How many entries each node gave.
    nodes: Vec<NodeRow<usize>>,
}

/// One entry.
#[derive(Debug, Serialize)]
struct EntryJson {
    node: NodeName,
    number: u64,
    at: String,
    kind: String,
    epoch: Option<String>,
    generation: Option<u64>,
    actor: String,
    text: String,
    hash: String,
    #[serde(skip)]
    wall_ms: i64,
}

pub(super) async fn run(
    command: JournalCommand,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    match command {
        JournalCommand::List { nodes, limit } => {
            let targets = session.selected(&nodes.node, &nodes.labels)?;
            let json = list(&targets, limit, session).await;
            render::print(output, &json, || table(&json.entries))?;
            render::complain(&json.nodes);
            Ok(render::exit_of(&json.nodes))
        }
        JournalCommand::Follow { nodes, limit } => {
            let targets = session.selected(&nodes.node, &nodes.labels)?;
            follow(&targets, limit, session, output).await
        }
    }
}

async fn list(targets: &BTreeSet<NodeName>, limit: u32, session: &Session) -> JournalJson {
    let outcomes = session
        .fan_out(targets, move |_, channel| async move {
            let request = v1::ListEntriesRequest {
                after: 0,
                limit,
                newest: true,
            };
            let answer = client::journal(channel).list_entries(request).await?;
            Ok(answer.into_inner().entries)
        })
        .await;
    let found = outcomes.iter().flat_map(|(node, outcome)| {
        let entries = outcome.ok().into_iter().flatten();
        entries.map(|given| entry(node, given.clone()))
    });
    let mut entries: Vec<EntryJson> = found.collect();
    entries.sort_by(|a, b| (a.wall_ms, &a.node, a.number).cmp(&(b.wall_ms, &b.node, b.number)));
    JournalJson {
        entries,
        nodes: render::rows(outcomes, |entries| Ok(entries.len())),
    }
}

/// Prints what there is, then everything that comes, until somebody presses Ctrl-C.
async fn follow(
    targets: &BTreeSet<NodeName>,
    limit: u32,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    session.set_standing("nothing was changed; the nodes go on writing their journals");
    let begin = list(targets, limit.max(1), session).await;
    render::complain(&begin.nodes);
    let from = targets.iter().map(|node| {
        let newest = begin.entries.iter().filter(|entry| entry.node == *node);
        (node.clone(), newest.map(|entry| entry.number).max())
    });
    let mut coming = follow_all::<Journal>(session, from);
    let print = |entry: &EntryJson| following::print(entry, &cells(entry), output);
    if limit > 0 {
        begin.entries.iter().try_for_each(print)?;
    }
    while let Some(entry) = coming.recv().await {
        print(&entry)?;
    }
    Ok(Exit::Done)
}

/// The journals as they go on.
struct Journal;

impl Followed for Journal {
    type Message = v1::FollowEntriesResponse;
    type Entry = EntryJson;

    async fn newest(channel: Channel) -> Result<u64, Status> {
        let request = v1::ListEntriesRequest {
            after: 0,
            limit: 1,
            newest: true,
        };
        let answer = client::journal(channel).list_entries(request).await?;
        let newest = answer.into_inner().entries.pop();
        Ok(newest.map_or(0, |entry| entry.number))
    }

    async fn open(channel: Channel, after: u64) -> Result<Streaming<Self::Message>, Status> {
        let request = v1::FollowEntriesRequest { after };
        let answer = client::journal(channel).follow_entries(request).await?;
        Ok(answer.into_inner())
    }

    fn read(node: &NodeName, message: Self::Message) -> Option<(u64, EntryJson)> {
        let given = message.entry?;
        Some((given.number, entry(node, given)))
    }
}

fn entry(node: &NodeName, given: v1::JournalEntry) -> EntryJson {
    EntryJson {
        node: node.clone(),
        number: given.number,
        at: values::exact_moment(given.wall_ms),
        kind: given.kind,
        epoch: given.epoch.map(|epoch| values::epoch(epoch.into())),
        generation: Some(given.generation).filter(|number| *number > 0),
        actor: given.actor,
        text: given.text,
        hash: given.hash,
        wall_ms: given.wall_ms,
    }
}

fn cells(entry: &EntryJson) -> [String; 5] {
    [
        entry.at.clone(),
        entry.node.to_string(),
        entry.kind.clone(),
        entry.actor.clone(),
        entry.text.clone(),
    ]
}

fn table(entries: &[EntryJson]) -> String {
    let mut table = Table::new(&["TIME", "NODE", "WHAT", "WHO", "TEXT"]);
    entries.iter().for_each(|entry| table.row(cells(entry)));
    table.render()
}
