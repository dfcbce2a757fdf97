//! The database check against real SQLite files, and a node whose health page lies.

use super::{Told, checks, running};
use crate::fixture::node;
use anyhow::Result;
use cbagent::adapters::checks::{DatabaseCheck, DatabaseSettings, Finding, Probe};
use cbagent::adapters::http::{HttpAddress, HttpTarget};
use cbagent::ports::UnitState;
use cbddc_domain::health::{Check, Status};
use rusqlite::Connection;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

fn settings(path: &Path) -> DatabaseSettings {
    DatabaseSettings {
        path: path.to_owned(),
        quick_check: Duration::from_millis(1),
        max_wal_bytes: 1 << 20,
        max_growth_bytes: None,
    }
}

/// A database in WAL mode with some rows, held open as its node would.
fn database() -> (TempDir, PathBuf, Connection) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("node %41?#.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    connection
        .execute_batch("CREATE TABLE t (text TEXT); CREATE INDEX i ON t (text)")
        .unwrap();
    grow(&connection, 1_000);
    (folder, path, connection)
}

pub(super) fn grow(connection: &Connection, rows: u32) {
    let insert = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1) \
                  INSERT INTO t SELECT hex(randomblob(200)) FROM n";
    connection.execute(insert, [rows]).unwrap();
}

async fn look(check: &Arc<DatabaseCheck>) -> Finding {
    let told = Told(running(), Arc::default());
    check.clone().look(&told, LIMIT).await
}

#[track_caller]
fn is(finding: &Finding, status: Status, words: &str) {
    assert_eq!(finding.status, status, "{finding:?}");
    assert!(
        finding.detail.contains(words),
        "no `{words}` in {finding:?}"
    );
}

#[tokio::test]
async fn a_sound_database_in_use_is_healthy_and_nothing_waits_for_the_check() {
    let (_folder, path, connection) = database();
    let check = DatabaseCheck::new(settings(&path));
    // A writer in the middle of its transaction is not waited for, and is not disturbed.
    connection
        .execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES ('x')")
        .unwrap();
    let finding = look(&check).await;
    is(&finding, Status::Healthy, ", sound ");
    let labels: Vec<&str> = finding
        .figures
        .iter()
        .map(|figure| figure.label.as_str())
        .collect();
    assert_eq!(labels, ["size", "wal", "growth"]);
    connection.execute_batch("COMMIT").unwrap();
    // A writer that does not wait at all never meets a lock of the check.
    connection.busy_timeout(Duration::ZERO).unwrap();
    for _ in 0..20 {
        let (_, written) = tokio::join!(look(&check), async {
            connection.execute("INSERT INTO t VALUES ('y')", [])
        });
        written.expect("no lock is in the way");
    }
}

#[tokio::test]
async fn what_a_power_cut_may_take_is_told_and_never_judged() {
    let (_folder, path, connection) = database();
    let check = DatabaseCheck::new(settings(&path));
    let in_wal = "; WAL mode: a power cut may take what it committed since its last checkpoint";
    is(&look(&check).await, Status::Healthy, in_wal);
    // What a connection sets for itself does not show, and nothing is claimed of it.
    for synchronous in ["OFF", "FULL"] {
        connection
            .pragma_update(None, "synchronous", synchronous)
            .unwrap();
        is(&look(&check).await, Status::Healthy, in_wal);
    }
    connection
        .pragma_update(None, "journal_mode", "DELETE")
        .unwrap();
    let rollback = "; rollback journal, no WAL mode: a power cut may take its last commit";
    is(&look(&check).await, Status::Healthy, rollback);
}

#[tokio::test]
async fn what_cannot_be_read_is_unhealthy() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.db");
    is(
        &look(&DatabaseCheck::new(settings(&path))).await,
        Status::Unhealthy,
        "cannot read",
    );
    fs::write(
        &path,
        "this is no database, whatever it is called".repeat(100),
    )
    .unwrap();
    is(
        &look(&DatabaseCheck::new(settings(&path))).await,
        Status::Unhealthy,
        "not a database",
    );
    assert!(
        !folder.path().join("a.db-wal").exists(),
        "nothing was written"
    );
}

#[tokio::test]
async fn damage_that_no_page_of_the_schema_shows_is_found_by_quick_check() {
    let (_folder, path, connection) = database();
    let rarely = DatabaseSettings {
        quick_check: Duration::from_secs(3_600),
        ..settings(&path)
    };
    let (often, rarely) = (
        DatabaseCheck::new(settings(&path)),
        DatabaseCheck::new(rarely),
    );
    is(&look(&rarely).await, Status::Healthy, "sound");
    connection
        .pragma_update(None, "wal_checkpoint", "TRUNCATE")
        .unwrap();
    drop(connection);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 20_000..end - 8_000].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    is(&look(&often).await, Status::Unhealthy, "quick_check");
    // The other one reads the whole file once an hour, for one process.
    is(&look(&rarely).await, Status::Healthy, "sound");
    let another = Some(Ok(UnitState::Running {
        pid: 8,
        started_ms: 2,
    }));
    let told = Told(another, Arc::default());
    let finding = rarely.clone().look(&told, LIMIT).await;
    is(&finding, Status::Unhealthy, "quick_check");
}

#[tokio::test]
async fn a_log_that_is_never_checkpointed_and_growth_are_warnings() {
    let (_folder, path, connection) = database();
    let check = DatabaseCheck::new(DatabaseSettings {
        max_growth_bytes: Some(4 << 20),
        ..settings(&path)
    });
    is(&look(&check).await, Status::Healthy, "sound");
    connection
        .pragma_update(None, "wal_autocheckpoint", 0)
        .unwrap();
    grow(&connection, 2_000);
    is(&look(&check).await, Status::Degraded, "write-ahead log has");
    grow(&connection, 8_000);
    is(&look(&check).await, Status::Degraded, "it grew by");
}

#[tokio::test]
async fn a_node_that_may_not_write_its_database_is_unhealthy() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can start a process of another user");
        return;
    }
    let (folder, path, connection) = database();
    drop(connection);
    // A process of another user than that of the file.
    let nobody = 65_534;
    #[expect(clippy::disallowed_methods, reason = "tests start programs")]
    let mut process = {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new("/bin/sleep");
        command.arg("1000").uid(nobody).gid(nobody).spawn().unwrap()
    };
    let running = Some(Ok(UnitState::Running {
        pid: process.id(),
        started_ms: 1,
    }));
    let told = Told(running, Arc::default());
    let check = DatabaseCheck::new(settings(&path));
    let look = async || check.clone().look(&told, LIMIT).await;
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    is(&look().await, Status::Unhealthy, "may not write");
    chown(&path, Some(nobody), None).unwrap();
    is(
        &look().await,
        Status::Unhealthy,
        "where SQLite needs its log",
    );
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    is(&look().await, Status::Healthy, "sound");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[tokio::test]
async fn a_page_that_reads_the_database_must_answer_that_it_did() -> Result<()> {
    let folder = TempDir::new()?;
    let a = node("a", folder.path()).start().await?;
    let page = |path: &str| {
        let url = format!("http://{}{path}", a.http);
        let address = HttpAddress::parse(&url).expect("a URL");
        Probe::Reads(HttpTarget { address, tls: None })
    };
    let look = async |probe: Probe| -> (Status, String) {
        let found = checks(running(), vec![(Check::Http, probe)]);
        let found = found.measure(Duration::MAX).await;
        let reads = found.last().expect("one");
        (reads.status, reads.detail.clone())
    };
    let answered = |code: u16| format!("the page that reads the database answered {code}");
    assert_eq!(look(page("/stats")).await, (Status::Healthy, answered(200)));
    assert_eq!(
        look(page("/nothing")).await,
        (Status::Unhealthy, answered(404))
    );
    let gone = page("/stats");
    a.stop().await?;
    let (status, detail) = look(gone).await;
    assert_eq!(status, Status::Unhealthy, "{detail}");
    assert!(detail.contains("does not answer"), "{detail}");
    Ok(())
}

#[tokio::test]
async fn a_health_page_that_lies_is_caught() -> Result<()> {
    let folder = TempDir::new()?;
    let a = node("a", folder.path()).start().await?;
    for key in ["x", "y", "z"] {
        a.request("PUT", &format!("/doc/c/{key}?flush=1"), "{}")
            .await?;
    }
    let path = folder.path().join("a.db");
    // New each time: an old one reads the file again only after fifty times as long as that took.
    let statuses = async || -> Vec<Status> {
        let database = DatabaseCheck::new(settings(&path));
        let probes = vec![
            (Check::Http, Probe::Http(super::address(a.http))),
            (Check::Database, Probe::Database(database)),
        ];
        checks(running(), probes)
            .measure(Duration::MAX)
            .await
            .iter()
            .map(|one| one.status)
            .collect()
    };
    assert_eq!(statuses().await, [Status::Healthy; 3]);
    a.fault("health-lies").await?;
    let began = tokio::time::Instant::now();
    while statuses().await != [Status::Healthy, Status::Healthy, Status::Unhealthy] {
        anyhow::ensure!(began.elapsed() < LIMIT, "{:?}", statuses().await);
    }
    Ok(())
}
