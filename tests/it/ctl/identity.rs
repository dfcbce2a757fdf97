//! `cbctl mesh init`, `issue` and `user`: who is who, and who may read what.

use crate::fake::{Folders, expect};
use cbddc_domain::access::Role;
use cbddc_pki::authority::Root;
use cbddc_pki::certificate::{self, Facts};
use cbddc_pki::name::Holder;
use cbddc_pki::signature::{Roots, Signer};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

fn ctl(folders: &Folders, line: &str) -> std::process::Output {
    let words: Vec<String> = line
        .split_whitespace()
        .map(|word| word.replace("@/", &format!("{}/", folders.temp.path().display())))
        .collect();
    folders.ctl(&words)
}

fn read(folders: &Folders, inside: &str) -> String {
    fs::read_to_string(folders.path(inside)).expect("a text file")
}

/// Whose certificate this is, after its chain was checked against the mesh's root.
fn believed(folders: &Folders, folder: &str, name: &str) -> Facts {
    let pem = read(folders, &format!("{folder}/{name}.pem"));
    let chain = certificate::from_pem(pem.as_bytes()).expect("a chain");
    let facts = certificate::facts(&chain[0], "shop").expect("of the mesh");
    let ca = read(folders, &format!("{folder}/ca.pem"));
    let roots = Roots::from_pem(ca.as_bytes()).expect("a root");
    // In the middle of its time.
    let now = facts.not_before.midpoint(facts.not_after);
    let checked = roots.check_chain(&chain[0], &chain[1..], now, "shop");
    assert_eq!(checked.as_ref(), Ok(&facts), "{folder}");
    facts
}

fn person(name: &str, role: Role) -> Holder {
    let name = name.to_owned();
    Holder::Person { name, role }
}

fn member() -> Folders {
    let address = "127.0.0.1:7443".parse().expect("an address");
    Folders::init("shop", &[("n1", address)])
}

#[test]
fn a_mesh_is_made_once_and_for_its_owner_alone() {
    let address = "127.0.0.1:7443".parse().expect("an address");
    let folders = Folders::init("shop", &[("n1", address)]);
    for file in [
        "mesh/ca.key",
        "mesh/issuing.key",
        "mesh/user.key",
        "mesh/nodes/n1/node.key",
        "config/contexts/shop/user.key",
    ] {
        assert_eq!(mode(&folders.path(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&folders.path("mesh")), 0o700);
    for file in ["node.pem", "ca.pem", "mesh.toml"] {
        assert!(folders.path("mesh/nodes/n1").join(file).exists(), "{file}");
    }
    let authority = fs::read(folders.path("mesh/ca.key")).expect("a key");
    let own = fs::read(folders.path("mesh/nodes/n1/node.key")).expect("a key");

    let mesh = folders.path("mesh");
    let again = [
        "mesh",
        "init",
        "--name",
        "other",
        "--dir",
        mesh.to_str().expect("plain"),
    ];
    let (_, stderr) = expect(&folders.ctl(&again), 1);
    assert!(stderr.contains("is there already"), "{stderr}");
    let elsewhere = folders.path("elsewhere");
    let again = [
        "mesh",
        "init",
        "--name",
        "shop",
        "--dir",
        elsewhere.to_str().expect("plain"),
    ];
    let (_, stderr) = expect(&folders.ctl(&again), 1);
    assert!(
        stderr.contains("there is a context `shop` already"),
        "{stderr}"
    );
    assert!(!elsewhere.exists());
    let (_, stderr) = expect(&folders.ctl(&["mesh", "issue", "n1"]), 1);
    assert!(stderr.contains("is there already"), "{stderr}");

    assert_eq!(
        fs::read(folders.path("mesh/ca.key")).expect("a key"),
        authority
    );
    assert_eq!(
        fs::read(folders.path("mesh/nodes/n1/node.key")).expect("a key"),
        own
    );
}

#[test]
fn a_member_is_added_with_its_address() {
    let address = "127.0.0.1:7443".parse().expect("an address");
    let folders = Folders::init("shop", &[("n1", address)]);
    let (_, stderr) = expect(&folders.ctl(&["mesh", "issue", "n2"]), 1);
    assert!(stderr.contains("--address"), "{stderr}");
    assert!(!folders.path("mesh/nodes/n2").exists());
    // The address is taken already.
    let taken = ["mesh", "issue", "n2", "--address", "127.0.0.1:7443"];
    expect(&folders.ctl(&taken), 1);
    // A name that no certificate can carry as a host's name.
    let number = ["mesh", "issue", "7", "--address", "127.0.0.1:7445"];
    expect(&folders.ctl(&number), 1);

    let good = [
        "mesh",
        "issue",
        "n2",
        "--address",
        "127.0.0.1:7444",
        "-o",
        "json",
    ];
    let (stdout, stderr) = expect(&folders.ctl(&good), 0);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(json["members"][1]["address"], "127.0.0.1:7444");
    assert!(stderr.contains("the mesh file changed"), "{stderr}");
    let (shown, _) = expect(&folders.ctl(&["mesh", "show"]), 0);
    assert_eq!(
        shown,
        "NODE  ADDRESS\nn1    127.0.0.1:7443\nn2    127.0.0.1:7444\n"
    );
}

#[test]
fn who_is_who_in_a_new_mesh() {
    let folders = member();
    let ana = believed(&folders, "mesh", "user").mesh_holder;
    assert_eq!(ana, person("ana", Role::Admin));
    let n1 = believed(&folders, "mesh/nodes/n1", "node").mesh_holder;
    assert_eq!(n1, Holder::Node("n1".parse().expect("a name")));
    // The issuing authority stays where it was made, unless a member is to be one.
    assert!(!folders.path("mesh/nodes/n1/issuing.key").exists());
    expect(
        &ctl(&folders, "mesh issue n2 --address 127.0.0.1:7444 --issuer"),
        0,
    );
    let own = |file| read(&folders, &format!("mesh/{file}"));
    let theirs = |file| read(&folders, &format!("mesh/nodes/n2/{file}"));
    assert_eq!(theirs("issuing.key"), own("issuing.key"));
    assert_eq!(theirs("issuing.pem"), own("issuing.pem"));
    assert_eq!(mode(&folders.path("mesh/nodes/n2/issuing.key")), 0o600);
    assert!(!folders.path("mesh/nodes/n2/ca.key").exists());
    let again = "mesh issue n2 --issuer --out @/mesh";
    let (_, stderr) = expect(&ctl(&folders, again), 1);
    assert!(stderr.contains("issuing.pem is there already"), "{stderr}");
    assert!(!folders.path("mesh/node.pem").exists());
    // Without its key nothing is issued.
    fs::remove_file(folders.path("mesh/issuing.key")).expect("own file");
    let (_, stderr) = expect(&ctl(&folders, "mesh issue n1 --out @/other"), 1);
    assert!(stderr.contains("--issuer"), "{stderr}");
    assert!(!folders.path("other").exists());
}

#[test]
fn people_are_added_with_their_role() {
    let folders = member();
    let line = "mesh user add ben --role operator -o json";
    // No agent runs: the certificate is made, and no member was told yet.
    let (stdout, stderr) = expect(&ctl(&folders, line), 3);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        (&json["user"], &json["role"]),
        (&"ben".into(), &"operator".into())
    );
    assert!(stderr.contains("contexts/shop"), "{stderr}");
    let ben = believed(&folders, "mesh/users/ben", "user").mesh_holder;
    assert_eq!(ben, person("ben", Role::Operator));
    assert_eq!(mode(&folders.path("mesh/users/ben/user.key")), 0o600);
    assert!(folders.path("mesh/users/ben/mesh.toml").exists());
    let key = read(&folders, "mesh/users/ben/user.key");
    let (_, stderr) = expect(&ctl(&folders, line), 1);
    assert!(stderr.contains("is there already"), "{stderr}");
    assert_eq!(read(&folders, "mesh/users/ben/user.key"), key);
    // As the hint says: the folder is a context.
    let context = folders.path("config/contexts/bens");
    fs::rename(folders.path("mesh/users/ben"), context).expect("a folder");
    expect(&ctl(&folders, "mesh show --context bens"), 0);
}

#[test]
fn a_person_may_keep_the_key() {
    let folders = member();
    // Any key's request does; what it asks to be named is not looked at.
    let other = Root::create("other", 1_750_000_000).expect("a root");
    let key = other.seal(None).expect("a key");
    let pem = other.csr_pem("other").expect("a request");
    fs::write(folders.path("eva.csr"), &pem).expect("written");
    let line = "mesh user add eva --role viewer --csr @/eva.csr --out @/eva";
    expect(&ctl(&folders, line), 3);
    let eva = believed(&folders, "eva", "user");
    assert_eq!(eva.mesh_holder, person("eva", Role::Viewer));
    assert!(!folders.path("eva/user.key").exists());
    let chain = read(&folders, "eva/user.pem");
    assert!(Signer::from_pem(chain.as_bytes(), key.as_bytes()).is_ok());

    let broken = pem.replace("REQUEST-----\nMI", "REQUEST-----\nMJ");
    assert_ne!(broken, pem);
    for wrong in ["nothing", &broken] {
        fs::write(folders.path("eva.csr"), wrong).expect("written");
        let line = "mesh user add eva --role viewer --csr @/eva.csr --out @/no";
        let (_, stderr) = expect(&ctl(&folders, line), 1);
        assert!(stderr.contains("request"), "{stderr}");
        assert!(!folders.path("no").exists());
    }
}
