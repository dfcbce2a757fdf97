//! An issuer that fails, or ends, while it lets a host in.

use super::{member, members_by, mesh, refused, token, told};
use cbddc_tests::mesh::TestMesh;
use rusqlite::Connection;
use std::fs;

/// Changes the state database of an agent that does not run.
fn change(mesh: &TestMesh, index: usize, sql: &str) {
    let path = mesh.node(index).folder.join("state/state.db");
    let changed = Connection::open(path).and_then(|database| database.execute_batch(sql));
    changed.expect("the agent let go of it");
}

fn uses(mesh: &TestMesh) -> usize {
    let journal = mesh.journal(0);
    let used = journal.iter().filter(|line| line["kind"] == "token_used");
    used.count()
}

#[test]
fn a_token_is_used_together_with_what_it_lets_in() {
    let mut mesh = mesh(1);
    let token = token(&mesh, &["--optional"]);
    let (fourth, fifth) = (mesh.add_host(), mesh.add_host());
    // Its disk gives way between the use of the token and the new member.
    mesh.stop_agent(0);
    let fails = "CREATE TRIGGER fails BEFORE INSERT ON statements \
                 BEGIN SELECT RAISE(ABORT, 'no room'); END";
    change(&mesh, 0, fails);
    mesh.start_agent(0);
    refused(&mesh.join(fourth, 0, &token, &[]), "state database failed");
    assert_eq!(uses(&mesh), 0, "used for nobody");
    assert!(member(&members_by(&mesh, 0), "n4").is_none());
    assert!(!mesh.node(fourth).folder.join("node.pem").exists());

    mesh.kill_agent(0);
    change(&mesh, 0, "DROP TRIGGER fails");
    mesh.start_agent(0);
    mesh.join(fourth, 0, &token, &[]).expect(0);
    assert!(told(&mesh, 0, "token_used", "n4 joins"));

    // The issuer ends before its answer arrives: the host comes again with the key that it made.
    let folder = mesh.node(fourth).folder.clone();
    fs::rename(folder.join("node.key"), folder.join("node.key.new")).expect("a key");
    fs::remove_file(folder.join("node.pem")).expect("a certificate");
    mesh.kill_agent(0);
    mesh.start_agent(0);
    mesh.join(fourth, 0, &token, &[]).expect(0);
    refused(&mesh.join(fifth, 0, &token, &[]), "used already");
    assert_eq!(uses(&mesh), 1);
    assert!(member(&members_by(&mesh, 0), "n5").is_none());
}

/// A mesh file with an address twice cannot be used, and each host that joins gets one.
#[test]
fn an_address_that_another_member_has_lets_nobody_in() {
    let mut mesh = mesh(1);
    let token = token(&mesh, &["--optional", "--uses", "2"]);
    let (fourth, fifth) = (mesh.add_host(), mesh.add_host());
    let others = format!("127.0.0.1:{}", mesh.node(1).agent_port);
    let line = ["--listen", &others];
    refused(&mesh.join(fourth, 0, &token, &line), "n2 has the address");
    assert_eq!(uses(&mesh), 0);
    mesh.join(fourth, 0, &token, &[]).expect(0);
    mesh.join(fifth, 0, &token, &[]).expect(0);
}
