//! Data in the folder of a build: no rollout leaves it behind, no way back is kept from going.

use super::{LIMIT, all_agree_on, mesh_on_1_0, options, phase, refused, trust};
use cbddc_tests::mesh::TestMesh;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

const SQLITE: &[u8] = b"SQLite format 3\0and pages";

/// Puts a database where the node of this host runs from, as the samples' applications do.
fn put_database(mesh: &TestMesh, index: usize) -> PathBuf {
    let current = mesh.node(index).folder.join("state/store/current");
    let tree = current.canonicalize().expect("`current` points to a build");
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).expect("a mode");
    let folder = tree.join("data");
    fs::create_dir_all(&folder).expect("a folder");
    let database = folder.join("node.db");
    fs::write(&database, SQLITE).expect("a file");
    database
}

fn texts(mesh: &TestMesh, index: usize) -> String {
    let lines = mesh.journal(index);
    lines
        .iter()
        .map(|line| format!("{}\n", line["text"]))
        .collect()
}

#[test]
fn no_rollout_begins_while_data_lies_in_a_build() {
    let mesh = mesh_on_1_0(options(Duration::from_secs(5), Duration::from_secs(20)));
    mesh.make_build("1.1", "");
    let database = put_database(&mesh, 1);
    let shown = database.display().to_string();
    let plan = ["rollout", "plan", "--build", "cbddc@1.1", "--mesh"];
    let ran = mesh.cbctl(&plan);
    refused(&ran, 2, &shown);
    refused(&ran, 2, "set the application's path to it");
    refused(&mesh.cbctl(&mesh.rollout("1.1")), 2, &shown);
    all_agree_on(&mesh, "1.0");
    // It is shown, and no other node is blamed.
    let ran = mesh
        .cbctl(&["build", "show", "cbddc@1.0", "-o", "json"])
        .expect(0);
    let json = ran.json();
    let databases = |index: usize| json["nodes"][index]["result"]["grown"]["databases"].clone();
    assert_eq!(databases(1), serde_json::json!([shown]));
    assert_eq!(
        (databases(0), databases(2)),
        (serde_json::json!([]), serde_json::json!([]))
    );
    let ran = mesh
        .cbctl(&["build", "show", "cbddc@1.0", "--node", "n2"])
        .expect(0);
    refused(&ran, 0, "note: n2: databases are in its folder");
    let notes: Value = mesh.status_of(1)["result"]["notes"].clone();
    assert!(notes.to_string().contains("data/node.db"), "{notes}");
    let ran = mesh.cbctl(&["status"]).expect(0);
    refused(&ran, 0, "so that no rollout can begin: data/node.db (n2)");
    // Moved elsewhere, it stands in no way.
    fs::remove_dir_all(database.parent().expect("a folder")).expect("the data was moved away");
    mesh.roll_out("1.1");
    all_agree_on(&mesh, "1.1");
    // What lies where the next build would find it is refused, too; the way back is not.
    let database = put_database(&mesh, 0);
    mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
    all_agree_on(&mesh, "1.0");
    let told = texts(&mesh, 0);
    let words = format!(
        "these databases stay in the folder of cbddc@1.1, which is not deleted: {}",
        database.display()
    );
    assert!(told.contains(&words), "no {words:?} in {told}");
    trust(&mesh, "cbddc@1.1");
    refused(
        &mesh.cbctl(&mesh.rollout("1.1")),
        2,
        &database.display().to_string(),
    );
    assert_eq!(fs::read(&database).expect("it stays"), SQLITE);
}

/// What a node keeps open may be data of a kind that nobody knows by its first bytes.
#[test]
fn no_rollout_begins_while_a_node_keeps_files_open_in_its_build() {
    let mesh = TestMesh::start(options(Duration::from_secs(5), Duration::from_secs(20)));
    mesh.node(0)
        .set("HoldsOpen", serde_json::json!(["node.log"]));
    mesh.node(1)
        .set("HoldsOpen", serde_json::json!(["cache.bin", "other.log"]));
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    mesh.make_build("1.1", "");
    let plan = ["rollout", "plan", "--build", "cbddc@1.1", "--mesh"];
    let ran = mesh.cbctl(&plan);
    refused(&ran, 2, "/cache.bin, which the node has open");
    refused(&ran, 2, "note: n1 has logs open for writing");
    assert!(!ran.stderr.contains("n1: /"), "{ran}");
    refused(&mesh.cbctl(&mesh.rollout("1.1")), 2, "/cache.bin, which");
    all_agree_on(&mesh, "1.0");
}

#[test]
fn data_that_comes_up_while_a_rollout_is_under_way_keeps_the_node_where_it_is() {
    let mesh = mesh_on_1_0(options(Duration::from_secs(8), Duration::from_secs(20)));
    mesh.make_build("1.1", "");
    let mut start = mesh.rollout("1.1");
    start.extend(["--waves", "1,2", "--soak", "3s"].map(str::to_owned));
    let mut rollout = mesh.cbctl_spawn(&start);
    mesh.wait_for("the first wave is on probation", LIMIT, |mesh| {
        (phase(mesh, 0) == "probation").then_some(())
    });
    let database = put_database(&mesh, 2);
    let ran = rollout.wait(LIMIT).expect(4);
    assert!(
        ran.stderr.contains(&database.display().to_string()),
        "{ran}"
    );
    all_agree_on(&mesh, "1.0");
    let told = texts(&mesh, 2);
    assert!(!told.contains("is cbddc@1.1"), "n3 never left: {told}");
    assert_eq!(fs::read(&database).expect("it stays"), SQLITE);
}
