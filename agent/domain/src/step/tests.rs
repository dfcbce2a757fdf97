//! The rules, one by one: from a state, through events, to what the node shows after each.

mod halts;
mod hosts;
mod next_way_back;
mod stops;
mod triggers;
mod voters;
mod ways_back;

use super::step;
use crate::build::{BuildRef, Digest};
use crate::generation::Fallback;
use crate::id::NodeName;
use crate::node::{Action, Context, Effect, Event, Node, Prepare, ProposalKind, Refusal, Reply};
use crate::phase::{CauseKind, Phase};
use crate::register::{Answer, Epoch, Record, RecordKind, Revocation, Revocations};
use crate::release::Release;
use crate::starts::Memory;
use crate::time::{BootId, Now};
use crate::trigger::Policy;
use std::collections::{BTreeMap, BTreeSet};

const LEASE_MS: u64 = 60_000;

fn name(text: &str) -> NodeName {
    text.parse().expect("a valid name")
}

fn epoch(counter: u64) -> Epoch {
    Epoch { counter, nonce: 7 }
}

fn release(version: u64) -> Release {
    let text = format!("cbddc@{version}");
    let digest = Digest::of(text.as_bytes());
    let id = text.parse().expect("a valid build name");
    Release::of_build(BuildRef { id, digest })
}

fn record(counter: u64, version: u64) -> Record {
    Record {
        epoch: epoch(counter),
        kind: RecordKind::Rollout,
        release: Some(release(version)),
        exceptions: BTreeMap::new(),
        voters: ["a", "b", "c"].map(name).into(),
        previous: None,
        forced: false,
        revokes: BTreeMap::new(),
        lifts: BTreeMap::new(),
        restores: BTreeSet::new(),
        proposed_by: "ana".into(),
        reason: "a test".into(),
    }
}

fn revoking(counter: u64, version: u64, revoked: u64) -> Record {
    let revokes = [(release(revoked).build.digest, "it loses orders".to_owned())];
    Record {
        revokes: revokes.into(),
        ..record(counter, version)
    }
}

fn revocation(version: u64) -> Event {
    let revocation = Revocation {
        epoch: epoch(1),
        lifted: false,
        reason: "it loses orders".into(),
    };
    let revocations = [(release(version).build.digest, revocation)];
    Event::HearRevocations(Revocations::from(revocations))
}

fn prepare_as(counter: u64, version: u64, kind: ProposalKind) -> Event {
    Event::Prepare(Box::new(Prepare {
        epoch: epoch(counter),
        kind,
        holder: "ana".into(),
        what: "a test".into(),
        lease_ms: LEASE_MS,
        next: (version > 0).then(|| release(version)),
        plan: None,
    }))
}

fn prepare(counter: u64, version: u64) -> Event {
    prepare_as(counter, version, ProposalKind::Rollout)
}

fn activate(counter: u64, version: u64) -> Event {
    Event::Activate {
        epoch: epoch(counter),
        release: Box::new(release(version)),
        probation_ms: LEASE_MS,
        changes_persistence: false,
    }
}

fn renew(counter: u64) -> Event {
    Event::Renew {
        epoch: epoch(counter),
        lease_ms: LEASE_MS,
    }
}

fn revert(counter: u64) -> Event {
    Event::Revert {
        epoch: epoch(counter),
        cause: "told to".into(),
    }
}

fn learn(record: Record) -> Event {
    Event::Learn(Box::new(record))
}

fn vote(record: Record) -> Event {
    Event::Vote(Box::new(record))
}

fn hear(voter: &str, record: Record) -> Event {
    Event::Hear {
        voter: name(voter),
        record: Box::new(record),
    }
}

fn answered(voter: &str, counter: u64, answer: Answer) -> Event {
    Event::Answered {
        voter: name(voter),
        epoch: epoch(counter),
        answer,
        voted: None,
    }
}

/// What happens, and when.
enum At {
    /// An event.
    Event(Event),
    /// The awaited effect succeeds.
    Done,
    /// The awaited effect fails.
    Failed,
    /// Milliseconds pass, and a tick comes.
    After(u64),
    /// The agent starts again.
    Crash {
        /// Whether the whole host went down.
        host: bool,
    },
}

/// Node `a` of a mesh of three, and its clock.
#[derive(Clone)]
struct Bench {
    node: Node,
    since_boot_ms: u64,
    boot: u64,
    /// Whether a voter tells at once, after each start, that it remembers this node as it is.
    remembered: bool,
    policy: Policy,
    /// The kinds of all journal entries.
    told: Vec<&'static str>,
}

impl Bench {
    fn new() -> Self {
        Self {
            node: Node::default(),
            since_boot_ms: 1_000,
            boot: 1,
            remembered: true,
            policy: Policy::default(),
            told: Vec::new(),
        }
    }

    /// How many journal entries of a kind there are.
    fn told(&self, kind: &str) -> usize {
        self.told.iter().filter(|one| **one == kind).count()
    }

    fn now(&self) -> Now {
        Now {
            boot: BootId(format!("boot {}", self.boot)),
            since_boot_ms: self.since_boot_ms,
            wall_ms: i64::try_from(self.since_boot_ms).expect("a test's time"),
        }
    }

    fn context(&self) -> Context {
        Context {
            name: name("a"),
            voters: ["a", "b", "c"].map(name).into(),
            ask_limit_ms: 5_000,
            policy: self.policy.clone(),
        }
    }

    /// Takes an event and says in words what the node shows.
    fn take(&mut self, at: At) -> String {
        let pending = self.node.pending.as_ref().map(|pending| pending.number);
        let number = pending.unwrap_or(u64::MAX);
        let event = match at {
            At::Event(event) => event,
            Done => Event::Done { number, note: None },
            Failed => Event::Failed {
                number,
                error: "no".into(),
            },
            After(ms) => {
                self.since_boot_ms += ms;
                Event::Tick
            }
            Crash { host } => {
                self.boot += u64::from(host);
                Event::Started {
                    node_runs: !host,
                    wait_ms: 0,
                    nonce: self.since_boot_ms,
                }
            }
        };
        let (now, context) = (self.now(), self.context());
        let started = matches!(event, Event::Started { .. });
        let taken = match step(&context, &self.node, event, &now) {
            Ok(taken) => taken,
            Err(refusal) => return format!("refused {}", refusal.word()),
        };
        self.node = taken.node;
        self.told
            .extend(taken.entries.iter().map(|entry| entry.kind));
        if started && self.remembered {
            self.node.starts.memory = Memory::Sound;
        }
        let asks = taken
            .actions
            .iter()
            .any(|action| matches!(action, Action::AskVoters(..)));
        let answer = match taken.reply {
            Reply::Answer(answer) => format!(", answers {answer:?}").to_lowercase(),
            Reply::Ok => String::new(),
        };
        format!(
            "{}{}{answer}",
            shown(&self.node),
            if asks { ", asks" } else { "" }
        )
    }

    /// What refuses an event now.
    fn refusal(&self, event: Event) -> Option<Refusal> {
        step(&self.context(), &self.node, event, &self.now()).err()
    }

    fn after(mut self, events: impl IntoIterator<Item = At>) -> Self {
        for at in events {
            self.take(at);
        }
        self
    }
}

/// A phase and the awaited effect in words.
fn shown(node: &Node) -> String {
    let phase = match &node.phase {
        Phase::Steady { running } => format!("steady {}", running.unwrap_or(0)),
        Phase::Prepared { .. } => "prepared".into(),
        Phase::Switching(switch) => format!("switching {}", switch.to),
        Phase::Probation(probation) => format!("probation {}", probation.running),
        Phase::Reverting(revert) => format!("reverting {}", revert.left),
        Phase::Stuck { .. } => "stuck".into(),
    };
    let effect = node.pending.as_ref().map(|pending| match pending.effect {
        Effect::Fetch(_) => " fetch",
        Effect::Drain => " drain",
        Effect::Stop => " stop",
        Effect::Snapshot(_) => " snapshot",
        Effect::Restore(..) => " restore",
        Effect::Point(_) => " point",
        Effect::Start => " start",
        Effect::Restart => " restart",
        Effect::Halt => " halt",
        Effect::Check => " check",
    });
    format!("{phase}{}", effect.unwrap_or_default())
}

/// From `start`, each event must lead to what stands beside it.
fn check<const N: usize>(start: Bench, events: [(At, &str); N]) -> Bench {
    let mut bench = start;
    for (index, (at, expected)) in events.into_iter().enumerate() {
        assert_eq!(bench.take(at), expected, "after event {index}");
    }
    bench
}

use At::{After, Crash, Done, Event as On, Failed};

/// Generation 1 runs release 1, committed by epoch 1.
fn steady() -> Bench {
    let dones = (0..6).map(|_| Done);
    let bench = Bench::new().after([On(learn(record(1, 1)))].into_iter().chain(dones));
    assert_eq!(shown(&bench.node), "steady 1");
    bench
}

/// Prepared by epoch 2 for release 2.
fn prepared() -> Bench {
    steady().after([On(prepare(2, 2))])
}

/// Draining for generation 2.
fn switching() -> Bench {
    prepared().after([On(activate(2, 2))])
}

/// Generation 2 runs release 2 on probation for epoch 2.
fn probation() -> Bench {
    let bench = switching().after((0..5).map(|_| Done));
    assert_eq!(shown(&bench.node), "probation 2");
    bench
}

/// Going back from generation 2, with its start awaited.
fn reverting() -> Bench {
    let bench = probation().after([On(revert(2)), Done, Done]);
    assert_eq!(shown(&bench.node), "reverting 2 start");
    bench
}

#[test]
fn the_way_of_a_good_rollout() {
    let bench = check(
        steady(),
        [
            (On(prepare(2, 2)), "prepared"),
            (On(activate(2, 2)), "switching 2 drain"),
            (Done, "switching 2 stop"),
            (Done, "switching 2 snapshot"),
            (Done, "switching 2 point"),
            (Done, "switching 2 start"),
            (Done, "probation 2"),
            (On(Event::Clean(2)), "probation 2"),
            (On(vote(record(2, 2))), "probation 2"),
            (On(hear("b", record(2, 2))), "steady 2"),
        ],
    );
    let generation = bench.node.history.get(2).expect("it runs");
    assert_eq!(generation.committed, Some(epoch(2)));
    assert_eq!(bench.node.lease, None);
}

#[test]
fn the_first_release_falls_back_to_nothing() {
    let bench = Bench::new().after([On(prepare(2, 2)), On(activate(2, 2))]);
    check(
        bench,
        [
            (Failed, "reverting 1 stop"),
            (Done, "reverting 1 point"),
            (Done, "steady 0"),
        ],
    );
}

#[test]
fn rule_2_a_vote_is_kept_until_a_decided_record_of_an_equal_or_higher_epoch() {
    let voted = steady().after([On(vote(record(2, 2)))]);
    assert!(voted.node.register.votes.contains_key(&epoch(2)));
    let older = voted.clone().after([On(learn(record(1, 1)))]);
    assert!(older.node.register.votes.contains_key(&epoch(2)));
    let newer = voted.after([On(learn(record(3, 1)))]);
    assert!(newer.node.register.votes.is_empty());
}

#[test]
fn rule_3_only_a_higher_epoch_is_promised_and_only_a_free_node_prepares_a_rollout() {
    let rollback = |counter| On(prepare_as(counter, 0, ProposalKind::Rollback));
    check(
        prepared(),
        [
            (On(prepare(2, 2)), "prepared"),
            (On(prepare(3, 3)), "refused locked"),
            (rollback(1), "refused epoch_behind"),
            (rollback(3), "steady 1"),
            (On(prepare(2, 2)), "refused locked"),
            (After(LEASE_MS), "steady 1"),
            (On(prepare(2, 2)), "refused epoch_behind"),
            (On(prepare(4, 4)), "prepared"),
            (After(LEASE_MS), "steady 1"),
        ],
    );
    let lease_over = probation().after([Crash { host: false }]);
    let mut busy = lease_over;
    busy.node.lease = None;
    check(
        busy,
        [
            (On(prepare(3, 3)), "refused busy"),
            (On(prepare_as(3, 2, ProposalKind::Resume)), "probation 2"),
            (On(prepare_as(4, 0, ProposalKind::Abort)), "probation 2"),
        ],
    );
}

#[test]
fn rule_3_a_decided_record_that_orders_nothing_here_ends_prepared_as_well() {
    let elsewhere = Record {
        release: None,
        ..record(2, 2)
    };
    let bench = Bench::new().after([On(prepare(2, 2))]);
    check(bench, [(On(learn(elsewhere)), "steady 0")]);
}

#[test]
fn rule_5_activation_needs_the_promised_epoch_its_lease_and_an_unrevoked_build() {
    check(
        prepared(),
        [
            (On(activate(1, 2)), "refused epoch_behind"),
            (On(activate(3, 2)), "refused epoch_behind"),
            (On(activate(2, 3)), "refused busy"),
            (On(revocation(2)), "prepared"),
            (On(activate(2, 2)), "refused build_revoked"),
        ],
    );
    let mut late = prepared();
    late.since_boot_ms += LEASE_MS;
    check(late, [(On(activate(2, 2)), "refused no_lease")]);
    let same = steady().after([On(prepare(2, 1))]);
    check(same, [(On(activate(2, 1)), "refused unknown")]);
}

#[test]
fn rule_6_votes_are_refused_below_the_promise_and_for_what_is_revoked() {
    let others = Record {
        voters: ["a", "b"].map(name).into(),
        ..record(2, 2)
    };
    check(
        prepared(),
        [
            (On(vote(record(1, 2))), "refused other_record"),
            (On(vote(others)), "refused other_voters"),
            (On(vote(record(2, 2))), "prepared"),
            (On(vote(record(2, 2))), "prepared"),
            (On(vote(record(2, 3))), "refused other_record"),
            (On(vote(record(3, 2))), "prepared"),
            (On(vote(record(2, 2))), "prepared"),
            (On(revocation(3)), "prepared"),
            (On(vote(record(4, 3))), "refused build_revoked"),
        ],
    );
    let fenced = steady().after([On(learn(record(5, 1)))]);
    check(fenced, [(On(vote(record(4, 2))), "refused epoch_behind")]);
}

#[test]
fn rule_7_a_majority_decides_and_a_vote_counts_once() {
    check(
        probation(),
        [
            (On(hear("b", record(2, 2))), "probation 2"),
            (On(hear("b", record(2, 2))), "probation 2"),
            (On(hear("x", record(2, 2))), "probation 2"),
            (On(hear("c", record(2, 3))), "probation 2"),
            (On(hear("c", record(2, 2))), "steady 2"),
        ],
    );
}

#[test]
fn rule_8_a_confirmed_node_refuses_to_go_back() {
    let confirmed = probation().after([On(learn(record(2, 2)))]);
    check(
        confirmed,
        [
            (On(revert(2)), "refused confirmed"),
            (On(revert(1)), "refused confirmed"),
            (On(revert(3)), "steady 2"),
            (After(10 * LEASE_MS), "steady 2"),
        ],
    );
}

#[test]
fn rule_9_a_majority_of_noes_aborts() {
    let bench = check(
        probation(),
        [
            (After(LEASE_MS), "probation 2, asks"),
            (On(answered("b", 1, Answer::No)), "probation 2"),
            (On(answered("x", 2, Answer::No)), "probation 2"),
            (On(answered("b", 2, Answer::No)), "reverting 2 stop"),
        ],
    );
    assert_eq!(cause(&bench), CauseKind::Aborted);
    assert_eq!(bench.node.held, None, "a revert by timer sets no hold");
}

#[test]
fn rule_9_too_few_answers_are_in_doubt() {
    let voted = probation().after([On(vote(record(2, 2)))]);
    let bench = check(
        voted,
        [
            (After(LEASE_MS), "probation 2, asks"),
            (On(answered("b", 2, Answer::No)), "probation 2"),
            (After(5_000), "reverting 2 stop"),
        ],
    );
    assert_eq!(cause(&bench), CauseKind::InDoubt);
}

#[test]
fn rule_9_a_vote_that_makes_a_majority_confirms() {
    let voted = probation().after([On(vote(record(2, 2))), After(LEASE_MS)]);
    let yes = Event::Answered {
        voter: name("b"),
        epoch: epoch(2),
        answer: Answer::Voted,
        voted: Some(Box::new(record(2, 2))),
    };
    check(voted, [(On(yes), "steady 2")]);
}

#[test]
fn rule_9_who_asks_has_sealed_its_epoch_and_never_renews_or_votes() {
    check(
        probation(),
        [
            (After(LEASE_MS), "probation 2, asks"),
            (On(renew(2)), "refused epoch_sealed"),
            (On(vote(record(2, 2))), "refused epoch_sealed"),
        ],
    );
}

#[test]
fn rule_9_who_answers_no_has_sealed_the_epoch() {
    check(
        prepared(),
        [
            (On(Event::Ask(epoch(2))), "prepared, answers no"),
            (On(renew(2)), "refused epoch_sealed"),
            (On(activate(2, 2)), "refused epoch_sealed"),
            (On(vote(record(2, 2))), "refused epoch_sealed"),
        ],
    );
    check(
        prepared(),
        [
            (On(vote(record(2, 2))), "prepared"),
            (On(Event::Ask(epoch(2))), "prepared, answers voted"),
            (On(hear("c", record(2, 2))), "switching 2 fetch"),
            (
                On(Event::Ask(epoch(2))),
                "switching 2 fetch, answers decided",
            ),
        ],
    );
}

#[test]
fn rule_9_a_promise_is_no_decision() {
    check(
        prepared(),
        [
            (On(prepare_as(3, 0, ProposalKind::Rollback)), "steady 1"),
            (On(Event::Ask(epoch(2))), "steady 1, answers no"),
        ],
    );
}

#[test]
fn rule_9_nobody_answers_no_about_a_vote_that_it_may_have_forgotten() {
    let bench = steady().after([On(vote(record(2, 2))), On(learn(record(3, 1)))]);
    check(
        bench,
        [(On(Event::Ask(epoch(2))), "steady 1, answers decided")],
    );
}

#[test]
fn rule_9_another_boot_ends_a_probation() {
    check(
        probation(),
        [
            (Crash { host: false }, "probation 2"),
            (Crash { host: true }, "probation 2, asks"),
        ],
    );
}

#[test]
fn rule_9_a_node_confirmed_after_a_reboot_is_started() {
    check(
        probation(),
        [
            (Crash { host: true }, "probation 2, asks"),
            (On(learn(record(2, 2))), "steady 2"),
            (After(1_000), "steady 2 start"),
        ],
    );
}

#[test]
fn rule_10_every_revert_closes_its_epoch() {
    check(
        reverting(),
        [
            (Done, "reverting 2 check"),
            (Done, "steady 1"),
            (On(activate(2, 2)), "refused epoch_closed"),
            (On(vote(record(2, 2))), "refused epoch_closed"),
            (On(renew(2)), "refused epoch_closed"),
        ],
    );
}

#[test]
fn rule_10_what_failed_here_is_held_until_a_higher_epoch() {
    let failed = Event::CheckFailed {
        generation: 2,
        cause: "unhealthy".into(),
    };
    let back = [Done, Done, Done, Done];
    let bench = probation().after([On(vote(record(2, 2))), On(failed)].into_iter().chain(back));
    check(
        bench,
        [
            (On(learn(record(2, 2))), "steady 1"),
            (After(10 * LEASE_MS), "steady 1"),
            (On(learn(record(3, 2))), "switching 3 fetch"),
        ],
    );
}

#[test]
fn rule_10_what_went_back_by_timer_converges_once_it_is_decided() {
    let bench = probation().after([On(vote(record(2, 2))), After(LEASE_MS), After(5_000)]);
    check(
        bench.after([Done, Done, Done, Done]),
        [
            (On(learn(record(2, 2))), "switching 3 fetch"),
            (Failed, "steady 1 start"),
            (Done, "steady 1"),
            (After(1_000), "switching 4 fetch"),
            (Done, "switching 4 drain"),
            (Done, "switching 4 stop"),
            (Done, "switching 4 snapshot"),
            (Done, "switching 4 point"),
            (Done, "switching 4 start"),
            (Done, "switching 4 check"),
            (Failed, "reverting 4 stop"),
            (Done, "reverting 4 point"),
            (Done, "reverting 4 start"),
            (Done, "reverting 4 check"),
            (Done, "steady 1"),
            (After(10 * LEASE_MS), "steady 1"),
        ],
    );
}

#[test]
fn rule_11_only_the_highest_record_is_followed() {
    let newer = steady().after([On(learn(record(3, 1)))]);
    check(newer, [(On(learn(record(2, 2))), "steady 1")]);
    check(probation(), [(On(learn(record(1, 1))), "probation 2")]);
}

#[test]
fn rule_11_a_superseded_probation_switches_directly() {
    check(
        probation(),
        [(On(learn(record(3, 1))), "switching 3 fetch")],
    );
    // Where it cannot, what runs is still the superseded generation, which has to be left.
    check(
        probation(),
        [
            (On(learn(record(3, 3))), "switching 3 fetch"),
            (Failed, "reverting 3 stop"),
            (Done, "reverting 3 point"),
        ],
    );
}

#[test]
fn rule_11_the_way_back_leads_to_a_committed_and_unrevoked_generation() {
    let bench = check(
        probation(),
        [
            (On(revocation(1)), "probation 2"),
            (On(revert(2)), "reverting 2 stop"),
            (Done, "stuck stop"),
            (Done, "stuck"),
            (On(learn(record(3, 3))), "switching 3 fetch"),
            (Done, "switching 3 stop"),
        ],
    );
    let Phase::Switching(switch) = &bench.node.phase else {
        panic!("it switches");
    };
    assert_eq!(switch.from, Fallback::Nothing);
}

/// Generations 1, 2 and 3 ran releases 1, 2 and 3 and were committed; the last one still runs.
fn third() -> Bench {
    let converged = |version| {
        let dones = (0..7).map(|_| Done);
        [On(learn(record(version, version)))]
            .into_iter()
            .chain(dones)
    };
    let bench = steady().after(converged(2)).after(converged(3));
    assert_eq!(shown(&bench.node), "steady 3");
    bench
}

#[test]
fn rule_11_the_way_back_leads_to_what_ran_before() {
    let steps = [On(learn(record(4, 4))), Done, Done, Done];
    check(
        third().after(steps),
        [
            (Done, "switching 4 point"),
            (Failed, "reverting 4 stop"),
            (Done, "reverting 4 point"),
            (Done, "reverting 4 start"),
            (Done, "reverting 4 check"),
            (Done, "steady 3"),
        ],
    );
}

#[test]
fn rule_11_the_way_back_prefers_what_is_ordered() {
    check(
        third(),
        [
            (On(learn(record(4, 1))), "switching 4 fetch"),
            (Done, "switching 4 drain"),
            (Done, "switching 4 stop"),
            (Done, "switching 4 snapshot"),
            (Done, "switching 4 point"),
            (Failed, "reverting 4 stop"),
            (Done, "reverting 4 point"),
            (Done, "reverting 4 start"),
            (Done, "reverting 4 check"),
            (Done, "steady 1"),
        ],
    );
}

#[test]
fn rule_11_a_node_that_cannot_go_back_is_stuck() {
    check(
        reverting(),
        [
            (Failed, "reverting 2 start"),
            (Failed, "reverting 2 start"),
            (Failed, "stuck stop"),
            (Done, "stuck"),
            (Crash { host: true }, "stuck stop"),
            (On(learn(record(3, 3))), "stuck stop"),
            (Done, "switching 3 fetch"),
        ],
    );
}

#[test]
fn rule_12_a_rollback_is_taken_in_any_state() {
    let rollback = |counter| On(prepare_as(counter, 0, ProposalKind::Rollback));
    check(
        reverting(),
        [
            (rollback(3), "reverting 2 start"),
            (On(vote(revoking(3, 3, 2))), "reverting 2 start"),
            (On(hear("b", revoking(3, 3, 2))), "reverting 2 start"),
            (Done, "reverting 2 check"),
            (Done, "switching 3 fetch"),
        ],
    );
    check(
        switching(),
        [
            (On(learn(revoking(3, 1, 2))), "switching 2 drain"),
            (Done, "steady 1 start"),
            (Done, "steady 1"),
        ],
    );
}

#[test]
fn rule_14_a_revoked_build_is_not_started_on_the_way() {
    let about_to_start = switching().after([Done, Done, Done]);
    check(
        about_to_start,
        [
            (On(revocation(2)), "switching 2 point"),
            (Done, "reverting 2 stop"),
        ],
    );
    check(
        reverting(),
        [
            (On(revocation(1)), "reverting 2 start"),
            (Failed, "reverting 2 stop"),
            (Done, "stuck stop"),
        ],
    );
}

#[test]
fn rule_14_a_revoked_build_is_not_started_after_a_crash() {
    let bench = steady().after([On(revocation(1))]);
    check(bench, [(Crash { host: true }, "steady 1")]);
    let converging = steady().after([On(learn(record(2, 2)))]);
    let starting = converging.after((0..5).map(|_| Done));
    assert_eq!(shown(&starting.node), "switching 2 start");
    check(
        starting,
        [
            (On(revocation(2)), "switching 2 start"),
            (Crash { host: true }, "reverting 2 stop"),
        ],
    );
}

#[test]
fn rule_14_a_fetch_that_fails_does_not_start_the_revoked_build() {
    let bench = steady().after([On(learn(revoking(2, 2, 1)))]);
    check(
        bench,
        [
            (Crash { host: true }, "switching 2 fetch"),
            (Failed, "steady 1"),
            (After(1_000), "switching 3 fetch"),
        ],
    );
}

#[test]
fn a_fetch_that_fails_again_and_again_keeps_the_history() {
    let mut bench = steady().after([On(learn(record(2, 2)))]);
    for _ in 0..100 {
        bench = bench.after([Failed, Done, After(LEASE_MS)]);
    }
    assert_eq!(bench.node.history.iter().count(), 2);
}

#[test]
fn an_interrupted_switch_goes_back_and_an_interrupted_convergence_goes_on() {
    check(switching(), [(Crash { host: false }, "steady 1 start")]);
    let stopped = switching().after([Done]);
    check(stopped, [(Crash { host: false }, "reverting 2 stop")]);
    check(reverting(), [(Crash { host: true }, "reverting 2 start")]);
    let begun = probation().after([On(revert(2))]);
    check(begun, [(Crash { host: false }, "reverting 2 stop")]);
    let converging = steady().after([On(learn(record(2, 2)))]);
    let checking = converging.after((0..6).map(|_| Done));
    assert_eq!(shown(&checking.node), "switching 2 check");
    check(checking, [(Crash { host: true }, "switching 2 start")]);
}

#[test]
fn a_resume_takes_probations_over() {
    let bench = probation().after([On(prepare_as(3, 2, ProposalKind::Resume))]);
    let taken = check(
        bench,
        [
            (After(LEASE_MS - 1_000), "probation 2"),
            (On(renew(2)), "refused epoch_behind"),
            (On(renew(3)), "probation 2"),
            (After(2_000), "probation 2"),
            (On(activate(3, 2)), "probation 2"),
            (On(revert(2)), "refused epoch_behind"),
        ],
    );
    let Phase::Probation(probation) = &taken.node.phase else {
        panic!("it is on probation");
    };
    assert_eq!(probation.epoch, epoch(3));
}

#[test]
fn a_node_that_ends_by_itself_is_started_again() {
    let exited = || {
        On(Event::Exited {
            how: "exit 1".into(),
        })
    };
    check(
        steady(),
        [
            (exited(), "steady 1"),
            (After(1_000), "steady 1 start"),
            (Done, "steady 1"),
        ],
    );
    let bench = check(probation(), [(exited(), "reverting 2 stop")]);
    assert_eq!(cause(&bench), CauseKind::CheckFailed);
}

#[test]
fn a_restored_release_stays_committed() {
    let restore = || {
        On(Event::Restore {
            snapshot: "before-g1".into(),
            by: "ana".into(),
        })
    };
    check(Bench::new(), [(restore(), "refused unknown")]);
    let bench = check(
        steady(),
        [
            (restore(), "switching 2 drain"),
            (Done, "switching 2 stop"),
            (Done, "switching 2 snapshot"),
            (Done, "switching 2 restore"),
            (Done, "switching 2 point"),
            (Done, "switching 2 start"),
            (Done, "switching 2 check"),
            (Done, "steady 2"),
        ],
    );
    assert_eq!(bench.node.owed, ["replaced-g2"]);
    let generation = bench.node.history.get(2).expect("it runs");
    assert_eq!(generation.committed, Some(epoch(1)));
}

fn cause(bench: &Bench) -> CauseKind {
    match &bench.node.phase {
        Phase::Reverting(revert) => revert.cause.kind,
        Phase::Steady { .. }
        | Phase::Prepared { .. }
        | Phase::Switching(_)
        | Phase::Probation(_)
        | Phase::Stuck { .. } => panic!("it goes back"),
    }
}
