//! A node that wants some collections only: it owes those, and nothing else.

use super::{LIMIT, audit, counts, findings, kinds, restart};
use cbddc_tests::mesh::{MeshOptions, TestMesh, Writer, Written};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};

/// The node that wants less.
const FEW: usize = 2;

/// A mesh whose third node wants orders only.
fn mesh() -> TestMesh {
    let mesh = TestMesh::start(MeshOptions::default());
    mesh.node(FEW).declare(&["orders"]);
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh
}

/// Writes to a collection at the nodes that want everything.
fn write(mesh: &TestMesh, collection: &str) -> Writer {
    let all = &mesh.nodes()[..FEW];
    let places = all.iter().map(|node| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.http_port));
        (node.name.clone(), address)
    });
    Writer::start_at(places.collect(), collection, || ())
}

#[test]
fn what_a_node_does_not_want_is_not_missed_there() {
    let mesh = mesh();
    let writers = ["orders", "stock"].map(|collection| write(&mesh, collection));
    let more = |count: usize| {
        let begun = writers.each_ref().map(Writer::acknowledged);
        mesh.wait_for("documents", LIMIT, |_| {
            let mut both = writers.iter().zip(begun);
            both.all(|(writer, begun)| writer.acknowledged() > begun + count)
                .then_some(())
        });
    };
    more(60);
    restart(&mesh, 0);
    restart(&mesh, FEW);
    // Events and documents, while both are written on.
    let ran = audit(&mesh, &[]);
    assert_eq!((ran.code, kinds(&ran)), (0, vec![]), "{ran}");
    mesh.cbctl(&["replication", "check"]).expect(0);
    mesh.make_build("1.1", "");
    mesh.roll_out("1.1");
    for index in 0..mesh.len() {
        let journal = mesh.journal(index);
        let told = journal.iter().find(|line| line["kind"] == "replication");
        assert_eq!(told, None, "on node {index}");
    }

    // What it wants and has not taken is missed as anywhere else.
    mesh.fault(FEW, "drop-every=7");
    more(60);
    let ran = audit(&mesh, &[]);
    assert_eq!(ran.code, 8, "{ran}");
    assert!(counts(&ran).contains_key("missed"), "{ran}");
    for finding in findings(&ran, "missed") {
        assert_eq!(
            (&finding["collection"], &finding["not_on"]),
            (&json!("orders"), &json!(["n3"])),
            "{ran}"
        );
    }
    let [orders, stock] = writers.map(Writer::stop);
    let has = |written: &Written, index: usize| {
        let key = &written.acknowledged[0];
        mesh.has_document(index, &written.collection, key)
    };
    assert_eq!([has(&orders, FEW), has(&stock, FEW)], [true, false]);
    assert_eq!([has(&orders, 1), has(&stock, 1)], [true, true]);
}
