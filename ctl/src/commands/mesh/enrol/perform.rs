//! Does what was planned, and tells the members of hosts whose keys were made here.

use super::each::each;
use super::show::{self, Row};
use super::{Planned, Work, put_on};
use crate::cli::CommonArgs;
use crate::commands::mesh::files::now;
use crate::context::{self, Context};
use crate::enrol::bundle::Bundle;
use crate::enrol::deed::{Agent, DeedError};
use crate::enrol::plan::{Step, Way};
use crate::error::{CtlError, chain};
use crate::mesh::Session;
use crate::roster::{self, Book};
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::roster::{ISSUER_LABEL, MemberEntry, Says, Subject};
use cbddc_pki::authority::{Issued, Issuing};
use cbddc_pki::certificate;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What came of hosts: a row for each, and those that are enrolled.
pub(super) type Ends<'a> = (&'a mut Vec<Row>, &'a mut BTreeSet<NodeName>);

/// Does it on hosts to which key and certificate are carried, and tells the members of them.
pub(super) async fn carry(
    planned: Vec<Planned>,
    work: Work,
    jobs: usize,
    (context, common): (Option<&Context>, &CommonArgs),
    (rows, enrolled): Ends<'_>,
) -> Work {
    let work = Arc::new(work);
    let done = each(jobs, planned, |planned| {
        let work = Arc::clone(&work);
        async move {
            let outcome = perform(&planned, &work).await;
            (planned, outcome)
        }
    })
    .await;
    let mut keys = Vec::new();
    for (planned, outcome) in done {
        rows.push(match outcome {
            Ok(key) => {
                let target = &planned.target;
                enrolled.insert(target.node.clone());
                let issues = planned.way == Way::Carried { issuer: true };
                keys.push((target.node.clone(), target.address.clone(), key, issues));
                show::row(&planned)
            }
            Err(row) => *row,
        });
    }
    if let Some(context) = context.filter(|_| !keys.is_empty()) {
        let named = show::listed(keys.iter().map(|(node, ..)| node));
        if let Err(error) = announce(context, common, keys).await {
            eprintln!("no member was told of {named}: {}", chain(&error));
            eprintln!(
                "hint: members that were there before let it in once they hold the newer mesh.toml"
            );
        }
    }
    // Nobody else holds it: all hosts are done.
    Arc::into_inner(work).expect("no host is being worked on any more")
}

/// Does it on hosts that join by a token; returns those that had a key before and vote no more.
pub(super) async fn admit(
    mut joining: Vec<Planned>,
    work: Work,
    jobs: usize,
    (rows, enrolled): Ends<'_>,
) -> BTreeSet<NodeName> {
    let mut unvoted = BTreeSet::new();
    if let Some(admission) = work.admission.as_ref().filter(|_| work.replace) {
        match admission.without_votes(put_on(&joining)).await {
            Ok(nodes) => unvoted = nodes,
            Err(error) => {
                let why = chain(&error);
                let fail = |planned: Planned| {
                    *show::failed(&planned.target.node, "failed", None, why.clone())
                };
                rows.extend(joining.drain(..).map(fail));
            }
        }
    }
    let work = Arc::new(work);
    let done = each(jobs, joining, |planned| {
        let work = Arc::clone(&work);
        async move {
            let outcome = perform(&planned, &work).await;
            (planned, outcome)
        }
    })
    .await;
    for (planned, outcome) in done {
        rows.push(match outcome {
            Ok(_) => {
                enrolled.insert(planned.target.node.clone());
                show::row(&planned)
            }
            Err(row) => *row,
        });
    }
    unvoted
}

/// Tells the members of those that were enrolled, each with the one key that it has.
async fn announce(
    context: &Context,
    common: &CommonArgs,
    keys: Vec<(NodeName, String, Digest, bool)>,
) -> Result<(), CtlError> {
    let session = Session::open(context.clone(), common.jobs, common.timeout)?;
    let book = Book::open(&session).await?;
    let statement = |(node, address, key, issues): (NodeName, String, Digest, bool)| {
        let mut entry = book.member(&node).unwrap_or(MemberEntry {
            address,
            labels: BTreeMap::new(),
            required: true,
            key: None,
        });
        if issues {
            let label = (ISSUER_LABEL.to_owned(), "yes".to_owned());
            entry.labels.extend([label]);
        }
        let says = Says::Member(MemberEntry {
            key: Some(key),
            ..entry
        });
        book.sign(Subject::Member(node), says, "")
    };
    let statements = keys.into_iter().map(statement).collect();
    let rows = roster::put(&session, &session.nodes(), statements).await;
    roster::ended(&rows);
    Ok(())
}

/// Does what was planned on one host; returns the digest of its key.
async fn perform(planned: &Planned, work: &Work) -> Result<Digest, Box<Row>> {
    let target = &planned.target;
    let failed =
        |error: DeedError| show::failed(&target.node, error.outcome(), None, chain(&error));
    let own = |why: String| show::failed(&target.node, "failed", None, why);
    let installs = |step: &Step| matches!(step, Step::Install(_));
    if let Some((_, package)) = &work.brought.package
        && planned.steps.iter().any(installs)
    {
        target.host.install(package).await.map_err(failed)?;
    }
    let replace = work.replace;
    let pem = if planned.is_carried() {
        let Some(authority) = &work.authority else {
            return Err(own("the issuing authority is not here".to_owned()));
        };
        let issued = authority.issue_node(&work.mesh.name, &target.node, now());
        let issued = issued.map_err(|error| own(chain(&error)))?;
        let bundle = bundle(planned, work, Some((authority, &issued)));
        let bundle = bundle.map_err(|error| own(chain(&error)))?;
        target.host.put(&bundle, replace).await.map_err(failed)?;
        issued.cert
    } else {
        let Some(admission) = &work.admission else {
            return Err(own("no issuer answers".to_owned()));
        };
        let bundle = bundle(planned, work, None).map_err(|error| own(chain(&error)))?;
        let join = admission.join(&target.node, &target.address, replace).await;
        let bundle = bundle.joining(join.map_err(|error| own(chain(&error)))?);
        target.host.put(&bundle, replace).await.map_err(failed)?
    };
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
    let certificate = certificate.map_err(|error| own(error.to_string()))?;
    target.host.start().await.map_err(failed)?;
    let agent = Agent {
        tls: Arc::clone(&work.tls),
        address: target.address.clone(),
        node: target.node.clone(),
    };
    let answered = agent.answers(&certificate, &target.host).await;
    answered.map_err(failed)?;
    let facts = certificate::facts(&certificate, &work.mesh.name);
    Ok(facts.map_err(|error| own(chain(&error)))?.key)
}

fn bundle(
    planned: &Planned,
    work: &Work,
    issued: Option<(&Issuing, &Issued)>,
) -> Result<Bundle, CtlError> {
    let mesh = context::mesh_text(&work.mesh)?;
    Ok(Bundle::of(&planned.steps, |file| match file {
        "ca.pem" => Some(work.ca.clone().into()),
        "mesh.toml" => Some(mesh.clone().into()),
        "token" => work.brought.token.clone(),
        "cbagent.toml" => planned.config.clone().map(Into::into),
        "node.key" => issued.map(|(_, issued)| issued.key.clone().into()),
        "node.pem" => issued.map(|(_, issued)| issued.cert.clone().into()),
        "issuing.key" => issued.map(|(authority, _)| authority.key_pem().into()),
        "issuing.pem" => issued.map(|(authority, _)| authority.certificate_pem().into()),
        _ => None,
    }))
}
