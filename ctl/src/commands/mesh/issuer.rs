//! `cbctl mesh issuer`: brings the issuing authority to a member that runs, and takes it away.

use super::change::{admin, tell};
use super::files::{folder, issuing};
use crate::cli::{CommonArgs, IssuerArgs, IssuerRemoveArgs, Output};
use crate::commands::confirm;
use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client};
use crate::roster::Book;
use cbddc_domain::id::NodeName;
use cbddc_domain::roster::{ISSUER_LABEL, MemberEntry, Says, Subject};
use cbddc_pki::authority::Issuing;
use cbddc_proto::v1;

pub(super) async fn add(
    arguments: &IssuerArgs,
    session: &Session,
    common: &CommonArgs,
) -> Result<Exit, CtlError> {
    admin(session)?;
    let (dir, _) = folder(arguments.dir.as_deref(), common)?;
    let authority = issuing(&dir)?;
    let node = &arguments.node;
    let book = Book::open(session).await?;
    let before = book.member(node)?;
    let question = format!("Let {node} admit hosts and renew certificates?");
    if let Some(exit) = confirm(&question, arguments.confirm)? {
        return Ok(exit);
    }
    // First the authority, then the label: whoever is asked for certificates can issue them.
    let changed = match give(session, node, &authority).await {
        Outcome::Ok(changed) => changed,
        other @ (Outcome::Unreachable { .. } | Outcome::Refused { .. } | Outcome::TimedOut) => {
            return Err(not_done(node, &other));
        }
    };
    let words = match changed {
        true => format!("{node} holds the issuing authority now"),
        false => format!("{node} held the issuing authority already"),
    };
    let statements = label(&book, node, before, true);
    tell(session, &[], statements, words, common.output).await
}

pub(super) async fn remove(
    arguments: &IssuerRemoveArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    admin(session)?;
    let node = &arguments.node;
    let book = Book::open(session).await?;
    let before = book.member(node)?;
    let mut others = book.roster().issuers();
    others.remove(node);
    if others.is_empty() && !arguments.force {
        let why = format!("{node} is the last issuer: nobody could join or renew any more");
        return Err(CtlError::new(Exit::Refused, why)
            .hint("make another one first with `cbctl mesh issuer add NODE`, or add --force"));
    }
    let question = format!("Take the issuing authority away from {node}?");
    if let Some(exit) = confirm(&question, arguments.confirm)? {
        return Ok(exit);
    }
    // First the label, so that nobody asks it any more.
    let statements = label(&book, node, before, false);
    let dropping = session.call(node, session.timeout(), |channel| async move {
        let mut client = client::mesh(channel);
        let asked = client.drop_issuing(v1::DropIssuingRequest {}).await?;
        Ok(asked.into_inner())
    });
    let dropped = dropping.await;
    let words = match dropped.ok() {
        Some(answer) if answer.changed => format!("{node} gave the issuing authority up"),
        Some(_) => format!("{node} does not hold the issuing authority"),
        None => format!("{node} is no issuer any more for the others"),
    };
    let exit = tell(session, &[], statements, words, output).await?;
    match dropped {
        Outcome::Ok(answer) => {
            if !answer.left.is_empty() {
                eprintln!(
                    "its agent uses {} no more, but may not remove it: do that on the host",
                    answer.left
                );
            }
            Ok(exit)
        }
        other @ (Outcome::Unreachable { .. } | Outcome::Refused { .. } | Outcome::TimedOut) => {
            eprintln!(
                "{node} still has the key ({}: {}): run this again when it can be reached",
                other.word(),
                other.why()
            );
            Ok(Exit::Partial)
        }
    }
}

/// Gives the issuing authority to a member; whether it had another one, or none.
pub(super) async fn give(session: &Session, node: &NodeName, authority: &Issuing) -> Outcome<bool> {
    let request = v1::PutIssuingRequest {
        certificate: authority.certificate_pem(),
        key: authority.key_pem(),
    };
    let giving = session.call(node, session.timeout(), |channel| async move {
        let given = client::mesh(channel).put_issuing(request).await?;
        Ok(given.into_inner().changed)
    });
    giving.await
}

/// The statement that sets the label or takes it away, where it is not so yet.
pub(super) fn label(
    book: &Book,
    node: &NodeName,
    mut entry: MemberEntry,
    issues: bool,
) -> Vec<v1::SignedStatement> {
    let held = entry.labels.remove(ISSUER_LABEL).is_some();
    if issues {
        entry
            .labels
            .insert(ISSUER_LABEL.to_owned(), "yes".to_owned());
    }
    let subject = Subject::Member(node.clone());
    match held == issues {
        true => Vec::new(),
        false => vec![book.sign(subject, Says::Member(entry), "")],
    }
}

fn not_done<T>(node: &NodeName, outcome: &Outcome<T>) -> CtlError {
    CtlError::failed(format!("{node} did not take the issuing authority"))
        .detail(format!("{node}: {}: {}", outcome.word(), outcome.why()))
        .hint("nothing was changed; see whether its agent runs, and run it again")
}
