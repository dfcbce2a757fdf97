//! Hosts and people that are taken out, and hosts that take another one's place.

use super::{LIMIT, ctl_in, member, members_by, mesh, only, refused, token, told};
use cbddc_tests::mesh::TestMesh;
use std::path::PathBuf;

/// A mesh with a fourth host that joined and does not vote.
fn mesh_of_four(issuers: usize) -> TestMesh {
    let mut mesh = mesh(issuers);
    let token = token(&mesh, &["--optional", "--issuer", "n1"]);
    let fourth = mesh.add_host();
    mesh.join(fourth, 0, &token, &[]).expect(0);
    mesh.start_agent(fourth);
    everybody_knows(&mesh, "n4", 0..4);
    mesh
}

#[track_caller]
fn everybody_knows(mesh: &TestMesh, name: &str, who: impl IntoIterator<Item = usize>) {
    for index in who {
        mesh.wait_for("a member is known", LIMIT, |mesh| {
            member(&members_by(mesh, index), name).map(drop)
        });
    }
}

/// A person with a certificate of the mesh.
#[track_caller]
fn person(mesh: &TestMesh, name: &str, role: &str) -> PathBuf {
    let out = mesh.root().join(name);
    let folder = out.to_string_lossy();
    mesh.cbctl(&[
        "mesh", "user", "add", name, "--role", role, "--out", &folder,
    ])
    .expect(0);
    out
}

#[test]
fn a_host_that_was_taken_out_is_refused_by_all() {
    let mut mesh = mesh_of_four(1);
    // One is away while it happens.
    mesh.stop_agent(2);
    let removed = mesh.cbctl(&["mesh", "remove", "n4", "--reason", "stolen", "--yes"]);
    let removed = removed.expect(3);
    assert!(removed.stderr.contains("n3"), "{removed}");
    for index in 0..2 {
        assert!(member(&members_by(&mesh, index), "n4").is_none());
    }
    // At once, by whoever was reached: its own questions are refused.
    mesh.wait_for("the host is refused", LIMIT, |mesh| {
        let log = std::fs::read_to_string(mesh.node(3).agent_log()).ok()?;
        log.contains("taken out").then_some(())
    });
    mesh.start_agent(2);
    mesh.wait_for("who was away hears of it", LIMIT, |mesh| {
        let members = members_by(mesh, 2);
        (!members.is_empty() && member(&members, "n4").is_none()).then_some(())
    });
    assert!(told(&mesh, 2, "roster_changed", "stolen"));
    // Its name is not free for whoever has a token.
    mesh.stop_agent(3);
    let other = token(&mesh, &[]);
    let again = mesh.join(3, 0, &other, &["--replace"]);
    refused(&again, "cbctl mesh replace");
}

#[test]
fn a_voter_leaves_the_voters_first() {
    let mesh = mesh_of_four(1);
    let dry = mesh.cbctl(&["mesh", "remove", "n2", "--dry-run"]).expect(0);
    assert!(dry.stderr.contains("nothing was changed"), "{dry}");
    mesh.cbctl(&["mesh", "remove", "n2", "--yes"]).expect(0);
    let members = members_by(&mesh, 0);
    assert!(member(&members, "n2").is_none());
    assert_eq!(member(&members, "n1").expect("n1")["votes"], true);
    mesh.cbctl(&["mesh", "label", "n4", "--required", "--yes"])
        .expect(0);
    mesh.cbctl(&["mesh", "voters", "--yes"]).expect(0);
    mesh.wait_for("the new host votes", LIMIT, |mesh| {
        let members = members_by(mesh, 2);
        (member(&members, "n4")?["votes"] == true).then_some(())
    });
}

#[test]
fn a_person_who_was_taken_out_is_refused_and_what_they_did_stays() {
    let mut mesh = mesh(1);
    let bea = person(&mesh, "bea", "admin");
    let people = mesh.cbctl(&["mesh", "user", "list"]).expect(0);
    assert!(people.stdout.contains("bea"), "{people}");
    // Bea lets a host in while one member is away, and labels another.
    mesh.stop_agent(2);
    let hers = only(&mesh, 0, &bea);
    let made = ctl_in(&mesh, &hers, &["mesh", "token", "--optional"]).expect(0);
    let fourth = mesh.add_host();
    mesh.join(fourth, 0, made.stdout.trim(), &[]).expect(0);
    mesh.start_agent(fourth);
    ctl_in(&mesh, &hers, &["mesh", "label", "n2", "role=till", "--yes"]).expect(3);
    let removed = mesh.cbctl(&["mesh", "user", "remove", "bea", "--reason", "left", "--yes"]);
    let removed = removed.expect(3);
    assert!(removed.stderr.contains("2 statement(s)"), "{removed}");
    for index in [0, 1, 3] {
        let hers = only(&mesh, index, &bea);
        let status = ctl_in(&mesh, &hers, &["status", "-o", "json"]);
        assert!(status.stdout.contains("taken out"), "{status}");
    }
    // The one that was away believes what she did, and lets her in no more.
    mesh.start_agent(2);
    everybody_knows(&mesh, "n4", [2]);
    let known = member(&members_by(&mesh, 2), "n2").expect("n2");
    assert_eq!(known["labels"]["role"], "till");
    mesh.wait_for("she is refused there, too", LIMIT, |mesh| {
        let hers = only(mesh, 2, &bea);
        let status = ctl_in(mesh, &hers, &["status", "-o", "json"]);
        status.stdout.contains("taken out").then_some(())
    });
}

#[test]
fn people_who_may_not_or_should_not_are_told_so() {
    let mesh = mesh(1);
    let olaf = person(&mesh, "olaf", "operator");
    let his = only(&mesh, 0, &olaf);
    for line in [
        &["mesh", "token"][..],
        &["mesh", "remove", "n2", "--yes"],
        &["mesh", "user", "remove", "ana", "--yes"],
        &["mesh", "label", "n2", "a=b", "--yes"],
        &["mesh", "voters", "--yes"],
    ] {
        ctl_in(&mesh, &his, line).expect(7);
    }
    ctl_in(&mesh, &his, &["mesh", "members"]).expect(0);
    mesh.cbctl(&["mesh", "user", "remove", "ana", "--yes"])
        .expect(2);
    mesh.cbctl(&["mesh", "remove", "n9", "--yes"]).expect(64);
    assert_eq!(members_by(&mesh, 0).len(), 3);
}

#[test]
fn a_new_disk_takes_the_old_ones_place() {
    let mut mesh = mesh_of_four(1);
    let key = |mesh: &TestMesh| member(&members_by(mesh, 1), "n4").expect("n4")["key"].clone();
    let before = key(&mesh);
    // The old disk goes on, as a thief's would.
    let old = mesh.root().join("old");
    std::fs::create_dir(&old).expect("a new folder");
    for file in ["node.pem", "node.key"] {
        std::fs::copy(mesh.node(3).folder.join(file), old.join(file)).expect("a file");
    }
    mesh.stop_agent(3);
    let made = mesh.cbctl(&["mesh", "replace", "n4", "--yes"]).expect(0);
    let line = "--name n4 --replace";
    assert!(made.stderr.contains(line), "{made}");
    mesh.join(3, 0, made.stdout.trim(), &["--replace"])
        .expect(0);
    std::fs::remove_dir_all(mesh.node(3).folder.join("state")).expect("the old state");
    mesh.start_agent(3);
    mesh.wait_for("the new key stands", LIMIT, |mesh| {
        (key(mesh) != before).then_some(())
    });
    // The old key comes back.
    mesh.stop_agent(3);
    for file in ["node.pem", "node.key"] {
        std::fs::copy(old.join(file), mesh.node(3).folder.join(file)).expect("a file");
    }
    std::fs::remove_dir_all(mesh.node(3).folder.join("state")).expect("the state");
    mesh.start_agent(3);
    mesh.wait_for("the old key is refused", LIMIT, |mesh| {
        let log = std::fs::read_to_string(mesh.node(3).agent_log()).ok()?;
        log.contains("another key").then_some(())
    });
}
