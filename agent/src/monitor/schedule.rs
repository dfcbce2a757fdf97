//! When checks run: each in a task of its own, so that one that hangs delays no other. A check never
//! runs twice at once, so as many run at once as there are, which the configuration bounds.

use crate::ports::World;
use cbddc_domain::health::{Measurement, Policy};
use cbddc_domain::warmup::RunningProcess;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The longest pause between two runs of a cheap check while the node is on probation.
const QUICK_INTERVAL: Duration = Duration::from_millis(250);

/// How much a pause is lengthened or shortened at random, at most: a tenth. Agents that were started
/// together then do not go on measuring together.
const JITTER_PARTS: u64 = 10;

/// What to measure, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pace {
    /// The process; nothing runs that could be measured where it is unset.
    pub(super) process: Option<RunningProcess>,
    /// Whether the node is on probation.
    pub(super) quick: bool,
}

/// A result on its way to the verdict.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Which check, by its place.
    pub(super) check: usize,
    /// The process that ran when it began.
    pub(super) process: RunningProcess,
    /// What it found.
    pub(super) measurement: Measurement,
}

/// Starts a task for each check. They end when what is returned is dropped.
pub(super) fn run_checks(
    world: &Arc<dyn World>,
    paces: &watch::Receiver<Pace>,
    results: &mpsc::Sender<Outcome>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (check, policy) in world.checks().into_iter().enumerate() {
        let (world, paces, results) = (world.clone(), paces.clone(), results.clone());
        tasks.spawn(run_check(world, check, policy, paces, results));
    }
    tasks
}

async fn run_check(
    world: Arc<dyn World>,
    check: usize,
    policy: Policy,
    mut paces: watch::Receiver<Pace>,
    results: mpsc::Sender<Outcome>,
) {
    loop {
        let pace = *paces.borrow_and_update();
        let Some(process) = pace.process else {
            match paces.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let measurement = world.measure_one(check).await;
        let outcome = Outcome {
            check,
            process,
            measurement,
        };
        if results.send(outcome).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause(&policy, pace.quick, world.nonce())) => {}
            changed = paces.changed() => if changed.is_err() { return },
        }
    }
}

/// How long to wait before the next run; `random` is any number.
fn pause(policy: &Policy, quick: bool, random: u64) -> Duration {
    let interval = Duration::from_millis(policy.interval_ms);
    if quick && policy.kind.is_cheap() {
        return interval.min(QUICK_INTERVAL);
    }
    let most = policy.interval_ms / JITTER_PARTS;
    let jitter = random % (2 * most + 1);
    Duration::from_millis(policy.interval_ms - most + jitter)
}

#[cfg(test)]
mod tests {
    use super::{QUICK_INTERVAL, pause};
    use cbddc_domain::health::{Check, Policy, Severity};
    use std::time::Duration;

    fn policy(kind: Check, interval_ms: u64) -> Policy {
        Policy {
            name: "a".into(),
            kind,
            severity: Severity::Critical,
            interval_ms,
            timeout_ms: 1,
            rise: 1,
            fall: 1,
        }
    }

    #[test]
    fn pauses_differ_by_a_tenth_and_are_short_on_probation() {
        let pauses: Vec<u64> = (0..10_000)
            .map(|random| pause(&policy(Check::Http, 5_000), false, random))
            .map(|pause| u64::try_from(pause.as_millis()).unwrap())
            .collect();
        assert_eq!(pauses.iter().min(), Some(&4_500));
        assert_eq!(pauses.iter().max(), Some(&5_500));
        let quick = |kind| pause(&policy(kind, 5_000), true, 500);
        assert_eq!(quick(Check::Http), QUICK_INTERVAL);
        assert_eq!(quick(Check::Exec), Duration::from_secs(5));
        let short = pause(&policy(Check::Http, 1), false, u64::MAX);
        assert_eq!(short, Duration::from_millis(1));
    }
}
