//! A node that has lost events of its own which its peers hold, as a power cut leaves one whose log was not
//! synced: found before it writes again, and kept from its clients until somebody decides.

use super::{LIMIT, follow_fast, mesh_of, told};
use cbddc_tests::mesh::{TestMesh, http};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::time::Duration;

/// The node that forgets.
const BAD: usize = 1;

fn is_drained(mesh: &TestMesh) -> bool {
    !mesh.status_of(BAD)["result"]["drained"].is_null()
}

fn put(mesh: &TestMesh, key: &str) -> u16 {
    let port = mesh.node(BAD).http_port;
    let path = format!("/doc/orders/{key}?flush=1");
    http::request(port, "PUT", &path, "{}").map_or(0, |(status, _)| status)
}

/// Takes from the node what it wrote last: all other nodes have it.
fn forget(mesh: &mut TestMesh, keeps_its_peers: bool) {
    for number in 0..12 {
        let key = format!("k{number}");
        assert!(mesh.put(BAD, "orders", &key, &json!({ "number": number }), true));
    }
    mesh.wait_for("the others have it", LIMIT, |mesh| {
        [0, 2]
            .into_iter()
            .all(|index| mesh.has_document(index, "orders", "k11"))
            .then_some(())
    });
    // Nobody else ever had this one.
    mesh.fault(BAD, "forget-every=1");
    assert!(mesh.put(BAD, "orders", "alone", &json!({ "number": 1 }), true));
    mesh.stop_agent(BAD);
    let node = mesh.node(BAD).node_process();
    node.expect("it runs").kill();
    let faults = if keeps_its_peers { "" } else { "stall-sync" };
    mesh.node(BAD).set("Faults", json!(faults));
    let db = Connection::open(mesh.node(BAD).database()).expect("a database");
    db.busy_timeout(Duration::from_secs(5)).expect("a limit");
    let oplog: String = db
        .query_row(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = 'Oplog'",
            [],
            |row| row.get(0),
        )
        .expect("an oplog");
    let gone = db.execute(
        &format!(r#"DELETE FROM "{oplog}" WHERE "Key" IN ('k6', 'k7', 'k8', 'k9', 'k10', 'k11')"#),
        [],
    );
    assert_eq!(gone.expect("SQL"), 6);
    drop(db);
    mesh.start_agent(BAD);
}

#[test]
fn a_node_that_has_forgotten_is_kept_from_its_clients_until_somebody_decides() {
    let mut mesh = mesh_of(3);
    follow_fast(&mut mesh);
    forget(&mut mesh, false);
    mesh.wait_for("it is found", LIMIT, |mesh| {
        (told(mesh, BAD, "forgotten:") > 0).then_some(())
    });
    mesh.wait_for("its clients are kept away", LIMIT, |mesh| {
        (is_drained(mesh) && put(mesh, "new") == 503).then_some(())
    });
    let status = mesh.status_of(BAD);
    let findings = status["result"]["findings"].to_string();
    assert!(
        findings.contains("n2 has forgotten events of its own"),
        "{status}"
    );
    assert_eq!(status["result"]["drained"]["by"], "agent", "{status}");
    let ran = mesh.cbctl(&["status"]);
    assert!(ran.stdout.contains("cbctl node reseed n2"), "{ran}");
    // No trigger of the other nodes, and no finding there.
    for index in [0, 2] {
        assert_eq!(told(&mesh, index, "forgotten:"), 0);
    }
    // It stays so when its agent begins anew; and a person decides.
    mesh.kill_agent(BAD);
    mesh.start_agent(BAD);
    mesh.wait_for("it is still kept from them", LIMIT, |mesh| {
        (is_drained(mesh) && put(mesh, "new") == 503).then_some(())
    });
    let undrain = [
        "node", "undrain", "--node", "n2", "--reason", "known", "--yes",
    ];
    mesh.cbctl(&undrain).expect(0);
    mesh.wait_for("they may come", LIMIT, |mesh| {
        (put(mesh, "new") == 200).then_some(())
    });
}

#[test]
fn a_node_that_gets_its_history_back_from_its_peers_has_not_forgotten() {
    let mut mesh = mesh_of(3);
    follow_fast(&mut mesh);
    forget(&mut mesh, true);
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh.wait_for("it has its events again", LIMIT, |mesh| {
        let stats = mesh.stats(BAD)?;
        let peers = mesh.stats(0)?;
        let of_own = |stats: &Value| stats["clock"]["n2"].clone();
        (of_own(&stats) == of_own(&peers)).then_some(())
    });
    assert_eq!(
        (told(&mesh, BAD, "forgotten:"), is_drained(&mesh)),
        (0, false)
    );
}

#[test]
fn a_node_that_has_forgotten_takes_everything_from_its_peers_again() {
    let mut mesh = mesh_of(3);
    follow_fast(&mut mesh);
    forget(&mut mesh, false);
    mesh.wait_for("its clients are kept away", LIMIT, |mesh| {
        (is_drained(mesh) && put(mesh, "new") == 503).then_some(())
    });
    let reseed = ["node", "reseed", "n2", "-o", "json"];
    let dry = mesh
        .cbctl(&[&reseed[..], &["--dry-run"]].concat())
        .expect(0);
    assert!(dry.stderr.contains("nothing was changed"), "{dry}");
    mesh.node(BAD).set("Faults", json!(""));
    let ran = mesh.cbctl(&[&reseed[..], &["--yes"]].concat()).expect(0);
    let json = ran.json();
    assert_eq!(json["caught_up"], true, "{ran}");
    let only: Vec<&Value> = json["only_kept"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert_eq!((only.len(), &only[0]["key"]), (1, &json!("alone")), "{ran}");
    // It holds what it had forgotten, and writes on where its history ended.
    for number in 0..12 {
        let key = format!("k{number}");
        assert!(mesh.has_document(BAD, "orders", &key), "{key}");
    }
    mesh.wait_for("clients may come", LIMIT, |mesh| {
        (!is_drained(mesh) && put(mesh, "new") == 200).then_some(())
    });
    let ran = super::audit(&mesh, &[]);
    assert_eq!((ran.code, super::kinds(&ran)), (0, vec![]), "{ran}");
    // What was there can be had again.
    let kept = json["kept"].as_str().expect("a name").to_owned();
    let list = mesh
        .cbctl(&["snapshot", "list", "--node", "n2", "-o", "json"])
        .expect(0);
    assert!(list.stdout.contains(&kept), "{list}");
    mesh.cbctl(&["snapshot", "restore", &kept, "--node", "n2", "--yes"])
        .expect(0);
    mesh.wait_for("the kept state is back", LIMIT, |mesh| {
        mesh.has_document(BAD, "orders", "alone").then_some(())
    });
}

#[test]
fn a_node_without_peers_is_not_begun_without_data() {
    let mut mesh = mesh_of(3);
    assert!(mesh.put(BAD, "orders", "k", &json!({ "number": 1 }), true));
    for index in [0, 2] {
        mesh.stop_agent(index);
        mesh.node(index).node_process().expect("it runs").kill();
    }
    let ran = mesh.cbctl(&["node", "reseed", "n2", "--yes"]).expect(2);
    assert!(ran.stderr.contains("no peer of this node answers"), "{ran}");
    assert!(mesh.has_document(BAD, "orders", "k"));
}
