//! `cbctl node adopt` and `cbctl node unadopt`.

use crate::cli::{AdoptArgs, ConfirmArgs, Output, TargetArgs};
use crate::commands::confirm;
use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client};
use crate::render::{self, NodeRow};
use cbddc_domain::id::NodeName;
use cbddc_domain::release::Release;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::Instant;

/// Files are read, packed and checked meanwhile; a program has some 100 MB.
const ADOPT_LIMIT: Duration = Duration::from_secs(120);

/// How long agents may take to start anew, and how often they are looked for.
const RESTART_LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What `node adopt -o json` and `node unadopt -o json` print.
#[derive(Debug, Serialize)]
struct AnswerJson<T> {
    nodes: Vec<NodeRow<T>>,
    dry_run: bool,
}

/// A unit that was, or would be, taken over.
#[derive(Debug, Serialize)]
struct AdoptedJson {
    unit: String,
    program: String,
    folder: String,
    command: Vec<String>,
    working_dir: Option<String>,
    user: Option<String>,
    databases: Vec<String>,
    undeclared: Vec<String>,
    drop_in: String,
    drop_in_text: String,
    node_pid: u32,
    build: Option<String>,
    /// What the mesh has decided on for the node.
    ordered: Option<String>,
}

/// A unit that was, or would be, let go.
#[derive(Debug, Serialize)]
struct UnadoptedJson {
    unit: String,
    drop_in: String,
    command: Vec<String>,
    running: Option<String>,
    node_pid: u32,
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn adopted(given: v1::AdoptResponse) -> AdoptedJson {
    AdoptedJson {
        unit: given.unit,
        program: given.program,
        folder: given.folder,
        command: given.command,
        working_dir: some(given.working_dir),
        user: some(given.user),
        databases: given.databases,
        undeclared: given.undeclared,
        drop_in: given.drop_in,
        drop_in_text: given.drop_in_text,
        node_pid: given.node_pid,
        build: given.build.map(|build| build.id),
        ordered: given.ordered.map(|build| build.id),
    }
}

/// The plan first, from every node; then, once somebody agreed, the thing itself.
pub(super) async fn adopt(
    arguments: AdoptArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.selected(&arguments.targets.node, &arguments.targets.labels)?;
    let ask = |dry_run: bool| v1::AdoptRequest {
        unit: arguments.unit.clone().unwrap_or_default(),
        build: arguments.build.to_string(),
        dry_run,
        may_switch: arguments.switch,
    };
    let planned = fan_out(session, &targets, ask(true)).await;
    let fits = planned.values().all(|outcome| outcome.ok().is_some());
    let rows = render::rows(planned, |given| Ok(adopted(given)));
    let missing = rows.iter().filter_map(|row| row.result.as_ref());
    let missing = missing.map(|plan| plan.undeclared.len()).sum::<usize>() > 0;
    let answer = AnswerJson {
        nodes: rows,
        dry_run: true,
    };
    if arguments.confirm.dry_run || !fits || missing {
        render::print(output, &answer, || plans(&answer.nodes))?;
        render::complain(&answer.nodes);
        if !arguments.confirm.dry_run {
            eprintln!("nothing was changed on any node: put that right first");
        }
        let done = fits && !missing;
        return Ok(if done { Exit::Done } else { Exit::Failed });
    }
    if output == Output::Table {
        print!("{}", plans(&answer.nodes));
    }
    let stops = match arguments.switch {
        true => "A node for which the mesh has decided on another release switches to it at once.",
        false => "Nothing stops.",
    };
    let question = format!("Take the service over on {}? {stops}", listed(&targets));
    if let Some(exit) = confirm(&question, arguments.confirm)? {
        return Ok(exit);
    }
    session.set_standing("what was begun is finished when the command is run again");
    let done = fan_out(session, &targets, ask(false)).await;
    let before = done.iter();
    let before = before.filter_map(|(node, outcome)| Some((node, outcome.ok()?.agent_restarts)));
    wait_for_agents(session, before).await;
    let answer = AnswerJson {
        nodes: render::rows(done, |given| Ok(adopted(given))),
        dry_run: false,
    };
    render::print(output, &answer, || {
        let mut text = String::new();
        for row in &answer.nodes {
            if let Some(done) = &row.result {
                let build = done.build.as_deref().unwrap_or("?");
                let _ = writeln!(
                    text,
                    "{}: {} is taken over as {build}; {}",
                    row.node,
                    done.unit,
                    goes_on(done, arguments.switch)
                );
            }
        }
        text
    })?;
    render::complain(&answer.nodes);
    Ok(render::exit_of(&answer.nodes))
}

/// What becomes of the process.
fn goes_on(done: &AdoptedJson, may_switch: bool) -> String {
    match &done.ordered {
        Some(ordered) if may_switch && done.build.as_ref() != Some(ordered) => {
            format!("it goes on to {ordered}: see `cbctl status`")
        }
        Some(_) | None => format!("process {} goes on", done.node_pid),
    }
}

/// Waits for agents that start anew, so that whoever types the next command finds them.
async fn wait_for_agents(session: &Session, agents: impl Iterator<Item = (&NodeName, u32)>) {
    let until = Instant::now() + RESTART_LIMIT;
    for (node, before) in agents {
        while before != 0 && Instant::now() < until {
            let seen = session.call(node, session.timeout(), |channel| async {
                let mut client = client::node(channel);
                let status = client.get_status(v1::GetStatusRequest {}).await?;
                Ok(status.into_inner().agent_pid)
            });
            match seen.await {
                Outcome::Ok(pid) if pid != before => break,
                Outcome::Ok(_)
                | Outcome::Unreachable { .. }
                | Outcome::Refused { .. }
                | Outcome::TimedOut => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}

async fn fan_out(
    session: &Session,
    targets: &BTreeSet<NodeName>,
    request: v1::AdoptRequest,
) -> BTreeMap<NodeName, Outcome<v1::AdoptResponse>> {
    let limit = session.timeout().max(ADOPT_LIMIT);
    let call = move |_, channel| {
        let request = request.clone();
        async move { Ok(client::node(channel).adopt(request).await?.into_inner()) }
    };
    session
        .fan_out_within(targets, session.jobs(), limit, call)
        .await
}

fn listed(nodes: &BTreeSet<NodeName>) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

/// What would be done, node by node.
fn plans(nodes: &[NodeRow<AdoptedJson>]) -> String {
    let mut text = String::new();
    for row in nodes {
        let Some(plan) = &row.result else { continue };
        let user = plan.user.as_deref().unwrap_or("root");
        let _ = writeln!(
            text,
            "{}: {}, process {}, user {user}",
            row.node, plan.unit, plan.node_pid
        );
        let _ = writeln!(text, "  program     {}", plan.program);
        let _ = writeln!(text, "  build from  {}", plan.folder);
        for database in &plan.databases {
            let _ = writeln!(text, "  database    {database}");
        }
        for database in &plan.undeclared {
            let _ = writeln!(
                text,
                "  missing     {database} is open and not named under `databases` in the agent's configuration"
            );
        }
        if let Some(ordered) = &plan.ordered {
            let _ = writeln!(text, "  the mesh    has decided on {ordered} for it");
        }
        let _ = writeln!(text, "  drop-in     {}", plan.drop_in);
        for line in plan.drop_in_text.lines() {
            let _ = writeln!(text, "              {line}");
        }
    }
    text
}

pub(super) async fn unadopt(
    targets: &TargetArgs,
    asked: ConfirmArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.selected(&targets.node, &targets.labels)?;
    let question = format!(
        "Let go of the service on {}? Nothing stops.",
        listed(&targets)
    );
    let dry_run = asked.dry_run;
    if !dry_run && let Some(exit) = confirm(&question, asked)? {
        return Ok(exit);
    }
    let outcomes = session
        .fan_out(&targets, move |_, channel| async move {
            let request = v1::UnadoptRequest { dry_run };
            Ok(client::node(channel).unadopt(request).await?.into_inner())
        })
        .await;
    let before = outcomes.iter();
    let before = before.filter_map(|(node, outcome)| Some((node, outcome.ok()?.agent_restarts)));
    wait_for_agents(session, before).await;
    let convert = |given: v1::UnadoptResponse| {
        let running = given.running.map(Release::try_from).transpose()?;
        Ok(UnadoptedJson {
            unit: given.unit,
            drop_in: given.drop_in,
            command: given.command,
            running: running.map(|release| release.to_string()),
            node_pid: given.node_pid,
        })
    };
    let answer = AnswerJson {
        nodes: render::rows(outcomes, convert),
        dry_run,
    };
    render::print(output, &answer, || let_go(&answer.nodes, dry_run))?;
    render::complain(&answer.nodes);
    Ok(render::exit_of(&answer.nodes))
}

fn let_go(nodes: &[NodeRow<UnadoptedJson>], dry_run: bool) -> String {
    let mut text = String::new();
    for row in nodes {
        let Some(done) = &row.result else { continue };
        let verb = if dry_run { "would be" } else { "is" };
        let _ = writeln!(text, "{}: {} {verb} taken away", row.node, done.drop_in);
        if let Some(running) = &done.running {
            let _ = writeln!(
                text,
                "  process {} goes on with {running}; at its next start {} begins with {}",
                done.node_pid,
                done.unit,
                if done.command.is_empty() {
                    "what its own file says".to_owned()
                } else {
                    done.command.join(" ")
                }
            );
        }
    }
    text
}
