//! Changes of the register that no node runs anything for: who votes, and liftings (rules 14 and 15).

use super::drive;
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::survey::Survey;
use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::ProposalKind;
use cbddc_domain::plan::{Plan, Timing};
use cbddc_domain::proposer::{Draft, Failure, Outcome, Proposal};
use cbddc_domain::register::RecordKind;
use cbddc_domain::release::Release;
use std::collections::{BTreeMap, BTreeSet};

/// How long the voters may take, in milliseconds.
const VOTES_MS: u64 = 30_000;

/// How long to watch until every member that can be reached knows it, in milliseconds.
const SETTLE_MS: u64 = 10_000;

/// How often it begins anew when another command came between.
const TRIES: u32 = 5;

/// Lets `voters` decide from now on. [`Exit::Partial`]: decided, and not every member knows it yet.
///
/// # Errors
/// Not begun (a rollout is under way, too few voters answered), or in doubt; see the exit code.
pub async fn change_voters(
    session: &Session,
    voters: BTreeSet<NodeName>,
    reason: &str,
) -> Result<Exit, CtlError> {
    if voters.is_empty() {
        return Err(CtlError::usage(
            "somebody has to vote: name at least one member",
        ));
    }
    amend(session, Some(voters), BTreeMap::new(), reason).await
}

/// Lifts the revocations of `builds`, by digest, with the reason. Exit as for [`change_voters`].
///
/// # Errors
/// As for [`change_voters`].
pub async fn lift(
    session: &Session,
    builds: BTreeMap<Digest, String>,
    reason: &str,
) -> Result<Exit, CtlError> {
    amend(session, None, builds, reason).await
}

async fn amend(
    session: &Session,
    voters: Option<BTreeSet<NodeName>>,
    lifts: BTreeMap<Digest, String>,
    reason: &str,
) -> Result<Exit, CtlError> {
    let mut tries = 0;
    loop {
        let survey = Survey::take(session).await?;
        if voters.is_some() && voters == survey.voters().ok() {
            eprintln!("these vote already: nothing to do");
            return Ok(Exit::Done);
        }
        let proposal = proposal(session, &survey, voters.clone(), lifts.clone(), reason)?;
        let outcome = drive(session, proposal, &mut |line| eprintln!("{line}")).await?;
        tries += 1;
        if outcome == Outcome::Changed && tries < TRIES {
            eprintln!("another command came between; trying again");
            continue;
        }
        return conclude(outcome);
    }
}

fn proposal(
    session: &Session,
    survey: &Survey,
    voters: Option<BTreeSet<NodeName>>,
    lifts: BTreeMap<Digest, String>,
    reason: &str,
) -> Result<Proposal, CtlError> {
    let person = session.user()?;
    let kind = if voters.is_some() {
        RecordKind::Voters
    } else {
        RecordKind::Trust
    };
    // An amendment orders no release: the plan only carries times, and its release is sent to nobody.
    let nothing = Release::of_build(BuildRef {
        id: "nothing@0"
            .parse()
            .map_err(|error| CtlError::failed("this name is a valid one").because(error))?,
        digest: Digest::of(b""),
    });
    let timing = Timing {
        probation_ms: VOTES_MS,
        ..Timing::default()
    };
    Ok(Proposal {
        kind: ProposalKind::Amend,
        epoch: survey.next_epoch()?,
        members: session.nodes(),
        voters: survey.voters()?,
        plan: Plan {
            id: String::new(),
            release: nothing,
            waves: Vec::new(),
            whole_mesh: true,
            timing,
            started_by: person.clone(),
            reason: reason.to_owned(),
            accepted: None,
        },
        draft: Draft {
            kind,
            release: None,
            nodes: None,
            voters,
            revokes: BTreeMap::new(),
            lifts,
            restores: BTreeSet::new(),
            proposed_by: person,
            reason: reason.to_owned(),
        },
        based_on: survey.decided_epoch(),
        settle_ms: SETTLE_MS,
    })
}

fn conclude(outcome: Outcome) -> Result<Exit, CtlError> {
    let named = |mut error: CtlError, nodes: BTreeMap<NodeName, String>| {
        for (node, why) in nodes {
            error = error.detail(format!("{node}: {why}"));
        }
        error
    };
    let texts = |failures: BTreeMap<NodeName, Failure>| {
        let text = |(node, failure): (NodeName, Failure)| (node, failure.text().to_owned());
        failures.into_iter().map(text).collect()
    };
    let look = "nothing was changed; look at `cbctl status` and `cbctl rollout list`";
    match outcome {
        Outcome::Decided { pending, failed } => {
            let unaware: Vec<_> = pending
                .keys()
                .chain(failed.keys())
                .map(ToString::to_string)
                .collect();
            if unaware.is_empty() {
                eprintln!("decided");
                return Ok(Exit::Done);
            }
            eprintln!("decided; not settled yet: {}", unaware.join(", "));
            Ok(Exit::Partial)
        }
        Outcome::Refused(failures) => {
            let error = CtlError::new(Exit::Refused, "too few voters have promised");
            Err(named(error, texts(failures))
                .hint("nothing was changed; bring them back and try again"))
        }
        Outcome::Locked(failures) => {
            let error = CtlError::new(Exit::Locked, "the mesh is in other hands");
            Err(named(error, texts(failures)).hint(look))
        }
        Outcome::Undecided(epoch) => {
            let what = format!("a vote of epoch {epoch} is undecided");
            Err(CtlError::new(Exit::Locked, what).hint(
                "finish it with `cbctl rollout resume`, or go back with `cbctl rollback --mesh`",
            ))
        }
        Outcome::Changed | Outcome::TakenOver(_) | Outcome::Reverted { .. } => {
            Err(CtlError::new(Exit::Locked, "another command came between").hint(look))
        }
        Outcome::InDoubt(silent) => {
            let what = "in doubt: votes were asked for, and no majority of the voters before and after answered";
            Err(named(CtlError::new(Exit::InDoubt, what), silent)
                .hint("bring the silent nodes back and run the same command again"))
        }
    }
}
