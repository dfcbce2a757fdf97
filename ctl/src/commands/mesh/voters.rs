//! `cbctl mesh voters`, and what `remove` and `replace` do to the voters first.

use super::change::admin;
use crate::cli::{Output, VotersArgs};
use crate::commands::confirm;
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::render::{self, Table};
use crate::rollout::change_voters;
use crate::roster::heard;
use cbddc_domain::id::NodeName;
use serde::Serialize;
use std::collections::BTreeSet;

/// What `mesh voters -o json` prints.
#[derive(Debug, Serialize)]
struct VotersJson {
    before: BTreeSet<NodeName>,
    voters: BTreeSet<NodeName>,
}

pub(super) async fn run(
    arguments: &VotersArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    admin(session)?;
    let members = heard(session)?;
    let required = members.iter().filter(|known| known.entry.required);
    let wanted: BTreeSet<NodeName> = if arguments.set.is_empty() {
        required.map(|known| known.name.clone()).collect()
    } else {
        session.targets(&arguments.set)?
    };
    if wanted.is_empty() {
        return Err(
            CtlError::usage("no member is required, so nobody would vote")
                .hint("name voters with --set A,B,C"),
        );
    }
    let json = VotersJson {
        before: current(session)?,
        voters: wanted,
    };
    let table = || {
        let mut table = Table::new(&["NODE", "VOTED", "VOTES"]);
        let word = |set: &BTreeSet<NodeName>, node: &NodeName| {
            let votes = set.contains(node);
            if votes { "yes" } else { "no" }.to_owned()
        };
        for node in json.before.union(&json.voters) {
            table.row([
                node.to_string(),
                word(&json.before, node),
                word(&json.voters, node),
            ]);
        }
        table.render()
    };
    if json.before == json.voters {
        render::print(output, &json, table)?;
        eprintln!("these are the voters already: nothing was changed");
        return Ok(Exit::Done);
    }
    if let Some(exit) = confirm(
        &format!("Let {} vote?", names(&json.voters)),
        arguments.confirm,
    )? {
        render::print(output, &json, table)?;
        return Ok(exit);
    }
    let exit = change_voters(session, json.voters.clone(), &arguments.reason).await?;
    render::print(output, &json, table)?;
    Ok(exit)
}

/// Lets a member vote no more, where it does.
pub(super) async fn without(
    session: &Session,
    node: &NodeName,
    reason: &str,
    force: bool,
) -> Result<(), CtlError> {
    let mut voters = current(session)?;
    if !voters.remove(node) {
        return Ok(());
    }
    let reason = match reason {
        "" => format!("{node} leaves"),
        reason => reason.to_owned(),
    };
    match change_voters(session, voters, &reason).await {
        Ok(Exit::Done) => Ok(()),
        // Decided; members that do not know it yet hear of it.
        Ok(Exit::Partial) => Ok(()),
        Ok(exit) if force => {
            eprintln!(
                "the voters are not changed for certain (exit {})",
                exit.code()
            );
            Ok(())
        }
        Ok(exit) => Err(CtlError::new(
            exit,
            format!("{node} still votes, so it stays in the mesh"),
        )
        .hint("say it again, or go on all the same with --force")),
        Err(error) if force => {
            eprintln!("{node} still votes: {}", crate::error::chain(&error));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Who votes at present, as the member that was asked knows it.
pub(super) fn current(session: &Session) -> Result<BTreeSet<NodeName>, CtlError> {
    let members = heard(session)?;
    let voters = members.iter().filter(|known| known.votes);
    Ok(voters.map(|known| known.name.clone()).collect())
}

fn names(nodes: &BTreeSet<NodeName>) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    names.join(", ")
}
