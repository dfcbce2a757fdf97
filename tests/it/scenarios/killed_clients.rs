//! `kill -9` of `cbctl` in each phase, and what other admins can do meanwhile.

use super::{LIMIT, all_agree_on, mesh_on_1_0, options, phase, text, wait_for_phase};
use cbddc_tests::mesh::TestMesh;
use serde_json::Value;
use std::time::Duration;

/// Whether any node is in somebody's hands.
fn held(mesh: &TestMesh) -> bool {
    (0..mesh.len()).any(|index| {
        mesh.status_of(index)["result"]["lock"]
            .as_object()
            .is_some()
    })
}

/// Every node is steady, on 1.0, and free for the next rollout.
#[track_caller]
fn all_back(mesh: &TestMesh) {
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh.wait_for("nobody holds a node", LIMIT, |mesh| {
        (!held(mesh)).then_some(())
    });
}

#[test]
fn a_mesh_whose_client_dies_goes_back_by_itself() {
    let mesh = mesh_on_1_0(options(Duration::from_secs(2), Duration::from_secs(20)));
    let moments = [
        "n2: prepared",
        "n1: switching",
        "n1: on probation",
        "n2: on probation",
    ];
    for (number, moment) in moments.into_iter().enumerate() {
        let version = format!("1.1.{number}");
        mesh.make_build(&version, "");
        let client = mesh.cbctl_spawn(&mesh.rollout(&version));
        // As the client itself says: a phase may be over before anybody else has asked for it.
        mesh.wait_for(moment, LIMIT, |_| {
            client.stderr().contains(moment).then_some(())
        });
        client.kill();
        all_back(&mesh);
    }
    // Whoever comes next finds a free mesh.
    mesh.make_build("1.2", "");
    mesh.roll_out("1.2");
    mesh.wait_until_all_run("1.2", LIMIT);
}

/// Rolls 1.1 out, has the first two of three agents end themselves at this point of their vote, and
/// kills the client, which cannot have heard of a majority; then the two come back.
fn killed_while_voting(point: &str) -> TestMesh {
    let mut mesh = mesh_on_1_0(options(Duration::from_secs(3), Duration::from_secs(20)));
    mesh.make_build("1.1", "");
    for index in [0, 1] {
        mesh.stop_agent(index);
        mesh.start_agent_crashing(index, Some(point));
    }
    let client = mesh.cbctl_spawn(&mesh.rollout("1.1"));
    for index in [0, 1] {
        mesh.wait_for_crash(index, LIMIT);
    }
    mesh.wait_for("the third node votes", LIMIT, |mesh| {
        let voted = |line: &Value| {
            line["kind"] == "voted" && text(&line["text"]).starts_with("voted for cbddc@1.1")
        };
        mesh.journal(2).iter().any(voted).then_some(())
    });
    let ran = client.kill();
    assert!(!ran.stderr.contains("decided:"), "{ran}");
    for index in [0, 1] {
        mesh.start_agent(index);
    }
    mesh
}

#[test]
fn killed_while_voting_after_a_majority_voted_the_new_build_stays() {
    let mesh = killed_while_voting("after:voted");
    // The voters themselves find out, once the probation has ended.
    mesh.wait_for("every node commits", LIMIT, |mesh| {
        let committed = |index: usize| mesh.status_of(index)["result"]["phase"] == "steady";
        (0..mesh.len()).all(committed).then_some(())
    });
    all_agree_on(&mesh, "1.1");
}

#[test]
fn killed_while_voting_before_a_majority_voted_all_go_back() {
    let mesh = killed_while_voting("before:voted");
    all_back(&mesh);
    all_agree_on(&mesh, "1.0");
}

#[test]
fn a_decided_rollout_stays_without_its_client() {
    let mesh = mesh_on_1_0(options(Duration::from_secs(2), Duration::from_secs(20)));
    mesh.make_build("1.1", "");
    let client = mesh.cbctl_spawn(&mesh.rollout("1.1"));
    mesh.wait_for("it is decided", LIMIT, |_| {
        client.stderr().contains("decided").then_some(())
    });
    client.kill();
    mesh.wait_until_all_run("1.1", LIMIT);
}

#[test]
fn others_are_told_who_holds_the_mesh_and_may_go_on_or_end_it() {
    let mesh = mesh_on_1_0(options(Duration::from_secs(15), Duration::from_secs(20)));
    mesh.make_build("1.1", "");
    mesh.make_build("1.2", "");
    let client = mesh.cbctl_spawn(&mesh.rollout("1.1"));
    wait_for_phase(&mesh, 0, "probation");
    let second = mesh.cbctl(&mesh.rollout("1.2")).expect(6);
    for words in [
        "held by ana for a rollout of cbddc@1.1",
        "cbctl rollout resume",
        "cbctl rollout abort",
    ] {
        assert!(second.stderr.contains(words), "{second}");
    }
    client.kill();
    assert!(held(&mesh));
    mesh.cbctl(&["rollout", "resume", "--yes"]).expect(0);
    mesh.wait_until_all_run("1.1", LIMIT);

    let client = mesh.cbctl_spawn(&mesh.rollout("1.2"));
    wait_for_phase(&mesh, 0, "probation");
    client.kill();
    mesh.cbctl(&["rollout", "abort", "--yes", "--reason", "not today"])
        .expect(0);
    mesh.wait_until_all_run("1.1", LIMIT);
    assert_eq!(phase(&mesh, 0), "steady");
    // By order, not because its time was over; and everything is free again.
    let ordered = |entry: &Value| entry["kind"] == "revert_began" && entry["text"] == "not today";
    assert!(mesh.journal(0).iter().any(ordered));
    assert!(!held(&mesh));
    let list = mesh.cbctl(&["rollout", "list"]).expect(0);
    assert!(list.stdout.contains("not today"), "{list}");
    // There is nothing left to end.
    mesh.cbctl(&["rollout", "abort", "--yes"]).expect(1);
}
