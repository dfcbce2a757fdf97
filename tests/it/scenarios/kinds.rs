//! Which members a change is for, and which of them it waits for.

use super::{LIMIT, mesh_on_1_0, options, refused};
use cbddc_tests::mesh::{MeshOptions, Ran, TestMesh};
use std::time::Duration;

fn mesh() -> TestMesh {
    mesh_on_1_0(MeshOptions {
        peers_poll: Duration::from_millis(200),
        ..options(Duration::from_secs(3), Duration::from_secs(20))
    })
}

/// Lets a host come and go: it does not vote any more either.
fn comes_and_goes(mesh: &TestMesh, name: &str) {
    let line = ["mesh", "label", name, "--optional", "--yes"];
    mesh.cbctl(&line).expect(0);
    mesh.cbctl(&["mesh", "voters", "--yes"]).expect(0);
}

fn with(mesh: &TestMesh, version: &str, target: &[&str]) -> Vec<String> {
    let mut line = mesh.rollout(version);
    let at = line.iter().position(|word| word == "--mesh");
    let target = target.iter().map(|word| (*word).to_owned());
    let at = at.expect("a target");
    line.splice(at..=at, target);
    line.extend(["--timeout".to_owned(), "2s".to_owned()]);
    line
}

fn build_of(mesh: &TestMesh, index: usize) -> String {
    let release = &mesh.status_of(index)["result"]["release"];
    let build = &release["build"];
    build.as_str().unwrap_or_default().to_owned()
}

fn drifts(mesh: &TestMesh) -> Ran {
    mesh.cbctl(&["status", "--timeout", "2s"])
}

#[test]
fn labels_select_those_that_have_all_of_them() {
    let mesh = mesh();
    for (node, labels) in [
        ("n1", &["role=till", "floor=1"][..]),
        ("n2", &["role=till", "floor=2"]),
        ("n3", &["role=server"]),
    ] {
        let line = [&["mesh", "label", node], labels, &["--yes"]].concat();
        mesh.cbctl(&line).expect(0);
    }
    let of = |words: &[&str]| {
        let line = [&["status", "-o", "json"], words].concat();
        let nodes = mesh.cbctl(&line).expect(0).json()["nodes"].clone();
        let names = nodes.as_array().expect("rows").iter();
        let names: Vec<String> = names.map(|row| row["node"].to_string()).collect();
        names.join(" ").replace('"', "")
    };
    assert_eq!(of(&["-l", "role=till"]), "n1 n2");
    assert_eq!(of(&["-l", "role=till", "-l", "floor=2"]), "n2");
    mesh.cbctl(&["status", "-l", "role=till", "--node", "n1"])
        .expect(64);

    mesh.make_build("1.1", "");
    let nobody = mesh.cbctl(&with(&mesh, "1.1", &["-l", "role=till", "-l", "floor=3"]));
    refused(&nobody, 64, "no member of shop is role=till and floor=3");
    let nobody = mesh.cbctl(&["rollback", "-l", "role=tills", "--yes"]);
    refused(&nobody, 64, "its labels are floor=1, floor=2, role=server");
    mesh.wait_until_all_run("1.0", LIMIT);

    let plan = mesh.cbctl(&[
        "rollout",
        "plan",
        "--build",
        "cbddc@1.1",
        "-l",
        "role=till",
        "-o",
        "json",
    ]);
    let plan = plan.expect(0).json();
    assert_eq!(plan["waves"], serde_json::json!([["n1"], ["n2"]]), "{plan}");
    mesh.cbctl(&with(&mesh, "1.1", &["-l", "role=till"]))
        .expect(0);
    let built = || [0, 1, 2].map(|index| build_of(&mesh, index));
    assert_eq!(built(), ["cbddc@1.1", "cbddc@1.1", "cbddc@1.0"]);
    mesh.cbctl(&["rollback", "-l", "floor=2", "--yes"])
        .expect(0);
    assert_eq!(built(), ["cbddc@1.1", "cbddc@1.0", "cbddc@1.0"]);
}

#[test]
fn an_optional_member_that_is_away_gets_there_when_it_is_back() {
    let mut mesh = mesh();
    comes_and_goes(&mesh, "n3");
    mesh.make_build("1.1", "");
    mesh.stop_agent(2);
    let began = tokio::time::Instant::now();
    let ran = mesh.cbctl(&with(&mesh, "1.1", &["--mesh"])).expect(3);
    assert!(ran.stderr.contains("n3 gets there by itself"), "{ran}");
    assert!(ran.stdout.contains("optional and away"), "{ran}");
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "nobody waits for it: {ran}"
    );
    let status = drifts(&mesh);
    assert_eq!(status.code, 3, "{status}");
    mesh.start_agent(2);
    mesh.wait_until_all_run("1.1", LIMIT);

    mesh.stop_agent(2);
    let began = tokio::time::Instant::now();
    let line = [
        "rollback",
        "--mesh",
        "--yes",
        "--verify",
        "60s",
        "--timeout",
        "2s",
    ];
    let ran = mesh.cbctl(&line).expect(3);
    assert!(ran.stdout.contains("optional and away"), "{ran}");
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "nobody waits for it: {ran}"
    );
    mesh.start_agent(2);
    mesh.wait_until_all_run("1.0", LIMIT);
    drifts(&mesh).expect(0);
}

#[test]
fn a_required_member_that_is_away_blocks_a_rollout_and_no_rollback() {
    let mut mesh = mesh();
    mesh.make_build("1.1", "");
    mesh.roll_out("1.1");
    mesh.make_build("1.2", "");
    mesh.wait_for("n3 was heard of", LIMIT, |mesh| {
        let members = mesh.cbctl(&["mesh", "members", "-o", "json"]).json();
        let members = members["members"].as_array()?.clone();
        let seen = |name: &str| {
            let row = members.iter().find(|row| row["name"] == name);
            row.is_some_and(|row| row["last_seen"].is_string())
        };
        (seen("n2") && seen("n3")).then_some(())
    });
    mesh.stop_agent(2);
    let ran = mesh.cbctl(&with(&mesh, "1.2", &["--mesh"]));
    refused(&ran, 2, "members that are required are away: n3");
    assert!(
        ran.stderr.contains("n3: ") && ran.stderr.contains("last seen 2"),
        "{ran}"
    );
    assert!(ran.stderr.contains("nothing was changed"), "{ran}");
    let ran = mesh.cbctl(&with(&mesh, "1.2", &["--node", "n1,n3"]));
    refused(&ran, 2, "members that are required are away: n3");
    for index in 0..2 {
        assert_eq!(build_of(&mesh, index), "cbddc@1.1");
    }
    // Where it is no target, it may be on the far side of a partition: the others go on.
    let ran = mesh.cbctl(&with(&mesh, "1.2", &["--node", "n1"])).expect(3);
    let left_out = "n3 is left out of the mesh check: it is away, and no target";
    assert!(ran.stderr.contains(left_out), "{ran}");
    assert_eq!(build_of(&mesh, 0), "cbddc@1.2");
    let line = [
        "rollback",
        "--mesh",
        "--to",
        "cbddc@1.0",
        "--yes",
        "--verify",
        "3s",
        "--timeout",
        "2s",
    ];
    let ran = mesh.cbctl(&line).expect(3);
    assert!(ran.stderr.contains("n3"), "{ran}");
    for index in 0..2 {
        assert_eq!(build_of(&mesh, index), "cbddc@1.0");
    }
    mesh.start_agent(2);
    mesh.wait_until_all_run("1.0", LIMIT);
}
