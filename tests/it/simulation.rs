//! Thousands of simulated meshes, each from its seed; every step is held to the rules.
//!
//! `CBDDC_SIM_SEED=n` runs one seed and shows what happened; `CBDDC_SIM_SEEDS=count` sets how many
//! are run.

use cbddc_tests::sim::calm::{self, Scenario};
use cbddc_tests::sim::meshes;
use cbddc_tests::sim::world::Quality;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many meshes are run unless `CBDDC_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 10_000;

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
        "seed {seed}: {}\n{}\nrun it again with: CBDDC_SIM_SEED={seed} cargo test -p cbddc-tests --test it simulation",
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
    let steps = AtomicU64::new(0);
    let outcomes: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.lock().expect("no panic").len() >= enough {
                        break;
                    }
                    let broken = match run(seed, false) {
                        Ok(report) => {
                            seen.lock().expect("no panic").extend(report.seen);
                            steps.fetch_add(report.steps, Ordering::Relaxed);
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
    println!("{:#?}", outcomes.into_inner().expect("no panic"));
    let list: Vec<_> = failed
        .iter()
        .map(|(seed, broken)| format!("seed {seed}: {broken}"))
        .collect();
    if let Some((seed, _)) = failed.first() {
        panic!("{}\n\n{}", list.join("\n"), show(*seed));
    }
    if seeds >= SEEDS {
        compare_with_the_drawing(&seen.into_inner().expect("no panic"));
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
