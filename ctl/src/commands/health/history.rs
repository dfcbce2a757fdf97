//! `cbctl health history`: what was, and what comes.

use super::line::{self, Change};
use crate::cli::{HistoryArgs, Output};
use crate::commands::following::{self, Followed, follow_all};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow, Table, values};
use cbddc_domain::id::NodeName;
use cbddc_domain::units::show_duration_ms;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// What `health history -o json` prints; with `--follow`, one [`EntryJson`] a line.
#[derive(Debug, Serialize)]
struct HistoryJson {
    nodes: Vec<NodeRow<NodeHistory>>,
}

/// The history of one node.
#[derive(Debug, Serialize)]
struct NodeHistory {
    since: String,
    until: String,
    checks: Vec<CheckHistory>,
    /// Oldest first, changes and summaries.
    entries: Vec<EntryJson>,
    #[serde(skip)]
    newest: u64,
}

/// One check over the whole time.
#[derive(Debug, Serialize)]
struct CheckHistory {
    check: String,
    /// Its newest status.
    status: String,
    /// The worst status in each of equal parts of the time.
    line: String,
    /// How often its status changed in that time.
    changes: usize,
}

/// One entry.
#[derive(Debug, Clone, Serialize)]
struct EntryJson {
    node: NodeName,
    number: u64,
    at: String,
    check: String,
    kind: String,
    status: String,
    reason: String,
    /// Results of the while before, by status; nothing for changes.
    results: Option<ResultsJson>,
    #[serde(skip)]
    wall_ms: i64,
}

/// Results of a while.
#[derive(Debug, Clone, Serialize)]
struct ResultsJson {
    healthy: u32,
    degraded: u32,
    unknown: u32,
    unhealthy: u32,
    took_ms_max: u64,
}

pub(super) async fn run(
    arguments: HistoryArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.targets(&arguments.nodes.node)?;
    let since_ms = i64::try_from(arguments.since.as_millis()).unwrap_or(i64::MAX);
    let wanted = arguments.check.clone();
    let outcomes = session
        .fan_out(&targets, move |node, channel| {
            let (node, wanted) = (node.clone(), wanted.clone());
            async move {
                let request = v1::ListHealthHistoryRequest {
                    back_ms: since_ms.unsigned_abs(),
                    limit: 0,
                };
                let answer = client::health(channel).list_health_history(request).await?;
                Ok(history(
                    &node,
                    answer.into_inner(),
                    since_ms,
                    wanted.as_deref(),
                ))
            }
        })
        .await;
    let json = HistoryJson {
        nodes: render::rows(outcomes, Ok),
    };
    render::complain(&json.nodes);
    if arguments.follow {
        return follow(json, &arguments, session, output).await;
    }
    render::print(output, &json, || table(&json.nodes))?;
    let was_bad = |row: &NodeRow<NodeHistory>| {
        let checks = row.result.iter().flat_map(|history| &history.checks);
        let mut drawn = checks.flat_map(|check| check.line.chars());
        drawn.any(|cell| !['▁', '·'].contains(&cell))
    };
    if json.nodes.iter().any(was_bad) {
        return Ok(Exit::FoundWrong);
    }
    Ok(render::exit_of(&json.nodes))
}

/// Puts a node's answer in order. Its own clock tells how long ago something was.
fn history(
    node: &NodeName,
    answer: v1::ListHealthHistoryResponse,
    since_ms: i64,
    wanted: Option<&str>,
) -> NodeHistory {
    let until = answer.now_wall_ms;
    let from = until.saturating_sub(since_ms);
    let newest = answer.entries.iter().map(|entry| entry.number).max();
    let is_wanted = |entry: &v1::HealthHistoryEntry| wanted.is_none_or(|name| name == entry.check);
    let mut changes: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    for entry in answer.entries.iter().filter(|entry| is_wanted(entry)) {
        // A summary tells that somebody still looked, which changes nothing in the line.
        let of = changes.entry(entry.check.clone()).or_default();
        if of.last().is_none_or(|(_, status)| *status != entry.status) {
            of.push((entry.wall_ms, entry.status.clone()));
        }
    }
    let checks = changes.into_iter().map(|(check, changes)| CheckHistory {
        check,
        status: changes
            .last()
            .map_or(String::new(), |(_, status)| status.clone()),
        line: line::draw(&changes, from, until),
        changes: changes.iter().filter(|(at, _)| *at >= from).count(),
    });
    let entries = answer.entries.iter();
    let entries = entries.filter(|entry| is_wanted(entry) && entry.wall_ms >= from);
    NodeHistory {
        since: values::moment(from),
        until: values::moment(until),
        checks: checks.collect(),
        entries: entries.map(|given| entry(node, given.clone())).collect(),
        newest: newest.unwrap_or_default(),
    }
}

fn entry(node: &NodeName, given: v1::HealthHistoryEntry) -> EntryJson {
    let results = (given.kind == "summary").then_some(ResultsJson {
        healthy: given.healthy,
        degraded: given.degraded,
        unknown: given.unknown,
        unhealthy: given.unhealthy,
        took_ms_max: given.took_ms_max,
    });
    EntryJson {
        node: node.clone(),
        number: given.number,
        at: values::exact_moment(given.wall_ms),
        check: given.check,
        kind: given.kind,
        status: given.status,
        reason: given.reason,
        results,
        wall_ms: given.wall_ms,
    }
}

fn table(nodes: &[NodeRow<NodeHistory>]) -> String {
    let mut lines = Table::new(&["NODE", "CHECK", "STATUS", "CHANGES", "OVER TIME"]);
    let mut changes = Vec::new();
    for row in nodes {
        let Some(history) = &row.result else { continue };
        for check in &history.checks {
            lines.row([
                row.node.to_string(),
                check.check.clone(),
                check.status.clone(),
                check.changes.to_string(),
                check.line.clone(),
            ]);
        }
        changes.extend(
            history
                .entries
                .iter()
                .filter(|entry| entry.kind == "change"),
        );
    }
    changes.sort_by(|a, b| (a.wall_ms, &a.node, a.number).cmp(&(b.wall_ms, &b.node, b.number)));
    let mut text = lines.render();
    if !changes.is_empty() {
        let mut table = Table::new(&["TIME", "NODE", "CHECK", "STATUS", "WHY"]);
        changes
            .into_iter()
            .for_each(|entry| table.row(cells(entry)));
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

fn cells(entry: &EntryJson) -> [String; 5] {
    let why = match &entry.results {
        None => entry.reason.clone(),
        Some(results) => format!(
            "{} healthy, {} degraded, {} unknown, {} unhealthy; took at most {}",
            results.healthy,
            results.degraded,
            results.unknown,
            results.unhealthy,
            match results.took_ms_max {
                ms @ 0..=9_999 => format!("{ms}ms"),
                ms => show_duration_ms(ms),
            }
        ),
    };
    [
        entry.at.clone(),
        entry.node.to_string(),
        entry.check.clone(),
        entry.status.clone(),
        why,
    ]
}

/// Prints what there is, then everything that comes, until somebody presses Ctrl-C.
async fn follow(
    begin: HistoryJson,
    arguments: &HistoryArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    session.set_standing("nothing was changed; the agents go on watching");
    let from = begin.nodes.iter().map(|row| {
        let newest = row.result.as_ref().map(|history| history.newest);
        (row.node.clone(), newest)
    });
    let mut coming = follow_all::<History>(session, from);
    let earlier = begin.nodes.into_iter().filter_map(|row| row.result);
    let mut earlier: Vec<EntryJson> = earlier.flat_map(|history| history.entries).collect();
    earlier.sort_by(|a, b| (a.wall_ms, &a.node, a.number).cmp(&(b.wall_ms, &b.node, b.number)));
    let print = |entry: &EntryJson| following::print(entry, &cells(entry), output);
    earlier.iter().try_for_each(print)?;
    while let Some(entry) = coming.recv().await {
        let wanted = arguments.check.as_ref();
        if wanted.is_none_or(|name| *name == entry.check) {
            print(&entry)?;
        }
    }
    Ok(Exit::Done)
}

/// The histories as they go on.
struct History;

impl Followed for History {
    type Message = v1::FollowHealthHistoryResponse;
    type Entry = EntryJson;

    async fn newest(channel: Channel) -> Result<u64, Status> {
        let request = v1::ListHealthHistoryRequest {
            back_ms: 0,
            limit: 1,
        };
        let answer = client::health(channel).list_health_history(request).await?;
        let newest = answer.into_inner().entries.pop();
        Ok(newest.map_or(0, |entry| entry.number))
    }

    async fn open(channel: Channel, after: u64) -> Result<Streaming<Self::Message>, Status> {
        let request = v1::FollowHealthHistoryRequest { after };
        let mut health = client::health(channel);
        let answer = health.follow_health_history(request).await?;
        Ok(answer.into_inner())
    }

    fn read(node: &NodeName, message: Self::Message) -> Option<(u64, EntryJson)> {
        let given = message.entry?;
        Some((given.number, entry(node, given)))
    }
}
