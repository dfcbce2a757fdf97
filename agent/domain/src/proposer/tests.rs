//! The proposer, answer by answer.

mod voters;

use super::{Command, Draft, Failure, MeshVerdict, Outcome, Proposal, Proposer, Told, View};
use crate::build::{BuildRef, Digest};
use crate::id::NodeName;
use crate::node::ProposalKind;
use crate::plan::{Plan, Timing};
use crate::register::{Epoch, Record, RecordKind, RegisterView, Revocation};
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
        accepted: None,
    };
    let draft = Draft {
        kind: RecordKind::Rollout,
        release: Some(release(2)),
        nodes: None,
        voters: None,
        revokes: BTreeMap::new(),
        lifts: BTreeMap::new(),
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
        elected: None,
        heard: Vec::new(),
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
        previous: None,
        forced: false,
        revokes: BTreeMap::new(),
        lifts: BTreeMap::new(),
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

/// The records that votes are asked for.
fn proposed(commands: &[Command]) -> Vec<&Record> {
    let records = commands.iter().filter_map(|command| match command {
        Command::Vote(_, record) => Some(record.as_ref()),
        Command::Prepare(..)
        | Command::Activate(_)
        | Command::Renew(_)
        | Command::CheckMesh(_)
        | Command::Confirm(..)
        | Command::Revert(..) => None,
    });
    records.collect()
}

#[test]
fn rule_4_an_abort_and_a_resume_propose_the_newest_undecided_vote_again() {
    for kind in [ProposalKind::Abort, ProposalKind::Resume] {
        let newest = Record {
            epoch: epoch(6),
            release: Some(release(3)),
            ..vote()
        };
        let answers = [Ok(vec![]), Ok(vec![vote(), newest.clone()]), Ok(vec![])];
        let (_, commands) = prepared(kind, answers);
        assert_eq!(
            reverts(&commands),
            0,
            "a record that may be decided is never gone back from"
        );
        let again = Record {
            epoch: epoch(9),
            ..newest
        };
        assert_eq!(proposed(&commands), [&again, &again, &again], "{kind:?}");
    }
}

/// What was to be gone on with or ended may be what is decided by now.
#[test]
fn rule_4_nothing_is_done_about_a_record_that_has_changed_meanwhile() {
    let promises = || {
        let decided = RegisterView {
            decided: Some(vote()),
            ..*promise(vec![])
        };
        // One of them has not heard yet that what it voted for is decided.
        [promise(vec![vote()]), Box::new(decided), promise(vec![])]
    };
    for kind in [
        ProposalKind::Rollout,
        ProposalKind::Rollback,
        ProposalKind::Resume,
        ProposalKind::Abort,
    ] {
        let (mut proposer, _) = Proposer::begin(proposal(kind), 0);
        let mut commands = Vec::new();
        for (number, promise) in (1..).zip(promises()) {
            commands = proposer.tell(Told::Prepared(node(number), Ok(promise)), 0);
        }
        assert_eq!(proposer.outcome(), Some(&Outcome::Changed), "{kind:?}");
        // A rollout that has not begun closes its own epoch; no other may order anything.
        let closing = if kind == ProposalKind::Rollout { 3 } else { 0 };
        assert_eq!(
            (commands.len(), reverts(&commands)),
            (closing, closing),
            "{kind:?}: {commands:?}"
        );
    }
}

#[test]
fn rule_4_a_build_that_is_revoked_anywhere_is_not_begun() {
    for kind in [ProposalKind::Rollout, ProposalKind::Resume] {
        let (mut proposer, _) = Proposer::begin(proposal(kind), 0);
        let revocation = Revocation {
            epoch: epoch(1),
            lifted: false,
            reason: "it loses orders".into(),
        };
        let knows = RegisterView {
            revocations: [(release(2).build.digest, revocation)].into(),
            ..*promise(vec![])
        };
        proposer.tell(Told::Prepared(node(1), Ok(Box::new(knows))), 0);
        proposer.tell(Told::Prepared(node(2), Ok(promise(vec![]))), 0);
        proposer.tell(Told::Prepared(node(3), Ok(promise(vec![]))), 0);
        let refused = matches!(proposer.outcome(), Some(Outcome::Refused(_)));
        assert!(refused, "{:?}", proposer.outcome());
    }
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

fn seen(number: usize, view: View) -> Told {
    Told::Seen(node(number), Box::new(view))
}

/// On probation for an epoch, and healthy for long enough.
fn clean(counter: u64) -> View {
    View {
        probation: Some(epoch(counter)),
        clean: true,
        ..View::default()
    }
}

#[test]
fn a_wave_waits_for_the_mesh_check_of_the_one_before() {
    let (mut proposer, commands) =
        prepared(ProposalKind::Rollout, [Ok(vec![]), Ok(vec![]), Ok(vec![])]);
    assert_eq!(commands, [Command::Activate(node(1))]);
    // What is left of an earlier epoch is not what was ordered.
    assert_eq!(proposer.tell(seen(1, clean(5)), 1), []);
    let check = [Command::CheckMesh(0)];
    assert_eq!(proposer.tell(seen(1, clean(9)), 2), check);
    let pending = MeshVerdict::Pending("an event is on its way".into());
    assert_eq!(proposer.tell(Told::MeshChecked(0, pending), 3), []);
    assert_eq!(proposer.tell(Told::Tick, 4), check);
    assert_eq!(
        proposer.tell(Told::MeshChecked(0, MeshVerdict::Passed), 5),
        [Command::Activate(node(2))]
    );
}

#[test]
fn only_votes_decide_and_only_what_has_heard_of_it_has_converged() {
    let (mut proposer, commands) =
        prepared(ProposalKind::Rollback, [Ok(vec![]), Ok(vec![]), Ok(vec![])]);
    assert_eq!(proposed(&commands).len(), 3);
    assert_eq!(proposer.tell(Told::Voted(node(1), Ok(())), 1), []);
    let confirmed = proposer.tell(Told::Voted(node(3), Ok(())), 2);
    assert_eq!(confirmed.len(), 3, "{confirmed:?}");
    let runs = |decided| View {
        running: Some(release(2)),
        steady: true,
        decided: epoch(decided),
        ..View::default()
    };
    proposer.tell(seen(1, runs(9)), 3);
    proposer.tell(seen(2, runs(9)), 4);
    // It ran that release before, and may be about to follow another record.
    proposer.tell(seen(3, runs(5)), 5);
    assert_eq!(proposer.outcome(), None);
    proposer.tell(Told::Tick, 2_000);
    let Some(Outcome::Decided { pending, failed }) = proposer.outcome() else {
        panic!("{:?}", proposer.outcome());
    };
    assert!(pending.keys().eq([&node(3)]) && failed.is_empty());
}

#[test]
fn a_node_is_back_once_it_shows_how_this_rollout_ended() {
    let (mut proposer, _) = prepared(ProposalKind::Rollout, [Ok(vec![]), Ok(vec![]), Ok(vec![])]);
    proposer.tell(seen(1, clean(9)), 1);
    let failed = MeshVerdict::Failed("an event was lost".into());
    let commands = proposer.tell(Told::MeshChecked(0, failed), 2);
    assert_eq!(reverts(&commands), 3);
    let back = |counter, outcome: Option<&str>| View {
        steady: true,
        last_rollout: Some((epoch(counter), outcome.map(str::to_owned))),
        ..View::default()
    };
    for number in 1..=3 {
        proposer.tell(seen(number, back(5, Some("committed"))), 3);
        proposer.tell(seen(number, back(9, None)), 4);
    }
    assert_eq!(proposer.outcome(), None);
    for number in 1..=3 {
        proposer.tell(seen(number, back(9, Some("went back"))), 5);
    }
    let Some(Outcome::Reverted { pending, .. }) = proposer.outcome() else {
        panic!("{:?}", proposer.outcome());
    };
    assert!(pending.is_empty());
}

#[test]
fn a_member_that_is_away_and_had_nothing_to_do_is_no_doubt() {
    let mut some = proposal(ProposalKind::Rollout);
    some.plan.waves.truncate(1);
    some.plan.whole_mesh = false;
    let (mut proposer, _) = Proposer::begin(some, 0);
    proposer.tell(Told::Prepared(node(1), Ok(promise(vec![]))), 0);
    proposer.tell(Told::Prepared(node(2), Ok(promise(vec![]))), 0);
    let commands = proposer.tell(Told::Prepared(node(3), Err(silent())), 0);
    assert_eq!(commands, [Command::Activate(node(1))]);
    let view = |outcome: Option<&str>| View {
        steady: true,
        last_rollout: outcome.map(|outcome| (epoch(9), Some(outcome.to_owned()))),
        ..View::default()
    };
    proposer.tell(seen(2, view(None)), 1);
    proposer.tell(seen(1, view(Some("went back"))), 2);
    proposer.tell(Told::Tick, 3);
    let Some(Outcome::Reverted {
        pending, failed, ..
    }) = proposer.outcome()
    else {
        panic!("{:?}", proposer.outcome());
    };
    assert!(pending.is_empty() && failed.is_empty(), "{pending:?}");
}

#[test]
fn the_mesh_check_stays_armed_while_a_wave_soaks() {
    for (verdict, ends) in [
        (MeshVerdict::Failed("x".into()), false),
        (MeshVerdict::Passed, true),
    ] {
        soak(verdict, ends);
    }
}

/// A wave soaks, and one more verdict comes: the soak ends in time, or the rollout goes back.
fn soak(verdict: MeshVerdict, ends: bool) {
    let mut soaking = proposal(ProposalKind::Rollout);
    soaking.plan.timing.soak_ms = 10_000;
    let (mut proposer, _) = Proposer::begin(soaking, 0);
    for number in 1..=3 {
        proposer.tell(Told::Prepared(node(number), Ok(promise(vec![]))), 0);
    }
    proposer.tell(seen(1, clean(9)), 1);
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
    let commands = proposer.tell(Told::MeshChecked(0, verdict), 5_002);
    assert_eq!(reverts(&commands), if ends { 0 } else { 3 });
    let next = proposer.tell(Told::Tick, 10_002);
    assert_eq!(next.contains(&Command::Activate(node(2))), ends);
}

#[test]
fn a_wave_waits_for_a_node_whose_start_keeps_it_busy_but_not_for_ever() {
    let verify_ms = Timing::default().verify_ms;
    let begin = || {
        let (mut proposer, _) =
            prepared(ProposalKind::Rollout, [Ok(vec![]), Ok(vec![]), Ok(vec![])]);
        proposer.tell(Told::Activated(node(1), Ok(())), 1);
        proposer
    };
    let starting = |is: bool, at: u64, proposer: &mut Proposer| {
        let view = View {
            probation: Some(epoch(9)),
            starting: is,
            ..View::default()
        };
        reverts(&proposer.tell(Told::Seen(node(1), Box::new(view)), at))
    };
    let mut idle = begin();
    assert_eq!(starting(false, verify_ms, &mut idle), 0);
    assert_eq!(starting(false, verify_ms + 2, &mut idle), 3);

    let mut busy = begin();
    let minute = 60_000;
    starting(false, minute, &mut busy);
    for at in [verify_ms, verify_ms + minute, 2 * verify_ms] {
        assert_eq!(starting(true, at, &mut busy), 0, "{at}");
    }
    // The minute before counts, and what comes after.
    assert_eq!(starting(false, 2 * verify_ms, &mut busy), 0);
    assert_eq!(starting(false, 3 * verify_ms - minute - 1, &mut busy), 0);
    assert_eq!(starting(false, 3 * verify_ms, &mut busy), 3);

    let mut liar = begin();
    starting(true, 0, &mut liar);
    let most = 30 * minute + verify_ms;
    assert_eq!(starting(true, most, &mut liar), 0);
    assert_eq!(starting(true, most + 2, &mut liar), 3);
}
