//! A writer of a log that is synced each second, beside one whose log nobody syncs.

use cbagent::adapters::file_sync::{FileSync, blite_files};
use cbddc_tests::figures::{bounded, compare, median, percentile};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How often a file is synced, as agents do by default.
const PACE: Duration = Duration::from_secs(1);

/// How often each kind of writer has its turn, and how long a turn is.
const TURNS: u32 = 4;
const TURN: Duration = Duration::from_secs(6);

/// What is appended at a time.
const BYTES: usize = 1024;

/// How long nothing changes.
const IDLE: Duration = Duration::from_secs(30);

/// What syncing may take of the processor in a minute in which nothing changes: a thousandth.
const IDLE_MS_MAX: f64 = 60.0;

/// Prints two lines for each pace of writing, and one for syncing while nothing changes.
pub(crate) fn measure() {
    let runtime = Runtime::new().expect("a runtime");
    for each_second in [10, 500] {
        let (mut synced, mut alone) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            // In turns, and each first in half of them.
            for with in [turn % 2 == 0, turn % 2 == 1] {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let syncing = with.then(|| Syncing::begin(&runtime, folder.path()));
                let times = append(&folder.path().join("shop.wal"), each_second);
                match syncing {
                    Some(syncing) => {
                        assert!(syncing.end() > 1, "nothing was synced");
                        synced.extend(times);
                    }
                    None => alone.extend(times),
                }
            }
        }
        let peer = "the same, not synced";
        let job = |what: &str| format!("1 KiB, {each_second}/s, {what}");
        compare(&job("p50"), peer, median(&synced), median(&alone), None);
        let worst = |times: &[Duration]| percentile(times, 99);
        compare(&job("p99"), peer, worst(&synced), worst(&alone), None);
    }
    bounded(
        "syncing, all is still",
        idle_ms(&runtime),
        "ms/min",
        IDLE_MS_MAX,
    );
}

/// A database whose files are synced as an agent does.
struct Syncing {
    sync: Arc<FileSync>,
    stop: CancellationToken,
}

impl Syncing {
    fn begin(runtime: &Runtime, folder: &Path) -> Self {
        let files = blite_files(&folder.join("shop.blite"));
        for file in &files {
            File::create(file).expect("a file");
        }
        let (sync, stop) = (FileSync::new(files, PACE), CancellationToken::new());
        runtime.spawn(sync.clone().run(stop.clone()));
        Self { sync, stop }
    }

    /// Ends it, and says how often the files were synced.
    fn end(self) -> u64 {
        self.stop.cancel();
        self.sync.told().syncs
    }
}

/// How long each append took in one turn.
fn append(log: &Path, each_second: u32) -> Vec<Duration> {
    let mut options = OpenOptions::new();
    let mut log = options.create(true).append(true).open(log).expect("a file");
    let (began, pause) = (Instant::now(), Duration::from_secs(1) / each_second);
    let mut times = Vec::new();
    for number in 0.. {
        let due = pause * number;
        if due >= TURN {
            break;
        }
        sleep(due.saturating_sub(began.elapsed()));
        let at = Instant::now();
        log.write_all(&[7; BYTES]).expect("it can be written");
        times.push(at.elapsed());
    }
    times
}

/// What this process takes of the processor in a minute while it does nothing but look whether anything
/// has changed.
fn idle_ms(runtime: &Runtime) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let syncing = Syncing::begin(runtime, folder.path());
    // What is new is synced, and once more.
    while syncing.sync.told().syncs < 2 {
        sleep(PACE);
    }
    let before = processor_time();
    sleep(IDLE);
    let used = processor_time() - before;
    assert_eq!(syncing.end(), 2, "something has changed");
    used.as_secs_f64() * 1000.0 * 60.0 / IDLE.as_secs_f64()
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.try_into().expect("not negative")
}
