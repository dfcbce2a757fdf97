//! A bad build of each kind is caught by the check that should catch it, and the mesh goes back.

use super::{LIMIT, mesh_on_1_0, options, trust};
use cbddc_tests::mesh::node::TestNode;
use cbddc_tests::mesh::{MeshOptions, TestMesh, Writer, build};
use std::time::Duration;

/// Rolls a bad build out: it fails with one of these words, and the mesh is back on 1.0.
#[track_caller]
fn caught(mesh: &TestMesh, version: &str, faults: &str, words: &[&str]) {
    mesh.make_build(version, faults);
    caught_when_rolled_out(mesh, version, faults, words);
}

/// The same for a build that is there already.
#[track_caller]
fn caught_when_rolled_out(mesh: &TestMesh, version: &str, faults: &str, words: &[&str]) {
    let ran = mesh.cbctl(&mesh.rollout(version)).expect(4);
    let told = ran
        .stderr
        .lines()
        .find(|line| line.starts_with("went back"))
        .unwrap_or_default();
    assert!(
        words.iter().any(|word| told.contains(word)),
        "{faults}: {told:?} has none of {words:?}\n{ran}"
    );
    mesh.wait_until_all_run("1.0", LIMIT);
    for index in 0..mesh.len() {
        let stats = mesh.stats(index).expect("the node answers");
        assert_eq!(stats["version"], "1.0");
    }
    let touched: Vec<usize> = (0..mesh.len())
        .filter(|index| {
            mesh.journal(*index).iter().any(|entry| {
                entry["text"].as_str().is_some_and(|text| {
                    entry["kind"] == "switch_began" && text.contains(&format!("cbddc@{version} "))
                })
            })
        })
        .collect();
    assert_eq!(touched, [0], "{faults}: only the canary may have met it");
}

/// No fault of the fixture node: the build itself brings a token that is not the mesh's.
#[track_caller]
fn push_build_with_other_token(mesh: &TestMesh, version: &str) {
    let folder = mesh.root().join("builds").join(version);
    let program = build::write(&folder, version, "").join("bin/cbddc");
    let text = std::fs::read_to_string(&program).expect("the program can be read");
    let text = text.replace("--version", "--token a-token-of-another-mesh --version");
    std::fs::write(&program, text).expect("the program can be written");
    let (folder, id) = (format!("builds/{version}"), format!("cbddc@{version}"));
    mesh.cbctl(&["build", "pack", &folder, "--build", &id])
        .expect(0);
    mesh.cbctl(&["build", "push", &format!("{id}.cbundle")])
        .expect(0);
}

#[test]
fn what_nodes_write_into_their_builds_stands_in_no_way_back() {
    let mesh = mesh_on_1_0(options(Duration::from_secs(4), Duration::from_secs(8)));
    let file = "state/store/current/entgldb_metrics.bin";
    mesh.wait_for("the nodes wrote into their build", LIMIT, |mesh| {
        let wrote = |node: &TestNode| node.folder.join(file).exists();
        mesh.nodes().iter().all(wrote).then_some(())
    });
    // A folder in which the application was run before it was packed: the file is in the manifest, and
    // every start alters it.
    let ran = mesh.root().join("builds/1.1");
    build::write(&ran, "1.1", "");
    std::fs::write(ran.join("entgldb_metrics.bin"), "of the developer").expect("a file");
    let (pack, push) = (
        ["build", "pack", "builds/1.1", "--build", "cbddc@1.1"],
        ["build", "push", "cbddc@1.1.cbundle"],
    );
    mesh.cbctl(&pack).expect(0);
    mesh.cbctl(&push).expect(0);
    mesh.roll_out("1.1");
    // A failed rollout goes back to it, and it can be rolled out again after a way back.
    mesh.make_build("1.2", "unhealthy-after=0");
    mesh.cbctl(&mesh.rollout("1.2")).expect(4);
    mesh.wait_until_all_run("1.1", LIMIT);
    mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    trust(&mesh, "cbddc@1.1");
    mesh.roll_out("1.1");
    mesh.wait_until_all_run("1.1", LIMIT);
    let texts: String = mesh
        .journal(0)
        .iter()
        .map(|line| format!("{}\n", line["text"]))
        .collect();
    for words in [
        "it was put right from its kept bundle",
        "what an earlier run left in the folder of cbddc@1.0 is now in ",
        ": entgldb_metrics.bin",
    ] {
        assert!(texts.contains(words), "no {words:?} in {texts}");
    }
}

/// What does not come up is found out once the time of its wave is over; what is found before that is
/// found at once, so that more time costs nothing.
fn mesh(verify: u64) -> TestMesh {
    let options = options(Duration::from_secs(5), Duration::from_secs(verify));
    mesh_on_1_0(options.with_odd_rows())
}

#[test]
fn builds_that_do_not_come_up() {
    let mesh = mesh(10);
    let writer = Writer::start(&mesh, "orders");
    caught(
        &mesh,
        "1.1",
        "crash-on-start=3",
        &["ended by itself", "exit code 3"],
    );
    caught(&mesh, "1.2", "crash-after=1", &["ended by itself"]);
    caught(&mesh, "1.3", "slow-start=60", &["healthy", "ready"]);
    caught(&mesh, "1.4", "unhealthy-after=0", &["http"]);
    let count = mesh.count_documents(&writer.stop(), LIMIT);
    assert!(count.acknowledged > 10 && count.is_clean(), "{count:?}");
}

#[test]
fn a_node_that_ends_leaves_its_last_lines_without_secrets() {
    let mesh = mesh_on_1_0(MeshOptions {
        nodes: 1,
        ..options(Duration::from_secs(4), Duration::from_secs(10))
    });
    let folder = mesh.root().join("builds/1.1");
    let program = build::write(&folder, "1.1", "").join("bin/cbddc");
    let text = "#!/bin/sh\ni=0\nwhile [ $i -lt 40 ]; do i=$((i + 1)); echo at line $i; done\n\
        printf 'Unhandled exception.\\033[0m The token is a-token-for-tests, Password=pw-1;\\n' >&2\nexit 3\n";
    std::fs::write(&program, text).expect("the program can be written");
    let pack = ["build", "pack", "builds/1.1", "--build", "cbddc@1.1"];
    mesh.cbctl(&pack).expect(0);
    mesh.cbctl(&["build", "push", "cbddc@1.1.cbundle"])
        .expect(0);
    let ran = mesh.cbctl(&mesh.rollout("1.1")).expect(4);
    assert!(ran.stderr.contains("ended by itself: exit code 3"), "{ran}");
    let journal = mesh.journal(0);
    let said: Vec<&str> = journal
        .iter()
        .filter(|line| line["kind"] == "node_said")
        .filter_map(|line| line["text"].as_str())
        .collect();
    let [said] = said[..] else {
        panic!("said {said:?}");
    };
    let first = "the node's last lines: at line 22 | at line 23 | ";
    let last = "at line 40 | Unhandled exception. [0m The token is …, Password=…;";
    assert!(said.starts_with(first) && said.ends_with(last), "{said}");
}

#[test]
fn builds_that_their_peers_do_not_know() {
    let mesh = mesh(25);
    caught(&mesh, "1.1", "refuse-auth", &["token"]);
    // In the words of the node's own agent: the mesh check alone would see it, but later.
    caught(&mesh, "1.2", "wrong-token", &["not joined with"]);
    push_build_with_other_token(&mesh, "1.3");
    caught_when_rolled_out(&mesh, "1.3", "another token in its settings", &["token"]);
    caught(&mesh, "1.4", "any-token", &["takes a wrong token"]);
}

#[test]
fn builds_that_lose_and_double_events_behind_a_healthy_face() {
    let mesh = mesh(20);
    let writer = Writer::start(&mesh, "orders");
    caught(&mesh, "1.1", "drop-every=1", &["missed"]);
    // Its writers are kept away on the way back, too.
    let cost = |entry: &serde_json::Value| {
        entry["text"]
            .as_str()
            .is_some_and(|text| text.contains("may be lost"))
    };
    assert!(!mesh.journal(0).iter().any(cost));
    caught(
        &mesh,
        "1.2",
        "stall-sync",
        &["joined", "mesh check did not pass in time"],
    );
    let count = mesh.count_documents(&writer.stop(), LIMIT);
    assert!(count.acknowledged > 10 && count.is_clean(), "{count:?}");
    let writer = Writer::start(&mesh, "orders");
    caught(&mesh, "1.3", "dup-every=2", &["more than once"]);
    drop(writer);
}
