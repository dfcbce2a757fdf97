//! Thousands of simulated meshes, each from its seed; every step is held to the rules.
//!
//! `CBDDC_SIM_SEED=n` runs one seed and shows what happened; `CBDDC_SIM_SEEDS=count` sets how many
//! are run, `CBDDC_SIM_LINES` how much of a trace is shown.
//!
//! That it can fail was tried by breaking the code, a rule at a time. What noticed it first, and in
//! which seed (a name of a test is one of the tables in `step/tests.rs` or `proposer/tests.rs`):
//!
//! | what was broken | noticed by |
//! | --- | --- |
//! | 3: a rollout stays prepared without a lease | `rule_3_a_decided_record_that_orders_nothing_here…` |
//! | 3: prepares a rollout while busy | seed 2 |
//! | 4: a client that sent votes orders reverts | seed 1044 |
//! | 4: an abort ignores an undecided vote | `rule_4_an_abort_and_a_resume_propose…`, seed 1933 |
//! | 4: a resume ignores an undecided vote | `rule_4_an_abort_and_a_resume_propose…`, seed 827 |
//! | 4: a rollout ignores an undecided vote | `rule_4_a_rollout_stops_at_an_undecided_vote…` |
//! | 4: an undecided vote is proposed again in its old epoch | seed 827 |
//! | 4: not the newest undecided vote is proposed again | `rule_4_an_abort_and_a_resume_propose…` |
//! | 4: all but a rollout act without a majority | `rule_4_without_a_majority…`, seed 4392 |
//! | 4: all but a rollout order reverts when they give up | `rule_4_without_a_majority…` |
//! | 4: a dead epoch is reverted only where it was promised | `rule_4_a_dead_epoch_is_reverted_everywhere` |
//! | 4: a rollout or a rollback goes by a stale record | `rule_4_nothing_is_done_about…`, seed 494 |
//! | 4: an abort goes by a stale record | `rule_4_nothing_is_done_about…`, seed 257 |
//! | 4: a wave is clean by a view of an earlier epoch | `a_wave_waits_for_the_mesh_check…` |
//! | 4: a node is back by a view of an earlier epoch | `a_node_is_back_once_it_shows…` |
//! | 5: activates below the promise | `rule_5_activation_needs_the_promised_epoch…` |
//! | 6: votes below the promise | `rule_6_votes_are_refused_below_the_promise…`, seed 5980 |
//! | 6: half of the voters decide | seed 449 |
//! | 6: a promise counts as a vote | `only_votes_decide…`, seed 3 |
//! | 6: converged by a view of an earlier epoch | `only_votes_decide…` |
//! | 8: confirms by a peer's vote alone | seed 145 |
//! | 8: a confirmed node takes a revert | seed 4 |
//! | 9: answers no without sealing | seed 2 |
//! | 9: answers no although it voted | `rule_9_who_answers_no_has_sealed_the_epoch`, seed 77 |
//! | 9: answers no about a superseded epoch | `rule_9_nobody_answers_no_about…`, seed 892 |
//! | 9: answers “voted” about a superseded epoch | `rule_9_nobody_answers_no_about…` |
//! | 9: answers “decided” about what it only promised | `rule_9_a_promise_is_no_decision` |
//! | 9: counts an answer about an earlier epoch | `rule_9_a_majority_of_noes_aborts` |
//! | 9: a sealed epoch is renewed | seed 91 |
//! | 9: asking never ends | seed 5 |
//! | 9: a deadline of an earlier boot goes on | `rule_9_another_boot_ends_a_probation` |
//! | 10: goes back without closing | seed 0 |
//! | 10: a failed check sets no hold | seed 982 |
//! | 11: an older record replaces a newer one | seed 30 |
//! | 11: a probation follows an older record | seed 84 |
//! | 11: falls back to what never was committed | seed 3 |
//! | 11: falls back to the oldest generation | `rule_11_the_way_back_leads_to_what_ran_before` |
//! | 11: falls back to what ran before, not to what is ordered | `rule_11_the_way_back_prefers…` |
//! | 14: proposes a build that is revoked somewhere | `rule_4_a_build_that_is_revoked_anywhere…` |
//! | 14: goes on to a build revoked meanwhile | `rule_14_a_revoked_build_is_not_started_on_the_way` |
//! | 14: starts the revoked build when a fetch fails | `rule_14_a_fetch_that_fails_does_not_start…` |
//! | 14: starts the revoked build when the agent comes up | `rule_14_a_revoked_build_is_not_started_after_a_crash` |
//! | a revert that was interrupted while it stopped begins with the start | seed 165 |
//! | 13: a forced record says who votes | seed 52 |
//! | 13: a forced record is taken below the promise | `rule_13_what_is_forced_acts_at_once…`, seed 2269 |
//! | 13: a forced record commits | `rule_13_what_is_forced_is_never_committed`, seed 5980 |
//! | 13: a change of voters is forgotten under a forced record | `rule_13_what_is_forced_acts_at_once…` |
//! | 14: a forced record lifts a revocation | `rule_14_only_votes_lift…` |
//! | 15: the new voters alone are not needed | seed 4291 |
//! | 15: the voters before are not needed | seed 81 |
//! | 15: votes for a record of other voters | `rule_15_a_change_of_voters_needs_both…` |
//! | 15: a change of voters changes more | `rule_15_a_change_of_voters_needs_both…` |
//! | 15: a client does not look for undecided changes | `rule_15_an_undecided_change…`, seed 978 |
//! | 15: an amendment takes a node that is held | seed 18835 |
//! | 15: a client passes no dead change of voters over | `rule_15_a_change_that_no_majority…` |
//! | 15: no promises of the new voters are needed | `rule_15_a_majority_of_every_set…` |
//! | 15: a rollback supersedes a change of voters | `rule_15_an_undecided_change…` |
//! | 15: a client goes by the voters that it began with | `rule_15_the_newest_record…` |
//! | 15: a change is proposed again with its old orders | `rule_15_an_undecided_change…` |
//! | 9, 15: only the voters before a change have to say no | `rule_9_no_majority_of_one_set…` |
//! | 16: votes without its memory | `rule_16_a_start_is_proven…`, seed 347 |
//! | 16: says no without its memory | `rule_16_a_start_is_proven…` |
//! | 16: says no about what it forgot, once recovered | `rule_16_lost_memory…` |
//! | 16: one start is taken for another | `a_memory_that_came_back…`, `rule_16_lost_memory…` |
//! | 16: recovers with nobody, or with half of the voters | `rule_16_lost_memory…` |
//! | 16: does not tell the votes it copied | `rule_16_lost_memory…` |
//! | 16: a peer forgets the start that contradicts what it is told | `rule_16_what_contradicts…` |
//! | 16: nobody has to prove a start | `rule_16_a_start_is_proven…` |
//! | 16: recovered memory does not end older doubts | `rule_16_lost_memory…`, seed 1218 |
//! | triggers: a node that went back does not hold | `a_node_that_went_back_holds`, seed 2374 |
//! | triggers: a record about something else brings back what was left | `a_node_that_went_back_holds` |
//! | triggers: starts without a bound | `an_unhealthy_node_is_started_anew…`, seed 0 |
//! | triggers: the journal does not tell the cause | seed 14 |
//! | triggers: a node is started anew while an effect is awaited | seed 9 |
//!
//! The seeds are those of the harness as it was then, one of up to 6000 each. Where only a table is
//! named, up to 6000 meshes did not notice it: most often because another rule on another node still
//! kept the harm away.

use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Context, Event, Node};
use cbddc_domain::phase::Phase;
use cbddc_domain::register::{Epoch, Record, RecordKind};
use cbddc_domain::release::Release;
use cbddc_domain::step::step;
use cbddc_domain::time::{BootId, Now};
use cbddc_tests::sim::calm::{self, Scenario};
use cbddc_tests::sim::meshes;
use cbddc_tests::sim::world::Quality;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many meshes are run unless `CBDDC_SIM_SEEDS` says otherwise: about a minute.
const SEEDS: u64 = 4_000;

/// Seeds that once broke a rule, with the fix each stands for. A change of the harness gives a seed
/// another meaning: the tables in `step/tests.rs` are what keeps the fixes.
const REGRESSIONS: [u64; 6] = [
    559,    // a superseded probation whose build cannot be fetched was taken for its fallback
    4_291,  // prepared for ever after a record that orders nothing here ended the lease
    5_980,  // a state that a failed restore set aside was not shown as owed
    6_375,  // a revert that chose another fallback pointed `current` away under a running node
    18_835, // the same as 5980, where the restore failed until the node was stuck
    19_149, // lost memory did not come back while a change to two voters was undecided
];

/// How many meshes without faults are run for each way things may go.
const CALM_SEEDS: u64 = 60;

/// How much of a failing mesh's trace is shown.
const TRACE_LINES: usize = 100;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn run(seed: u64, trace: bool) -> Result<meshes::Report, String> {
    catch_unwind(AssertUnwindSafe(|| meshes::run(seed, trace))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "it panicked".to_owned())
    })
}

fn show(seed: u64) -> String {
    let (broken, trace) = match run(seed, true) {
        Ok(report) => (report.broken, report.trace),
        Err(panic) => (Some(format!("panicked: {panic}")), Vec::new()),
    };
    let lines = from_environment("CBDDC_SIM_LINES").map_or(TRACE_LINES, |lines| lines as usize);
    let from = trace.len().saturating_sub(lines);
    format!(
        "seed {seed}: {}\n{}\nrun it again with: CBDDC_SIM_SEED={seed} ./tests/run simulation",
        broken.unwrap_or_else(|| "no rule was broken".into()),
        trace[from..].join("\n")
    )
}

#[test]
fn no_mesh_breaks_a_rule() {
    if let Some(seed) = from_environment("CBDDC_SIM_SEED") {
        println!("{}", show(seed));
        assert!(run(seed, false).is_ok_and(|report| report.broken.is_none()));
        return;
    }
    let seeds = from_environment("CBDDC_SIM_SEEDS").unwrap_or(SEEDS);
    // The first is shown; the others tell whether it is one fault or several.
    let enough = from_environment("CBDDC_SIM_FAILURES").map_or(10, |failures| failures as usize);
    let next = AtomicU64::new(0);
    let failed: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());
    let seen = Mutex::new(BTreeSet::new());
    let (steps, rounds) = (AtomicU64::new(0), AtomicU64::new(0));
    let (triggered, proposed) = (AtomicU64::new(0), AtomicU64::new(0));
    let outcomes: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let regression = usize::try_from(turn)
                        .ok()
                        .and_then(|turn| REGRESSIONS.get(turn));
                    let seed = regression
                        .copied()
                        .unwrap_or(turn - REGRESSIONS.len().min(turn as usize) as u64);
                    if turn >= seeds + REGRESSIONS.len() as u64
                        || failed.lock().expect("no panic").len() >= enough
                    {
                        break;
                    }
                    let broken = match run(seed, false) {
                        Ok(report) => {
                            seen.lock().expect("no panic").extend(report.seen);
                            steps.fetch_add(report.steps, Ordering::Relaxed);
                            rounds.fetch_max(report.rounds, Ordering::Relaxed);
                            triggered.fetch_add(report.ways_back.0, Ordering::Relaxed);
                            proposed.fetch_add(report.ways_back.1, Ordering::Relaxed);
                            for outcome in report.outcomes {
                                *outcomes
                                    .lock()
                                    .expect("no panic")
                                    .entry(outcome)
                                    .or_default() += 1;
                            }
                            report.broken
                        }
                        Err(panic) => Some(format!("panicked: {panic}")),
                    };
                    if let Some(broken) = broken {
                        failed.lock().expect("no panic").push((seed, broken));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no panic");
    failed.sort();
    println!("{seeds} meshes, {} steps", steps.into_inner());
    // Each mesh holds itself to it: as many rounds as it has hosts, and the last answer's way.
    println!(
        "once nothing failed any more, every node knew the record that stands within {} rounds of \
         gossip; the bound is one for each host, of up to 7",
        rounds.into_inner()
    );
    println!(
        "triggers took nodes back {} times; {} records were decided that agents proposed",
        triggered.into_inner(),
        proposed.into_inner()
    );
    println!("{:#?}", outcomes.into_inner().expect("no panic"));
    let list: Vec<_> = failed
        .iter()
        .map(|(seed, broken)| format!("seed {seed}: {broken}"))
        .collect();
    if let Some((seed, _)) = failed.first() {
        panic!("{}\n\n{}", list.join("\n"), show(*seed));
    }
    if seeds >= SEEDS {
        let mut seen = seen.into_inner().expect("no panic");
        a_stuck_node_takes_a_newer_record(&mut seen);
        compare_with_the_drawing(&seen);
    }
}

/// How many meshes with quarantines are run unless `CBDDC_SIM_QUARANTINE_SEEDS` says otherwise.
const QUARANTINE_SEEDS: u64 = 500;

#[test]
fn a_node_that_a_quarantine_stops_is_never_started_before_it_is_let_go() {
    let one = from_environment("CBDDC_SIM_QUARANTINE_SEED");
    let count = from_environment("CBDDC_SIM_QUARANTINE_SEEDS").unwrap_or(QUARANTINE_SEEDS);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let report = meshes::run_with_quarantines(seed, one.is_some());
        let trace = report.trace.join("\n");
        assert_eq!(
            report.broken, None,
            "with CBDDC_SIM_QUARANTINE_SEED={seed}\n{trace}"
        );
    }
}

/// The transitions that the doc of `phase.rs` draws, as words.
fn drawn() -> BTreeSet<(String, String)> {
    let source = include_str!("../../agent/domain/src/phase.rs");
    let drawing = source.split("```").nth(1).expect("it has a drawing");
    let mut drawn = BTreeSet::new();
    for line in drawing.lines().skip(1) {
        // `A ─why→ B ─why→ C`: every other part is a phase.
        let line = line.trim_start_matches("//!").to_lowercase();
        let parts: Vec<_> = line.split(['─', '→']).map(str::trim).collect();
        let phases: Vec<_> = parts
            .iter()
            .step_by(2)
            .filter(|part| !part.is_empty())
            .collect();
        for pair in phases.windows(2) {
            drawn.insert((pair[0].to_string(), pair[1].to_string()));
        }
    }
    drawn
}

/// Drives the one transition that so few meshes meet that a budget of seeds may miss it: a stuck
/// node takes a record that is newer than what it got stuck on.
fn a_stuck_node_takes_a_newer_record(seen: &mut BTreeSet<(&'static str, &'static str)>) {
    let name: NodeName = "a".parse().expect("a name");
    let context = Context {
        name: name.clone(),
        voters: BTreeSet::from([name]),
        ask_limit_ms: 1_000,
        policy: Default::default(),
    };
    let stuck = Node {
        phase: Phase::Stuck {
            cause: "the way back failed".into(),
            remedy: "look".into(),
            since: Epoch::default(),
        },
        ..Node::default()
    };
    let build = BuildRef {
        id: "cbddc@2".parse().expect("a build"),
        digest: Digest::of(b"2"),
    };
    let record = Record {
        epoch: Epoch::default().next(1),
        kind: RecordKind::Rollback,
        release: Some(Release::of_build(build)),
        exceptions: BTreeMap::new(),
        voters: context.voters.clone(),
        previous: None,
        forced: false,
        revokes: BTreeMap::new(),
        lifts: BTreeMap::new(),
        restores: BTreeSet::new(),
        proposed_by: "ana".into(),
        reason: "it must run again".into(),
    };
    let now = Now {
        boot: BootId("boot".into()),
        since_boot_ms: 1_000,
        wall_ms: 0,
    };
    let event = Event::Learn(Box::new(record));
    let after = step(&context, &stuck, event, &now).expect("a decided record is taken");
    if after.node.phase != stuck.phase {
        seen.insert((stuck.phase.word(), after.node.phase.word()));
    }
}

fn compare_with_the_drawing(seen: &BTreeSet<(&'static str, &'static str)>) {
    let drawn = drawn();
    let is_drawn = |from: &str, to: &str| drawn.contains(&(from.to_owned(), to.to_owned()));
    for (from, to) in seen {
        let by_way_of_steady = is_drawn(from, "steady") && is_drawn("steady", to);
        assert!(
            is_drawn(from, to) || by_way_of_steady,
            "{from} -> {to} was seen and is not drawn in phase.rs"
        );
    }
    for (from, to) in &drawn {
        let was_seen = seen.contains(&(from.as_str(), to.as_str()));
        assert!(
            was_seen,
            "{from} -> {to} is drawn in phase.rs and was never seen"
        );
    }
}

fn check_calm(scenario: Scenario) {
    for seed in 0..CALM_SEEDS {
        if let Err(text) = calm::run(seed, scenario) {
            panic!("seed {seed}: {text}");
        }
    }
}

#[test]
fn without_faults_a_good_rollout_is_decided() {
    check_calm(Scenario::Rollout(Quality::Good));
}

#[test]
fn without_faults_a_bad_rollout_goes_back() {
    for quality in [
        Quality::FailsStart,
        Quality::FailsCheck,
        Quality::FailsMesh,
        Quality::FailsOn(0),
    ] {
        check_calm(Scenario::Rollout(quality));
    }
}

#[test]
fn without_faults_a_rollback_is_decided() {
    check_calm(Scenario::Rollback);
}

#[test]
fn a_resume_ends_well_wherever_the_client_died() {
    check_calm(Scenario::Resume);
}

#[test]
fn an_abort_ends_well_wherever_the_client_died() {
    check_calm(Scenario::Abort);
}
