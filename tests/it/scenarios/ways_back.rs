//! Rollbacks that are not the plain case.

use super::{LIMIT, mesh_on_1_0, options, roll_out, text, wait_for_phase};
use crate::joining::{ctl_in, only};
use cbddc_tests::mesh::{MeshOptions, Ran, TestMesh};
use serde_json::{Value, json};
use std::time::Duration;

fn usual() -> MeshOptions {
    options(Duration::from_secs(3), Duration::from_secs(20))
}

#[test]
fn a_host_that_was_away_converges_when_it_comes_back() {
    let mut mesh = mesh_on_1_0(usual());
    let nowhere = mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(2);
    assert!(
        nowhere.stderr.contains("no release to go back to"),
        "{nowhere}"
    );
    roll_out(&mesh, "1.1");
    mesh.kill_agent(2);
    let ran = mesh
        .cbctl(&[
            "rollback",
            "--mesh",
            "--yes",
            "--verify",
            "3s",
            "--timeout",
            "2s",
        ])
        .expect(3);
    assert!(ran.stderr.contains("n3"), "{ran}");
    mesh.start_agent(2);
    mesh.wait_until_all_run("1.0", LIMIT);
    // What was left is revoked: it is not rolled out again.
    let again = mesh.cbctl(&mesh.rollout("1.1")).expect(2);
    assert!(again.stderr.contains("revoked"), "{again}");
}

#[test]
fn a_rollback_ends_a_rollout_that_is_under_way() {
    let mesh = mesh_on_1_0(options(Duration::from_secs(15), Duration::from_secs(20)));
    mesh.make_build("1.1", "");
    let mut client = mesh.cbctl_spawn(&mesh.rollout("1.1"));
    wait_for_phase(&mesh, 0, "probation");
    mesh.cbctl(&["rollback", "--mesh", "--yes", "--reason", "stop it"])
        .expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    assert_ne!(client.wait(LIMIT).code, 0);
    let again = mesh.cbctl(&mesh.rollout("1.1")).expect(2);
    assert!(
        again.stderr.contains("revoked") && again.stderr.contains("stop it"),
        "{again}"
    );
}

#[test]
fn a_restore_brings_the_old_state_back_and_keeps_the_new_one() {
    let mesh = mesh_on_1_0(MeshOptions {
        nodes: 1,
        ..usual()
    });
    assert!(mesh.put(0, "orders", "before", &json!({"n": 1}), true));
    roll_out(&mesh, "1.1");
    assert!(mesh.put(0, "orders", "after", &json!({"n": 2}), true));
    mesh.cbctl(&["rollback", "--mesh", "--yes", "--restore"])
        .expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    assert!(mesh.has_document(0, "orders", "before"));
    assert!(!mesh.has_document(0, "orders", "after"));
    let owed = mesh.status_of(0)["result"]["owed"].clone();
    let kept = owed[0]
        .as_str()
        .expect("what was replaced is owed")
        .to_owned();
    // It is still there, and can be had back.
    mesh.cbctl(&["snapshot", "restore", &kept, "--node", "n1", "--yes"])
        .expect(0);
    mesh.wait_for("the newer document is back", LIMIT, |mesh| {
        mesh.has_document(0, "orders", "after").then_some(())
    });
    mesh.cbctl(&["rollback", "--mesh", "--to", "1.7", "--yes"])
        .expect(1);
}

/// Old snapshots go by themselves, but for a person's and those that a way back needs.
#[test]
fn snapshots_that_no_way_back_needs_go() {
    let mesh = mesh_on_1_0(MeshOptions {
        nodes: 1,
        extra_config: "\n[limits]\nsnapshots_kept = 2\n".into(),
        ..usual()
    });
    mesh.cbctl(&["snapshot", "create", "--yes"]).expect(0);
    roll_out(&mesh, "1.1");
    assert!(mesh.put(0, "orders", "in-1.1", &json!({"n": 1}), true));
    roll_out(&mesh, "1.2");
    roll_out(&mesh, "1.3");
    let snapshots = || {
        let list = mesh.cbctl(&["snapshot", "list", "-o", "json"]).expect(0);
        let list = list.json()["nodes"][0]["result"].clone();
        let list = list.as_array().expect("a list").clone();
        let ids = list.iter().map(|one| text(&one["id"]));
        ids.collect::<Vec<_>>()
    };
    let kept = mesh.wait_for("old snapshots go", LIMIT, |_| {
        let kept = snapshots();
        (kept.len() == 3).then_some(kept)
    });
    assert!(kept.contains(&"before-g3".to_owned()), "{kept:?}");
    assert!(kept.contains(&"before-g4".to_owned()), "{kept:?}");
    let told = |entry: &Value| {
        entry["kind"] == "snapshots_removed" && text(&entry["text"]).contains("before-g2")
    };
    mesh.wait_for("it is told", LIMIT, |mesh| {
        mesh.journal(0).iter().any(told).then_some(())
    });
    mesh.cbctl(&["rollback", "--mesh", "--yes", "--restore"])
        .expect(0);
    mesh.wait_until_all_run("1.2", LIMIT);
    assert!(mesh.has_document(0, "orders", "in-1.1"));
}

#[test]
fn one_node_alone_goes_forth_and_back() {
    let mesh = mesh_on_1_0(usual());
    mesh.make_build("1.1", "");
    roll_out_to(&mesh, "1.1", "n2").expect(0);
    let version = |index| mesh.stats(index).map(|stats| stats["version"].clone());
    assert_eq!(
        [version(0), version(1), version(2)],
        [Some(json!("1.0")), Some(json!("1.1")), Some(json!("1.0"))]
    );
    let back = ["rollback", "--node", "n2", "--yes"];
    mesh.cbctl(&back).expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    // Its build is not revoked, as the other nodes may run it; and they keep it.
    mesh.roll_out("1.1");
    mesh.wait_until_all_run("1.1", LIMIT);
    mesh.cbctl(&back).expect(0);
    assert_eq!(
        [version(0), version(1), version(2)],
        [Some(json!("1.1")), Some(json!("1.0")), Some(json!("1.1"))]
    );
}

/// A rollout to one node alone.
fn roll_out_to(mesh: &TestMesh, version: &str, node: &str) -> Ran {
    let mut arguments = mesh.rollout(version);
    let all = arguments
        .iter()
        .position(|word| word == "--mesh")
        .expect("the whole mesh is meant");
    arguments.splice(all..=all, ["--node".to_owned(), node.to_owned()]);
    mesh.cbctl(&arguments)
}

#[test]
fn a_mesh_of_which_one_node_is_ahead_goes_back_to_what_the_others_run() {
    let mesh = mesh_on_1_0(usual());
    roll_out(&mesh, "1.1");
    mesh.make_build("1.2", "");
    roll_out_to(&mesh, "1.2", "n2").expect(0);
    // Who may only look is told so.
    let vera = mesh.root().join("vera");
    let out = vera.to_string_lossy();
    let add = [
        "mesh", "user", "add", "vera", "--role", "viewer", "--out", &out,
    ];
    mesh.cbctl(&add).expect(0);
    let hers = only(&mesh, 0, &vera);
    let back = ["rollback", "--mesh", "--yes"];
    let refused = ctl_in(&mesh, &hers, &back).expect(7);
    assert!(refused.stderr.contains("vera (viewer)"), "{refused}");

    let ran = mesh.cbctl(&back).expect(0);
    let line = "from cbddc@1.2";
    assert!(
        ran.stderr.contains(line) && ran.stderr.contains("back to cbddc@1.1"),
        "{ran}"
    );
    mesh.wait_until_all_run("1.1", LIMIT);
    let again = roll_out_to(&mesh, "1.2", "n2").expect(2);
    assert!(again.stderr.contains("revoked"), "{again}");
    mesh.cbctl(&back).expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
}

#[test]
fn a_minority_is_told_what_it_may_do_and_holds_nothing() {
    let mut mesh = mesh_on_1_0(usual());
    roll_out(&mesh, "1.1");
    mesh.kill_agent(0);
    mesh.kill_agent(1);
    for more in [&[][..], &["--to", "cbddc@1.0"]] {
        let line = ["rollback", "--mesh", "--yes", "--timeout", "2s"];
        let refused = mesh.cbctl(&[&line[..], more].concat()).expect(2);
        for words in ["1 of 3 voters can be reached", "--minority", "n1: ", "n2: "] {
            assert!(refused.stderr.contains(words), "no `{words}` in {refused}");
        }
        assert_eq!(mesh.status_of(2)["result"]["lock"], Value::Null);
    }
    mesh.start_agent(0);
    mesh.start_agent(1);
    // Well before a lease would have run out.
    roll_out(&mesh, "1.2");
}

#[test]
fn a_member_that_is_away_and_was_not_meant_leaves_no_doubt() {
    let mut mesh = mesh_on_1_0(options(Duration::from_secs(3), Duration::from_secs(6)));
    mesh.make_build("1.1", "crash-on-start=3");
    mesh.kill_agent(2);
    let ran = roll_out_to(&mesh, "1.1", "n1").expect(4);
    assert!(ran.stderr.contains("went back"), "{ran}");
    mesh.start_agent(2);
    mesh.wait_until_all_run("1.0", LIMIT);
}

#[test]
fn a_way_back_whose_build_is_beyond_repair_gives_way_to_the_next_one() {
    let mesh = mesh_on_1_0(options(Duration::from_secs(4), Duration::from_secs(8)));
    roll_out(&mesh, "1.1");
    mesh.make_build("1.2", "unhealthy-after=0");
    // The disk of the canary's host loses a file of 1.1, and a part of the bundle beside it.
    let tree = mesh.node(0).folder.join("state/store/current");
    let tree = tree.canonicalize().expect("`current` points to a build");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&tree, open).expect("a mode");
    std::fs::remove_file(tree.join("version")).expect("a removal");
    std::fs::write(tree.with_file_name("bundle.tar.zst"), "cut off").expect("a file");
    mesh.cbctl(&mesh.rollout("1.2")).expect(4);
    // It went on with 1.0, and then got 1.1, which is what is decided, from a peer.
    mesh.wait_until_all_run("1.1", LIMIT);
    let lines = mesh.journal(0);
    let text = |line: &Value| line["text"].as_str().unwrap_or_default().to_owned();
    let of = |kind: &str| {
        lines
            .iter()
            .filter(|line| line["kind"] == kind)
            .map(text)
            .collect::<Vec<_>>()
    };
    let (next, failed) = (
        of("next_way_back").join("\n"),
        of("effect_failed").join("\n"),
    );
    assert!(
        next.contains("going back to generation 1 instead, cbddc@1.0"),
        "{next}"
    );
    let words =
        "cbddc@1.1 is damaged in the build store (`version` is missing), and cannot be put right";
    assert!(failed.contains(words), "{failed}");
    assert!(
        of("reverted")
            .iter()
            .any(|text| text == "back on generation 1"),
        "{lines:?}"
    );
    assert!(of("stuck").is_empty(), "{lines:?}");
}

/// What the journal of a mesh of one says of this kind, after a failed rollout from a build with this
/// fault, whose start takes longer than `ready_timeout`, 10 s.
fn way_back_to(faults: &str, until: &str, kind: &str) -> Vec<String> {
    let mesh = TestMesh::start(MeshOptions {
        nodes: 1,
        ..options(Duration::from_secs(4), Duration::from_secs(10))
    });
    mesh.make_build("1.0", faults);
    mesh.first_release("1.0");
    mesh.make_build("1.1", "crash-on-start=3");
    let ran = mesh.cbctl(&mesh.rollout("1.1"));
    assert_ne!(ran.code, 0, "{ran}");
    mesh.wait_for(until, LIMIT, |mesh| {
        let lines = mesh.journal(0);
        lines.iter().any(|line| line["kind"] == until).then_some(())
    });
    let lines = mesh.journal(0);
    let of_kind = lines.iter().filter(|line| line["kind"] == kind);
    of_kind.map(|line| line["text"].to_string()).collect()
}

#[test]
fn a_node_that_replays_its_log_on_its_way_back_is_waited_for() {
    let told = way_back_to("busy-start=14", "reverted", "start_busy");
    let [told] = &told[..] else {
        panic!("told {told:?}");
    };
    assert!(
        told.contains("not ready after 10 s, and is still busy"),
        "{told}"
    );
    assert!(told.contains("up to 600 s"), "{told}");
}

#[test]
fn a_node_that_sleeps_on_its_way_back_is_not_waited_for() {
    let told = way_back_to("slow-start=14", "effect_failed", "effect_failed");
    assert!(told[0].contains("not ready within 10 s: "), "{told:?}");
}
