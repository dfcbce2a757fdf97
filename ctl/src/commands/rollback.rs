//! `cbctl rollback`.

use super::{confirm, ending};
use crate::away::Away;
use crate::cli::{Output, RollbackArgs};
use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome as Reached, Session, client};
use crate::rollout::{drive, drive_forced};
use crate::survey::Survey;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::ProposalKind;
use cbddc_domain::plan::{Plan, Timing};
use cbddc_domain::proposer::{Draft, Failure, Outcome, Proposal};
use cbddc_domain::register::{Epoch, RecordKind, is_majority_of};
use cbddc_domain::release::Release;
use cbddc_domain::rollback::{Known, choose_target};
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// How long the voters may take, in milliseconds.
const VOTES_MS: u64 = 30_000;

/// How often a rollback tries again when another command came between: in an emergency the last
/// one to ask wins.
const TRIES: u32 = 5;

/// Runs the command.
pub(super) async fn run(
    arguments: RollbackArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let mut asked = false;
    let mut tries = 0;
    loop {
        let survey = Survey::take(session).await?;
        // Before anybody is asked for a promise: a lease would stay behind.
        if arguments.minority {
            check_minority(&arguments, &survey)?;
        } else {
            check_majority(&survey)?;
        }
        let choice = choose(&arguments, session, &survey).await?;
        if !asked {
            let question = choice.question(&arguments);
            eprintln!("{question}");
            if arguments.minority {
                eprintln!("{MINORITY}");
            }
            if let Some(exit) = confirm("Go back?", arguments.confirm)? {
                return Ok(exit);
            }
            asked = true;
        }
        let proposal = choice.proposal(&arguments, session, &survey)?;
        if arguments.minority {
            return force(session, proposal, &survey, &choice.nodes, output).await;
        }
        let absent = Away::of(session, &survey, &proposal.voters).pending(&choice.nodes);
        let began = Instant::now();
        let outcome = drive(session, proposal.clone(), &mut |line| eprintln!("{line}")).await?;
        tries += 1;
        if tries < TRIES && is_overtaken(&outcome) {
            eprintln!("another command came between; trying again");
            continue;
        }
        return ending::conclude(session, &proposal, outcome, &absent, began, output).await;
    }
}

/// What `--minority` means, for the one who is asked.
const MINORITY: &str = "without a majority: the nodes that can be reached go back at once; the others follow when they are \
reached again, whatever they have decided meanwhile, and that is lost. It is never called committed, and \
`cbctl status` shows it until a later record is decided by votes.";

/// Whoever can reach no majority cannot have anything decided.
fn check_majority(survey: &Survey) -> Result<(), CtlError> {
    let voters = survey.voters()?;
    let reached: BTreeSet<_> = survey.reached().map(|(node, _)| node.clone()).collect();
    if is_majority_of(&reached, &voters) {
        return Ok(());
    }
    let silent = voters.difference(&reached).map(|node| {
        let why = survey.nodes.get(node).map_or("not asked", Reached::why);
        format!("{node}: {why}")
    });
    let what = format!(
        "{} of {} voters can be reached, and a rollback takes the votes of a majority; nothing was changed",
        reached.intersection(&voters).count(),
        voters.len()
    );
    let mut error = CtlError::new(Exit::Refused, what);
    error.details = silent.collect();
    Err(error.hint(
        "bring others back, or let those that can be reached go back alone with \
         `cbctl rollback --minority --to RELEASE --reason TEXT`",
    ))
}

/// A majority that can be reached decides by itself, and better.
fn check_minority(arguments: &RollbackArgs, survey: &Survey) -> Result<(), CtlError> {
    if arguments.reason.trim().is_empty() {
        return Err(CtlError::usage("--minority needs --reason TEXT"));
    }
    let voters = survey.voters()?;
    let reached: BTreeSet<_> = survey.reached().map(|(node, _)| node.clone()).collect();
    if is_majority_of(&reached, &voters) {
        let what = format!(
            "{} of {} voters can be reached: that is a majority",
            reached.intersection(&voters).count(),
            voters.len()
        );
        return Err(CtlError::new(Exit::Refused, what)
            .hint("leave --minority out: the rollback is decided by votes, and nothing is lost"));
    }
    Ok(())
}

/// Rule 13: tells the record to everybody who can be reached, and follows the nodes.
async fn force(
    session: &Session,
    mut proposal: Proposal,
    survey: &Survey,
    nodes: &BTreeSet<NodeName>,
    output: Output,
) -> Result<Exit, CtlError> {
    let absent = Away::of(session, survey, &proposal.voters).pending(nodes);
    let nonce = proposal.epoch.nonce;
    let draft = &proposal.draft;
    let highest = survey.highest_epoch();
    let record = draft.forced(survey.decided(), highest, nonce, &proposal.voters);
    proposal.epoch = record.epoch;
    let say = &mut |line: &str| eprintln!("{line}");
    let began = Instant::now();
    let outcome = drive_forced(session, proposal.clone(), record, say).await?;
    ending::conclude(session, &proposal, outcome, &absent, began, output).await
}

fn is_overtaken(outcome: &Outcome) -> bool {
    let behind = |failure: &Failure| matches!(failure, Failure::Refused { word, .. } if word == "epoch_behind");
    match outcome {
        Outcome::Changed => true,
        Outcome::Locked(failures) => failures.values().any(behind),
        Outcome::Decided { .. }
        | Outcome::Refused(_)
        | Outcome::Undecided(_)
        | Outcome::TakenOver(_)
        | Outcome::Reverted { .. }
        | Outcome::InDoubt(_) => false,
    }
}

/// Where to go and what to leave.
struct Choice {
    target: Release,
    leaving: BTreeSet<Release>,
    nodes: BTreeSet<NodeName>,
}

async fn choose(
    arguments: &RollbackArgs,
    session: &Session,
    survey: &Survey,
) -> Result<Choice, CtlError> {
    let nodes = session.selected(&arguments.targets.node, &arguments.targets.labels)?;
    let leaving = leaving(survey, &nodes);
    let known = known_releases(session, &nodes).await;
    let away = Away::of(session, survey, &survey.voters()?);
    let target = match &arguments.to {
        Some(name) => named(name, &known, survey)?,
        // Those that come and go and are away cannot say what they ran.
        None => choose_target(
            &known,
            away.without_optional(&nodes).len(),
            &leaving,
            |release| survey.revoked(release).is_some(),
        )
        .map_err(|error| {
            let what = "there is no release to go back to";
            let hint = "see `cbctl release list`, and name one with --to RELEASE";
            let error = CtlError::new(Exit::Refused, what).because(error).hint(hint);
            match away
                .required
                .keys()
                .filter(|node| nodes.contains(*node))
                .count()
            {
                0 => error,
                silent => error.detail(format!(
                    "{silent} of {} nodes cannot be reached to say what they ran",
                    nodes.len()
                )),
            }
        })?,
    };
    // Where the nodes run different releases, some stay where they are.
    let mut leaving = leaving;
    leaving.remove(&target);
    Ok(Choice {
        target,
        leaving,
        nodes,
    })
}

/// What the nodes are to leave: the release of a rollout that is under way, or else what is decided.
fn leaving(survey: &Survey, nodes: &BTreeSet<NodeName>) -> BTreeSet<Release> {
    let decided = survey.decided_epoch();
    let reached = || survey.reached().filter(|(node, _)| nodes.contains(*node));
    let under_way: BTreeSet<Release> = reached()
        .filter(|(_, shown)| shown.epoch.is_some_and(|epoch| epoch > decided))
        .filter_map(|(_, shown)| shown.view.running.clone())
        .collect();
    let voted = survey.undecided().and_then(|record| record.release.clone());
    let under_way: BTreeSet<Release> = under_way.into_iter().chain(voted).collect();
    if !under_way.is_empty() {
        return under_way;
    }
    let ordered = survey
        .decided()
        .map(|record| nodes.iter().filter_map(|node| record.release_for(node)));
    ordered.into_iter().flatten().cloned().collect()
}

/// The releases that the nodes know, by node.
async fn known_releases(
    session: &Session,
    nodes: &BTreeSet<NodeName>,
) -> BTreeMap<NodeName, Vec<Known>> {
    let outcomes = session.fan_out(nodes, |_, channel| async move {
        let answer = client::release(channel)
            .list_releases(v1::ListReleasesRequest {})
            .await?;
        Ok(answer.into_inner().releases)
    });
    let known = |info: v1::ReleaseInfo| {
        let release = Release::try_from(info.release?).ok()?;
        Some(Known {
            release,
            committed: info.committed.map(Epoch::from),
            known_good: info.known_good,
        })
    };
    let outcomes = outcomes.await.into_iter().filter_map(|(node, outcome)| {
        let releases = outcome.ok()?.clone();
        Some((node, releases.into_iter().filter_map(known).collect()))
    });
    outcomes.collect()
}

/// The release that `--to` names, by its short id or its build.
fn named(
    name: &str,
    known: &BTreeMap<NodeName, Vec<Known>>,
    survey: &Survey,
) -> Result<Release, CtlError> {
    let matches = |release: &Release| {
        release.id().to_string() == name || release.build.id.to_string() == name
    };
    let found = known
        .values()
        .flatten()
        .filter(|known| matches(&known.release));
    let found: BTreeSet<&Release> = found.map(|known| &known.release).collect();
    let hint = "`cbctl release list` shows the releases with their short ids";
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (None, _) => Err(CtlError::failed(format!("no node knows a release `{name}`")).hint(hint)),
        (Some(_), Some(_)) => {
            Err(CtlError::failed(format!("`{name}` names more than one release")).hint(hint))
        }
        (Some(release), None) => match survey.revoked(release) {
            None => Ok(release.clone()),
            Some(reason) => Err(CtlError::new(
                Exit::Refused,
                format!("{release} is revoked: {reason}"),
            )
            .hint(hint)),
        },
    }
}

impl Choice {
    fn question(&self, arguments: &RollbackArgs) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(NodeName::as_str).collect();
        let leaving: Vec<_> = self.leaving.iter().map(ToString::to_string).collect();
        let from = if leaving.is_empty() {
            "what runs".to_owned()
        } else {
            leaving.join(", ")
        };
        let restore = if arguments.restore {
            "; each node's snapshot from before is restored, and what it replaces is kept"
        } else {
            ""
        };
        format!(
            "{}: from {from} back to {}{restore}",
            nodes.join(", "),
            self.target
        )
    }

    fn proposal(
        &self,
        arguments: &RollbackArgs,
        session: &Session,
        survey: &Survey,
    ) -> Result<Proposal, CtlError> {
        let person = session.user()?;
        let verify_ms = u64::try_from(arguments.verify.as_millis()).unwrap_or(u64::MAX);
        let reason = if arguments.reason.is_empty() {
            "rolled back".to_owned()
        } else {
            arguments.reason.clone()
        };
        let whole_mesh = arguments.targets.mesh;
        // A build is revoked for the whole mesh or not at all: where only some nodes go back, the
        // others may keep what they run.
        let revoked = self
            .leaving
            .iter()
            .filter(|release| whole_mesh && release.build != self.target.build);
        let revokes = revoked.map(|release| {
            (
                release.build.digest,
                format!("{}: {reason}", release.build.id),
            )
        });
        let timing = Timing {
            verify_ms,
            probation_ms: VOTES_MS,
            ..Timing::default()
        };
        let voters = survey.voters()?;
        let away = Away::of(session, survey, &voters);
        Ok(Proposal {
            kind: ProposalKind::Rollback,
            epoch: survey.next_epoch()?,
            members: away.without_optional(&session.nodes()),
            voters,
            plan: Plan {
                id: String::new(),
                release: self.target.clone(),
                waves: Vec::new(),
                whole_mesh,
                timing,
                started_by: person.clone(),
                reason: reason.clone(),
                accepted: None,
            },
            draft: Draft {
                kind: RecordKind::Rollback,
                release: Some(self.target.clone()),
                nodes: (!whole_mesh).then(|| self.nodes.clone()),
                voters: None,
                revokes: revokes.collect(),
                lifts: BTreeMap::new(),
                restores: if arguments.restore {
                    self.nodes.clone()
                } else {
                    BTreeSet::new()
                },
                proposed_by: person,
                reason,
            },
            based_on: survey.decided_epoch(),
            settle_ms: verify_ms,
        })
    }
}
