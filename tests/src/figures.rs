//! Medians and other percentiles, and a line of the table per job.

#![expect(
    clippy::disallowed_methods,
    reason = "benchmarks read the clock and print"
)]

use std::time::{Duration, Instant};

/// How long something took.
pub fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// The middle of several measurements, the lower one of two. There must be one at least.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[(sorted.len() - 1) / 2]
}

/// What so many percent of several measurements stay below or reach. There must be one at least.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

/// The names of the columns.
pub fn heading() {
    row(&["job", "peer", "ours", "peer's", "ratio", "goal"]);
}

/// Ours beside a peer's, in milliseconds or where it is short in microseconds, with the ratio that we want
/// to stay within.
pub fn compare(job: &str, peer: &str, ours: Duration, theirs: Duration, goal: Option<f64>) {
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    row(&[
        job,
        peer,
        &shown(ours),
        &shown(theirs),
        &format!("{ratio:.2}"),
        &goal.map_or_else(|| "-".to_owned(), |goal| verdict(ratio, goal, "")),
    ]);
}

/// A figure of ours beside its limit.
pub fn bounded(job: &str, ours: f64, unit: &str, goal: f64) {
    let figure = format!("{ours:.2} {unit}");
    row(&[job, "-", &figure, "-", "-", &verdict(ours, goal, unit)]);
}

fn verdict(found: f64, goal: f64, unit: &str) -> String {
    let word = if found <= goal { "met" } else { "missed" };
    format!("<= {goal} {unit} {word}").replace("  ", " ")
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.001 {
        return format!("{:.1} us", seconds * 1e6);
    }
    format!("{:.1} ms", seconds * 1000.0)
}

fn row(cells: &[&str; 6]) {
    let [job, peer, ours, theirs, ratio, goal] = cells;
    println!("{job:<24} {peer:<32} {ours:>12} {theirs:>12} {ratio:>7}  {goal}");
}
