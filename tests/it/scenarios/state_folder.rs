//! The agent and its state folder: stopping, a second agent, a changed journal, a full disk.

use super::{LIMIT, all_agree_on, refused, roll_out};
use cbddc_tests::SmallDisk;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use rusqlite::Connection;
use serde_json::Value;
use std::fs;

fn one() -> MeshOptions {
    MeshOptions {
        nodes: 1,
        ..MeshOptions::default()
    }
}

#[test]
fn the_state_folder_has_one_agent_and_an_unchanged_journal() {
    let mut mesh = TestMesh::start(one());
    roll_out(&mesh, "1.0");
    let node = mesh.node_pid(0).expect("the node runs");
    refused(&mesh.cbagent(0, "run"), 1, "another");

    let before = remembered(&mesh);
    assert!(before.iter().all(|value| !value.is_null()), "{before:?}");
    mesh.kill_agent(0);
    mesh.start_agent(0);
    assert_eq!(remembered(&mesh), before);
    mesh.stop_agent(0);
    assert_eq!(mesh.node_pid(0), Some(node), "the node outlives its agent");

    change_journal(&mesh, "ana", "bob");
    refused(&mesh.cbagent(0, "run"), 1, "the journal was changed");
    change_journal(&mesh, "bob", "ana");
    mesh.start_agent(0);
    all_agree_on(&mesh, "1.0");
    assert_eq!(mesh.node_pid(0), Some(node));
}

/// What only the state folder tells the next agent.
fn remembered(mesh: &TestMesh) -> [Value; 5] {
    let status = mesh.status();
    let node = &status["nodes"][0]["result"];
    let decided = status["summary"]["decided"].clone();
    let [generation, release, committed, good] =
        ["generation", "release", "committed", "known_good"].map(|key| node[key].clone());
    [decided, generation, release, committed, good]
}

/// Changes who is said to have asked, as somebody with access to the disk could.
#[track_caller]
fn change_journal(mesh: &TestMesh, from: &str, to: &str) {
    let database = Connection::open(mesh.node(0).folder.join("state/state.db"));
    let database = database.expect("the state database");
    let change = "UPDATE journal SET text = replace(text, ?1, ?2) WHERE kind = 'prepared'";
    let changed = database.execute(change, [from, to]).expect("a change");
    assert!(changed > 0, "there is nothing to change");
}

#[test]
fn a_full_disk_changes_nothing() {
    let Some(disk) = SmallDisk::mount(6 << 20) else {
        return;
    };
    // The agent's state lies on the small disk.
    let mut mesh = TestMesh::start(one());
    mesh.stop_agent(0);
    let config = mesh.node(0).config();
    let text = fs::read_to_string(&config).expect("the configuration");
    let state = mesh.node(0).folder.join("state");
    fs::remove_dir_all(&state).expect("the folder is there");
    std::os::unix::fs::symlink(disk.path(), &state).expect("a link");
    fs::write(&config, text.replace("1MiB", "1KiB")).expect("a file");
    mesh.start_agent(0);
    roll_out(&mesh, "1.0");
    let bundle = mesh.pack_build("1.1", "");
    let bundle = bundle.to_string_lossy().into_owned();
    mesh.cbctl(&["build", "push", &bundle]).expect(0);
    let late = mesh.pack_build("1.2", "");
    let late = late.to_string_lossy().into_owned();
    let state_of = |mesh: &TestMesh| {
        let result = mesh.status_of(0)["result"].clone();
        [
            result["phase"].clone(),
            result["generation"].clone(),
            result["release"].clone(),
        ]
    };
    let before = state_of(&mesh);
    let filler = disk.path().join("filler");
    let mut size = 0;
    let mut file = fs::File::create(&filler).expect("a file");
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {
        size += 4096;
    }
    assert!(size > 0);

    refused(&mesh.cbctl(&["build", "push", &late]), 1, "no_space");
    refused(&mesh.cbctl(&mesh.rollout("1.1")), 2, "disk-space");
    assert_eq!(state_of(&mesh), before);

    drop(file);
    fs::remove_file(&filler).expect("the filler");
    mesh.wait_for("the mesh is free", LIMIT, |mesh| {
        let ran = mesh.cbctl(&mesh.rollout("1.1"));
        (ran.code == 0).then_some(())
    });
    all_agree_on(&mesh, "1.1");
    mesh.kill_agent(0);
    if let Some(node) = mesh.node(0).node_process() {
        node.kill();
    }
}
