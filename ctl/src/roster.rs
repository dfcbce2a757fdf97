//! Changes who is in the mesh: gathers what the members hold, signs what is new, and puts it on every
//! member that can be reached. The others hear of it from those.
//!
//! What members hold is believed here only by its signatures: nobody's lie is signed again.

mod author;

use crate::context::Context;
use crate::error::{CtlError, Exit};
use crate::learn::Known;
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow};
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::Member;
use cbddc_domain::roster::{Author, MemberEntry, Roster, Said, Says, Statement, Subject};
use cbddc_pki::signature::Signer;
use cbddc_proto::convert::roster as wire;
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};

/// Who is in the mesh, as its members hold it, and who is about to change it.
pub struct Book {
    /// What was believed.
    roster: Roster,
    /// The highest version that anybody shows, by subject: the next one must be above it.
    versions: BTreeMap<Subject, u64>,
    /// Statements that some member holds, and that are not believed here, with the reason.
    doubted: BTreeMap<Subject, String>,
    /// What was believed, as it came.
    held: BTreeMap<Digest, v1::SignedStatement>,
    mesh: String,
    signer: Signer,
}

impl Book {
    /// Asks every member that can be reached.
    pub async fn open(session: &Session) -> Result<Self, CtlError> {
        let context = mesh_context(session)?;
        let lists = session
            .fan_out(&session.nodes(), |_, channel| async move {
                let answer = client::mesh(channel)
                    .get_statements(v1::GetStatementsRequest::default())
                    .await?;
                Ok(answer.into_inner().statements)
            })
            .await;
        if lists.values().all(|outcome| outcome.ok().is_none()) {
            let mut error = CtlError::failed("no member of the mesh could be reached")
                .hint("check the addresses with `cbctl mesh show`, and whether the agents run");
            for (node, outcome) in &lists {
                error = error.detail(format!("{node}: {}", outcome.why()));
            }
            return Err(error);
        }
        let roots = context.roots()?;
        let mesh = session.mesh();
        let judge = author::Judge {
            roots: &roots,
            mesh: &mesh.name,
            recovery: mesh.recovery.as_deref(),
        };
        let messages = lists.values().filter_map(|outcome| outcome.ok()).flatten();
        let (mut said, mut versions, mut doubted) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut held = BTreeMap::new();
        for message in messages {
            let Ok(statement) = wire::statement(&message.statement) else {
                continue;
            };
            let subject = statement.subject.clone();
            let highest: &mut u64 = versions.entry(subject.clone()).or_default();
            *highest = statement.version.max(*highest);
            match judge.said(message, statement) {
                Ok(good) => {
                    held.insert(good.digest, message.clone());
                    said.push(good);
                }
                Err(why) => drop(doubted.insert(subject, why)),
            }
        }
        // What the context's file says of somebody was learnt from the statements about them.
        let mut genesis = mesh.clone();
        let said_of = |member: &Member| Subject::Member(member.name.clone());
        genesis
            .members
            .retain(|member| !versions.contains_key(&said_of(member)));
        let (roster, disbelieved) = believe(Roster::new(genesis), said);
        doubted.extend(disbelieved);
        Ok(Self {
            roster,
            versions,
            doubted,
            held,
            mesh: mesh.name.clone(),
            signer: context.signer()?,
        })
    }

    /// Who is in the mesh.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// A statement that is believed, as its author signed it.
    pub fn held(&self, said: &Said) -> Option<&v1::SignedStatement> {
        self.held.get(&said.digest)
    }

    /// Whether a host was taken out.
    pub fn removed(&self, name: &NodeName) -> bool {
        let said = self.roster.said_of(&Subject::Member(name.clone()));
        said.is_some_and(|said| said.statement.says == Says::Removed)
    }

    /// A member, as it is to be described from now on.
    pub fn member(&self, name: &NodeName) -> Result<MemberEntry, CtlError> {
        let subject = Subject::Member(name.clone());
        if let Some(why) = self.doubted.get(&subject)
            && self.roster.said_of(&subject).is_none()
        {
            return Err(CtlError::failed(format!(
                "what the members hold about {name} is not believed here: {why}"
            ))
            .hint("the context's ca.pem may be older than the mesh's authorities: ask an admin for it"));
        }
        self.roster.member(name).ok_or_else(|| {
            let members: Vec<String> = self.roster.members().into_keys().map(Into::into).collect();
            CtlError::usage(format!("the mesh {} has no member {name}", self.mesh))
                .hint(format!("its members are {}", members.join(", ")))
        })
    }

    /// Signs the next statement about a subject, as the person who asks.
    pub fn sign(&self, subject: Subject, says: Says, reason: &str) -> v1::SignedStatement {
        self.sign_as(&self.signer, subject, says, reason)
    }

    /// The same, as somebody else.
    pub fn sign_as(
        &self,
        signer: &Signer,
        subject: Subject,
        says: Says,
        reason: &str,
    ) -> v1::SignedStatement {
        let version = self.versions.get(&subject).copied().unwrap_or(0);
        signed(
            signer,
            &Statement {
                mesh: self.mesh.clone(),
                subject,
                version: version.saturating_add(1),
                says,
                reason: reason.to_owned(),
            },
        )
    }

    /// Signs anew what somebody has said, or granted, who is about to be out: members that were away
    /// meanwhile no longer believe them.
    /// What is said of `leaver` is left out: it is replaced anyway.
    pub fn sign_anew(
        &self,
        leaver: Option<&Subject>,
        about: impl Fn(&Author) -> bool,
    ) -> Vec<v1::SignedStatement> {
        let mut anew = Vec::new();
        for said in self.roster.statements() {
            let granted = said.grant.as_ref().is_some_and(|(_, admin)| about(admin));
            let statement = &said.statement;
            // The authorities are named by the root itself, and by nobody who leaves.
            let stays = statement.subject != Subject::Trust && leaver != Some(&statement.subject);
            if stays && (about(&said.author) || granted) {
                anew.push(self.sign(
                    statement.subject.clone(),
                    statement.says.clone(),
                    &statement.reason,
                ));
            }
        }
        anew
    }
}

/// Takes what the rules of the mesh allow, in whatever order it has to come, and says what is left.
fn believe(mut roster: Roster, said: Vec<Said>) -> (Roster, Vec<(Subject, String)>) {
    let mut left = said;
    loop {
        let (before, mut refused) = (left.len(), Vec::new());
        let mut why = Vec::new();
        for said in left {
            if let Err(distrust) = roster.offer(said.clone()) {
                why.push((said.statement.subject.clone(), distrust.to_string()));
                refused.push(said);
            }
        }
        if refused.len() == before {
            return (roster, why);
        }
        left = refused;
    }
}

/// Adds a second authority's signature, for members that know only that one.
pub fn sign_second(statement: &mut v1::SignedStatement, signer: &Signer) {
    let signature = signer.sign(&wire::statement_message(&statement.statement));
    statement.second = Some(signature_message(signature));
}

/// A signature as messages have it, for whoever reads it again.
pub fn signature_of(message: &v1::Signature) -> cbddc_pki::signature::Signature {
    cbddc_pki::signature::Signature {
        chain: message.chain.iter().map(|one| one.to_vec()).collect(),
        bytes: message.bytes.to_vec(),
    }
}

/// Signs a statement.
pub fn signed(signer: &Signer, statement: &Statement) -> v1::SignedStatement {
    let bytes = wire::statement_bytes(statement);
    let signature = signer.sign(&wire::statement_message(&bytes));
    v1::SignedStatement {
        statement: bytes.into(),
        signature: Some(signature_message(signature)),
        grant: None,
        second: None,
    }
}

/// A signature as it goes over the network.
pub fn signature_message(signature: cbddc_pki::signature::Signature) -> v1::Signature {
    v1::Signature {
        chain: signature.chain.into_iter().map(Into::into).collect(),
        bytes: signature.bytes.into(),
    }
}

/// Puts statements on members: one outcome for each, with how many of them were new there.
pub async fn put(
    session: &Session,
    nodes: &BTreeSet<NodeName>,
    statements: Vec<v1::SignedStatement>,
) -> Vec<NodeRow<u32>> {
    session.set_standing("some members may know of it already: run it again");
    let outcomes = session
        .fan_out(nodes, move |_, channel| {
            let statements = statements.clone();
            async move {
                let answer = client::mesh(channel)
                    .put_statements(v1::PutStatementsRequest { statements })
                    .await?;
                Ok(answer.into_inner().news)
            }
        })
        .await;
    render::rows(outcomes, Ok)
}

/// How a change of the roster ends, and what is said of it on stderr.
pub fn ended(rows: &[NodeRow<u32>]) -> Exit {
    render::complain(rows);
    let exit = render::exit_of(rows);
    if exit == Exit::Partial {
        eprintln!("those that were not reached hear of it from the others when they are back");
    }
    exit
}

/// The context, or why there must be one.
pub fn mesh_context(session: &Session) -> Result<&Context, CtlError> {
    session.context().ok_or_else(|| {
        CtlError::failed("this needs a certificate of the mesh, and the socket has none")
            .hint("run it where a context of the mesh is set up; `cbctl mesh show` tells which one")
    })
}

/// The members as one of them said, or why there are none.
pub fn heard(session: &Session) -> Result<&[Known], CtlError> {
    let heard = session.heard().ok_or_else(|| {
        let context = session.context().map_or("", |context| &context.name);
        CtlError::failed("no member of the mesh could be reached").hint(format!(
            "check the addresses in the context `{context}` with `cbctl mesh show`, and whether the agents run"
        ))
    })?;
    Ok(&heard.members)
}
