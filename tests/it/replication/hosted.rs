//! Hosted servers of two clusters, which only respond: each cluster is looked at by itself, and each
//! server, too, since no server is a peer of another.

use super::{LIMIT, audit, findings, kinds};
use cbddc_tests::mesh::{MeshOptions, Ran, TestMesh, Writer, http};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};

/// Two hosted servers on a good build, with documents in both clusters.
fn hosted() -> TestMesh {
    let options = MeshOptions {
        nodes: 2,
        hosted: true,
        ..MeshOptions::default()
    };
    let mesh = TestMesh::start(options.with_odd_rows());
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh
}

/// Writes at one server only: the other one owes nothing to it.
fn writer(mesh: &TestMesh, name: &str, port: u16, collection: &str) -> Writer {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let writer = Writer::start_at(vec![(name.to_owned(), address)], collection, || ());
    mesh.wait_for("the first events", LIMIT, |_| {
        (writer.acknowledged() > 30).then_some(())
    });
    writer
}

/// What the check of a cluster's port says.
fn check_of(mesh: &TestMesh, node: &str, name: &str) -> Value {
    let ran = mesh.cbctl(&["health", "show", "--node", node, "-o", "json"]);
    let json = ran.json();
    let checks = json["nodes"][0]["result"]["checks"].as_array();
    let mut checks = checks.unwrap_or_else(|| panic!("{ran}")).iter();
    let found = checks.find(|check| check["name"] == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {ran}"))
        .clone()
}

#[track_caller]
fn post(port: u16, faults: &str) {
    let answer = http::request(port, "POST", "/fault", faults);
    let (status, said) = answer.expect("the node answers");
    assert_eq!(status, 200, "{said}");
}

/// Every finding is in the second cluster, on the first server.
#[track_caller]
fn only_in_west_on_n1(ran: &Ran, kind: &str) {
    let found = findings(ran, kind);
    assert!(!found.is_empty(), "{ran}");
    for finding in found {
        assert_eq!(finding["cluster"], "west", "{ran}");
        assert_eq!(finding["on"], serde_json::json!(["n1"]), "{ran}");
    }
}

#[test]
fn a_fault_of_the_second_cluster_is_found_there_and_only_there() {
    let mesh = hosted();
    let n1 = mesh.node(0);
    let (east, west) = (
        writer(&mesh, "n1", n1.http_port, "orders"),
        writer(&mesh, "n1", n1.west.1, "stock"),
    );
    // Where nothing is wrong nothing is found, although the servers hold different events.
    let ran = audit(&mesh, &[]);
    assert_eq!((ran.code, kinds(&ran)), (0, Vec::new()), "{ran}");
    let json = ran.json();
    for (collection, other) in [("east/orders", "west/orders"), ("west/stock", "east/stock")] {
        assert!(
            json["collections"][collection]["events"].as_u64() > Some(30),
            "{ran}"
        );
        assert_eq!(json["collections"][other], Value::Null, "{ran}");
    }
    let rows = json["nodes"].as_array().expect("rows").len();
    assert_eq!(rows, 4, "a row for each cluster of each server: {ran}");
    let line = ["replication", "check", "-o", "json", "--wait", "20s"];
    let ran = mesh.cbctl(&line).expect(0);
    assert_eq!(ran.json()["findings"], serde_json::json!([]), "{ran}");
    for cluster in ["cbddc-east", "cbddc-west"] {
        let check = check_of(&mesh, "n1", cluster);
        assert_eq!(
            check["status"], "healthy",
            "it need not join anybody: {check:#}"
        );
    }

    post(mesh.node(0).west.1, "dup-every=5");
    let before = west.acknowledged();
    mesh.wait_for("events under the fault", LIMIT, |_| {
        (west.acknowledged() > before + 30).then_some(())
    });
    let ran = audit(&mesh, &[]);
    assert_eq!(
        (ran.code, kinds(&ran)),
        (8, vec!["duplicate".to_owned()]),
        "{ran}"
    );
    only_in_west_on_n1(&ran, "duplicate");
    // The agent finds it by itself, too, and says where.
    mesh.wait_for("n1 tells of it", LIMIT, |mesh| {
        let told = |line: &Value| {
            let text = line["text"].as_str().unwrap_or_default();
            line["kind"] == "replication" && text.starts_with("duplicate: cluster west: n1")
        };
        mesh.journal(0).iter().any(told).then_some(())
    });
    let ran = mesh.cbctl(&line).expect(8);
    let json = ran.json();
    let found = json["found_by_agents"].as_array().expect("findings").iter();
    let found = found.chain(json["findings"].as_array().expect("findings"));
    for finding in found {
        assert_eq!(
            (&finding["cluster"], &finding["node"]),
            (&"west".into(), &"n1".into()),
            "{ran}"
        );
    }
    drop((east, west));
}

#[test]
fn a_port_of_the_second_cluster_that_refuses_the_token_is_told_by_its_name() {
    let mesh = hosted();
    post(mesh.node(1).west.1, "refuse-auth");
    mesh.wait_for("it is told", LIMIT, |mesh| {
        (check_of(mesh, "n2", "cbddc-west")["status"] == "unhealthy").then_some(())
    });
    let check = check_of(&mesh, "n2", "cbddc-west");
    let detail = check["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("cluster west: the node refuses"),
        "{check:#}"
    );
    for (node, check) in [("n2", "cbddc-east"), ("n1", "cbddc-west")] {
        mesh.wait_for("the others are healthy", LIMIT, |mesh| {
            (check_of(mesh, node, check)["status"] == "healthy").then_some(())
        });
    }
}

#[test]
fn a_rollout_fails_by_the_second_cluster_and_its_snapshot_holds_both() {
    let mesh = hosted();
    let node = mesh.node(0);
    let west = writer(&mesh, "n1", node.west.1, "stock");
    mesh.make_build("1.1", "west.dup-every=2");
    let ran = mesh.cbctl(&mesh.rollout("1.1"));
    assert_eq!(ran.code, 4, "{ran}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("cluster west: n1 holds"), "{ran}");
    assert!(!said.contains("cluster east: n1 holds"), "{ran}");
    mesh.wait_until_all_run("1.0", LIMIT);
    let list = mesh
        .cbctl(&["snapshot", "list", "--node", "n1", "-o", "json"])
        .expect(0);
    let json = list.json();
    let snapshots = json["nodes"][0]["result"].clone();
    let snapshots = snapshots
        .as_array()
        .cloned()
        .or_else(|| snapshots["snapshots"].as_array().cloned());
    let snapshots = snapshots.unwrap_or_else(|| panic!("{list}"));
    let newest = snapshots.iter().filter(|one| one["databases"] == 2);
    assert!(newest.count() > 0, "{list}");
    drop(west);
}

#[test]
fn a_restore_brings_both_databases_back() {
    let mesh = hosted();
    let (east, west) = (mesh.node(0).http_port, mesh.node(0).west.1);
    let put = |port, key: &str| {
        let path = format!("/doc/orders/{key}?flush=1");
        let answer = http::request(port, "PUT", &path, "{}").expect("the node answers");
        assert_eq!(answer.0, 200, "{answer:?}");
    };
    let has = |port, key: &str| {
        let answer = http::request(port, "GET", &format!("/doc/orders/{key}"), "");
        answer.ok().map(|(status, _)| status)
    };
    put(east, "before");
    put(west, "before");
    mesh.make_build("1.1", "");
    mesh.roll_out("1.1");
    mesh.wait_until_all_run("1.1", LIMIT);
    put(east, "after");
    put(west, "after");
    mesh.cbctl(&["rollback", "--mesh", "--restore", "--yes"])
        .expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    for port in [east, west] {
        mesh.wait_for("the old state is back", LIMIT, |_| {
            has(port, "before").filter(|it| *it == 200)
        });
        assert_eq!(has(port, "after"), Some(404), "port {port}");
    }
}
