//! Who is in the mesh, with real agents: joining by token, being taken out, being replaced.

mod flood;
mod interrupted;
mod leaving;

use cbddc_tests::bins::binary;
use cbddc_tests::mesh::{MeshOptions, Ran, TestMesh};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long news may take to be everywhere.
const LIMIT: Duration = Duration::from_secs(40);

pub(crate) fn mesh(issuers: usize) -> TestMesh {
    TestMesh::start(options(issuers))
}

fn options(issuers: usize) -> MeshOptions {
    MeshOptions {
        issuers,
        peers_poll: Duration::from_millis(200),
        ..MeshOptions::default()
    }
}

/// A token, as `cbctl mesh token` prints it.
#[track_caller]
pub(crate) fn token(mesh: &TestMesh, more: &[&str]) -> String {
    let ran = mesh.cbctl(&[&["mesh", "token"], more].concat()).expect(0);
    assert_eq!(ran.stdout.lines().count(), 1, "{ran}");
    ran.stdout.trim().to_owned()
}

/// A folder for `cbctl` that knows of one member alone, with the certificate in `user`.
pub(crate) fn only(mesh: &TestMesh, index: usize, user: &Path) -> PathBuf {
    let node = mesh.node(index);
    let who = user.file_name().expect("a name").to_string_lossy();
    let config = mesh.root().join(format!("only-{}-{who}", node.name));
    let context = config.join("contexts/shop");
    if context.exists() {
        fs::remove_dir_all(&context).expect("an old folder");
    }
    fs::create_dir_all(&context).expect("a new folder");
    for file in ["ca.pem", "user.pem", "user.key"] {
        fs::copy(user.join(file), context.join(file)).expect("a file");
    }
    fs::write(config.join("current"), "shop\n").expect("a file");
    let text = format!(
        "name = \"shop\"\nenvironment = \"local\"\n\n[[member]]\nname = \"{}\"\naddress = \"127.0.0.1:{}\"\n",
        node.name, node.agent_port
    );
    fs::write(context.join("mesh.toml"), text).expect("a file");
    config
}

/// `cbctl` with another folder than the admin's.
#[track_caller]
pub(crate) fn ctl_in(mesh: &TestMesh, config: &Path, arguments: &[&str]) -> Ran {
    #[expect(
        clippy::disallowed_methods,
        reason = "another admin's machine, with a configuration of its own"
    )]
    let mut command = Command::new(binary("cbctl"));
    command.args(arguments).env("CBCTL_CONFIG", config);
    mesh.run(&format!("cbctl {}", arguments.join(" ")), command)
}

/// What one member says of all of them.
pub(crate) fn members_by(mesh: &TestMesh, index: usize) -> Vec<Value> {
    let admin = mesh.cbctl_config().join("contexts/shop");
    let config = only(mesh, index, &admin);
    let ran = ctl_in(
        mesh,
        &config,
        &["mesh", "members", "-o", "json", "--timeout", "2s"],
    );
    if !matches!(ran.code, 0 | 3) {
        return Vec::new();
    }
    let json = ran.json();
    assert_eq!(json["from"], mesh.node(index).name.as_str(), "{ran}");
    json["members"].as_array().cloned().unwrap_or_default()
}

pub(crate) fn member(members: &[Value], name: &str) -> Option<Value> {
    members.iter().find(|one| one["name"] == name).cloned()
}

/// Whether an entry of a kind, with these words in its text, is in the journal of a host.
pub(crate) fn told(mesh: &TestMesh, index: usize, kind: &str, words: &str) -> bool {
    mesh.journal(index).iter().any(|entry| {
        entry["kind"] == kind
            && entry["text"]
                .as_str()
                .is_some_and(|text| text.contains(words))
    })
}

#[track_caller]
pub(crate) fn refused(ran: &Ran, words: &str) {
    assert_ne!(ran.code, 0, "{ran}");
    assert!(
        ran.stderr.contains(words),
        "not because of `{words}`: {ran}"
    );
}

#[test]
fn a_host_joins_with_a_token_and_all_know_it() {
    let mut mesh = mesh(1);
    let made = mesh.cbctl(&["mesh", "token", "-l", "role=till", "--optional"]);
    let made = made.expect(0);
    let token = made.stdout.trim();
    assert!(token.starts_with("cbddc1:shop:n1:"), "{made}");
    let line = format!(
        "cbagent join 127.0.0.1:{} --token - --listen HOST:PORT",
        mesh.node(0).agent_port
    );
    assert!(made.stderr.contains(&line), "{made}");
    assert!(!made.stderr.contains(token), "the secret is shown twice");

    let fourth = mesh.add_host();
    mesh.join(fourth, 0, token, &[]).expect(0);
    mesh.start_agent(fourth);
    for index in 0..4 {
        mesh.wait_for("every member knows the new one", LIMIT, |mesh| {
            let known = member(&members_by(mesh, index), "n4")?;
            assert_eq!(known["labels"]["role"], "till");
            assert_eq!(known["required"], false);
            assert_eq!(known["votes"], false);
            (known["alive"] == true).then_some(())
        });
    }
    assert_eq!(mesh.status_of(3)["outcome"], "ok");
    // Others speak to it: its journal is asked for through its own address.
    assert!(told(&mesh, 0, "token_used", "n4 joins"));
    assert!(told(&mesh, 0, "token_made", "any new host"));

    let again = mesh.add_host();
    refused(&mesh.join(again, 0, token, &[]), "used already");
    assert!(told(&mesh, 0, "join_refused", "used already"));
    // The same host again, with the key that it has: a lost answer costs nothing.
    let key = mesh.node(fourth).folder.join("node.key");
    fs::copy(&key, mesh.node(fourth).folder.join("node.key.new")).expect("a key");
    mesh.join(fourth, 0, token, &["--replace"]).expect(0);
}

#[test]
fn tokens_that_are_not_good_let_nobody_in() {
    let mut mesh = mesh(2);
    let fourth = mesh.add_host();
    let good = token(&mesh, &["--issuer", "n1", "--host", "n4"]);
    // A letter that was mistyped is found before anybody is asked.
    let last = if good.ends_with('0') { '1' } else { '0' };
    let typo = format!("{}{last}", &good[..good.len() - 1]);
    refused(&mesh.join(fourth, 0, &typo, &[]), "typing error");
    // Whoever makes one up, check and all, is unknown to the issuer.
    let mut made_up: cbddc_pki::token::Token = good.parse().expect("a token");
    made_up.secret[0] ^= 1;
    refused(
        &mesh.join(fourth, 0, &made_up.reveal(), &[]),
        "no such token",
    );
    assert!(told(&mesh, 0, "join_refused", "no such token"));
    // It is one issuer's: the other one is not who the token names.
    refused(
        &mesh.join(fourth, 1, &good, &[]),
        "cannot reach the issuer n1",
    );
    refused(
        &mesh.join(fourth, 0, &good, &["--name", "n9"]),
        "another host",
    );
    let short = token(&mesh, &["--issuer", "n2", "--ttl", "1s"]);
    std::thread::sleep(Duration::from_millis(2100));
    refused(&mesh.join(fourth, 1, &short, &[]), "expired");
    assert!(told(&mesh, 1, "join_refused", "expired"));

    let foreign = TestMesh::start(MeshOptions {
        nodes: 1,
        ..options(1)
    });
    let foreign = token(&foreign, &[]);
    refused(
        &mesh.join(fourth, 0, &foreign, &[]),
        "does not belong to the mesh of the token",
    );
    assert!(!mesh.node(fourth).folder.join("node.pem").exists());
    mesh.join(fourth, 0, &good, &[]).expect(0);
}

#[test]
fn a_token_for_two_lets_two_in() {
    let mut mesh = mesh(1);
    let token = token(&mesh, &["--uses", "2"]);
    let hosts = [mesh.add_host(), mesh.add_host(), mesh.add_host()];
    mesh.join(hosts[0], 0, &token, &[]).expect(0);
    mesh.join(hosts[1], 0, &token, &[]).expect(0);
    refused(&mesh.join(hosts[2], 0, &token, &[]), "used already");
    let members = members_by(&mesh, 0);
    assert!(member(&members, "n5").is_some());
    assert!(member(&members, "n6").is_none());
}

#[test]
fn one_address_is_enough() {
    let mut mesh = mesh(1);
    let admin = mesh.cbctl_config().join("contexts/shop");
    let config = only(&mesh, 2, &admin);
    let status = ctl_in(&mesh, &config, &["status", "-o", "json"]).expect(0);
    assert_eq!(status.json()["nodes"].as_array().map(Vec::len), Some(3));
    mesh.wait_for("n3 was heard of", LIMIT, |mesh| {
        (0..2)
            .all(|index| {
                let members = members_by(mesh, index);
                member(&members, "n3").is_some_and(|known| known["last_seen"].is_string())
            })
            .then_some(())
    });
    // What was learnt is kept: the address that was known is not needed any more.
    mesh.stop_agent(2);
    let members = ctl_in(&mesh, &config, &["mesh", "members", "-o", "json"]);
    assert_eq!(members.json()["members"].as_array().map(Vec::len), Some(3));
    let status = ctl_in(&mesh, &config, &["status", "-o", "json"]).expect(3);
    assert!(
        status.json()["summary"]["last_seen"]["n3"].is_string(),
        "{status}"
    );
}

#[test]
fn labels_and_kinds_are_changed_by_an_admin() {
    let mesh = mesh(1);
    let line = [
        "mesh",
        "label",
        "n2",
        "role=till",
        "shelf",
        "--optional",
        "--yes",
    ];
    mesh.cbctl(&line).expect(0);
    for index in 0..3 {
        let known = member(&members_by(&mesh, index), "n2").expect("a member");
        assert_eq!(known["labels"]["role"], "till");
        assert_eq!(known["labels"]["shelf"], "yes");
        assert_eq!(known["required"], false);
    }
    mesh.cbctl(&["mesh", "label", "n2", "--remove", "role", "--yes"])
        .expect(0);
    let known = member(&members_by(&mesh, 0), "n2").expect("a member");
    assert!(known["labels"]["role"].is_null(), "{known}");
    assert_eq!(known["labels"]["shelf"], "yes");
    mesh.cbctl(&["mesh", "label", "n2", "issuer", "--yes"])
        .expect(64);
    mesh.cbctl(&["mesh", "label", "n9", "a=b", "--yes"])
        .expect(64);
    let dry = mesh
        .cbctl(&["mesh", "label", "n2", "a=b", "--dry-run"])
        .expect(0);
    assert!(dry.stderr.contains("nothing was changed"), "{dry}");
    assert!(member(&members_by(&mesh, 0), "n2").expect("n2")["labels"]["a"].is_null());
}
