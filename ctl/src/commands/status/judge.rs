//! What the nodes' answers say together. Pure.

use super::{NodeStatus, Summary};
use crate::error::Exit;
use crate::render::NodeRow;
use crate::render::values::ReleaseJson;
use cbddc_domain::id::NodeName;
use cbddc_domain::register::{Epoch, Record, is_majority};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Puts the answers together.
pub(super) fn summary(rows: &[NodeRow<NodeStatus>], voters: &BTreeSet<NodeName>) -> Summary {
    let answers: Vec<(&NodeName, &NodeStatus)> = rows
        .iter()
        .filter_map(|row| Some((&row.node, row.result.as_ref()?)))
        .collect();
    let (decided, in_doubt) = decisions(&answers);
    let reached = answers.iter().filter(|(node, _)| voters.contains(*node));
    let stuck = answers.iter().filter(|(_, status)| status.phase == "stuck");
    let unverified = answers.iter().filter(|(_, status)| status.unverified);
    let owed = answers
        .iter()
        .flat_map(|(node, status)| status.owed.iter().map(move |id| format!("{node}: {id}")));
    Summary {
        decided: decided.map(Into::into),
        voters_reached: reached.count(),
        voters: voters.len(),
        in_doubt: in_doubt.iter().map(ToString::to_string).collect(),
        stuck: stuck.map(|(node, _)| (*node).clone()).collect(),
        unverified: unverified.map(|(node, _)| (*node).clone()).collect(),
        owed: owed.collect(),
    }
}

/// The highest decided record, counting votes as agents do, and the epochs in doubt: voted for above
/// it, without a majority, and with nobody at work on them.
fn decisions<'a>(answers: &[(&NodeName, &'a NodeStatus)]) -> (Option<&'a Record>, Vec<Epoch>) {
    let known = answers
        .iter()
        .filter_map(|(_, status)| status.register.decided.as_ref());
    let mut decided: Option<&Record> = known.max_by_key(|record| record.epoch);
    let mut votes: BTreeMap<Epoch, (&Record, usize)> = BTreeMap::new();
    for (node, status) in answers {
        for record in &status.register.votes {
            let (_, count) = votes.entry(record.epoch).or_insert((record, 0));
            *count += usize::from(record.voters.contains(*node));
        }
    }
    let highest = |decided: Option<&Record>| decided.map_or_else(Epoch::default, |r| r.epoch);
    for (record, count) in votes.values() {
        if is_majority(*count, record.voters.len()) && record.epoch > highest(decided) {
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
                "decided: {what} by {} of {}, epoch {}",
                record.kind, record.proposed_by, record.epoch
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
    for node in &summary.unverified {
        let _ = writeln!(
            text,
            "unverified: {node} has started and heard no majority of the voters since"
        );
    }
    for owed in &summary.owed {
        let _ = writeln!(text, "owed: {owed} holds a state that a restore set aside");
    }
    text
}
