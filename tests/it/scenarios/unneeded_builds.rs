//! Builds that nothing needs any more: cleared away, and never what runs, what a way back leads to, what
//! waits for its rollout, or what holds data.

use super::{all_agree_on, mesh_on_1_0, options, refused};
use cbddc_tests::mesh::{Ran, TestMesh};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

fn builds_of(ran: &Ran, index: usize, which: &str) -> Vec<String> {
    let json = ran.json();
    let builds = json["nodes"][index]["result"][which].as_array().cloned();
    let name = |build: &Value| build["build"].as_str().expect("a name").to_owned();
    builds.expect("a list").iter().map(name).collect()
}

fn stored(mesh: &TestMesh, index: usize) -> Vec<String> {
    let ran = mesh.cbctl(&["build", "list", "-o", "json"]).expect(0);
    builds_of(&ran, index, "builds")
}

/// Puts a database into the folder of a build that does not run any more.
fn put_database(mesh: &TestMesh, index: usize, build: &str) -> PathBuf {
    let ran = mesh.cbctl(&["build", "list", "-o", "json"]).expect(0);
    let json = ran.json();
    let builds = json["nodes"][index]["result"]["builds"].as_array().cloned();
    let builds = builds.expect("a list");
    let found = builds.iter().find(|found| found["build"] == build);
    let digest = found.expect("it is there")["digest"]
        .as_str()
        .expect("text")
        .to_owned();
    let store = mesh.node(index).folder.join("state/store/builds");
    let tree = store.join(digest).join("tree");
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).expect("a mode");
    let database = tree.join("node.db");
    fs::write(&database, b"SQLite format 3\0and pages").expect("a file");
    database
}

#[test]
fn what_is_not_needed_goes_and_nothing_else() {
    let mesh = mesh_on_1_0(options(Duration::from_secs(8), Duration::from_secs(20)));
    for version in ["1.1", "1.2", "1.3"] {
        mesh.make_build(version, "");
        mesh.roll_out(version);
    }
    mesh.make_build("1.4", "");
    let database = put_database(&mesh, 1, "cbddc@1.0");
    let shown = database.display().to_string();

    // What is needed is refused by name, with the reason, and the folder stays.
    let rm = |build: &str| mesh.cbctl(&["build", "rm", build, "--yes"]);
    refused(&rm("cbddc@1.3"), 2, "the node runs it");
    refused(&rm("cbddc@1.2"), 2, "the way back leads to it");
    refused(&rm("cbddc@7"), 1, "is not in the build store");
    let ran = mesh.cbctl(&["build", "rm", "cbddc@1.0", "--node", "n2", "--yes"]);
    refused(&ran, 2, &shown);
    let all = ["1.0", "1.1", "1.2", "1.3", "1.4"].map(|version| format!("cbddc@{version}"));
    for index in 0..3 {
        assert_eq!(stored(&mesh, index), all);
    }

    // Nobody is asked where nobody is there; a dry run tells and removes nothing.
    refused(&mesh.cbctl(&["build", "gc", "--keep", "0"]), 64, "--yes");
    let gc = ["build", "gc", "--keep", "0", "-o", "json"];
    let dry = mesh.cbctl(&[&gc[..], &["--dry-run"]].concat()).expect(0);
    assert_eq!(builds_of(&dry, 0, "removed"), ["cbddc@1.0"]);
    assert_eq!(stored(&mesh, 0), all);
    let ran = mesh.cbctl(&[&gc[..], &["--yes"]].concat()).expect(0);
    let kept = ["cbddc@1.1", "cbddc@1.2", "cbddc@1.3", "cbddc@1.4"];
    for index in [0, 2] {
        assert_eq!(builds_of(&ran, index, "removed"), ["cbddc@1.0"]);
        assert_eq!(builds_of(&ran, index, "kept"), kept);
        assert_eq!(stored(&mesh, index), kept);
    }
    assert_eq!(builds_of(&ran, 1, "removed"), Vec::<String>::new());
    assert_eq!(stored(&mesh, 1), [&["cbddc@1.0"], &kept[..]].concat());
    refused(&ran, 0, &shown);
    assert!(database.is_file());
    let told = mesh.journal(0);
    let removed = told.iter().filter(|line| line["kind"] == "build_removed");
    assert_eq!(removed.count(), 1);

    // Asked again there is nothing to do, and the way back still leads back.
    let again = mesh.cbctl(&[&gc[..], &["--yes"]].concat()).expect(0);
    assert_eq!(builds_of(&again, 0, "removed"), Vec::<String>::new());
    rm("cbddc@1.4").expect(0);
    assert_eq!(stored(&mesh, 0), kept[..3]);
    mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
    all_agree_on(&mesh, "1.2");
    // What was left is revoked: it may go.
    let ran = mesh.cbctl(&[&gc[..], &["--yes"]].concat()).expect(0);
    assert_eq!(builds_of(&ran, 0, "removed"), ["cbddc@1.3"]);
}
