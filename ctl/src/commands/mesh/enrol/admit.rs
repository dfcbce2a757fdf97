//! Who admits the hosts: an issuer that runs, by a token for each; on a new mesh the first host becomes
//! that issuer.

use crate::cli::CommonArgs;
use crate::commands::mesh::{change, token, voters};
use crate::context::Context;
use crate::enrol::bundle::Join;
use crate::enrol::look::Look;
use crate::enrol::plan::{Refusal, Way};
use crate::error::{CtlError, Exit};
use crate::learn;
use crate::mesh::Session;
use crate::rollout::change_voters;
use crate::roster::heard;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::MeshFile;
use cbddc_domain::roster::{ISSUER_LABEL, MemberEntry};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a token may be used: ssh, a slow disk and two attempts have room in it.
const TOKEN_TTL: Duration = Duration::from_secs(15 * 60);
/// How long the first issuer may take to be known as one by those that answer.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
/// How often they are asked.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Issuers that answer, and the members as one of them knows them.
#[derive(Clone)]
pub(super) struct Admission {
    session: Session,
    issuers: Vec<NodeName>,
}

impl Admission {
    /// Looks for issuers that answer; none: nobody can admit a host.
    pub(super) async fn find(
        context: Option<&Context>,
        mesh: &str,
        common: &CommonArgs,
    ) -> Result<Option<Self>, CtlError> {
        let own = context.filter(|context| context.mesh().is_ok_and(|its| its.name == mesh));
        // A context that cannot be used has no members to ask; whatever is wrong with it is told where
        // the agents are asked.
        let Some(Ok(session)) =
            own.map(|own| Session::open(own.clone(), common.jobs, common.timeout))
        else {
            return Ok(None);
        };
        let session = session.learn().await;
        if heard(&session).is_err() {
            return Ok(None);
        }
        let known = token::issuers(&session, None).unwrap_or_default();
        let mut issuers = Vec::new();
        for issuer in known {
            let answer = session.call(&issuer, session.timeout(), learn::list).await;
            if answer.ok().is_some() {
                issuers.push(issuer);
            }
        }
        if issuers.is_empty() {
            return Ok(None);
        }
        change::admin(&session)?;
        Ok(Some(Self { session, issuers }))
    }

    /// The same once the first issuer has begun to run.
    pub(super) async fn found(
        context: Option<&Context>,
        mesh: &str,
        common: &CommonArgs,
    ) -> Result<Option<Self>, CtlError> {
        let until = Instant::now() + FIRST_LIMIT;
        loop {
            let found = Self::find(context, mesh, common).await?;
            if found.is_some() || Instant::now() >= until {
                return Ok(found);
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Who can admit a host: nobody admits itself.
    fn issuers_for(&self, node: &NodeName) -> Vec<NodeName> {
        let others = self.issuers.iter().filter(|issuer| *issuer != node);
        others.cloned().collect()
    }

    /// What is known of a host that has the name already.
    fn entry(&self, node: &NodeName) -> Option<&MemberEntry> {
        let heard = self.session.heard()?;
        heard.of(node).map(|known| &known.entry)
    }

    /// Whether a host loses a key with which it votes.
    fn is_voter_with_key(&self, node: &NodeName) -> bool {
        let known = self.session.heard().and_then(|heard| heard.of(node));
        known.is_some_and(|known| known.votes && known.entry.key.is_some())
    }

    /// Lets hosts vote no more whose key is about to be replaced, as `mesh replace` does; says whom.
    pub(super) async fn without_votes(
        &self,
        replaced: BTreeSet<NodeName>,
    ) -> Result<BTreeSet<NodeName>, CtlError> {
        let leave: BTreeSet<NodeName> = replaced
            .into_iter()
            .filter(|node| self.is_voter_with_key(node))
            .collect();
        if leave.is_empty() {
            return Ok(leave);
        }
        let stay = voters::current(&self.session)?;
        let stay: BTreeSet<NodeName> = stay.difference(&leave).cloned().collect();
        let exit = change_voters(&self.session, stay, "their keys are replaced").await?;
        if matches!(exit, Exit::Done | Exit::Partial) {
            return Ok(leave);
        }
        let why = "it votes, and the voters could not be changed: its key stays";
        Err(CtlError::new(exit, why).hint("try again, or see `cbctl mesh voters`"))
    }

    /// Makes the token with which one host joins.
    pub(super) async fn join(
        &self,
        node: &NodeName,
        listen: &str,
        replace: bool,
    ) -> Result<Join, CtlError> {
        let context = change::admin(&self.session)?;
        let entry = self.entry(node);
        let mut labels = entry.map(|entry| entry.labels.clone()).unwrap_or_default();
        // A host without the authority's key cannot be one; an issuer gets it by its own command.
        labels.remove(ISSUER_LABEL);
        let allowed = token::Allowed {
            uses: 1,
            ttl: TOKEN_TTL,
            host: Some(node.clone()),
            // The mesh file lists hosts that were never there: their first key replaces none.
            replaces: replace || entry.is_some_and(|entry| entry.key.is_none()),
            labels,
            required: entry.is_none_or(|entry| entry.required),
        };
        let issuers = self.issuers_for(node);
        let made = token::make(&self.session, context, &allowed, &issuers).await?;
        Ok(Join {
            token: made.token.reveal(),
            issuer: made.address,
            node: node.clone(),
            listen: listen.to_owned(),
        })
    }
}

/// How one host comes to its certificate; `first` is the one that becomes the first issuer.
pub(super) fn way(
    node: &NodeName,
    look: &Look,
    replace: bool,
    admission: Option<&Admission>,
    first: Option<&NodeName>,
) -> Result<Way, Refusal> {
    if let Some(admission) = admission
        && let Some(issuer) = admission.issuers_for(node).first()
    {
        let has_key = admission
            .entry(node)
            .is_some_and(|entry| entry.key.is_some());
        let goes_on = look.has.contains("node.key.new");
        if has_key && !replace && !goes_on && !look.has.contains("node.pem") {
            return Err(Refusal::Known);
        }
        let issuer = issuer.clone();
        return Ok(Way::Token { issuer });
    }
    Ok(match first {
        Some(first) if first != node => Way::Token {
            issuer: first.clone(),
        },
        first => Way::Carried {
            issuer: first.is_some(),
        },
    })
}

/// Which host becomes the first issuer where none answers: one that the mesh file names as issuer; where
/// it names none, the first.
pub(super) fn first_issuer(mesh: &MeshFile, ready: &[NodeName]) -> Option<NodeName> {
    let issues = |node: &NodeName| {
        let mut members = mesh.members.iter();
        members.any(|member| member.name == *node && member.labels.contains_key(ISSUER_LABEL))
    };
    let named = ready.iter().find(|node| issues(node));
    let any = |mesh: &MeshFile| {
        let mut members = mesh.members.iter();
        members.any(|member| member.labels.contains_key(ISSUER_LABEL))
    };
    match named {
        Some(named) => Some(named.clone()),
        // There are issuers, which are only away now: another host does not take their place.
        None if any(mesh) => None,
        None => ready.first().cloned(),
    }
}

/// The mesh file with that host as an issuer.
pub(super) fn with_issuer(mut mesh: MeshFile, node: &NodeName) -> MeshFile {
    let members = mesh.members.iter_mut();
    for member in members.filter(|member| member.name == *node) {
        let label = (ISSUER_LABEL.to_owned(), "yes".to_owned());
        member.labels.extend([label]);
    }
    mesh
}
