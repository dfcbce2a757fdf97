//! `cbctl mesh enrol`.

mod each;
mod show;
mod targets;

use super::{authority_certificate, cannot_issue, folder, mesh_text, store, with_address};
use crate::cli::{CommonArgs, EnrolArgs, Output};
use crate::commands::confirm;
use crate::context::{self, Context};
use crate::enrol::brought::Brought;
use crate::enrol::bundle::Bundle;
use crate::enrol::deed::{Agent, DeedError};
use crate::enrol::look::Look;
use crate::enrol::plan::{Step, Wanted, plan};
use crate::error::{CtlError, Exit, chain};
use crate::pki::{Authority, Holder, Issued};
use crate::render;
use crate::tls;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::MeshFile;
use each::each;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use show::{EnrolJson, Row};
use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use targets::{Target, targets};

/// What is to be done on one host.
#[derive(Clone)]
struct Planned {
    target: Target,
    look: Look,
    steps: Vec<Step>,
    config: Option<String>,
}

/// What all hosts share.
struct Work {
    authority: Authority,
    ca: Vec<u8>,
    mesh: MeshFile,
    tls: Arc<ClientConfig>,
    brought: Brought,
    replace: bool,
}

pub(super) fn run(arguments: &EnrolArgs, common: &CommonArgs) -> Result<Exit, CtlError> {
    let (dir, context) = folder(arguments.dir.as_deref(), common)?;
    let known = context::read_mesh(&dir.join("mesh.toml"))?;
    let targets = targets(arguments, common, &known)?;
    let work = Work {
        authority: Authority::open(&known.name, &dir.join("ca.key")).map_err(cannot_issue)?,
        ca: authority_certificate(&dir)?,
        tls: who_asks(context.as_ref(), &known, &dir)?,
        brought: Brought::read(
            arguments.package.as_deref(),
            arguments.config.as_deref(),
            arguments.token.as_deref(),
        )?,
        replace: arguments.replace,
        mesh: known,
    };
    let began = AtomicBool::new(false);
    let runtime = crate::runtime()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = enrol(arguments, common, targets, work, &began, (&dir, context.as_ref())) => ended,
            _ = tokio::signal::ctrl_c() => {
                let standing = if began.load(Ordering::Relaxed) {
                    "hosts that were begun have their certificate or have it not; run it again, and \
                     with --replace for those that say they have one"
                } else {
                    "nothing was changed"
                };
                eprintln!("interrupted: {standing}");
                Ok(Exit::Interrupted)
            }
        }
    });
    runtime.shutdown_background();
    ended
}

/// Looks, plans, asks, does.
async fn enrol(
    arguments: &EnrolArgs,
    common: &CommonArgs,
    targets: Vec<Target>,
    mut work: Work,
    began: &AtomicBool,
    (dir, context): (&Path, Option<&Context>),
) -> Result<Exit, CtlError> {
    let jobs = jobs(common);
    let looked = each(jobs, targets, |target| async move {
        let looked = target.host.look().await;
        (target, looked)
    })
    .await;
    let (mut rows, mut ready) = (Vec::new(), Vec::new());
    for (target, looked) in looked {
        match planned(target, looked, &work.brought, arguments.replace) {
            Ok(planned) => ready.push(planned),
            Err(row) => rows.push(*row),
        }
    }
    let known = work.mesh.clone();
    for planned in ready.iter().filter(|planned| planned.target.joins) {
        let target = &planned.target;
        work.mesh = with_address(work.mesh, &target.node, Some(&target.address))?;
    }
    let would: Vec<Row> = ready.iter().map(show::row).collect();
    let named = show::listed(ready.iter().map(|planned| &planned.target.node));
    let nobody = ready.is_empty();
    if arguments.confirm.dry_run || nobody {
        rows.extend(would);
        let left = if nobody {
            BTreeSet::new()
        } else {
            put_on(&ready)
        };
        let stale = stale(&known, &work.mesh, &left);
        let answer = EnrolJson::new(rows, true, stale);
        render::print(common.output, &answer, || show::plans(&answer.nodes))?;
        render::complain(&answer.nodes);
        show::hint_stale(&answer.stale, true);
        eprintln!("nothing was changed on any host");
        return Ok(render::exit_of(&answer.nodes));
    }
    if common.output == Output::Table {
        print!("{}", show::plans(&would));
        render::complain(&rows);
    }
    if let Some(exit) = confirm(&format!("Enrol {named}?"), arguments.confirm)? {
        return Ok(exit);
    }
    began.store(true, Ordering::Relaxed);
    store(&work.mesh, &known, dir, context)?;
    let mesh = work.mesh.clone();
    let work = Arc::new(work);
    let done = each(jobs, ready, |planned| {
        let work = Arc::clone(&work);
        async move {
            let outcome = perform(&planned, &work).await;
            (planned, outcome)
        }
    })
    .await;
    let mut enrolled = BTreeSet::new();
    for (planned, outcome) in done {
        rows.push(match outcome {
            Ok(()) => {
                enrolled.insert(planned.target.node.clone());
                show::row(&planned)
            }
            Err(row) => *row,
        });
    }
    let answer = EnrolJson::new(rows, false, stale(&known, &mesh, &enrolled));
    render::print(common.output, &answer, || show::done(&answer.nodes))?;
    render::complain(&answer.nodes);
    show::hint_stale(&answer.stale, false);
    Ok(render::exit_of(&answer.nodes))
}

/// One host at a time where ssh may ask for something at the terminal.
fn jobs(common: &CommonArgs) -> usize {
    if std::io::stdin().is_terminal() {
        1
    } else {
        common.jobs.max(1)
    }
}

/// Whose certificate the agents are asked with: the context's if it is of this mesh.
fn who_asks(
    context: Option<&Context>,
    mesh: &MeshFile,
    dir: &Path,
) -> Result<Arc<ClientConfig>, CtlError> {
    let own = context.filter(|context| context.mesh().is_ok_and(|its| its.name == mesh.name));
    let dir: PathBuf = own.map_or_else(|| dir.to_owned(), |context| context.dir.clone());
    let file = |name| dir.join(name);
    tls::client_config(&file("ca.pem"), &file("user.pem"), &file("user.key")).map_err(|error| {
        CtlError::failed("there is no certificate of yours to ask the agents with").because(error)
    })
}

/// What is to be done on a host, or the row that says why nothing is.
fn planned(
    target: Target,
    looked: Result<Look, DeedError>,
    brought: &Brought,
    replace: bool,
) -> Result<Planned, Box<Row>> {
    let node = target.node.clone();
    let look = looked.map_err(|error| show::failed(&node, error.outcome(), None, chain(&error)))?;
    let refused = |word: &str, why| show::failed(&node, "refused", Some(word), why);
    // A host that keeps its own needs none.
    let config = if look.has.contains("cbagent.toml") {
        brought.config(&node).unwrap_or_default()
    } else {
        let config = brought.config(&node);
        config.map_err(|error| refused("config", chain(&error)))?
    };
    let wanted = Wanted {
        node: node.clone(),
        joins_at: target.joins.then(|| target.address.clone()),
        package: brought.package.as_ref().map(|(name, _)| name.clone()),
        config: config.is_some(),
        token: brought.token.is_some(),
        replace,
    };
    let steps = plan(&look, &wanted).map_err(|no| refused(no.word(), no.to_string()))?;
    Ok(Planned {
        target,
        look,
        steps,
        config,
    })
}

/// Does what was planned on one host.
async fn perform(planned: &Planned, work: &Work) -> Result<(), Box<Row>> {
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
    let holder = Holder::Node(target.node.clone());
    let issued = work.authority.issue(&holder);
    let issued = issued.map_err(|error| own(chain(&error)))?;
    let certificate = CertificateDer::from_pem_slice(issued.cert.as_bytes());
    let certificate = certificate.map_err(|error| own(error.to_string()))?;
    let bundle = bundle(planned, work, &issued).map_err(|error| own(chain(&error)))?;
    let replace = work.replace;
    target.host.put(&bundle, replace).await.map_err(failed)?;
    target.host.start().await.map_err(failed)?;
    let agent = Agent {
        tls: Arc::clone(&work.tls),
        address: target.address.clone(),
        node: target.node.clone(),
    };
    let answered = agent.answers(&certificate, &target.host).await;
    answered.map_err(failed)
}

fn bundle(planned: &Planned, work: &Work, issued: &Issued) -> Result<Bundle, CtlError> {
    let mesh = mesh_text(&work.mesh)?;
    Ok(Bundle::of(&planned.steps, |file| match file {
        "ca.pem" => Some(work.ca.clone()),
        "mesh.toml" => Some(mesh.clone().into()),
        "token" => work.brought.token.clone(),
        "cbagent.toml" => planned.config.clone().map(Into::into),
        "node.key" => Some(issued.key.clone().into()),
        "node.pem" => Some(issued.cert.clone().into()),
        _ => None,
    }))
}

fn put_on(planned: &[Planned]) -> BTreeSet<NodeName> {
    let nodes = planned.iter().map(|planned| planned.target.node.clone());
    nodes.collect()
}

/// The members whose hosts hold an older mesh file, once these have the new one.
fn stale(before: &MeshFile, after: &MeshFile, put: &BTreeSet<NodeName>) -> Vec<NodeName> {
    if before == after {
        return Vec::new();
    }
    let nodes = after.addresses().into_keys();
    nodes.filter(|node| !put.contains(node)).collect()
}
