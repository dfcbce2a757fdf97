//! How a rollout or rollback ended, for people, programs and scripts.

use crate::audit::{Stranded, stranded_since};
use crate::cli::Output;
use crate::clusters::groups;
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::render::{self, Table, values};
use crate::survey::Survey;
use cbddc_domain::documents::Uneven;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::ProposalKind;
use cbddc_domain::proposer::{Failure, Outcome, Proposal};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// How many of a node's stranded documents are named for people.
const STRANDED_TOLD_MAX: usize = 10;

/// What `rollout start|resume|abort` and `rollback` print as JSON.
#[derive(Debug, Serialize)]
struct EndingJson {
    /// `decided` or `reverted`.
    outcome: &'static str,
    /// The rollout's id; empty for a rollback.
    rollout: String,
    epoch: String,
    release: values::ReleaseJson,
    /// Why it went back.
    cause: Option<String>,
    /// Nodes that were not seen to have got there, with the reason.
    pending: BTreeMap<NodeName, String>,
    /// Nodes that need a person, with the reason.
    failed: BTreeMap<NodeName, String>,
    /// Documents that a node acknowledged and that no event takes to the others.
    stranded: Vec<StrandedJson>,
    /// For how long before a node's stop writers went on, in milliseconds; only nodes where they did.
    uncovered_ms: BTreeMap<NodeName, u64>,
    /// Nodes whose documents were not looked at, with the reason.
    documents_not_looked_at: BTreeMap<NodeName, String>,
    nodes: Vec<NodeJson>,
}

/// A document that only some nodes have, and that no event explains.
#[derive(Debug, Serialize)]
struct StrandedJson {
    collection: String,
    key: String,
    written_at: String,
    on: Vec<String>,
    not_on: Vec<String>,
}

/// Where one node stands at the end.
#[derive(Debug, Serialize)]
struct NodeJson {
    node: NodeName,
    phase: Option<String>,
    release: Option<values::ReleaseJson>,
}

/// Prints the ending; `absent` were left out because they come and go; errors carry the exit code for what did not begin or is in doubt.
pub(super) async fn conclude(
    session: &Session,
    proposal: &Proposal,
    outcome: Outcome,
    absent: &BTreeMap<NodeName, String>,
    began: Instant,
    output: Output,
) -> Result<Exit, CtlError> {
    let release = &proposal.plan.release;
    match outcome {
        Outcome::Decided {
            mut pending,
            failed,
        } => {
            pending.extend(absent.clone());
            let exit = if !failed.is_empty() {
                Exit::InDoubt
            } else if !pending.is_empty() {
                Exit::Partial
            } else {
                Exit::Done
            };
            let end = End {
                outcome: "decided",
                cause: None,
                pending: &pending,
                failed: &failed,
            };
            print(session, proposal, end, began, output).await?;
            if proposal.kind == ProposalKind::Abort {
                return Err(CtlError::failed(
                    "it had been voted for, so it could not be ended: it is decided now",
                )
                .hint("go back with `cbctl rollback --mesh`"));
            }
            Ok(exit)
        }
        Outcome::Reverted {
            cause,
            pending,
            failed,
        } => {
            let clean = pending.is_empty() && failed.is_empty();
            let end = End {
                outcome: "reverted",
                cause: Some(cause),
                pending: &pending,
                failed: &failed,
            };
            print(session, proposal, end, began, output).await?;
            Ok(match (proposal.kind, clean) {
                (ProposalKind::Abort, true) => Exit::Done,
                (_, true) => Exit::Reverted,
                (_, false) => Exit::InDoubt,
            })
        }
        Outcome::Refused(failures) => {
            let what = format!(
                "{} of {} nodes refused {release}",
                failures.len(),
                proposal.members.len()
            );
            if is_forbidden(&failures) {
                let hint = "nothing was changed; ask somebody whose role allows it";
                return Err(per_node(CtlError::new(Exit::NotAllowed, what), &failures).hint(hint));
            }
            let hint = "nothing was changed; mend what is named above and try again";
            Err(per_node(CtlError::new(Exit::Refused, what), &failures).hint(hint))
        }
        Outcome::Locked(failures) => {
            let what = format!("{release} was not begun: the mesh is in other hands");
            Err(per_node(CtlError::new(Exit::Locked, what), &failures)
                .hint("nothing was changed; wait, or look at it with `cbctl rollout list`"))
        }
        Outcome::Undecided(epoch) => Err(CtlError::new(
            Exit::Locked,
            format!("{release} was not begun: a vote of epoch {epoch} is undecided"),
        )
        .hint("finish it with `cbctl rollout resume`, or go back with `cbctl rollback --mesh`")),
        Outcome::Changed => Err(CtlError::new(
            Exit::Locked,
            format!(
                "{release} was not begun: another command has changed the mesh's record meanwhile"
            ),
        )
        .hint("look at `cbctl status`, then try again")),
        Outcome::TakenOver(by) => Err(CtlError::new(Exit::Locked, "another command took over")
            .detail(by)
            .hint("look at `cbctl status` and `cbctl rollout list`")),
        Outcome::InDoubt(silent) => {
            let what =
                format!("in doubt: votes for {release} were asked for, and no majority answered");
            let mut error = CtlError::new(Exit::InDoubt, what);
            for (node, why) in silent {
                error = error.detail(format!("{node}: {why}"));
            }
            Err(error.hint("bring the silent nodes back, then `cbctl rollout resume` or `cbctl rollback --mesh`"))
        }
    }
}

/// Whether the role of whoever asks is all that stands in the way, as far as anybody answered.
fn is_forbidden(failures: &BTreeMap<NodeName, Failure>) -> bool {
    let mut words = failures.values().filter_map(|failure| match failure {
        Failure::Refused { word, .. } => Some(word.as_str()),
        Failure::Unreachable(_) => None,
    });
    let mut words = words.by_ref().peekable();
    words.peek().is_some() && words.all(|word| word == render::NOT_ALLOWED)
}

fn per_node(mut error: CtlError, failures: &BTreeMap<NodeName, Failure>) -> CtlError {
    for (node, failure) in failures {
        error = error.detail(format!("{node}: {}", failure.text()));
    }
    error
}

/// How it ended.
struct End<'a> {
    outcome: &'static str,
    cause: Option<String>,
    pending: &'a BTreeMap<NodeName, String>,
    failed: &'a BTreeMap<NodeName, String>,
}

async fn print(
    session: &Session,
    proposal: &Proposal,
    end: End<'_>,
    began: Instant,
    output: Output,
) -> Result<(), CtlError> {
    // Where everything stands in the end; not reaching anybody is no error any more.
    let survey = Survey::take(session).await.ok();
    // Only whoever can be reached: a change that is decided must not wait for the others.
    let (reached, silent): (BTreeSet<NodeName>, BTreeSet<NodeName>) =
        proposal.members.iter().cloned().partition(|node| {
            let survey = survey.as_ref();
            survey.is_some_and(|survey| survey.nodes.get(node).is_some_and(|it| it.ok().is_some()))
        });
    let mut stranded = look_for_stranded(session, &reached, began.elapsed()).await;
    let not_reached = silent
        .into_iter()
        .map(|node| (node, "not reached".to_owned()));
    stranded.not_known.extend(not_reached);
    let all: BTreeSet<&NodeName> = proposal.members.iter().chain(end.pending.keys()).collect();
    let nodes = all.into_iter().map(|node| {
        let shown = survey
            .as_ref()
            .and_then(|survey| survey.nodes.get(node)?.ok());
        NodeJson {
            node: node.clone(),
            phase: shown.map(|shown| shown.phase.clone()),
            release: shown
                .and_then(|shown| shown.view.running.as_ref())
                .map(Into::into),
        }
    });
    let json = EndingJson {
        outcome: end.outcome,
        rollout: if proposal.plan.waves.is_empty() {
            String::new()
        } else {
            proposal.plan.id.clone()
        },
        epoch: proposal.epoch.to_string(),
        release: (&proposal.plan.release).into(),
        cause: end.cause,
        pending: end.pending.clone(),
        failed: end.failed.clone(),
        stranded: stranded.documents.into_iter().map(stranded_json).collect(),
        uncovered_ms: stranded.uncovered_ms,
        documents_not_looked_at: stranded.not_known,
        nodes: nodes.collect(),
    };
    render::print(output, &json, || table(&json))?;
    say(&json);
    say_stranded(&json);
    Ok(())
}

fn table(json: &EndingJson) -> String {
    let mut table = Table::new(&["NODE", "PHASE", "RELEASE", "NOTE"]);
    for row in &json.nodes {
        let note = json.failed.get(&row.node).or(json.pending.get(&row.node));
        table.row([
            row.node.to_string(),
            row.phase.clone().unwrap_or_else(|| "not reached".into()),
            row.release
                .as_ref()
                .map_or_else(|| "-".into(), values::ReleaseJson::short),
            note.cloned().unwrap_or_default(),
        ]);
    }
    table.render()
}

fn say(json: &EndingJson) {
    let release = json.release.short();
    match (&json.cause, json.outcome) {
        (Some(cause), _) => eprintln!("went back from {release}: {cause}"),
        (None, outcome) => eprintln!("{outcome}: {release}, epoch {}", json.epoch),
    }
    if !json.failed.is_empty() {
        eprintln!(
            "hint: {} needs a person: see NOTE above and `cbctl journal list`",
            names(&json.failed)
        );
    }
    if !json.pending.is_empty() {
        eprintln!(
            "hint: {} gets there by itself when reached; watch `cbctl status`",
            names(&json.pending)
        );
    }
}

/// What the stops have cost, in all clusters.
async fn look_for_stranded(
    session: &Session,
    nodes: &BTreeSet<NodeName>,
    ago: Duration,
) -> Stranded {
    let mut all = Stranded::default();
    for ((cluster, _), nodes) in groups(session, nodes).await {
        let found = stranded_since(session, &cluster, &nodes, ago).await;
        all.documents.extend(found.documents);
        all.uncovered_ms.extend(found.uncovered_ms);
        all.not_known.extend(found.not_known);
    }
    all
}

fn stranded_json(document: Uneven) -> StrandedJson {
    StrandedJson {
        collection: document.version.collection,
        key: document.version.key,
        written_at: values::moment(document.version.wall),
        on: document.on,
        not_on: document.not_on,
    }
}

fn say_stranded(json: &EndingJson) {
    for (node, for_ms) in &json.uncovered_ms {
        eprintln!("note: {node}: writers went on for the last {for_ms} ms before its last stop");
    }
    let mut by_reason: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
    for (node, why) in &json.documents_not_looked_at {
        by_reason.entry(why).or_default().push(node.as_str());
    }
    for (why, nodes) in by_reason {
        eprintln!(
            "note: {}: whether a stop has cost documents was not looked at: {why}; `cbctl replication audit --documents` compares them",
            nodes.join(", ")
        );
    }
    let mut by_node: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for document in &json.stranded {
        let name = format!("{}/{}", document.collection, document.key);
        by_node
            .entry(document.on.join(", "))
            .or_default()
            .push(name);
    }
    for (on, names) in by_node {
        let told = names.iter().take(STRANDED_TOLD_MAX).cloned();
        let told: Vec<String> = told.collect();
        let more = match names.len() - told.len() {
            0 => String::new(),
            more => format!(", and {more} more (-o json has them all)"),
        };
        eprintln!(
            "warning: {on}: acknowledged documents that no event takes to the other nodes: {}{more}",
            told.join(", ")
        );
        eprintln!("hint: write them again through the application on {on}, unchanged");
    }
}

fn names(nodes: &BTreeMap<NodeName, String>) -> String {
    nodes
        .keys()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
