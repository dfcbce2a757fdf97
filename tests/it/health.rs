//! Health over time: the history on its disk, and a real agent that watches a node which lies.

use cbagent::adapters::health_history::{HealthHistory, StoredEntry};
use cbddc_domain::health::{HealthEntry, HealthEntryKind, Status, Tally};
use cbddc_tests::clocks;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

fn entry(wall_ms: i64, check: &str, status: Status) -> HealthEntry {
    HealthEntry {
        wall_ms,
        check: check.to_owned(),
        kind: HealthEntryKind::Change,
        status,
        reason: "because".to_owned(),
        tally: None,
    }
}

#[tokio::test]
async fn the_history_is_there_after_a_restart_and_knows_what_held_before() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("health.db");
    let history = HealthHistory::open(&path).unwrap();
    let summary = HealthEntry {
        kind: HealthEntryKind::Summary,
        tally: Some(Tally {
            healthy: 7,
            unhealthy: 1,
            took_ms_max: 12,
            ..Tally::default()
        }),
        ..entry(30, "http", Status::Healthy)
    };
    let all = vec![
        entry(10, "http", Status::Unhealthy),
        entry(20, "http", Status::Healthy),
        entry(20, "all", Status::Healthy),
        summary,
        entry(40, "all", Status::Degraded),
    ];
    history.keep(all[..2].to_vec()).await.unwrap();
    drop(history);
    let history = HealthHistory::open(&path).unwrap();
    let mut newest = history.newest();
    assert_eq!(*newest.borrow_and_update(), 2);
    history.keep(all[2..].to_vec()).await.unwrap();
    assert!(newest.has_changed().unwrap() && *newest.borrow() == 5);
    let entries = |stored: Vec<StoredEntry>| -> Vec<HealthEntry> {
        stored.into_iter().map(|one| one.entry).collect()
    };
    assert_eq!(entries(history.after(0, 100).await.unwrap()), all);
    assert_eq!(entries(history.after(3, 1).await.unwrap()), all[3..4]);
    // What held at 25: the last change of each check before it.
    assert_eq!(entries(history.since(25, 100).await.unwrap()), all[1..]);
    assert_eq!(entries(history.since(i64::MIN, 2).await.unwrap()), all[3..]);
}

#[tokio::test]
async fn the_history_is_bounded_and_a_broken_file_is_put_aside() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("health.db");
    let history = HealthHistory::open(&path).unwrap();
    for round in 0..6 {
        let many = (0..4_000).map(|n| entry(round * 4_000 + n, "http", Status::Healthy));
        history.keep(many.collect()).await.unwrap();
    }
    let left = history.after(0, 100_000).await.unwrap();
    assert_eq!((left.len(), left[0].number), (20_000, 4_001));
    assert!(fs::metadata(&path).unwrap().len() < 4 << 20);
    drop(history);
    fs::write(&path, "no database at all".repeat(500)).unwrap();
    let history = HealthHistory::open(&path).unwrap();
    assert!(history.after(0, 10).await.unwrap().is_empty());
    assert!(folder.path().join("health.db.unreadable").exists());
}

/// Checks that hang, one that finds `recovered`, and quick looks at the database.
fn options(recovered: &Path) -> MeshOptions {
    let extra_config = r#"
[[check]]
kind = "database"
interval = "200ms"
quick_check = "200ms"

[[check]]
kind = "exec"
name = "hangs"
severity = "warning"
command = ["/bin/sleep", "30.25"]
interval = "100ms"
timeout = "6s"
fall = 1

# One after the other, these would hold up each round for longer than the test waits for anything.
[[check]]
kind = "exec"
name = "hangs-too"
severity = "warning"
command = ["/bin/sleep", "30.5"]
interval = "100ms"
timeout = "14s"

[[check]]
kind = "exec"
name = "recovers"
severity = "warning"
command = ["/usr/bin/test", "-e", "RECOVERED"]
interval = "1s"
fall = 1
rise = 100

# The node that lies is to go on.
[remediation]
restarts = 0
"#;
    MeshOptions {
        nodes: 1,
        health_interval: Duration::from_millis(200),
        extra_config: extra_config.replace("RECOVERED", &recovered.to_string_lossy()),
        ..MeshOptions::default()
    }
}

/// One check as `health show` tells it.
fn check(mesh: &TestMesh, name: &str) -> Value {
    of_check(&mesh.cbctl(&["health", "show", "-o", "json"]).json(), name)
}

fn of_check(shown: &Value, name: &str) -> Value {
    let checks = shown["nodes"][0]["result"]["checks"].as_array().cloned();
    let mut checks = checks.unwrap_or_default().into_iter();
    checks
        .find(|check| check["name"] == name)
        .unwrap_or_default()
}

#[test]
fn a_node_that_lies_is_found_out_and_it_is_remembered() {
    let folder = TempDir::new().expect("a folder");
    let recovered = folder.path().join("recovered");
    let mut mesh = TestMesh::start(options(&recovered));
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    assert!(mesh.put(0, "c", "x", &json!({}), true));
    // A program that hangs degrades and no more, and holds up no other check.
    mesh.wait_for("all is judged", LIMIT, |mesh| {
        (check(mesh, "hangs")["judged"] == "degraded").then_some(())
    });
    assert_eq!(check(&mesh, "hangs")["severity"], "warning");
    for name in ["unit", "http", "cbddc", "database", "host"] {
        mesh.wait_for(&format!("{name} is healthy"), LIMIT, |mesh| {
            let of = check(mesh, name);
            (of["judged"] == "healthy" && of["since"].is_string()).then_some(())
        });
    }
    // What is well now is not yet called so, and the worse of both is what is said of the node.
    fs::write(&recovered, "").expect("a file");
    let shown = mesh.wait_for("it is measured again", LIMIT, |mesh| {
        let shown = mesh.cbctl(&["health", "show", "-o", "json"]).json();
        let of = of_check(&shown, "recovers");
        let both = [&of["status"], &of["judged"]] == ["healthy", "degraded"];
        both.then_some(shown)
    });
    let of_node = &shown["nodes"][0]["result"];
    assert_eq!(of_node["status"], "degraded", "{shown}");
    let mut follower = mesh.cbctl_spawn(&["health", "history", "--follow", "--check", "database"]);
    mesh.wait_for("the follower has begun", LIMIT, |_| {
        follower.stdout().contains("database").then_some(())
    });

    mesh.fault(0, "health-lies");
    let judged = |mesh: &TestMesh, status: &str| {
        let of_node = mesh.status_of(0)["result"]["health"].clone();
        (of_node == status).then_some(())
    };
    mesh.wait_for("the lie is found out", LIMIT, |mesh| {
        judged(mesh, "unhealthy")
    });
    let shown = mesh.cbctl(&["health", "show"]);
    assert_eq!(shown.code, 8, "{shown}");
    assert!(shown.stdout.contains("quick_check"), "{shown}");
    mesh.wait_for("the page lies on", LIMIT, |mesh| {
        (check(mesh, "http")["judged"] == "healthy").then_some(())
    });
    mesh.wait_for("the follower was told", LIMIT, |_| {
        follower.stdout().contains("unhealthy").then_some(())
    });
    assert!(follower.lives());
    let told = follower.kill_now().stdout;
    let lines: BTreeSet<&str> = told.lines().collect();
    assert_eq!(lines.len(), told.lines().count(), "nothing twice: {told}");

    // Another agent remembers.
    mesh.kill_agent(0);
    mesh.start_agent(0);
    let history = mesh
        .cbctl(&["health", "history", "--since", "10min"])
        .expect(8);
    let line = history
        .stdout
        .lines()
        .find(|line| line.contains(" database "));
    let line = line.expect("a line of the check");
    assert!(line.contains('█'), "{history}");
    let json = mesh
        .cbctl(&["health", "history", "-o", "json"])
        .expect(8)
        .json();
    let entries = json["nodes"][0]["result"]["entries"].as_array().cloned();
    let of_database: Vec<Value> = entries
        .unwrap_or_default()
        .into_iter()
        .filter(|entry| entry["check"] == "database")
        .map(|entry| entry["status"].clone())
        .collect();
    let begins = ["unknown", "healthy", "unhealthy"];
    assert_eq!(of_database[..3], begins.map(Value::from), "{json}");

    // What the agent starts ends with it.
    mesh.wait_for("the program runs again", LIMIT, |mesh| {
        (check(mesh, "hangs")["judged"] == "degraded").then_some(())
    });
    let agent = mesh.node(0).agent_process().expect("it runs").pid;
    let running = mesh.wait_for("the program runs", LIMIT, |_| sleeping(agent));
    mesh.stop_agent(0);
    mesh.wait_for("the program is gone", Duration::from_secs(5), |_| {
        (!running.join("exe").exists()).then_some(())
    });
    // What no check has found is remembered, too.
    let history = HealthHistory::open(&mesh.node(0).folder.join("state/health.db"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let all = runtime.block_on(history.expect("a history").after(0, 10_000));
    let all = all.expect("its entries");
    let says = |words: &str| {
        let mut reasons = all.iter().map(|one| &one.entry.reason);
        reasons.any(|reason| reason.contains(words))
    };
    assert!(says("the node is in phase"), "{all:?}");
    let of_all: Vec<_> = all.iter().filter(|one| one.entry.check == "all").collect();
    let twice = |pair: &[&StoredEntry]| {
        let [before, after] = pair else { return false };
        (before.entry.status, &before.entry.reason) == (after.entry.status, &after.entry.reason)
    };
    assert!(
        !of_all.windows(2).any(twice),
        "only what changes: {of_all:?}"
    );
    let summaries = all.iter().filter_map(|one| one.entry.tally);
    assert!(summaries.map(|tally| tally.healthy).sum::<u32>() > 10);
    let last = all.last().map(|one| one.entry.reason.as_str());
    assert_eq!(last, Some("the agent ended"));
}

/// The program that hangs, where this agent has started it.
fn sleeping(agent: u32) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").expect("the processes").flatten();
    let mut processes = processes.map(|process| process.path());
    processes.find(|process| {
        let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let of_agent = status.lines().any(|line| line == format!("PPid:\t{agent}"));
        of_agent && read("cmdline") == b"/bin/sleep\x0030.25\x00"
    })
}

/// The reasons why a node is not well.
fn reasons(mesh: &TestMesh, index: usize) -> String {
    mesh.status_of(index)["result"]["health_reasons"].to_string()
}

#[test]
fn a_host_whose_clock_is_wrong_hears_it_from_the_others() {
    let Some(library) = clocks::library("a host whose clock is ahead of the others") else {
        return;
    };
    let mut mesh = TestMesh::start(MeshOptions::default());
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    let environment = clocks::environment(&library.to_string_lossy(), "+5m");
    mesh.set_environment(1, environment);
    mesh.stop_agent(1);
    mesh.start_agent(1);
    let others = "ahead of those of the others (2 were asked)";
    mesh.wait_for("it doubts its clock", LIMIT, |mesh| {
        reasons(mesh, 1).contains(others).then_some(())
    });
    // By five minutes, give or take how long the answers took.
    let ms: u64 = reasons(&mesh, 1)
        .split("the clock is ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|ms| ms.parse().ok())
        .expect("it says by how much");
    assert!((299_000..=301_000).contains(&ms), "{ms}");
    assert_eq!(mesh.status_of(1)["result"]["health"], "degraded");
    // One clock of three is no reason for the others to doubt theirs.
    for index in [0, 2] {
        mesh.wait_for("the others stay healthy", LIMIT, |mesh| {
            let status = mesh.status_of(index);
            (status["result"]["health"] == "healthy").then_some(())
        });
        assert!(!reasons(&mesh, index).contains("clock"));
    }
}
