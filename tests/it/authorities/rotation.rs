//! Another root takes the place of the first.

use super::{LIMIT, everybody_knows, renewed, roots};
use crate::joining::{ctl_in, member, members_by, mesh, only, refused, token};
use cbddc_pki::certificate::from_pem;
use cbddc_tests::mesh::TestMesh;
use std::fs;
use std::path::{Path, PathBuf};

fn rotate(mesh: &TestMesh, more: &[&str]) -> cbddc_tests::mesh::Ran {
    mesh.cbctl(&[&["mesh", "ca", "rotate", "--yes"], more].concat())
}

/// The admin's certificate as it is now, in a folder of its own.
fn copy_of_admin(mesh: &TestMesh, name: &str) -> PathBuf {
    let folder = mesh.root().join(name);
    fs::create_dir(&folder).expect("a new folder");
    for file in ["ca.pem", "user.pem", "user.key"] {
        let from = mesh.cbctl_config().join("contexts/shop").join(file);
        fs::copy(from, folder.join(file)).expect("a file");
    }
    folder
}

fn comes_from(root: &Path, pem: &Path) -> bool {
    let chain = from_pem(&fs::read(pem).expect("a certificate")).expect("PEM");
    roots(root).vouch_for(&chain, "shop")
}

/// n4 joined by token, so that the mesh knows its key, and is off while all of it happens.
#[test]
fn a_root_is_replaced_and_who_was_away_comes_back_by_itself() {
    let mut mesh = mesh(1);
    let ca = mesh.root().join("authority/ca.pem");
    let before = fs::read_to_string(&ca).expect("the root");
    let fourth = mesh.add_host();
    let made = token(&mesh, &["--optional"]);
    mesh.join(fourth, 0, &made, &[]).expect(0);
    mesh.start_agent(fourth);
    everybody_knows(&mesh, "n4", 0..3);
    mesh.stop_agent(fourth);
    // Decided by certificates of the old root: a member that was away has to believe that, too.
    mesh.cbctl(&["mesh", "voters", "--set", "n1,n2", "--yes"]);
    mesh.cbctl(&["mesh", "label", "n2", "role=till", "--yes"])
        .expect(3);
    let bea = mesh.root().join("bea");
    let add = |out: &Path| {
        let out = out.to_string_lossy().into_owned();
        [
            "mesh", "user", "add", "bea", "--role", "admin", "--out", &out,
        ]
        .map(str::to_owned)
    };
    mesh.cbctl(&add(&bea)).expect(3);

    refused(
        &rotate(&mesh, &["--finish"]),
        "no authorities are being replaced",
    );
    let dry = mesh.cbctl(&["mesh", "ca", "rotate", "--dry-run"]).expect(0);
    assert!(dry.stderr.contains("nothing was changed"), "{dry}");
    assert_eq!(fs::read_to_string(&ca).expect("the root"), before);
    let admin = copy_of_admin(&mesh, "old-admin");
    rotate(&mesh, &["--no-passphrase"]).expect(3);
    assert_ne!(fs::read_to_string(&ca).expect("the root"), before);
    // Well before two thirds of their life.
    renewed(&mesh, &ca, 0..3);
    let user = mesh.cbctl_config().join("contexts/shop/user.pem");
    assert!(comes_from(&ca, &user), "the admin has a new certificate");
    // Both are trusted, so that nobody is shut out; and the same step again changes nothing.
    ctl_in(&mesh, &only(&mesh, 0, &bea), &["mesh", "user", "list"]);
    let roots_before = fs::read_to_string(&ca).expect("the root");
    rotate(&mesh, &[]).expect(3);
    assert_eq!(fs::read_to_string(&ca).expect("the root"), roots_before);

    let unfinished = rotate(&mesh, &["--finish"]).expect(2);
    assert!(unfinished.stderr.contains("host n4"), "{unfinished}");
    assert!(unfinished.stderr.contains("user bea"), "{unfinished}");
    assert!(!unfinished.stderr.contains("n1"), "{unfinished}");
    let newer = mesh.root().join("bea-anew");
    mesh.cbctl(&add(&newer)).expect(3);
    let unfinished = rotate(&mesh, &["--finish"]).expect(2);
    assert!(!unfinished.stderr.contains("user bea"), "{unfinished}");
    rotate(&mesh, &["--finish", "--force"]).expect(3);
    for index in 0..3 {
        let his = only(&mesh, index, &admin);
        // It is the members that refuse him, not he them.
        fs::copy(&ca, his.join("contexts/shop/ca.pem")).expect("a file");
        let status = ctl_in(&mesh, &his, &["status", "-o", "json", "--timeout", "2s"]);
        // Nobody answers him, not even to say no.
        let outcome = status.json()["nodes"][0]["outcome"].clone();
        let silent = outcome == "unreachable" || outcome == "timed_out";
        assert!(silent, "{status}");
    }
    let hers = only(&mesh, 0, &newer);
    let status = ctl_in(&mesh, &hers, &["status", "--node", "n1,n2,n3"]).expect(0);
    assert!(!status.stdout.contains("unreachable"), "{status}");

    // It trusts the old root alone, and its certificate is of that one: it comes back by itself.
    mesh.start_agent(fourth);
    renewed(&mesh, &ca, [fourth]);
    mesh.wait_for("it believes what was said before", LIMIT, |mesh| {
        let members = members_by(mesh, fourth);
        let (second, third) = (member(&members, "n2")?, member(&members, "n3")?);
        (second["labels"]["role"] == "till" && third["votes"] == false).then_some(())
    });
    // Who comes later knows nothing of the old root, and all the rest.
    let fifth = mesh.add_host();
    let made = token(&mesh, &["--optional"]);
    mesh.join(fifth, 0, &made, &[]).expect(0);
    mesh.start_agent(fifth);
    mesh.wait_for("the newest member believes it", LIMIT, |mesh| {
        let known = member(&members_by(mesh, fifth), "n2")?;
        (known["labels"]["role"] == "till").then_some(())
    });
    assert!(!mesh.root().join("authority/old").exists());
}

/// Nobody ever said which key n3 has: whoever stole the old root could have made its certificate.
#[test]
fn a_host_whose_key_nobody_knows_comes_back_with_a_token() {
    let mut mesh = mesh(1);
    let ca = mesh.root().join("authority/ca.pem");
    mesh.stop_agent(2);
    rotate(&mesh, &["--no-passphrase"]).expect(3);
    renewed(&mesh, &ca, 0..2);
    rotate(&mesh, &["--finish", "--force"]).expect(3);
    let config = mesh.node(2).config();
    assert!(config.exists());
    mesh.start_agent_alone(2);
    mesh.wait_for("it is told what to do", LIMIT, |mesh| {
        let log = fs::read_to_string(mesh.node(2).agent_log()).ok()?;
        log.contains("cbctl mesh replace n3").then_some(())
    });
    mesh.stop_agent(2);
    let made = mesh.cbctl(&["mesh", "replace", "n3", "--yes"]).expect(0);
    mesh.join(2, 0, made.stdout.trim(), &["--replace"])
        .expect(0);
    mesh.start_agent(2);
    assert_eq!(mesh.status_of(2)["outcome"], "ok");
}
