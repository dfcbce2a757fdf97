//! `cbctl mesh ca rotate`: another root and another issuing authority take the place of the first.
//!
//! Every step is done again where the command is run again, and changes nothing where it was done:
//!
//! 1. new authorities are made in the mesh's folder (`next/`);
//! 2. both roots sign that both are trusted, and every member that can be reached hears it;
//! 3. the issuers get the new issuing authority, from which agents renew their certificates;
//! 4. the admin gets a certificate of the new root, for the same key.
//!
//! What drops the old root again is [`finish`].

mod finish;
mod folder;

use super::change::{admin, tell};
use super::files::{cannot_issue, folder as mesh_folder, now, read_pem, root_at};
use super::init::root_passphrase;
use super::issuer;
use crate::cli::{CommonArgs, RotateArgs};
use crate::commands::confirm;
use crate::context::{self, Context};
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::roster::{Book, sign_second};
use cbddc_domain::roster::{Says, Subject, TrustEntry, UserEntry};
use cbddc_pki::authority::{Issuing, Root};
use cbddc_pki::certificate;
use cbddc_pki::signature::{Roots, Signer};
use cbddc_proto::v1;
use std::path::Path;

const HINT: &str = "name the mesh's folder, as `cbctl mesh init` made it, with --dir";

pub(super) async fn run(
    arguments: &RotateArgs,
    session: &Session,
    common: &CommonArgs,
) -> Result<Exit, CtlError> {
    let context = admin(session)?;
    let (dir, _) = mesh_folder(arguments.dir.as_deref(), common)?;
    if arguments.finish {
        return finish::run(arguments, session, &dir, common.output).await;
    }
    let mesh = &session.mesh().name;
    let question = match folder::under_way(&dir) {
        true => format!("Go on replacing the authorities of the mesh {mesh}?"),
        false => format!("Replace the root and the issuing authority of the mesh {mesh}?"),
    };
    if let Some(exit) = confirm(&question, arguments.confirm)? {
        return Ok(exit);
    }
    let book = Book::open(session).await?;
    let old = old_root(&dir, arguments)?;
    let new = match folder::under_way(&dir) {
        true => new_root(&dir, arguments)?,
        false => make(&dir, arguments, session)?,
    };
    session.set_standing("both authorities may be trusted by now: run it again to go on");
    let exit = tell_both(session, &book, &old, &new, common).await?;
    remember(context, &new)?;
    let issuing = issuing_of(&dir)?;
    let issued = give_all(session, &book, &issuing).await;
    renew_own(session, context, &dir, &new).await?;
    folder::swap(&dir)?;
    eprintln!(
        "agents renew their certificates by themselves; issue people's anew with `cbctl mesh user add`, \
         then end it with `cbctl mesh ca rotate --finish`"
    );
    Ok(if issued {
        exit
    } else {
        exit.max(Exit::Partial)
    })
}

fn make(dir: &Path, arguments: &RotateArgs, session: &Session) -> Result<Root, CtlError> {
    let mesh = session.mesh();
    let file = arguments.new_passphrase_file.as_deref();
    let passphrase = root_passphrase(file, arguments.no_passphrase, mesh.environment)?;
    let root = Root::create(&mesh.name, now()).map_err(cannot_issue)?;
    let issuing = root
        .create_issuing(&mesh.name, now())
        .map_err(cannot_issue)?;
    folder::prepare(dir, &root, &issuing, passphrase.as_ref())?;
    Ok(root)
}

fn old_root(dir: &Path, arguments: &RotateArgs) -> Result<Root, CtlError> {
    let certificate = read_pem(&folder::old(dir, "ca.pem"), HINT)?;
    let file = arguments.passphrase_file.as_deref();
    root_at(&folder::old(dir, "ca.key"), &certificate, file)
}

fn new_root(dir: &Path, arguments: &RotateArgs) -> Result<Root, CtlError> {
    let certificate = read_pem(&folder::new(dir, "ca.pem"), HINT)?;
    let file = arguments.new_passphrase_file.as_deref();
    root_at(&folder::new(dir, "ca.key"), &certificate, file)
}

fn issuing_of(dir: &Path) -> Result<Issuing, CtlError> {
    let certificate = read_pem(&folder::new(dir, "issuing.pem"), HINT)?;
    let key = read_pem(&folder::new(dir, "issuing.key"), HINT)?;
    Issuing::open(&certificate, &key).map_err(cannot_issue)
}

/// Lets every member trust both: the old root says so to those that know it alone, the new one to
/// those that come later.
async fn tell_both(
    session: &Session,
    book: &Book,
    old: &Root,
    new: &Root,
    common: &CommonArgs,
) -> Result<Exit, CtlError> {
    let (old_der, new_der) = (der(old)?, der(new)?);
    let roots = vec![new_der, old_der];
    let statements = match trusts(book) {
        Some((entry, held)) if entry.roots == roots => vec![held],
        Some(_) | None => {
            let former = Vec::new();
            let says = Says::Trust(TrustEntry { roots, former });
            let signer = signer(old)?;
            let mut said = book.sign_as(
                &signer,
                Subject::Trust,
                says,
                "the authorities are replaced",
            );
            sign_second(&mut said, &self::signer(new)?);
            vec![said]
        }
    };
    let words = "the members trust the old and the new root authority".to_owned();
    tell(session, &[], statements, words, common.output).await
}

/// What the members trust, by the newest statement that is believed here.
fn trusts(book: &Book) -> Option<(TrustEntry, v1::SignedStatement)> {
    let said = book.roster().said_of(&Subject::Trust)?;
    let entry = book.roster().trust()?;
    Some((entry.clone(), book.held(said)?.clone()))
}

/// Speaks to agents from now on that prove themselves by either authority.
fn remember(context: &Context, new: &Root) -> Result<(), CtlError> {
    let path = context.dir.join("ca.pem");
    let known = read_pem(&path, HINT)?;
    let newest = new.certificate_pem();
    if known.contains(&newest) {
        return Ok(());
    }
    context::replace(&path, (newest + &known).as_bytes())
}

/// Gives every issuer the new issuing authority; whether all have it.
async fn give_all(session: &Session, book: &Book, issuing: &Issuing) -> bool {
    let mut all = true;
    for node in book.roster().issuers() {
        let given = issuer::give(session, &node, issuing).await;
        if given.ok().is_none() {
            all = false;
            eprintln!(
                "{node} did not take the new issuing authority ({}: {}): run this again when it can be \
                 reached",
                given.word(),
                given.why()
            );
        }
    }
    all
}

/// Gives the person who asks a certificate of the new root, for the key that they have, and lets the
/// new root say so.
async fn renew_own(
    session: &Session,
    context: &Context,
    dir: &Path,
    new: &Root,
) -> Result<(), CtlError> {
    let mesh = &session.mesh().name;
    let file = |name: &str| context.dir.join(name);
    let held = read_pem(&file("user.pem"), HINT)?;
    let roots = Roots::from_der(vec![der(new)?]).map_err(unusable)?;
    let chain = certificate::from_pem(held.as_bytes()).map_err(unusable)?;
    if !roots.vouch_for(&chain, mesh) {
        let key = read_pem(&file("user.key"), HINT)?;
        let issued = new.issue_again(mesh, &key, &held, now());
        let issued = issued.map_err(cannot_issue)?;
        // The folder has the first admin's: the same person, most of the time.
        let beside = dir.join("user.pem");
        if read_pem(&beside, HINT).is_ok_and(|beside| beside == held) {
            context::replace(&beside, issued.as_bytes())?;
        }
        context::replace(&file("user.pem"), issued.as_bytes())?;
    }
    let facts = certificate::facts(&chain[0], mesh).map_err(unusable)?;
    let (name, role) = context.person()?;
    let entry = UserEntry {
        role,
        key: facts.key,
    };
    say_person(session, &signer(new)?, name, entry).await
}

/// Lets a root say who a person is, where it has not yet.
async fn say_person(
    session: &Session,
    signer: &Signer,
    name: String,
    entry: UserEntry,
) -> Result<(), CtlError> {
    let book = Book::open(session).await?;
    let subject = Subject::User(name);
    let said = book.roster().said_of(&subject);
    let same = said.is_some_and(|said| {
        said.statement.says == Says::User(entry.clone())
            && book.held(said).is_some_and(|held| by_root(held, signer))
    });
    if !same {
        let statement = book.sign_as(signer, subject, Says::User(entry), "");
        let rows = crate::roster::put(session, &session.nodes(), vec![statement]).await;
        crate::roster::ended(&rows);
    }
    Ok(())
}

/// Whether a root itself signed a statement.
fn by_root(statement: &v1::SignedStatement, root: &Signer) -> bool {
    let own = root.sign(b"").chain;
    let signature = statement.signature.as_ref();
    signature.is_some_and(|signature| signature.chain.iter().map(|one| one.to_vec()).eq(own))
}

fn der(root: &Root) -> Result<Vec<u8>, CtlError> {
    let chain = certificate::from_pem(root.certificate_pem().as_bytes());
    chain.map(|mut chain| chain.remove(0)).map_err(unusable)
}

fn signer(root: &Root) -> Result<Signer, CtlError> {
    root.signer()
        .map_err(|fault| CtlError::failed("the root authority cannot sign").because(fault))
}

fn unusable(fault: certificate::CertificateFault) -> CtlError {
    CtlError::failed("a certificate cannot be used").because(fault)
}
