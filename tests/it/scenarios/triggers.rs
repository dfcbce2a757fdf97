//! Triggers after the commit, with real agents and no client.

use super::{LIMIT, all_agree_on, mesh_on_1_0, options, text};
use cbddc_tests::mesh::{MeshOptions, TestMesh, http};
use serde_json::Value;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

fn watchful(nodes: usize) -> MeshOptions {
    MeshOptions {
        nodes,
        extra_config: r#"
[remediation]
restarts = 1
window = "5min"
backoff = "1s"

[triggers]
sustain = "1s"
data_integrity = "revert-mesh"
found_dir = "found"
"#
        .into(),
        ..options(Duration::from_secs(3), Duration::from_secs(20))
    }
}

/// Rolls a build out that is meant to bake for long.
#[track_caller]
fn roll_out_to_bake(mesh: &TestMesh, version: &str, faults: &str) {
    mesh.make_build(version, faults);
    mesh.roll_out_with(version, &["--bake", "10min"]);
}

/// Raises a trigger on a host by its file.
fn raise(mesh: &TestMesh, index: usize, trigger: &str, cause: &str) {
    let folder = mesh.node(index).folder.join("found");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(trigger), cause).expect("it is raised");
}

fn position(journal: &[Value], kind: &str) -> Option<usize> {
    journal.iter().position(|entry| entry["kind"] == kind)
}

#[test]
fn an_unhealthy_node_is_started_anew_and_then_goes_back() {
    let mesh = mesh_on_1_0(watchful(1));
    roll_out_to_bake(&mesh, "1.1", "unhealthy-after=8");
    mesh.wait_for("it went back", 2 * LIMIT, |mesh| {
        position(&mesh.journal(0), "reverted")
    });
    all_agree_on_one(&mesh, "1.0");
    let journal = mesh.journal(0);
    let at = |kind: &str| position(&journal, kind).unwrap_or_else(|| panic!("no {kind}"));
    // The cause stands before each effect.
    assert!(at("remedied") < at("restart") && at("restart") < at("triggered"));
    assert!(at("triggered") < at("revert_began") && at("revert_began") < at("reverted"));
    let restarts = journal.iter().filter(|entry| entry["kind"] == "restart");
    assert_eq!(restarts.count(), 1);
    let status = mesh.status_of(0)["result"].clone();
    assert!(
        text(&status["drift"]).contains("persistent-unhealthy"),
        "{status:#}"
    );
    // It holds: the record still orders what it left.
    sleep(Duration::from_secs(2));
    all_agree_on_one(&mesh, "1.0");
}

#[track_caller]
fn all_agree_on_one(mesh: &TestMesh, version: &str) {
    let stats = mesh.wait_for("the node answers", LIMIT, |mesh| mesh.stats(0));
    assert_eq!(stats["version"], version);
}

#[test]
fn damage_takes_the_mesh_back_without_any_client() {
    let mesh = mesh_on_1_0(watchful(3));
    roll_out_to_bake(&mesh, "1.1", "");
    all_agree_on(&mesh, "1.1");
    // Two agents at once.
    raise(&mesh, 1, "data-integrity", "till-2 lost an event");
    raise(&mesh, 2, "data-integrity", "till-3 lost an event");
    mesh.wait_for("the mesh went back", 2 * LIMIT, |mesh| {
        let decided = mesh.status()["summary"]["decided"].clone();
        (decided["kind"] == "rollback").then_some(())
    });
    all_agree_on(&mesh, "1.0");
    let decided = mesh.status()["summary"]["decided"].clone();
    let by = text(&decided["proposed_by"]);
    assert!(["node n2", "node n3"].contains(&by.as_str()), "{decided:#}");
    for index in 0..3 {
        let told = |entry: &Value| {
            entry["kind"] == "decided" && text(&entry["text"]).contains("data-integrity: till-")
        };
        assert!(
            mesh.journal(index).iter().any(told),
            "n{} does not tell why",
            index + 1
        );
    }
    // What is still found moves nobody any more, and is told.
    sleep(Duration::from_secs(3));
    all_agree_on(&mesh, "1.0");
    let alarms = mesh.status_of(1)["result"]["alarms"].clone();
    assert!(alarms.to_string().contains("data-integrity"), "{alarms}");
    let again = mesh.cbctl(&mesh.rollout("1.1")).expect(2);
    assert!(again.stderr.contains("revoked"), "{again}");
}

#[test]
fn what_is_found_in_a_critical_collection_reverts_as_damage() {
    let reverts = r#"
[triggers]
sustain = "10min"
[triggers.local]
data_integrity = "revert-node"
"#;
    let options = MeshOptions {
        hosted: true,
        critical_collections: vec!["orders".into()],
        extra_config: reverts.into(),
        ..watchful(1)
    };
    let mesh = mesh_on_1_0(options.with_odd_rows());
    roll_out_to_bake(&mesh, "1.1", "");
    let west = mesh.node(0).west.1;
    let damage = |collection: &str| {
        for (path, method, body) in [
            ("/fault".to_owned(), "POST", "dup-every=1"),
            (format!("/doc/{collection}/k?flush=1"), "PUT", "{}"),
            ("/fault".to_owned(), "POST", "clear"),
        ] {
            let (status, said) = http::request(west, method, &path, body).expect("it answers");
            assert_eq!(status, 200, "{said}");
        }
    };
    // Elsewhere it counts as events that do not arrive, and has to be found for longer.
    damage("stock");
    mesh.wait_for("it is told", LIMIT, |mesh| {
        position(&mesh.journal(0), "replication")
    });
    sleep(Duration::from_secs(3));
    assert_eq!(position(&mesh.journal(0), "revert_began"), None);
    damage("orders");
    mesh.wait_for("it went back", 2 * LIMIT, |mesh| {
        position(&mesh.journal(0), "reverted")
    });
    all_agree_on_one(&mesh, "1.0");
    let journal = mesh.journal(0);
    let triggered = position(&journal, "triggered").expect("a cause");
    let cause = text(&journal[triggered]["text"]);
    assert!(
        cause.contains("data-integrity") && cause.contains("cluster west"),
        "{cause}"
    );
}

#[test]
fn a_peer_that_is_not_required_sets_nothing_off() {
    let mut mesh = mesh_on_1_0(watchful(1));
    // A node of the same cluster that n1 does not know.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let stranger = crate::fixture::node("stranger", folder.path());
    let stranger = runtime.block_on(stranger.start()).expect("it starts");
    let port = stranger.tcp.port();
    let mut expect_peer = |node: &str, words: &str| {
        let config = mesh.node(0).config();
        let said = fs::read_to_string(&config).expect("a configuration");
        let peer = format!("expected_peers = [\"{node}=127.0.0.1:{port}\"]");
        let lines = said
            .lines()
            .map(|line| match line.starts_with("expected_peers") {
                true => peer.as_str(),
                false => line,
            });
        fs::write(&config, lines.collect::<Vec<_>>().join("\n")).expect("written");
        mesh.stop_agent(0);
        mesh.start_agent(0);
        mesh.wait_for(words, LIMIT, |mesh| {
            let ran = mesh.cbctl(&["health", "show", "-o", "json"]);
            let json = ran.json();
            let checks = json["nodes"][0]["result"]["checks"].as_array()?.clone();
            let check = checks.into_iter().find(|check| check["name"] == "cbddc")?;
            let missed = text(&check["reason"]).contains(words);
            missed.then(|| text(&check["status"]))
        })
    };
    // No member of this name: nobody requires it.
    let missed = "not joined with";
    assert_eq!(expect_peer("n9", missed), "degraded");
    // Where it is required, a node is given some time to join it.
    assert_eq!(expect_peer("n1", "yet to join"), "degraded");
    assert_eq!(expect_peer("n1", missed), "unhealthy");
    let alarm = |mesh: &TestMesh| mesh.status_of(0)["result"]["alarms"].to_string();
    mesh.wait_for("it is set off", LIMIT, |mesh| {
        alarm(mesh).contains("auth-or-connectivity").then_some(())
    });
    let journal = mesh.journal(0);
    let told = journal
        .iter()
        .filter(|line| text(&line["text"]).contains("auth-or-connectivity"));
    let told: Vec<String> = told.map(|line| text(&line["text"])).collect();
    assert!(
        told.iter().all(|line| !line.contains("not required")),
        "{told:?}"
    );
    drop(stranger);
}

#[test]
fn once_it_has_baked_it_is_only_told() {
    let mesh = mesh_on_1_0(watchful(1));
    super::roll_out(&mesh, "1.1");
    raise(&mesh, 0, "data-integrity", "till-1 lost an event");
    mesh.wait_for("it is told", LIMIT, |mesh| {
        let alarms = mesh.status_of(0)["result"]["alarms"].clone();
        alarms
            .to_string()
            .contains("till-1 lost an event")
            .then_some(())
    });
    sleep(Duration::from_secs(2));
    all_agree_on_one(&mesh, "1.1");
    assert_eq!(position(&mesh.journal(0), "revert_began"), None);
    // It is over once nobody finds it any more.
    let raised = mesh.node(0).folder.join("found/data-integrity");
    fs::remove_file(raised).expect("it was raised");
    mesh.wait_for("it is over", LIMIT, |mesh| {
        let alarms = mesh.status_of(0)["result"]["alarms"].clone();
        alarms.as_array().is_some_and(Vec::is_empty).then_some(())
    });
}
