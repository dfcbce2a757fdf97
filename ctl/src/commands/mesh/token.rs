//! `cbctl mesh token` and `cbctl mesh replace`: the secret is made here, the admin signs what it
//! allows, and one issuer keeps that with the secret's hash.

use super::change::admin;
use super::files::now;
use super::{label, voters};
use crate::cli::{Output, ReplaceArgs, TokenArgs};
use crate::commands::confirm;
use crate::context::Context;
use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client};
use crate::render::{self, values};
use crate::roster::{self, Book, heard, signature_message};
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::roster::{Author, Grant, ISSUER_LABEL};
use cbddc_pki::certificate;
use cbddc_pki::token::Token;
use cbddc_proto::convert::roster as wire;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a token prints as JSON.
#[derive(Debug, Serialize)]
struct TokenJson {
    mesh: String,
    /// The secret; `null` where none was made (`--dry-run`).
    token: Option<String>,
    issuer: NodeName,
    address: String,
    /// The one host it is for; `null`: any new one.
    host: Option<NodeName>,
    uses: u32,
    until: String,
    labels: BTreeMap<String, String>,
    required: bool,
    /// What to run on the host, which reads the token from standard input.
    command: String,
}

/// What a token is to allow, before its issuer is known.
pub(super) struct Allowed {
    pub(super) uses: u32,
    pub(super) ttl: Duration,
    pub(super) host: Option<NodeName>,
    pub(super) replaces: bool,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) required: bool,
}

/// A token that an issuer has taken.
pub(super) struct Made {
    pub(super) token: Token,
    pub(super) grant: Grant,
    pub(super) address: String,
}

pub(super) async fn run(
    arguments: &TokenArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let context = admin(session)?;
    let labels: BTreeMap<String, String> = arguments.labels.iter().cloned().collect();
    if labels.contains_key(ISSUER_LABEL) {
        return Err(label::no_issuer_label("NODE"));
    }
    let known = heard(session)?;
    if let Some(host) = &arguments.host
        && known.iter().any(|known| known.name == *host)
    {
        let why = format!("the mesh has a member {host} already");
        let hint = format!("a new disk for it comes with `cbctl mesh replace {host}`");
        return Err(CtlError::usage(why).hint(hint));
    }
    let allowed = Allowed {
        uses: arguments.uses,
        ttl: arguments.ttl,
        host: arguments.host.clone(),
        replaces: false,
        labels,
        required: !arguments.optional,
    };
    let issuers = issuers(session, arguments.issuer.as_ref())?;
    if arguments.dry_run {
        let issuer = issuers[0].clone();
        let address = session.address(&issuer).unwrap_or_default().to_owned();
        let grant = grant(session, &allowed, &issuer, Digest::of(b""));
        print(None, &grant, &address, output)?;
        eprintln!("dry run: nothing was changed");
        return Ok(Exit::Done);
    }
    let made = make(session, context, &allowed, &issuers).await?;
    print(Some(&made.token), &made.grant, &made.address, output)?;
    Ok(Exit::Done)
}

pub(super) async fn replace(
    arguments: &ReplaceArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let context = admin(session)?;
    let node = &arguments.node;
    let book = Book::open(session).await?;
    let (mut labels, required) = match book.member(node) {
        Ok(entry) => (entry.labels, entry.required),
        // A host that was taken out comes back like this, too.
        Err(error) if error.exit == Exit::Usage && book.removed(node) => (BTreeMap::new(), true),
        Err(error) => return Err(error),
    };
    let mut issuers = issuers(session, arguments.issuer.as_ref())?;
    issuers.retain(|issuer| issuer != node);
    if issuers.is_empty() {
        return Err(CtlError::failed(format!(
            "{node} is the only issuer, so nobody can admit what takes its place"
        ))
        .hint("make another member one first: `cbctl mesh issuer add NODE`"));
    }
    let question = format!("Let a new disk take the place of {node}?");
    if let Some(exit) = confirm(&question, arguments.confirm)? {
        return Ok(exit);
    }
    voters::without(session, node, "its disk is replaced", arguments.force).await?;
    let was_issuer = labels.remove(ISSUER_LABEL).is_some();
    let its_own = |author: &Author| matches!(author, Author::Agent { name, .. } if name == node);
    let anew = book.sign_anew(None, its_own);
    if !anew.is_empty() {
        let rows = roster::put(session, &session.nodes(), anew).await;
        roster::ended(&rows);
    }
    let allowed = Allowed {
        uses: 1,
        ttl: arguments.ttl,
        host: Some(node.clone()),
        replaces: true,
        labels,
        required,
    };
    let made = make(session, context, &allowed, &issuers).await?;
    print(Some(&made.token), &made.grant, &made.address, output)?;
    if was_issuer {
        eprintln!("then give it the issuing authority again: cbctl mesh issuer add {node}");
    }
    if required {
        eprintln!("then let it vote: cbctl mesh voters");
    }
    Ok(Exit::Done)
}

/// The issuers to try, those that seem to be there first.
pub(super) fn issuers(
    session: &Session,
    wanted: Option<&NodeName>,
) -> Result<Vec<NodeName>, CtlError> {
    let members = heard(session)?;
    let mut issuers: Vec<_> = members
        .iter()
        .filter(|known| known.entry.labels.contains_key(ISSUER_LABEL))
        .collect();
    issuers.sort_by_key(|known| (!known.alive, known.name.clone()));
    let names: Vec<NodeName> = issuers.iter().map(|known| known.name.clone()).collect();
    match wanted {
        Some(wanted) if names.contains(wanted) => Ok(vec![wanted.clone()]),
        Some(wanted) => {
            let known: Vec<&str> = names.iter().map(NodeName::as_str).collect();
            Err(CtlError::usage(format!("{wanted} is no issuer"))
                .hint(format!("the issuers are: {}", known.join(", "))))
        }
        None if names.is_empty() => Err(CtlError::failed(
            "no member is an issuer, so nobody can admit a host",
        )
        .hint("make a host one: `cbctl mesh issuer add NODE`")),
        None => Ok(names),
    }
}

/// Makes a token, and gives what it allows to the first issuer that takes it.
pub(super) async fn make(
    session: &Session,
    context: &Context,
    allowed: &Allowed,
    issuers: &[NodeName],
) -> Result<Made, CtlError> {
    if allowed.ttl < Duration::from_secs(1) {
        return Err(CtlError::usage("--ttl must be at least 1s"));
    }
    let signer = context.signer()?;
    let mut failed = CtlError::failed("no issuer took the token: nothing was changed");
    for issuer in issuers {
        let root = match shown_root(session, context, issuer).await {
            Ok(root) => root,
            Err(error) => {
                failed = failed.detail(format!("{issuer}: {}", crate::error::chain(&error)));
                continue;
            }
        };
        let mesh = &session.mesh().name;
        let token = Token::generate(mesh, issuer.clone(), root).map_err(|error| {
            CtlError::failed("the system gives no random numbers").because(error)
        })?;
        let grant = grant(session, allowed, issuer, token.secret_hash());
        let bytes = wire::grant_bytes(&grant);
        let signature = signature_message(signer.sign(&wire::grant_message(&bytes)));
        let message = v1::SignedGrant {
            grant: bytes.into(),
            signature: Some(signature),
        };
        let call = |channel| async move {
            let grant = Some(message);
            client::mesh(channel)
                .add_grant(v1::AddGrantRequest { grant })
                .await
        };
        match session.call(issuer, session.timeout(), call).await {
            Outcome::Ok(_) => {
                let address = session.address(issuer).unwrap_or_default().to_owned();
                return Ok(Made {
                    token,
                    grant,
                    address,
                });
            }
            other @ (Outcome::Unreachable { .. } | Outcome::Refused { .. } | Outcome::TimedOut) => {
                let line = format!("{issuer}: {}: {}", other.word(), other.why());
                failed = failed.detail(line);
            }
        }
    }
    Err(failed.hint("name another issuer with --issuer, or see `cbctl mesh members`"))
}

fn grant(session: &Session, allowed: &Allowed, issuer: &NodeName, secret: Digest) -> Grant {
    let ttl_ms = i64::try_from(allowed.ttl.as_millis()).unwrap_or(i64::MAX);
    Grant {
        mesh: session.mesh().name.clone(),
        issuer: issuer.clone(),
        secret,
        uses: allowed.uses,
        until_wall_ms: now().saturating_mul(1000).saturating_add(ttl_ms),
        host: allowed.host.clone(),
        replaces: allowed.replaces,
        labels: allowed.labels.clone(),
        required: allowed.required,
    }
}

/// The root by which a host that knows nothing else can believe the issuer: the one that it shows.
async fn shown_root(
    session: &Session,
    context: &Context,
    issuer: &NodeName,
) -> Result<Digest, CtlError> {
    let shown = session.shown_chain(issuer).await?;
    let roots = context.roots()?.fingerprints();
    let mut shown = shown.iter().map(|der| certificate::fingerprint(der));
    shown.find(|shown| roots.contains(shown)).ok_or_else(|| {
        CtlError::failed(format!(
            "{issuer} shows none of the root authorities in this context's ca.pem"
        ))
        .hint("the authorities may have changed: take the newest ca.pem from an admin")
    })
}

/// The token alone on stdout, for a pipe; how to use it on stderr.
fn print(
    token: Option<&Token>,
    grant: &Grant,
    address: &str,
    output: Output,
) -> Result<(), CtlError> {
    let mut command = format!("cbagent join {address} --token - --listen HOST:PORT");
    if let Some(host) = &grant.host {
        command.push_str(&format!(" --name {host}"));
    }
    if grant.replaces {
        command.push_str(" --replace");
    }
    let json = TokenJson {
        mesh: grant.mesh.clone(),
        token: token.map(Token::reveal),
        issuer: grant.issuer.clone(),
        address: address.to_owned(),
        host: grant.host.clone(),
        uses: grant.uses,
        until: values::moment(grant.until_wall_ms),
        labels: grant.labels.clone(),
        required: grant.required,
        command,
    };
    render::print(output, &json, || {
        json.token
            .as_ref()
            .map_or_else(String::new, |token| format!("{token}\n"))
    })?;
    let who = match (&json.host, json.uses) {
        (Some(host), _) => format!("the host {host}"),
        (None, 1) => "one new host".to_owned(),
        (None, uses) => format!("{uses} new hosts"),
    };
    eprintln!("for {who}, until {}; on the host run as root:", json.until);
    eprintln!("    {}", json.command);
    eprintln!(
        "and give it the token on its standard input: whoever sees the token may join with it"
    );
    Ok(())
}
