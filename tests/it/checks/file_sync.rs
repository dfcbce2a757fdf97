//! A `sync` that hangs, as on a disk that does not answer: nobody else hangs with it.

use cbagent::adapters::checks::{BliteSettings, look_at_blite};
use cbagent::adapters::file_sync::{FileSync, SyncProgram};
use cbddc_domain::health::Status;
use cbddc_tests::ground::PATIENCE;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a sync may take here, and how often one is begun.
const LIMIT: Duration = Duration::from_millis(300);
const PACE: Duration = Duration::from_millis(20);

/// A database, with a program that is to sync it and never ends, but writes down that it began.
fn hanging(folder: &Path, limit: Duration) -> (Arc<FileSync>, PathBuf) {
    let (database, pids) = (folder.join("shop.blite"), folder.join("pids"));
    let path = folder.join("sync");
    let script = format!(
        "#!/bin/sh\necho $$ >> {}\nexec sleep 1000\n",
        pids.display()
    );
    fs::write(&path, script).expect("a script");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a mode");
    fs::write(&database, "data").expect("a file");
    let program = SyncProgram { path, limit };
    (FileSync::with(vec![database], PACE, program), pids)
}

/// The programs that began.
fn begun(pids: &Path) -> Vec<u32> {
    let text = fs::read_to_string(pids).unwrap_or_default();
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    !stat.is_ok_and(|stat| !stat.contains(") Z"))
}

#[tokio::test]
async fn a_sync_that_hangs_is_given_up_and_told() {
    let folder = TempDir::new().unwrap();
    let (sync, pids) = hanging(folder.path(), LIMIT);
    let why = "`sync -d` of the node's files: nothing within 300ms";
    for count in 1..=2 {
        let error = timeout(PATIENCE, sync.sync())
            .await
            .expect("it is given up");
        assert_eq!(error.expect_err("it hangs").to_string(), why);
        // Nothing of it is left behind.
        wait_for("it was killed", async || {
            let begun = begun(&pids);
            begun.len() == count && begun.iter().all(|pid| ended(*pid))
        })
        .await;
    }
    assert_eq!(sync.told().fault.as_deref(), Some(why));
    assert_eq!(sync.told().syncs, 0);
    // What waits is told by the check before long.
    let settings = BliteSettings {
        path: folder.path().join("shop.blite"),
        max_log_bytes: 1_000,
        sync: Some(sync.clone()),
    };
    wait_for("the check tells it", async || {
        let found = look_at_blite(&settings).await;
        found.status == Status::Degraded && found.detail.contains(why)
    })
    .await;
}

#[tokio::test]
async fn a_stop_of_the_node_waits_for_a_sync_that_hangs_no_longer_than_its_limit() {
    let folder = TempDir::new().unwrap();
    let limit = Duration::from_secs(3);
    let (sync, pids) = hanging(folder.path(), limit);
    let first = tokio::spawn({
        let sync = sync.clone();
        async move { sync.sync().await }
    });
    wait_for("it hangs", async || !begun(&pids).is_empty()).await;
    let began = Instant::now();
    timeout(PATIENCE, sync.sync())
        .await
        .expect("it is given up")
        .expect_err("it hangs");
    // Its turn counts: waiting for the first one takes nothing on top.
    assert!(began.elapsed() < limit * 3 / 2, "{:?}", began.elapsed());
    first.await.expect("no fault").expect_err("it hangs");
}

#[tokio::test]
async fn a_stop_of_the_agent_does_not_wait_for_a_sync_that_hangs() {
    let folder = TempDir::new().unwrap();
    let (sync, pids) = hanging(folder.path(), Duration::from_secs(3_600));
    let stop = CancellationToken::new();
    let running = tokio::spawn(sync.run(stop.clone()));
    wait_for("it hangs", async || !begun(&pids).is_empty()).await;
    stop.cancel();
    timeout(PATIENCE, running)
        .await
        .expect("it ends at once")
        .expect("no fault");
    wait_for("it was killed", async || {
        begun(&pids).iter().all(|pid| ended(*pid))
    })
    .await;
}
