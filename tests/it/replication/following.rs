//! Agents find by themselves what goes wrong on their nodes, and write it down once.

use super::{DECLARED, LIMIT, follow_fast, told};
use cbddc_tests::mesh::{MeshOptions, TestMesh, Writer};
use serde_json::Value;

#[test]
fn findings_are_in_the_journal_and_in_the_check() {
    let mut mesh = TestMesh::start(MeshOptions::default().with_odd_rows());
    (0..3).for_each(|index| mesh.node(index).declare(&DECLARED));
    follow_fast(&mut mesh);
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    let writer = Writer::start(&mesh, "orders");
    // A clock that has seen nothing of a node yet says nothing.
    mesh.wait_for("events are everywhere", LIMIT, |mesh| {
        let clock = mesh.stats(2)?["clock"].clone();
        clock.as_object().filter(|clock| clock.len() == 3).map(drop)
    });
    mesh.fault(2, "stall-sync");
    mesh.wait_for("n3 tells that it is stalled", LIMIT, |mesh| {
        (told(mesh, 2, "stalled:") > 0).then_some(())
    });
    // Clocks differ and stand still, also where nobody writes any more.
    drop(writer);
    let line = ["replication", "check", "-o", "json"];
    let quiet = ["--since", "1s", "--quiesce", "2s", "--wait", "30s"];
    let ran = mesh.cbctl(&[&line[..], &quiet[..]].concat()).expect(8);
    let json = ran.json();
    let findings = json["findings"].as_array().expect("findings");
    let stalled = |it: &Value| it["kind"] == "stalled" && it["node"] == "n3";
    assert_eq!(json["verdict"], "failed", "{ran}");
    assert!(findings.iter().any(stalled), "{ran}");

    let _writer = Writer::start(&mesh, "orders");
    mesh.fault(1, "dup-every=5");
    mesh.wait_for("n2 tells of duplicates", LIMIT, |mesh| {
        (told(mesh, 1, "duplicate:") > 0).then_some(())
    });
    let ran = mesh
        .cbctl(&[&line[..], &["--wait", "1s"]].concat())
        .expect(8);
    let json = ran.json();
    let found = json["found_by_agents"].as_array().expect("findings");
    let has = |kind: &str, node: &str| {
        found
            .iter()
            .any(|it| it["kind"] == kind && it["node"] == node)
    };
    assert!(has("duplicate", "n2") && has("stalled", "n3"), "{ran}");
    assert!(!found.iter().any(|it| it["node"] == "n1"), "{ran}");
    // One line per kind and origin, however often it is seen: three nodes write.
    assert!(told(&mesh, 1, "duplicate:") <= 3);
    let ran = mesh.cbctl(&["status"]).expect(8);
    assert!(ran.stdout.contains("replication: n3 is stalled"), "{ran}");
}
