//! `cbctl journal`.
//!
//! Entries of several nodes are put in the order of the nodes' clocks, which differ: within one node
//! the order is certain, between nodes it is as good as their clocks.

use crate::cli::{JournalCommand, Output};
use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client, outcome_of};
use crate::render::{self, NodeRow, Table, values};
use cbddc_domain::id::NodeName;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// Pause before a node is asked again that could not be followed.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

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
            let targets = session.targets(&nodes.node)?;
            let json = list(&targets, limit, session).await;
            render::print(output, &json, || table(&json.entries))?;
            render::complain(&json.nodes);
            Ok(render::exit_of(&json.nodes))
        }
        JournalCommand::Follow { nodes, limit } => {
            let targets = session.targets(&nodes.node)?;
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

/// Prints what there is, then everything that comes, until somebody presses Ctrl-C. A node that
/// cannot be reached is asked again; nobody waits for it.
async fn follow(
    targets: &BTreeSet<NodeName>,
    limit: u32,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    session.set_standing("nothing was changed; the nodes go on writing their journals");
    let begin = list(targets, limit.max(1), session).await;
    render::complain(&begin.nodes);
    let (sender, mut coming) = mpsc::channel(256);
    for node in targets {
        let newest = begin.entries.iter().filter(|entry| entry.node == *node);
        let after = newest.map(|entry| entry.number).max();
        tokio::spawn(follow_node(
            session.clone(),
            node.clone(),
            after,
            sender.clone(),
        ));
    }
    drop(sender);
    if limit > 0 {
        begin
            .entries
            .iter()
            .try_for_each(|entry| print(entry, output))?;
    }
    while let Some(entry) = coming.recv().await {
        print(&entry, output)?;
    }
    Ok(Exit::Done)
}

async fn follow_node(
    session: Session,
    node: NodeName,
    mut after: Option<u64>,
    sender: mpsc::Sender<EntryJson>,
) {
    let mut reported = false;
    loop {
        let ended = stream(&session, &node, &mut after, &sender, &mut reported).await;
        if sender.is_closed() {
            return;
        }
        let outcome: Outcome<()> = outcome_of(ended);
        if !reported {
            eprintln!("{node}: {} {}; trying again", outcome.word(), outcome.why());
            reported = true;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Follows one node until the stream ends. `after` is unset where the node has not yet said what its
/// newest entry is: then only what comes later is shown.
async fn stream(
    session: &Session,
    node: &NodeName,
    after: &mut Option<u64>,
    sender: &mpsc::Sender<EntryJson>,
    reported: &mut bool,
) -> Result<(), Status> {
    let begin = async {
        let mut journal = client::journal(session.channel(node).await?);
        let from = match *after {
            Some(number) => number,
            None => {
                let newest = v1::ListEntriesRequest {
                    after: 0,
                    limit: 1,
                    newest: true,
                };
                let entries = journal.list_entries(newest).await?.into_inner().entries;
                entries.last().map_or(0, |entry| entry.number)
            }
        };
        let request = v1::FollowEntriesRequest { after: from };
        Ok::<_, Status>((from, journal.follow_entries(request).await?.into_inner()))
    };
    let (from, mut entries) = tokio::time::timeout(session.timeout(), begin)
        .await
        .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    *after = Some(from);
    if *reported {
        eprintln!("{node}: there again");
        *reported = false;
    }
    while let Some(message) = entries.message().await? {
        let Some(given) = message.entry else { continue };
        *after = Some(given.number);
        if sender.send(entry(node, given)).await.is_err() {
            return Ok(());
        }
    }
    Err(Status::unavailable("the agent ended the stream"))
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

/// Prints one entry as it comes. What comes later is unknown, so columns are not aligned.
fn print(entry: &EntryJson, output: Output) -> Result<(), CtlError> {
    match output {
        Output::Json => render::print_line(entry),
        Output::Table => {
            let mut line = Table::new(&[]);
            line.row([cells(entry).join("  ")]);
            render::write(line.render().trim_start_matches('\n'))
        }
    }
}
