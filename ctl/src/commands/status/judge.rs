//! What the nodes' answers say together. Pure.

use super::{NodeStatus, Stop, Summary};
use crate::error::Exit;
use crate::learn::{Heard, Known};
use crate::render::NodeRow;
use crate::render::values;
use crate::render::values::ReleaseJson;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::Environment;
use cbddc_domain::register::{Epoch, Record};
use cbddc_domain::roster::ISSUER_LABEL;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Puts the answers together.
/// `file` are the voters by the mesh file, for nodes that say nothing of theirs.
pub(super) fn summary(rows: &[NodeRow<NodeStatus>], file: &BTreeSet<NodeName>) -> Summary {
    let answers: Vec<(&NodeName, &NodeStatus)> = rows
        .iter()
        .filter_map(|row| Some((&row.node, row.result.as_ref()?)))
        .collect();
    let (decided, in_doubt) = decisions(&answers);
    let voters = voters(&answers).unwrap_or(file);
    let reached = answers.iter().filter(|(node, _)| voters.contains(*node));
    let stuck = answers.iter().filter(|(_, status)| status.phase == "stuck");
    let unverified = answers.iter().filter(|(_, status)| status.unverified);
    let owed = answers
        .iter()
        .flat_map(|(node, status)| status.owed.iter().map(move |id| format!("{node}: {id}")));
    let findings = answers
        .iter()
        .flat_map(|(_, status)| status.findings.iter().cloned());
    Summary {
        decided: decided.map(Into::into),
        voters_reached: reached.count(),
        voters: voters.len(),
        in_doubt: in_doubt.iter().map(ToString::to_string).collect(),
        stuck: stuck.map(|(node, _)| (*node).clone()).collect(),
        unverified: unverified.map(|(node, _)| (*node).clone()).collect(),
        owed: owed.collect(),
        findings: findings.collect(),
        stops: stops(&answers),
        notes: notes(&answers),
        issuers: None,
        voteless: Vec::new(),
        last_seen: silent(rows).map(|node| (node.clone(), None)).collect(),
        few_issuers: false,
    }
}

/// What triggers have come to, and what is stopped; a freeze of all nodes is said once.
fn stops(answers: &[(&NodeName, &NodeStatus)]) -> Vec<String> {
    let mut told = Vec::new();
    let why = |stop: &Stop| match stop.reason.as_str() {
        "" => stop.by.clone(),
        reason => format!("{}: {reason}", stop.by),
    };
    for (node, status) in answers {
        told.extend(
            status
                .alarms
                .iter()
                .map(|alarm| format!("trigger: {node}: {alarm}")),
        );
        let stopped = [
            ("drained", &status.drained),
            ("quarantined", &status.quarantined),
        ];
        for (word, stop) in stopped {
            told.extend(
                stop.iter()
                    .map(|stop| format!("{word}: {node}, by {}", why(stop))),
            );
        }
    }
    let mut freezes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (node, status) in answers {
        if let Some(stop) = &status.frozen {
            let until = stop.until.as_deref().unwrap_or_default();
            let what = format!("until {until}, by {}", why(stop));
            freezes.entry(what).or_default().push(node.as_str());
        }
    }
    let freezes = freezes
        .into_iter()
        .map(|(what, nodes)| match nodes.len() == answers.len() {
            true => format!("frozen {what}"),
            false => format!("frozen on {} {what}", nodes.join(", ")),
        });
    told.extend(freezes);
    told
}

/// What is alike on several nodes is said once.
fn notes(answers: &[(&NodeName, &NodeStatus)]) -> Vec<String> {
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, status) in answers {
        for note in &status.notes {
            told.entry(note).or_default().push(node.as_str());
        }
    }
    let said = |(note, nodes): (&str, Vec<&str>)| format!("{note} ({})", nodes.join(", "));
    told.into_iter().map(said).collect()
}

fn silent(rows: &[NodeRow<NodeStatus>]) -> impl Iterator<Item = &NodeName> {
    let silent = rows.iter().filter(|row| row.result.is_none());
    silent.map(|row| &row.node)
}

/// Who votes, as the node knows it that knows the newest record.
fn voters<'a>(answers: &[(&NodeName, &'a NodeStatus)]) -> Option<&'a BTreeSet<NodeName>> {
    let views = answers.iter().map(|(_, status)| &status.register);
    let newest = views.max_by_key(|view| view.elected().map(|record| record.epoch))?;
    let told = match newest.elected() {
        Some(record) => &record.voters,
        None => &newest.voters,
    };
    Some(told).filter(|voters| !voters.is_empty())
}

/// Adds what one member said of all.
pub(super) fn membership(summary: &mut Summary, heard: &Heard, environment: Environment) {
    let issues = |known: &&Known| known.entry.labels.contains_key(ISSUER_LABEL);
    let issuers = heard.members.iter().filter(issues);
    let issuers: Vec<NodeName> = issuers.map(|known| known.name.clone()).collect();
    // A mesh to play with ends before its certificates do.
    summary.few_issuers = issuers.len() < 2 && environment != Environment::Local;
    summary.issuers = Some(issuers);
    let voteless = heard.members.iter();
    let voteless = voteless.filter(|known| known.entry.required && !known.votes);
    summary.voteless = voteless.map(|known| known.name.clone()).collect();
    for (node, seen) in &mut summary.last_seen {
        let known = heard.of(node).and_then(|known| known.last_seen_wall_ms);
        *seen = known.map(values::moment);
    }
}

/// The highest decided record, counting votes as agents do, and the epochs in doubt: voted for above
/// it, without a majority, and with nobody at work on them.
fn decisions<'a>(answers: &[(&NodeName, &'a NodeStatus)]) -> (Option<&'a Record>, Vec<Epoch>) {
    let known = answers
        .iter()
        .filter_map(|(_, status)| status.register.decided.as_ref());
    let mut decided: Option<&Record> = known.max_by_key(|record| record.epoch);
    let mut votes: BTreeMap<Epoch, (&Record, BTreeSet<NodeName>)> = BTreeMap::new();
    for (node, status) in answers {
        for record in &status.register.votes {
            let (_, voted) = votes
                .entry(record.epoch)
                .or_insert((record, BTreeSet::new()));
            voted.insert((*node).clone());
        }
    }
    let highest = |decided: Option<&Record>| decided.map_or_else(Epoch::default, |r| r.epoch);
    for (record, voted) in votes.values() {
        if record.is_decided_by(voted) && record.epoch > highest(decided) {
            decided = Some(record);
        }
    }
    let worked_on = |epoch: &Epoch| {
        let held = |status: &NodeStatus| {
            status.held_epoch == *epoch && status.lock.as_ref().is_some_and(|lock| lock.left_ms > 0)
        };
        answers.iter().any(|(_, status)| held(status))
    };
    let in_doubt = votes
        .into_keys()
        .filter(|epoch| *epoch > highest(decided) && !worked_on(epoch));
    (decided, in_doubt.collect())
}

/// How the command ends.
pub(super) fn exit(rows: &[NodeRow<NodeStatus>], summary: &Summary) -> Exit {
    if !summary.in_doubt.is_empty() || !summary.stuck.is_empty() {
        return Exit::InDoubt;
    }
    if !summary.findings.is_empty() {
        return Exit::FoundWrong;
    }
    let settled = |row: &NodeRow<NodeStatus>| {
        row.result
            .as_ref()
            .is_some_and(|status| status.drift.is_none())
    };
    if rows.iter().all(settled) {
        Exit::Done
    } else {
        Exit::Partial
    }
}

/// The summary as people read it, a line each.
pub(super) fn sentences(summary: &Summary) -> String {
    let mut text = String::from("\n");
    match &summary.decided {
        None => text.push_str("decided: nothing yet"),
        Some(record) => {
            let what = match &record.release {
                Some(release) => release.short(),
                None => "each node as it is".to_owned(),
            };
            let _ = write!(
                text,
                "{}: {what} by {} of {}, epoch {}",
                if record.forced {
                    "forced without a majority, not committed"
                } else {
                    "decided"
                },
                record.kind,
                record.proposed_by,
                record.epoch
            );
            for (node, release) in &record.exceptions {
                let _ = write!(text, "; {node}: {}", ReleaseJson::short(release));
            }
        }
    }
    let _ = writeln!(
        text,
        "; voters reached: {} of {}",
        summary.voters_reached, summary.voters
    );
    for epoch in &summary.in_doubt {
        let _ = writeln!(
            text,
            "in doubt: epoch {epoch} has votes but no majority: `cbctl rollout resume`, `rollout abort` or `rollback` settles it"
        );
    }
    for node in &summary.stuck {
        let _ = writeln!(
            text,
            "stuck: {node} needs a person, see `cbctl status -o json`"
        );
    }
    for finding in &summary.findings {
        let _ = writeln!(text, "replication: {finding}");
    }
    for stop in &summary.stops {
        let _ = writeln!(text, "{stop}");
    }
    for node in &summary.unverified {
        let _ = writeln!(
            text,
            "unverified: {node} has started and heard no majority of the voters since"
        );
    }
    for (node, seen) in &summary.last_seen {
        if let Some(seen) = seen {
            let _ = writeln!(text, "away: {node} was last seen by the mesh {seen}");
        }
    }
    for note in &summary.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for node in &summary.voteless {
        let _ = writeln!(
            text,
            "voteless: {node} is required and does not vote: `cbctl mesh voters` lets it"
        );
    }
    if let (true, Some(issuers)) = (summary.few_issuers, &summary.issuers) {
        let who = match issuers.as_slice() {
            [] => "no member is an issuer, so no certificate is renewed".to_owned(),
            [only] => format!("{only} is the only issuer: nobody joins or renews without it"),
            [_, _, ..] => String::new(),
        };
        let _ = writeln!(
            text,
            "issuers: {who}; `cbctl mesh issuer add NODE` makes another one"
        );
    }
    for owed in &summary.owed {
        let _ = writeln!(text, "owed: {owed} holds a state that a restore set aside");
    }
    text
}
