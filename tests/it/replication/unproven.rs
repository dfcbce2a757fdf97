//! A target collection in which nothing moves keeps a rollout from passing, unless that is accepted.

use super::{LIMIT, kinds};
use cbddc_tests::mesh::{MeshOptions, TestMesh, Timing, Writer};
use std::time::Duration;

fn mesh() -> TestMesh {
    let timing = Timing {
        verify: Duration::from_secs(12),
        ..Timing::default()
    };
    let mesh = TestMesh::start(MeshOptions {
        target_collections: vec!["orders".into()],
        timing,
        ..MeshOptions::default()
    });
    mesh.make_build("1.0", "");
    mesh.roll_out_with("1.0", &["--accept-unproven"]);
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh
}

#[test]
fn nothing_seen_is_nothing_proven() {
    let mesh = mesh();
    mesh.make_build("1.1", "");
    let ran = mesh.cbctl(&mesh.rollout("1.1")).expect(4);
    assert!(ran.stderr.contains("unproven"), "{ran}");
    mesh.wait_until_all_run("1.0", LIMIT);
    let short = ["replication", "check", "--wait", "3s"];
    let ran = mesh.cbctl(&short).expect(8);
    assert!(ran.stdout.contains("unproven"), "{ran}");
    let accepted = ["replication", "check", "--accept-unproven"];
    mesh.cbctl(&accepted).expect(0);

    let writer = Writer::start(&mesh, "orders");
    let ran = mesh
        .cbctl(&["replication", "check", "-o", "json"])
        .expect(0);
    let json = ran.json();
    assert_eq!(json["verdict"], "passed", "{ran}");
    let (p50, p99) = (&json["arrival"]["p50_ms"], &json["arrival"]["p99_ms"]);
    assert!(
        p50.as_u64() > Some(0) && p50.as_u64() <= p99.as_u64(),
        "{ran}"
    );
    let other = [
        "replication",
        "check",
        "--collections",
        "other",
        "--wait",
        "3s",
    ];
    mesh.cbctl(&other).expect(8);
    mesh.make_build("1.2", "");
    mesh.roll_out("1.2");
    drop(writer);
    assert_eq!(kinds(&super::audit(&mesh, &[])), Vec::<String>::new());
}
