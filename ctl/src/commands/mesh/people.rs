//! `cbctl mesh user list`, `remove` and `push`.

use super::change::{admin, tell};
use super::files::{folder, plain, read_pem};
use crate::cli::{CommonArgs, Output, UserPushArgs, UserRemoveArgs};
use crate::commands::confirm;
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::render::{self, Table};
use crate::roster::Book;
use cbddc_domain::access::Role;
use cbddc_domain::roster::{Author, Roster, Says, Subject, UserEntry};
use cbddc_pki::certificate;
use cbddc_pki::name::Holder;
use serde::Serialize;

/// What `mesh user list -o json` prints.
#[derive(Debug, Serialize)]
struct PeopleJson {
    mesh: String,
    people: Vec<PersonJson>,
}

/// One person of whom the members know.
#[derive(Debug, Serialize)]
struct PersonJson {
    name: String,
    /// `null`: was taken out.
    role: Option<Role>,
    /// SHA-256 of the key of the newest certificate.
    key: Option<String>,
    /// Who said so.
    said_by: String,
    reason: String,
}

pub(super) async fn list(session: &Session, output: Output) -> Result<Exit, CtlError> {
    let book = Book::open(session).await?;
    let json = PeopleJson {
        mesh: session.mesh().name.clone(),
        people: people(book.roster()),
    };
    render::print(output, &json, || {
        let mut table = Table::new(&["USER", "ROLE", "SAID BY", "REASON"]);
        for one in &json.people {
            let role = one.role.map_or("removed", Role::word);
            table.row([
                one.name.clone(),
                role.to_owned(),
                one.said_by.clone(),
                one.reason.clone(),
            ]);
        }
        table.render()
    })?;
    eprintln!(
        "people with a certificate of the root authority of whom nothing was said are let in, too; \
         `cbctl mesh user push NAME` tells the members of one"
    );
    Ok(Exit::Done)
}

fn people(roster: &Roster) -> Vec<PersonJson> {
    let one = |said: &cbddc_domain::roster::Said| {
        let Subject::User(name) = &said.statement.subject else {
            return None;
        };
        let entry = match &said.statement.says {
            Says::User(entry) => Some(entry),
            Says::Removed | Says::Member(_) | Says::Trust(_) => None,
        };
        Some(PersonJson {
            name: name.clone(),
            role: entry.map(|entry| entry.role),
            key: entry.map(|entry| entry.key.to_string()),
            said_by: said.author.to_string(),
            reason: said.statement.reason.clone(),
        })
    };
    roster.statements().filter_map(one).collect()
}

pub(super) async fn remove(
    arguments: &UserRemoveArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let (own, _) = admin(session)?.person()?;
    let name = plain("user", &arguments.name)?;
    let book = Book::open(session).await?;
    let subject = Subject::User(name.clone());
    let is_self = own == name;
    if is_self && !arguments.force {
        return Err(
            CtlError::new(Exit::Refused, "this would take you out yourself")
                .hint("let another admin do it, or add --force"),
        );
    }
    let known = book
        .roster()
        .said_of(&subject)
        .map(|said| &said.statement.says);
    if known == Some(&Says::Removed) {
        eprintln!("{name} is out already; whoever was not reached then hears of it now");
    } else if known.is_none() {
        eprintln!("no member has heard of {name} yet: make sure that the name is right");
    }
    let question = format!("Take {name} out of the mesh {}?", session.mesh().name);
    if let Some(exit) = confirm(&question, arguments.confirm)? {
        return Ok(exit);
    }
    let theirs =
        |author: &Author| matches!(author, Author::Person { name: signer, .. } if *signer == name);
    // Whoever leaves can sign nothing anew: members would believe neither.
    let mut statements = if is_self {
        Vec::new()
    } else {
        book.sign_anew(Some(&subject), theirs)
    };
    let anew = statements.len();
    // Last: until it is there, what they signed still holds.
    statements.push(book.sign(subject.clone(), Says::Removed, &arguments.reason));
    let changed = format!(
        "{name} is out: no certificate of this name is let in; {anew} statement(s) of theirs are \
         signed by you now"
    );
    tell(session, &[], statements, changed, output).await
}

pub(super) async fn push(
    arguments: &UserPushArgs,
    session: &Session,
    common: &CommonArgs,
) -> Result<Exit, CtlError> {
    admin(session)?;
    let name = plain("user", &arguments.name)?;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let (dir, _) = folder(arguments.dir.as_deref(), common)?;
            dir.join("users").join(&name)
        }
    };
    let hint = "name the folder that `cbctl mesh user add` wrote with --out";
    let pem = read_pem(&out.join("user.pem"), hint)?;
    let entry = entry(&pem, &session.mesh().name, &name)?;
    let book = Book::open(session).await?;
    let role = entry.role;
    let statement = book.sign(Subject::User(name.clone()), Says::User(entry), "");
    let changed = format!("{name} is known as {role}, with this certificate's key alone");
    tell(session, &[], vec![statement], changed, common.output).await
}

/// What a person's certificate says.
pub(super) fn entry(pem: &str, mesh: &str, name: &str) -> Result<UserEntry, CtlError> {
    let facts = certificate::from_pem(pem.as_bytes());
    let facts = facts.and_then(|chain| certificate::facts(&chain[0], mesh));
    let facts = facts.map_err(|fault| {
        CtlError::failed("user.pem is no certificate of this mesh").because(fault)
    })?;
    match facts.mesh_holder {
        Holder::Person { name: held, role } if held == name => Ok(UserEntry {
            role,
            key: facts.key,
        }),
        other @ (Holder::Node(_) | Holder::Person { .. }) => Err(CtlError::failed(format!(
            "user.pem is the certificate of {other}, not of {name}"
        ))),
    }
}
