//! `cbctl mesh remove`.

use super::change::{admin, tell};
use super::voters;
use crate::cli::{Output, RemoveArgs};
use crate::commands::confirm;
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::roster::Book;
use cbddc_domain::roster::{Author, Says, Subject};

pub(super) async fn run(
    arguments: &RemoveArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    admin(session)?;
    let node = &arguments.node;
    let book = Book::open(session).await?;
    book.member(node)?;
    if session.nodes().len() < 2 {
        return Err(CtlError::new(
            Exit::Refused,
            format!("{node} is the last member of the mesh"),
        ));
    }
    let question = format!("Take {node} out of the mesh {}?", session.mesh().name);
    if let Some(exit) = confirm(&question, arguments.confirm)? {
        return Ok(exit);
    }
    voters::without(session, node, &arguments.reason, arguments.force).await?;
    let subject = Subject::Member(node.clone());
    // What it had admitted as an issuer stays, for those who hear of it later.
    let its_own = |author: &Author| matches!(author, Author::Agent { name, .. } if name == node);
    let mut statements = book.sign_anew(Some(&subject), its_own);
    statements.push(book.sign(subject, Says::Removed, &arguments.reason));
    let changed = format!(
        "{node} is out of the mesh: a host of this name comes back with `cbctl mesh replace {node}`"
    );
    tell(session, &[node], statements, changed, output).await
}
