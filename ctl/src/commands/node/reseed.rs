//! `cbctl node reseed`: the node begins without data and takes everything from its peers.

use crate::audit::converge;
use crate::cli::{Output, ReseedArgs};
use crate::clusters::groups;
use crate::commands::confirm;
use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client};
use crate::render::{self, values};
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::id::NodeName;
use cbddc_proto::convert::replication::clock_from_proto;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// How often the node is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How many documents are named for people.
const TOLD_MAX: usize = 20;

/// What it prints as JSON.
#[derive(Debug, Serialize)]
struct ReseededJson {
    node: NodeName,
    /// The snapshot with what was there before.
    kept: String,
    /// True once the node holds all that its peers held when it began.
    caught_up: bool,
    /// What it has not caught up with yet, or what of that is not known.
    behind: Vec<String>,
    /// The documents that only the kept data has.
    only_kept: Vec<DocumentJson>,
    /// Why not all was compared.
    not_compared: Option<String>,
}

/// A document that no peer had.
#[derive(Debug, Serialize)]
struct DocumentJson {
    collection: String,
    key: String,
    written_at: String,
}

pub(super) async fn run(
    arguments: &ReseedArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let node = &arguments.node;
    let targets = session.targets(std::slice::from_ref(node))?;
    let question = format!(
        "Stop {node}, keep its data as a snapshot, and start it without data, so that it takes everything from its peers?"
    );
    if let Some(exit) = confirm(&question, arguments.confirm)? {
        return Ok(exit);
    }
    session.set_standing("the node goes on with it: see `cbctl status` and `cbctl snapshot list`");
    let before = status(session, node).await?;
    let call = |channel| async {
        let mut client = client::snapshot(channel);
        client.reseed_node(v1::ReseedNodeRequest {}).await.map(drop)
    };
    let limit = session.timeout().max(Duration::from_secs(60));
    let begun = session.call(node, limit, call).await;
    if begun.ok().is_none() {
        let what = format!("{node} was not begun anew: {}", begun.why());
        return Err(CtlError::new(Exit::Refused, what)
            .hint("nothing was changed; mend what is named above and try again"));
    }
    eprintln!("{node}: begun");
    let until = Instant::now() + arguments.within;
    let kept = wait_until_replaced(session, node, &before, until).await?;
    eprintln!(
        "{node}: runs without its data, which is kept as snapshot {kept}; it takes everything from its peers"
    );
    let behind = catch_up(session, &targets, until).await;
    let only = only_kept(session, node, &kept).await;
    let caught_up = behind.is_empty();
    if caught_up && before.drained.is_some_and(|stop| stop.by == "agent") {
        let_clients_in(session, node).await;
    }
    let (only_kept, not_compared) = match only {
        Ok(only) => only,
        Err(why) => (Vec::new(), Some(why)),
    };
    let json = ReseededJson {
        node: node.clone(),
        kept,
        caught_up,
        behind,
        only_kept,
        not_compared,
    };
    render::print(output, &json, || text(&json))?;
    if !json.caught_up {
        eprintln!("hint: it goes on by itself; watch it with `cbctl replication check`");
        return Ok(Exit::Partial);
    }
    Ok(Exit::Done)
}

fn text(json: &ReseededJson) -> String {
    let mut text = match json.caught_up {
        true => format!(
            "{} holds all that its peers held when it began\n",
            json.node
        ),
        false => format!(
            "{} is not known to hold: {}\n",
            json.node,
            json.behind.join("; ")
        ),
    };
    if let Some(why) = &json.not_compared {
        text.push_str(&format!(
            "what only snapshot {} holds is not known: {why}\n",
            json.kept
        ));
    }
    if !json.only_kept.is_empty() {
        text.push_str(&format!("only snapshot {} holds:\n", json.kept));
    }
    for document in json.only_kept.iter().take(TOLD_MAX) {
        let (collection, key) = (&document.collection, &document.key);
        text.push_str(&format!(
            "  {collection}/{key}, written at {}\n",
            document.written_at
        ));
    }
    if json.only_kept.len() > TOLD_MAX {
        let more = json.only_kept.len() - TOLD_MAX;
        text.push_str(&format!("  and {more} more: -o json has them\n"));
    }
    text
}

async fn status(session: &Session, node: &NodeName) -> Result<v1::GetStatusResponse, CtlError> {
    let call = |channel| async {
        let mut client = client::node(channel);
        Ok(client
            .get_status(v1::GetStatusRequest {})
            .await?
            .into_inner())
    };
    let outcome = session.call(node, session.timeout(), call).await;
    let why = outcome.why().to_owned();
    match outcome {
        Outcome::Ok(status) => Ok(status),
        Outcome::Unreachable { .. } | Outcome::Refused { .. } | Outcome::TimedOut => {
            Err(CtlError::failed(format!("{node}: {why}")))
        }
    }
}

/// Waits until another generation runs, which is the same release without data; returns what was kept.
async fn wait_until_replaced(
    session: &Session,
    node: &NodeName,
    before: &v1::GetStatusResponse,
    until: Instant,
) -> Result<String, CtlError> {
    loop {
        // An agent that does not answer for a moment goes on all the same.
        if let Ok(now) = status(session, node).await {
            let kept = now.owed.iter().find(|id| !before.owed.contains(id));
            match (now.phase.as_str(), kept) {
                ("steady", Some(kept)) if now.generation != before.generation => {
                    return Ok(kept.clone());
                }
                ("steady", None) if now.generation == before.generation && now.generation > 0 => {}
                ("steady" | "stuck", _) => {
                    let what = format!("{node} did not get through: it is {}", now.phase_text);
                    return Err(CtlError::new(Exit::InDoubt, what)
                        .hint("see `cbctl journal list` for what failed"));
                }
                _ => {}
            }
        }
        if Instant::now() >= until {
            let what = format!("{node} is not through yet");
            return Err(CtlError::new(Exit::Partial, what)
                .hint("it goes on by itself; watch it with `cbctl status`"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until the node has seen what its peers' clocks show now; returns what is left, in sentences.
async fn catch_up(session: &Session, node: &BTreeSet<NodeName>, until: Instant) -> Vec<String> {
    let mut behind = Vec::new();
    for ((cluster, _), of_cluster) in groups(session, &session.nodes()).await {
        if of_cluster.is_disjoint(node) {
            continue;
        }
        let others: BTreeSet<NodeName> = of_cluster.difference(node).cloned().collect();
        let request = v1::ReadClockRequest {
            cluster: cluster.clone(),
            origins: Vec::new(),
        };
        let call = move |_, channel| {
            let request = request.clone();
            async move {
                let mut client = client::replication(channel);
                Ok(client.read_clock(request).await?.into_inner().clock)
            }
        };
        let mut wanted = VectorClock::default();
        for (peer, outcome) in session.fan_out(&others, call).await {
            let why = outcome.why().to_owned();
            match outcome {
                Outcome::Ok(clock) => wanted.merge(&clock_from_proto(clock)),
                Outcome::Unreachable { .. } | Outcome::Refused { .. } | Outcome::TimedOut => {
                    behind.push(format!("what {peer} may hold, which does not say: {why}"));
                }
            }
        }
        if wanted.0.is_empty() {
            behind.push("whatever its peers hold: their clocks show nothing".to_owned());
        }
        let owed: BTreeMap<NodeName, VectorClock> = node
            .iter()
            .map(|node| (node.clone(), wanted.clone()))
            .collect();
        let left = until.saturating_duration_since(Instant::now());
        for late in converge(session, &cluster, &owed, left).await {
            let (wall, origin) = (values::moment(late.wanted.0), late.origin);
            behind.push(format!("events of \"{origin}\" until {wall}"));
        }
    }
    behind
}

type Only = (Vec<DocumentJson>, Option<String>);

async fn only_kept(session: &Session, node: &NodeName, kept: &str) -> Result<Only, String> {
    let request = v1::ListOnlyInSnapshotRequest {
        id: kept.to_owned(),
    };
    let call = |channel| async {
        let mut client = client::snapshot(channel);
        Ok(client.list_only_in_snapshot(request).await?.into_inner())
    };
    let limit = session.timeout().max(Duration::from_secs(60));
    let outcome = session.call(node, limit, call).await;
    let Outcome::Ok(answer) = outcome else {
        return Err(outcome.why().to_owned());
    };
    let document = |version: v1::DocumentVersion| DocumentJson {
        collection: version.collection,
        key: version.key,
        written_at: values::moment(version.wall),
    };
    let mut not_compared = Some(answer.not_compared).filter(|why| !why.is_empty());
    if answer.more {
        not_compared = Some("there are more than can be listed".to_owned());
    }
    let documents = answer.documents.into_iter().map(document);
    Ok((documents.collect(), not_compared))
}

/// What its agent kept its clients away for is over.
async fn let_clients_in(session: &Session, node: &NodeName) {
    let request = v1::SetDrainedRequest {
        drained: false,
        reason: "it has taken everything from its peers".to_owned(),
    };
    let call = |channel| async { client::node(channel).set_drained(request).await.map(drop) };
    let limit = session.timeout().max(Duration::from_secs(70));
    let outcome = session.call(node, limit, call).await;
    match outcome.ok() {
        Some(()) => eprintln!("{node}: takes traffic again"),
        None => eprintln!(
            "warning: {node}: its clients are still kept away: {}; let them in with `cbctl node undrain --node {node}`",
            outcome.why()
        ),
    }
}
