//! The issuing authority comes to a member that runs, and goes again.

use super::{LIMIT, everybody_knows, written};
use crate::joining::{member, members_by, mesh, refused, token, told};
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

fn is_issuer(mesh: &TestMesh, asked: usize, name: &str) -> bool {
    let known = member(&members_by(mesh, asked), name).expect("a member");
    known["labels"]["issuer"] == "yes"
}

#[test]
fn a_member_becomes_an_issuer_while_it_runs_and_stops_being_one() {
    let mut mesh = mesh(1);
    let kept = mesh.node(1).folder.join("state/issuing.pem");
    let dry = mesh.cbctl(&["mesh", "issuer", "add", "n2", "--dry-run"]);
    assert!(dry.expect(0).stderr.contains("nothing was changed"));
    assert!(!kept.exists() && !is_issuer(&mesh, 0, "n2"));

    let add = ["mesh", "issuer", "add", "n2", "--yes", "-o", "json"];
    let added = mesh.cbctl(&add).expect(0);
    assert_eq!(added.json()["nodes"].as_array().map(Vec::len), Some(3));
    let mode = fs::metadata(&kept).expect("kept").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    for index in 0..3 {
        assert!(is_issuer(&mesh, index, "n2"), "n{} knows it", index + 1);
    }
    let journal = mesh.journal(1);
    let line = journal.iter().find(|line| line["kind"] == "issuing_taken");
    assert_eq!(line.expect("it is told")["actor"], "ana");
    let key = fs::read_to_string(mesh.root().join("authority/issuing.key")).expect("a key");
    let secret = key.lines().nth(1).expect("a line of the key");
    assert!(!written(&mesh, 1).contains(secret), "the key is told");
    let again = mesh.cbctl(&add).expect(0);
    assert!(
        again.stderr.contains("held the issuing authority already"),
        "{again}"
    );

    // It admits a host: at once, and after a restart.
    let first = token(&mesh, &["--optional", "--issuer", "n2"]);
    let host = mesh.add_host();
    mesh.join(host, 1, &first, &[]).expect(0);
    mesh.stop_agent(1);
    mesh.start_agent(1);
    let second = token(&mesh, &["--optional", "--issuer", "n2"]);
    let host = mesh.add_host();
    mesh.join(host, 1, &second, &[]).expect(0);

    everybody_knows(&mesh, "n4", 0..3);
    // The first one gives it up: also the files that it was given at its beginning.
    let given = mesh.node(0).folder.join("issuing.key");
    assert!(given.exists());
    let old = token(&mesh, &["--optional", "--issuer", "n1"]);
    mesh.cbctl(&["mesh", "issuer", "remove", "n1", "--yes"])
        .expect(3);
    assert!(!given.exists(), "the key is gone");
    assert!(told(&mesh, 0, "issuing_dropped", "no more"));
    assert!(!is_issuer(&mesh, 2, "n1"));
    let host = mesh.add_host();
    refused(
        &mesh.join(host, 0, &old, &[]),
        "does not issue certificates",
    );
    mesh.stop_agent(0);
    mesh.start_agent(0);
    refused(
        &mesh.join(host, 0, &old, &[]),
        "does not issue certificates",
    );
    let last = ["mesh", "issuer", "remove", "n2", "--yes"];
    let last = mesh.cbctl(&last).expect(2);
    assert!(last.stderr.contains("the last issuer"), "{last}");
    assert!(kept.exists());
    mesh.cbctl(&["mesh", "label", "n2", "--remove", "issuer", "--yes"])
        .expect(64);
}

#[test]
fn an_authority_that_is_not_good_is_refused() {
    let mesh = mesh(1);
    let own = mesh.root().join("authority");
    let other = TestMesh::prepare(MeshOptions::default());
    let folder = |name: &str, cert: PathBuf, key: PathBuf| {
        let dir = mesh.root().join(name);
        fs::create_dir(&dir).expect("a new folder");
        fs::copy(cert, dir.join("issuing.pem")).expect("a file");
        fs::copy(key, dir.join("issuing.key")).expect("a file");
        dir
    };
    let foreign = other.root().join("authority");
    for (dir, why) in [
        (foreign.clone(), "does not come from the mesh's root"),
        (
            folder("root", own.join("ca.pem"), own.join("ca.key")),
            "not limited to agents",
        ),
        (
            folder("pair", own.join("issuing.pem"), foreign.join("issuing.key")),
            "the key is not that of the authority's certificate",
        ),
    ] {
        let dir = dir.to_string_lossy();
        let add = ["mesh", "issuer", "add", "n2", "--yes", "--dir", &dir];
        refused(&mesh.cbctl(&add), why);
    }
    assert!(!mesh.node(1).folder.join("state/issuing.pem").exists());
    assert!(!is_issuer(&mesh, 0, "n2"));
    assert!(!told(&mesh, 1, "issuing_taken", ""));
    mesh.wait_for("the good one does", LIMIT, |mesh| {
        let add = ["mesh", "issuer", "add", "n2", "--yes"];
        (mesh.cbctl(&add).code == 0).then_some(())
    });
}
