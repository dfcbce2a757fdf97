//! `cbctl mesh ca rotate --finish`: the old authorities are trusted no more.
//!
//! What they had vouched for is said anew first: statements are signed by the admin, with the key of
//! every member that can be reached. So a member that was away, and trusts
//! the new root alone when it is back, believes all of it.

use super::{der, folder, new_root, old_root, signer, trusts, unusable};
use crate::cli::{Output, RotateArgs};
use crate::commands::confirm;
use crate::commands::mesh::change::{admin, tell};
use crate::commands::mesh::files::read_pem;
use crate::context::{self, Context};
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::roster::{self, Book, sign_second, signature_of};
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::roster::{ROOTS_MAX, Said, Says, Subject, TrustEntry};
use cbddc_pki::certificate;
use cbddc_pki::signature::Roots;
use std::collections::BTreeMap;
use std::path::Path;

/// Who has no certificate of the new root, and what is known of the others.
#[derive(Default)]
struct Progress {
    /// Hosts and people, with the reason.
    missing: Vec<String>,
    /// The keys of the members that were reached.
    keys: BTreeMap<NodeName, Digest>,
}

pub(super) async fn run(
    arguments: &RotateArgs,
    session: &Session,
    dir: &Path,
    output: Output,
) -> Result<Exit, CtlError> {
    let context = admin(session)?;
    if !folder::under_way(dir) {
        return Err(CtlError::failed("no authorities are being replaced")
            .hint("begin with `cbctl mesh ca rotate`"));
    }
    if dir.join("next").exists() {
        return Err(CtlError::failed("the first step was interrupted")
            .hint("run `cbctl mesh ca rotate` again"));
    }
    let new_pem = read_pem(&folder::new(dir, "ca.pem"), super::HINT)?;
    let newest = Roots::from_pem(new_pem.as_bytes()).map_err(unusable)?;
    let book = Book::open(session).await?;
    let progress = look(session, context, &book, &newest).await?;
    if !progress.missing.is_empty() {
        let what = "not everybody has a certificate of the new root yet";
        let mut error = CtlError::new(Exit::Refused, what);
        error.details.clone_from(&progress.missing);
        if !arguments.force {
            return Err(error.hint(
                "wait for hosts, issue people's anew with `cbctl mesh user add`, or add --force",
            ));
        }
        eprint!("{}", error.report());
    }
    let question = "Trust the old root authority no more?";
    if let Some(exit) = confirm(question, arguments.confirm)? {
        return Ok(exit);
    }
    let new = new_root(dir, arguments)?;
    session.set_standing("the old authorities may be trusted still: run it again");
    let anew = anew(&book, &newest, &progress, session.mesh().name.as_str());
    let count = anew.len();
    roster::ended(&roster::put(session, &session.nodes(), anew).await);
    eprintln!("{count} statement(s) that the old root had vouched for are signed by you now");

    // Those who know the old root alone hear of the new one by its signature, where its key is here.
    let old = match folder::old(dir, "ca.key").exists() {
        true => Some(signer(&old_root(dir, arguments)?)?),
        false => None,
    };
    let new_der = der(&new)?;
    let statement = match trusts(&book) {
        Some((entry, held)) if entry.roots == [new_der.clone()] => held,
        entry => {
            let mut former = match entry {
                Some((entry, _)) => [entry.roots, entry.former].concat(),
                None => certificate::from_pem(&read_old(dir)?).map_err(unusable)?,
            };
            former.retain(|root| *root != new_der);
            former.truncate(ROOTS_MAX);
            let roots = vec![new_der];
            let says = Says::Trust(TrustEntry { roots, former });
            let why = "the authorities were replaced";
            let mut said = book.sign_as(&signer(&new)?, Subject::Trust, says, why);
            if let Some(old) = &old {
                sign_second(&mut said, old);
            }
            said
        }
    };
    let words = "the members trust the new root authority alone".to_owned();
    let exit = tell(session, &[], vec![statement], words, output).await?;
    context::replace(&context.dir.join("ca.pem"), new_pem.as_bytes())?;
    let name =
        certificate::fingerprint(&certificate::from_pem(&read_old(dir)?).map_err(unusable)?[0]);
    let name = name.to_string();
    let retired = folder::retire(dir, name.get(..8).unwrap_or(&name))?;
    eprintln!(
        "the old authorities are in {}: destroy their keys",
        retired.display()
    );
    Ok(exit)
}

fn read_old(dir: &Path) -> Result<Vec<u8>, CtlError> {
    read_pem(&folder::old(dir, "ca.pem"), super::HINT).map(String::into_bytes)
}

/// Asks every member for its certificate, and the statements for people's.
async fn look(
    session: &Session,
    context: &Context,
    book: &Book,
    newest: &Roots,
) -> Result<Progress, CtlError> {
    let mesh = &session.mesh().name;
    let mut progress = Progress::default();
    for node in book.roster().members().into_keys() {
        let chain = match session.shown_chain(&node).await {
            Ok(chain) => chain,
            Err(error) => {
                let why = crate::error::chain(&error);
                progress.missing.push(format!("host {node}: {why}"));
                continue;
            }
        };
        if newest.vouch_for(&chain, mesh)
            && let Some(Ok(facts)) = chain.first().map(|leaf| certificate::facts(leaf, mesh))
        {
            progress.keys.insert(node, facts.key);
        } else {
            let why = "its certificate comes from the old root still";
            progress.missing.push(format!("host {node}: {why}"));
        }
    }
    // Whoever asks shows it: the recovery key may have said who they are.
    let (own, _) = context.person()?;
    let pem = read_pem(&context.dir.join("user.pem"), super::HINT)?;
    let chain = certificate::from_pem(pem.as_bytes()).map_err(unusable)?;
    if !newest.vouch_for(&chain, mesh) {
        progress
            .missing
            .push(format!("user {own}: run `cbctl mesh ca rotate` again"));
    }
    for said in book.roster().statements() {
        if let (Subject::User(name), Says::User(_)) =
            (&said.statement.subject, &said.statement.says)
            && *name != own
            && !is_new(book, said, newest)
        {
            let why = "the new root has issued no certificate";
            progress.missing.push(format!("user {name}: {why}"));
        }
    }
    Ok(progress)
}

/// Whether the new root itself said it.
fn is_new(book: &Book, said: &Said, newest: &Roots) -> bool {
    let held = book.held(said).and_then(|held| held.signature.as_ref());
    held.is_some_and(|signature| newest.is_root(&signature_of(signature)))
}

/// What has to be said anew, so that whoever trusts the new root alone believes it; and the keys of the
/// members that can be reached.
fn anew(
    book: &Book,
    newest: &Roots,
    progress: &Progress,
    mesh: &str,
) -> Vec<cbddc_proto::v1::SignedStatement> {
    let mut anew = Vec::new();
    for (name, mut entry) in book.roster().members() {
        let subject = Subject::Member(name.clone());
        let said = book.roster().said_of(&subject);
        let stays = said.is_some_and(|said| is_believed(book, said, newest, mesh));
        let key = progress.keys.get(&name).copied();
        let names_key = entry.key.is_some() || key.is_none();
        if (said.is_none() || stays) && names_key {
            continue;
        }
        entry.key = entry.key.or(key);
        let reason = said.map_or("", |said| said.statement.reason.as_str());
        anew.push(book.sign(subject, Says::Member(entry), reason));
    }
    for said in book.roster().statements() {
        let statement = &said.statement;
        let is_member = matches!(statement.says, Says::Member(_) | Says::Trust(_));
        if !is_member && !is_believed(book, said, newest, mesh) {
            let (subject, says) = (statement.subject.clone(), statement.says.clone());
            anew.push(book.sign(subject, says, &statement.reason));
        }
    }
    anew
}

/// Whether whoever trusts the new root alone believes a statement.
fn is_believed(book: &Book, said: &Said, newest: &Roots, mesh: &str) -> bool {
    let Some(held) = book.held(said) else {
        return false;
    };
    let grant = held.grant.as_ref().map(|grant| grant.signature.as_ref());
    let signatures = [Some(held.signature.as_ref()), grant];
    signatures.into_iter().flatten().all(|signature| {
        let Some(signature) = signature.map(signature_of) else {
            return false;
        };
        // Of the recovery key, which no root vouches for.
        signature.chain.is_empty()
            || newest.is_root(&signature)
            || newest.vouch_for(&signature.chain, mesh)
    })
}
