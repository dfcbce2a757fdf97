//! The proposer, answer by answer.

use super::{Command, Draft, Failure, MeshVerdict, Outcome, Proposal, Proposer, Told, View};
use crate::build::{BuildRef, Digest};
use crate::id::NodeName;
use crate::node::ProposalKind;
use crate::plan::{Plan, Timing};
use crate::register::{Epoch, Record, RecordKind, RegisterView};
use crate::release::Release;
use std::collections::{BTreeMap, BTreeSet};

fn epoch(counter: u64) -> Epoch {
    Epoch { counter, nonce: 7 }
}

fn node(number: usize) -> NodeName {
    format!("n{number}").parse().expect("a name")
}

fn members() -> BTreeSet<NodeName> {
    (1..=3).map(node).collect()
}

fn release(version: u8) -> Release {
    let id = format!("cbddc@{version}").parse().expect("a name");
    Release::of_build(BuildRef {
        id,
        digest: Digest::of(&[version]),
    })
}

fn proposal(kind: ProposalKind) -> Proposal {
    let takes_part = matches!(kind, ProposalKind::Rollout | ProposalKind::Resume);
    let waves = if takes_part {
        members().into_iter().map(|node| vec![node]).collect()
    } else {
        Vec::new()
    };
    let plan = Plan {
        id: "abc".into(),
        release: release(2),
        waves,
        whole_mesh: true,
        timing: Timing::default(),
        started_by: "ana".into(),
        reason: "why not".into(),
    };
    let draft = Draft {
        kind: RecordKind::Rollout,
        release: release(2),
        nodes: None,
        revokes: BTreeMap::new(),
        restores: BTreeSet::new(),
        proposed_by: "ana".into(),
        reason: "why not".into(),
    };
    Proposal {
        kind,
        epoch: epoch(9),
        members: members(),
        voters: members(),
        plan,
        draft,
        based_on: Epoch::default(),
        settle_ms: 1_000,
    }
}

fn promise(votes: Vec<Record>) -> Box<RegisterView> {
    Box::new(RegisterView {
        promised: epoch(9),
        votes,
        decided: None,
        revocations: BTreeMap::new(),
        voters: members(),
        highest: epoch(9),
    })
}

fn vote() -> Record {
    Record {
        epoch: epoch(5),
        kind: RecordKind::Rollout,
        release: Some(release(2)),
        exceptions: BTreeMap::new(),
        voters: members(),
        revokes: BTreeMap::new(),
        restores: BTreeSet::new(),
        proposed_by: "bob".into(),
        reason: "mine".into(),
    }
}

fn silent() -> Failure {
    Failure::Unreachable("no answer in time".into())
}

/// All members answer the first question: with a promise, or not at all.
fn prepared(
    kind: ProposalKind,
    answers: [Result<Vec<Record>, Failure>; 3],
) -> (Proposer, Vec<Command>) {
    let (mut proposer, _) = Proposer::begin(proposal(kind), 0);
    let mut commands = Vec::new();
    for (number, answer) in (1..).zip(answers) {
        commands = proposer.tell(Told::Prepared(node(number), answer.map(promise)), 0);
    }
    (proposer, commands)
}

fn reverts(commands: &[Command]) -> usize {
    commands
        .iter()
        .filter(|command| matches!(command, Command::Revert(..)))
        .count()
}

#[test]
fn rule_4_an_abort_proposes_an_undecided_vote_again() {
    let answers = [Ok(vec![]), Ok(vec![vote()]), Ok(vec![])];
    let (_, commands) = prepared(ProposalKind::Abort, answers);
    assert_eq!(
        reverts(&commands),
        0,
        "a record that may be decided is never gone back from"
    );
    let proposed = commands.iter().find_map(|command| match command {
        Command::Vote(_, record) => Some(record.clone()),
        Command::Prepare(..)
        | Command::Activate(_)
        | Command::Renew(_)
        | Command::CheckMesh(_)
        | Command::Confirm(..)
        | Command::Revert(..) => None,
    });
    assert_eq!(
        proposed,
        Some(Box::new(Record {
            epoch: epoch(9),
            ..vote()
        }))
    );
}

#[test]
fn rule_4_without_a_majority_nothing_is_reverted() {
    let answers = [Ok(vec![]), Err(silent()), Err(silent())];
    let (proposer, commands) = prepared(ProposalKind::Abort, answers);
    assert_eq!(reverts(&commands), 0);
    assert!(
        matches!(proposer.outcome(), Some(Outcome::Refused(_))),
        "{:?}",
        proposer.outcome()
    );
}

#[test]
fn rule_4_a_dead_epoch_is_reverted_everywhere() {
    let answers = [Ok(vec![]), Ok(vec![]), Err(silent())];
    let (_, commands) = prepared(ProposalKind::Abort, answers);
    assert_eq!(reverts(&commands), 3);
}

#[test]
fn rule_4_a_rollout_stops_at_an_undecided_vote_and_needs_all_its_targets() {
    let (proposer, _) = prepared(
        ProposalKind::Rollout,
        [Ok(vec![vote()]), Ok(vec![]), Ok(vec![])],
    );
    assert_eq!(proposer.outcome(), Some(&Outcome::Undecided(epoch(5))));
    let (proposer, _) = prepared(
        ProposalKind::Rollout,
        [Ok(vec![]), Ok(vec![]), Err(silent())],
    );
    assert!(matches!(proposer.outcome(), Some(Outcome::Refused(_))));
}

/// A cause that an agent would refuse for its length would leave every node where it is.
#[test]
fn causes_stay_within_the_bound_of_the_wire() {
    let (mut proposer, _) = prepared(ProposalKind::Rollout, [Ok(vec![]), Ok(vec![]), Ok(vec![])]);
    let view = View {
        probation: Some(epoch(9)),
        clean: true,
        ..View::default()
    };
    let commands = proposer.tell(Told::Seen(node(1), Box::new(view)), 1);
    assert!(commands.contains(&Command::CheckMesh(0)), "{commands:?}");
    let verdict = MeshVerdict::Failed("ä".repeat(3_000));
    let commands = proposer.tell(Told::MeshChecked(0, verdict), 2);
    assert_eq!(reverts(&commands), 3);
    for command in commands {
        if let Command::Revert(_, cause) = command {
            assert!(
                cause.len() <= 1_024 && cause.len() > 900,
                "{} bytes",
                cause.len()
            );
        }
    }
}

#[test]
fn the_mesh_check_stays_armed_while_a_wave_soaks() {
    let mut soaking = proposal(ProposalKind::Rollout);
    soaking.plan.timing.soak_ms = 10_000;
    let (mut proposer, _) = Proposer::begin(soaking, 0);
    for number in 1..=3 {
        proposer.tell(Told::Prepared(node(number), Ok(promise(vec![]))), 0);
    }
    let view = View {
        probation: Some(epoch(9)),
        clean: true,
        ..View::default()
    };
    proposer.tell(Told::Seen(node(1), Box::new(view)), 1);
    proposer.tell(Told::MeshChecked(0, MeshVerdict::Passed), 2);
    assert!(
        proposer
            .tell(Told::Tick, 5_000)
            .contains(&Command::CheckMesh(0))
    );
    // Nothing new is no news; something wrong is.
    assert_eq!(
        proposer.tell(
            Told::MeshChecked(0, MeshVerdict::Pending("x".into())),
            5_001
        ),
        []
    );
    let commands = proposer.tell(Told::MeshChecked(0, MeshVerdict::Failed("x".into())), 5_002);
    assert_eq!(reverts(&commands), 3);
}
