//! `cbctl mesh label`.

use super::change::{admin, tell};
use crate::cli::{LabelArgs, Output};
use crate::commands::confirm;
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::roster::Book;
use cbddc_domain::roster::{ISSUER_LABEL, LABELS_MAX, MemberEntry, Says, Subject};

pub(super) async fn run(
    arguments: &LabelArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    admin(session)?;
    let sets_issuer = |(key, _): &(String, String)| key == ISSUER_LABEL;
    let takes_issuer = arguments.remove.iter().any(|key| key == ISSUER_LABEL);
    if takes_issuer || arguments.labels.iter().any(sets_issuer) {
        return Err(no_issuer_label(&arguments.node.to_string()));
    }
    let book = Book::open(session).await?;
    let node = &arguments.node;
    let before = book.member(node)?;
    let entry = changed(before.clone(), arguments);
    if entry == before {
        eprintln!("{node} has these labels and this kind already: nothing was changed");
        return Ok(Exit::Done);
    }
    if entry.labels.len() > LABELS_MAX {
        let why = format!("{node} would have more than {LABELS_MAX} labels");
        return Err(CtlError::usage(why).hint("take some away with --remove KEY"));
    }
    let words = words(&entry);
    if let Some(exit) = confirm(&format!("Make {node} {words}?"), arguments.confirm)? {
        return Ok(exit);
    }
    let subject = Subject::Member(node.clone());
    let statement = book.sign(subject, Says::Member(entry.clone()), "");
    let exit = tell(
        session,
        &[],
        vec![statement],
        format!("{node} is {words} now"),
        output,
    )
    .await?;
    if entry.required != before.required {
        eprintln!("hint: say who votes now with `cbctl mesh voters`");
    }
    Ok(exit)
}

/// The label goes with the authority, which only `mesh issuer add` and `mesh issue --issuer` bring.
pub(super) fn no_issuer_label(node: &str) -> CtlError {
    CtlError::usage(format!(
        "the label `{ISSUER_LABEL}` belongs to members that hold the issuing authority"
    ))
    .hint(format!(
        "give it to a member with `cbctl mesh issuer add {node}`, take it away with `remove`"
    ))
}

fn changed(mut entry: MemberEntry, arguments: &LabelArgs) -> MemberEntry {
    for key in &arguments.remove {
        entry.labels.remove(key);
    }
    entry.labels.extend(arguments.labels.iter().cloned());
    if arguments.required || arguments.optional {
        entry.required = arguments.required;
    }
    entry
}

fn words(entry: &MemberEntry) -> String {
    let kind = if entry.required {
        "a required member"
    } else {
        "an optional member"
    };
    let labels: Vec<String> = entry
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    match labels.as_slice() {
        [] => format!("{kind} without labels"),
        labels => format!("{kind} with {}", labels.join(", ")),
    }
}
