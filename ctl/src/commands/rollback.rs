//! `cbctl rollback`.

use super::{confirm, ending};
use crate::cli::{Output, RollbackArgs};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::rollout::drive;
use crate::survey::Survey;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::ProposalKind;
use cbddc_domain::plan::{Plan, Timing};
use cbddc_domain::proposer::{Draft, Failure, Outcome, Proposal};
use cbddc_domain::register::{Epoch, RecordKind};
use cbddc_domain::release::Release;
use cbddc_domain::rollback::{Known, choose_target};
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};

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
        let choice = choose(&arguments, session, &survey).await?;
        if !asked {
            let question = choice.question(&arguments);
            eprintln!("{question}");
            if let Some(exit) = confirm("Go back?", arguments.confirm)? {
                return Ok(exit);
            }
            asked = true;
        }
        let proposal = choice.proposal(&arguments, session, &survey)?;
        let outcome = drive(session, proposal.clone(), &mut |line| eprintln!("{line}")).await?;
        tries += 1;
        if tries < TRIES && is_overtaken(&outcome) {
            eprintln!("another command came between; trying again");
            continue;
        }
        return ending::conclude(session, &proposal, outcome, output).await;
    }
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
    let nodes = session.targets(&arguments.targets.node)?;
    let leaving = leaving(survey, &nodes);
    let known = known_releases(session, &nodes).await;
    let target = match &arguments.to {
        Some(name) => named(name, &known, survey)?,
        None => choose_target(&known, nodes.len(), &leaving, |release| {
            survey.revoked(release).is_some()
        })
        .map_err(|error| {
            CtlError::new(Exit::Refused, "there is no release to go back to")
                .because(error)
                .hint("see `cbctl release list`, and name one with --to RELEASE")
        })?,
    };
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
        Ok(Proposal {
            kind: ProposalKind::Rollback,
            epoch: survey.next_epoch()?,
            members: session.nodes(),
            voters: survey.voters(session)?,
            plan: Plan {
                id: String::new(),
                release: self.target.clone(),
                waves: Vec::new(),
                whole_mesh,
                timing,
                started_by: person.clone(),
                reason: reason.clone(),
            },
            draft: Draft {
                kind: RecordKind::Rollback,
                release: self.target.clone(),
                nodes: (!whole_mesh).then(|| self.nodes.clone()),
                revokes: revokes.collect(),
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
