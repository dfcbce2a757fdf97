//! `cbctl rollout`.

mod before;
mod data_inside;
mod look;
mod planning;

use super::{confirm, ending};
use crate::away::Away;
use crate::cli::{AbortArgs, Output, ProofArgs, ResumeArgs, RolloutCommand, StartArgs};
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::mesh_check::MeshChecker;
use crate::rollout::drive_checked;
use crate::survey::Survey;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::ProposalKind;
use cbddc_domain::plan::Plan;
use cbddc_domain::proposer::{Draft, Proposal};
use cbddc_domain::register::RecordKind;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Runs the command.
pub(super) async fn run(
    command: RolloutCommand,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    match command {
        RolloutCommand::Plan(arguments) => {
            let survey = Survey::take(session).await?;
            let mut plan = planning::plan(&arguments, session, &survey).await?;
            let found = before::look(&arguments, session, &survey, &mut plan).await;
            planning::print(&plan, &survey, output)?;
            found.map(|()| Exit::Done)
        }
        RolloutCommand::Start(arguments) => start(&arguments, session, output).await,
        RolloutCommand::Status { id } => look::status(id.as_deref(), session, output).await,
        RolloutCommand::List => look::list(session, output).await,
        RolloutCommand::Resume(arguments) => resume(&arguments, session, output).await,
        RolloutCommand::Abort(arguments) => abort(&arguments, session, output).await,
    }
}

async fn start(arguments: &StartArgs, session: &Session, output: Output) -> Result<Exit, CtlError> {
    let survey = Survey::take(session).await?;
    let mut plan = planning::plan(&arguments.plan, session, &survey).await?;
    let found = before::look(&arguments.plan, session, &survey, &mut plan).await;
    eprint!("{}", planning::text(&plan, &survey));
    found?;
    if plan.targets().next().is_none()
        && survey
            .decided()
            .is_some_and(|record| ordered(record, &plan, session))
    {
        eprintln!("every target runs {} already: nothing to do", plan.release);
        return Ok(Exit::Done);
    }
    if let Some(exit) = confirm("Start the rollout?", arguments.confirm)? {
        return Ok(exit);
    }
    eprintln!("rollout {} begins", plan.id);
    let targets = session.selected(&arguments.plan.targets.node, &arguments.plan.targets.labels)?;
    let proposal = proposal(ProposalKind::Rollout, plan, &targets, session, &survey)?;
    finish(
        session,
        proposal,
        &targets,
        &survey,
        arguments.proof,
        output,
    )
    .await
}

/// Runs the proposal to its end, without those that come and go and are away.
async fn finish(
    session: &Session,
    proposal: Proposal,
    targets: &BTreeSet<NodeName>,
    survey: &Survey,
    proof: ProofArgs,
    output: Output,
) -> Result<Exit, CtlError> {
    let absent = Away::of(session, survey, &proposal.voters).pending(targets);
    let say = &mut |line: &str| eprintln!("{line}");
    let checker = MeshChecker::new(session.clone(), proposal.members.clone())
        .with_patience(proof.patience)
        .with_accepted(proposal.plan.accepted.clone())
        .accepting_unproven(proof.accept_unproven);
    let began = Instant::now();
    let outcome = drive_checked(session, proposal.clone(), checker, say).await?;
    ending::conclude(session, &proposal, outcome, &absent, began, output).await
}

/// Whom a remembered rollout is for.
fn reaches(plan: &Plan, session: &Session) -> BTreeSet<NodeName> {
    if plan.whole_mesh {
        session.nodes()
    } else {
        plan.targets().cloned().collect()
    }
}

/// Whether the decided record orders the plan's release for the whole of it already.
fn ordered(record: &cbddc_domain::register::Record, plan: &Plan, session: &Session) -> bool {
    !plan.whole_mesh
        || session
            .nodes()
            .iter()
            .all(|node| record.release_for(node) == Some(&plan.release))
}

fn proposal(
    kind: ProposalKind,
    plan: Plan,
    targets: &BTreeSet<NodeName>,
    session: &Session,
    survey: &Survey,
) -> Result<Proposal, CtlError> {
    let voters = survey.voters()?;
    let away = Away::of(session, survey, &voters);
    Ok(Proposal {
        kind,
        epoch: survey.next_epoch()?,
        members: away.without_optional(&session.nodes()),
        voters,
        draft: Draft {
            kind: RecordKind::Rollout,
            release: Some(plan.release.clone()),
            nodes: (!plan.whole_mesh).then(|| targets.clone()),
            voters: None,
            revokes: BTreeMap::new(),
            lifts: BTreeMap::new(),
            restores: BTreeSet::new(),
            proposed_by: session.user()?,
            reason: plan.reason.clone(),
        },
        settle_ms: plan.timing.verify_ms,
        plan,
        based_on: survey.decided_epoch(),
    })
}

async fn resume(
    arguments: &ResumeArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let survey = Survey::take(session).await?;
    let remembered = look::find(arguments.id.as_deref(), session, &survey).await?;
    if let Some(exit) = confirm(
        &format!("Go on with rollout {}?", remembered.plan.id),
        arguments.confirm,
    )? {
        return Ok(exit);
    }
    let targets = reaches(&remembered.plan, session);
    let proposal = proposal(
        ProposalKind::Resume,
        remembered.plan,
        &targets,
        session,
        &survey,
    )?;
    finish(
        session,
        proposal,
        &targets,
        &survey,
        arguments.proof,
        output,
    )
    .await
}

async fn abort(arguments: &AbortArgs, session: &Session, output: Output) -> Result<Exit, CtlError> {
    let survey = Survey::take(session).await?;
    let remembered = look::find(arguments.id.as_deref(), session, &survey).await?;
    if let Some(exit) = confirm(
        &format!("End rollout {}?", remembered.plan.id),
        arguments.confirm,
    )? {
        return Ok(exit);
    }
    let person = session.user()?;
    let reason = if arguments.reason.is_empty() {
        format!("ended by {person}")
    } else {
        arguments.reason.clone()
    };
    let targets = reaches(&remembered.plan, session);
    let mut proposal = proposal(
        ProposalKind::Abort,
        remembered.plan,
        &targets,
        session,
        &survey,
    )?;
    proposal.plan.reason = reason;
    proposal.plan.waves = Vec::new();
    proposal.settle_ms = u64::try_from(arguments.verify.as_millis()).unwrap_or(u64::MAX);
    // Nothing new is rolled out that would have to be proven.
    let proof = ProofArgs {
        accept_unproven: true,
        patience: Duration::ZERO,
    };
    finish(session, proposal, &targets, &survey, proof, output).await
}
