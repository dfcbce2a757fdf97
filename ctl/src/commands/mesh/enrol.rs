//! `cbctl mesh enrol`.

mod admit;
mod each;
mod perform;
mod show;
mod targets;

use super::files::{folder, issuing, root_certificate, store, with_address};
use crate::cli::{CommonArgs, EnrolArgs, Output};
use crate::commands::confirm;
use crate::context::{self, Context};
use crate::enrol::brought::Brought;
use crate::enrol::deed::DeedError;
use crate::enrol::look::Look;
use crate::enrol::plan::{Step, Wanted, Way, plan};
use crate::error::{CtlError, Exit, chain};
use crate::render;
use crate::tls;
use admit::{Admission, first_issuer, way, with_issuer};
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::MeshFile;
use cbddc_pki::authority::Issuing;
use each::each;
use perform::{admit, carry};
use rustls::ClientConfig;
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
    way: Way,
}

/// What all hosts share.
struct Work {
    /// Only for hosts to which keys are carried.
    authority: Option<Issuing>,
    dir: PathBuf,
    /// Who admits the hosts that join by a token.
    admission: Option<Admission>,
    ca: String,
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
        authority: None,
        dir: dir.clone(),
        admission: None,
        ca: root_certificate(&dir)?,
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
    let name = work.mesh.name.clone();
    work.admission = Admission::find(context, &name, common).await?;
    let (mut rows, mut ready) = (Vec::new(), Vec::new());
    let fit = looked.iter().filter(|(target, looked)| {
        let planned = |look: &Look| planned(target.clone(), Ok(look.clone()), &work, None);
        looked.as_ref().is_ok_and(|look| planned(look).is_ok())
    });
    let fit: Vec<NodeName> = fit.map(|(target, _)| target.node.clone()).collect();
    let first = match &work.admission {
        Some(_) => None,
        None => first_issuer(&work.mesh, &fit),
    };
    for (target, looked) in looked {
        match planned(target, looked, &work, first.as_ref()) {
            Ok(planned) => ready.push(planned),
            Err(row) => rows.push(*row),
        }
    }
    if ready.iter().any(Planned::is_carried) {
        work.authority = Some(issuing(dir)?);
    }
    let known = work.mesh.clone();
    for planned in ready.iter().filter(|planned| planned.target.joins) {
        let target = &planned.target;
        work.mesh = with_address(work.mesh, &target.node, Some(&target.address))?;
    }
    if let Some(first) = &first {
        work.mesh = with_issuer(work.mesh, first);
    }
    // Who joins by a token is known to all by it, whatever their files say.
    let carries = |planned: &Planned| planned.is_carried() && planned.target.joins;
    let outdates = ready.iter().any(carries) && first.is_none();
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
        let stale = if outdates {
            stale(&known, &work.mesh, &left)
        } else {
            Vec::new()
        };
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
    let mut enrolled = BTreeSet::new();
    let (carried, mut joining): (Vec<_>, Vec<_>) = ready.into_iter().partition(Planned::is_carried);
    let told = (context, common);
    work = carry(carried, work, jobs, told, (&mut rows, &mut enrolled)).await;
    if let Some(first) = first.filter(|_| !joining.is_empty()) {
        if enrolled.contains(&first) {
            work.admission = Admission::found(context, &name, common).await?;
        }
        if work.admission.is_none() {
            if work.authority.is_none() {
                work.authority = Some(issuing(&work.dir)?);
            }
            eprintln!("{first} does not admit anybody yet, so the others get their keys from here");
            joining = joining
                .into_iter()
                .filter_map(|joining| {
                    let carried = joining.carried(&work);
                    carried.map_err(|row| rows.push(*row)).ok()
                })
                .collect();
            work = carry(
                std::mem::take(&mut joining),
                work,
                jobs,
                told,
                (&mut rows, &mut enrolled),
            )
            .await;
        }
    }
    let unvoted = admit(joining, work, jobs, (&mut rows, &mut enrolled)).await;
    if !unvoted.is_empty() {
        let names = show::listed(unvoted.iter());
        eprintln!(
            "hint: {names} had another key, and does not vote until you say `cbctl mesh voters`"
        );
    }
    let stale = if outdates {
        stale(&known, &mesh, &enrolled)
    } else {
        Vec::new()
    };
    let answer = EnrolJson::new(rows, false, stale);
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
    work: &Work,
    first: Option<&NodeName>,
) -> Result<Planned, Box<Row>> {
    let (brought, replace) = (&work.brought, work.replace);
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
    let way = way(&node, &look, replace, work.admission.as_ref(), first);
    let way = way.map_err(|no| refused(no.word(), no.to_string()))?;
    let wanted = Wanted {
        node: node.clone(),
        way: way.clone(),
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
        way,
    })
}

impl Planned {
    fn is_carried(&self) -> bool {
        matches!(self.way, Way::Carried { .. })
    }

    /// The same host where nobody can admit it after all.
    fn carried(self, work: &Work) -> Result<Self, Box<Row>> {
        planned(self.target, Ok(self.look), work, None)
    }
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
