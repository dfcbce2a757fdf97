//! Promises of old and new voters, and changes that another client left undecided (rule 15).

use super::*;
use crate::register::HeardVotes;

/// The three members give way to the third and two others.
fn change(counter: u64) -> Record {
    Record {
        kind: RecordKind::Voters,
        epoch: epoch(counter),
        voters: (3..=5).map(node).collect(),
        previous: Some(members()),
        ..vote()
    }
}

fn asked(commands: &[Command]) -> BTreeSet<NodeName> {
    let asked = commands.iter().filter_map(|command| match command {
        Command::Prepare(node, _) => Some(node.clone()),
        Command::Activate(_)
        | Command::Renew(_)
        | Command::CheckMesh(_)
        | Command::Vote(..)
        | Command::Confirm(..)
        | Command::Revert(..) => None,
    });
    asked.collect()
}

fn all_vote(proposer: &mut Proposer, commands: &[Command]) -> Vec<Command> {
    let voters = commands.iter().filter_map(|command| match command {
        Command::Vote(node, _) => Some(node.clone()),
        Command::Prepare(..)
        | Command::Activate(_)
        | Command::Renew(_)
        | Command::CheckMesh(_)
        | Command::Confirm(..)
        | Command::Revert(..) => None,
    });
    let voters: Vec<_> = voters.collect();
    let mut last = Vec::new();
    for voter in voters {
        last = proposer.tell(Told::Voted(voter, Ok(())), 0);
    }
    last
}

#[test]
fn rule_15_an_undecided_change_of_voters_is_finished_first() {
    for kind in [
        ProposalKind::Rollback,
        ProposalKind::Resume,
        ProposalKind::Abort,
        ProposalKind::Amend,
    ] {
        let answers = [Ok(vec![change(5)]), Ok(vec![change(5)]), Ok(vec![])];
        let (mut proposer, commands) = prepared(kind, answers);
        assert_eq!(asked(&commands), (4..=5).map(node).collect(), "{kind:?}");
        assert!(
            proposer
                .tell(Told::Prepared(node(4), Ok(promise(vec![]))), 0)
                .is_empty()
        );
        let commands = proposer.tell(Told::Prepared(node(5), Err(silent())), 0);
        let again = Record {
            release: None,
            ..change(9)
        };
        assert_eq!(proposed(&commands), [&again; 5], "{kind:?}");
        all_vote(&mut proposer, &commands);
        assert_eq!(proposer.outcome(), Some(&Outcome::Changed), "{kind:?}");
    }
    let answers = [Ok(vec![change(5)]), Ok(vec![change(5)]), Ok(vec![])];
    let (mut rollout, _) = prepared(ProposalKind::Rollout, answers);
    for new in 4..=5 {
        rollout.tell(Told::Prepared(node(new), Ok(promise(vec![]))), 0);
    }
    assert_eq!(rollout.outcome(), Some(&Outcome::Undecided(epoch(5))));
}

#[test]
fn rule_15_a_majority_of_every_set_that_may_decide_has_to_promise() {
    let answers = [Ok(vec![change(5)]), Ok(vec![change(5)]), Ok(vec![])];
    let (mut proposer, _) = prepared(ProposalKind::Rollback, answers);
    for new in 4..=5 {
        proposer.tell(Told::Prepared(node(new), Err(silent())), 0);
    }
    assert!(matches!(proposer.outcome(), Some(Outcome::Refused(_))));
}

#[test]
fn rule_15_a_change_that_no_majority_can_vote_for_any_more_is_passed_over() {
    let answers = [Ok(vec![change(5)]), Ok(vec![]), Ok(vec![])];
    let (_, commands) = prepared(ProposalKind::Rollback, answers);
    assert!(asked(&commands).is_empty());
    assert_eq!(
        proposed(&commands).first().map(|r| r.kind),
        Some(RecordKind::Rollout)
    );
    // Not where one of them may have voted for it and forgotten it, but has heard of it since.
    let mut forgetful = promise(vec![]);
    forgetful.heard.push(HeardVotes {
        record: change(5),
        voters: [node(1)].into(),
    });
    let (mut proposer, _) = Proposer::begin(proposal(ProposalKind::Rollback), 0);
    proposer.tell(Told::Prepared(node(1), Ok(promise(vec![change(5)]))), 0);
    proposer.tell(Told::Prepared(node(2), Ok(forgetful)), 0);
    let commands = proposer.tell(Told::Prepared(node(3), Ok(promise(vec![]))), 0);
    assert_eq!(asked(&commands), (4..=5).map(node).collect());
}

#[test]
fn rule_15_the_newest_record_decided_by_votes_says_who_votes() {
    let mut view = promise(vec![]);
    view.elected = Some(change(3));
    view.decided = Some(Record {
        forced: true,
        voters: members(),
        ..vote()
    });
    let mut proposal = proposal(ProposalKind::Rollback);
    proposal.based_on = epoch(5);
    let (mut proposer, _) = Proposer::begin(proposal, 0);
    for old in 1..=2 {
        proposer.tell(Told::Prepared(node(old), Ok(promise(vec![]))), 0);
    }
    let commands = proposer.tell(Told::Prepared(node(3), Ok(view)), 0);
    assert_eq!(asked(&commands), (4..=5).map(node).collect());
    proposer.tell(Told::Prepared(node(4), Ok(promise(vec![]))), 0);
    let commands = proposer.tell(Told::Prepared(node(5), Err(silent())), 0);
    let records = proposed(&commands);
    assert_eq!(records.len(), 3);
    assert_eq!(records[0].voters, change(3).voters);
}

#[test]
fn rule_16_an_agent_that_has_just_started_is_asked_again() {
    let starting = || Failure::Refused {
        word: "starting".into(),
        text: "try again in a moment".into(),
    };
    let answers = [Ok(vec![]), Err(starting()), Ok(vec![])];
    let (mut proposer, commands) = prepared(ProposalKind::Rollback, answers);
    assert!(commands.is_empty());
    assert!(proposer.tell(Told::Tick, 500).is_empty());
    let commands = proposer.tell(Told::Tick, 1_000);
    assert_eq!(asked(&commands), [node(2)].into());
    let commands = proposer.tell(Told::Prepared(node(2), Err(starting())), 20_000);
    assert_eq!(
        proposed(&commands).len(),
        3,
        "it goes on without it in the end"
    );
}
