//! All admins are lost, and the root's key with them: the key on paper is left.

use super::{LIMIT, renewed, written};
use crate::joining::{ctl_in, mesh, told};
use cbddc_pki::recovery::RecoveryKey;
use cbddc_tests::mesh::{Ran, TestMesh};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The recovery key, as `mesh init` showed it once.
fn paper(mesh: &TestMesh) -> String {
    let said = fs::read_dir(mesh.root().join("said")).expect("what was said");
    let texts = said.map(|file| fs::read_to_string(file.expect("a file").path()));
    let line = texts.flatten().find_map(|text| {
        let (_, after) = text.split_once("the recovery key, shown only now")?;
        after.lines().nth(2).map(|line| line.trim().to_owned())
    });
    line.expect("it was shown")
}

fn recover(mesh: &TestMesh, config: &Path, key: &str) -> Ran {
    let file = mesh.root().join("paper");
    fs::write(&file, format!("{key}\n")).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("own file");
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let (dir, file) = (text(mesh.root().join("rescue")), text(file));
    let mesh_file = text(mesh.node(0).folder.join("mesh.toml"));
    let socket = text(mesh.node(0).folder.join("state/run/agent.sock"));
    let line = [
        "mesh",
        "recover",
        "--dir",
        &dir,
        "--user",
        "cora",
        "--no-passphrase",
        "--recovery-file",
        &file,
        "--mesh-file",
        &mesh_file,
        "--socket",
        &socket,
        "--yes",
    ];
    ctl_in(mesh, config, &line)
}

#[test]
fn the_key_on_paper_makes_a_new_admin_and_a_new_root() {
    let mut mesh = mesh(1);
    let (key, config) = (paper(&mesh), mesh.root().join("cora"));
    let rescue = mesh.root().join("rescue");
    // One that is not the mesh's, and one with a typing error.
    let other = RecoveryKey::generate().expect("a key").paper();
    let mut typo = key.clone();
    typo.replace_range(0..1, if key.starts_with('0') { "1" } else { "0" });
    for (wrong, why) in [
        (&other, "not the recovery key of the mesh shop"),
        (&typo, "typing error"),
    ] {
        let ran = recover(&mesh, &config, wrong).expect(2);
        assert!(ran.stderr.contains(why), "{ran}");
        assert!(ran.stderr.contains("nothing was changed"), "{ran}");
        assert!(!rescue.exists() && !config.join("contexts").exists());
        assert!(!told(&mesh, 0, "roster_changed", ""));
    }
    // One member is away while it happens.
    mesh.stop_agent(2);
    let ran = recover(&mesh, &config, &key).expect(0);
    let groups: Vec<&str> = key.split('-').collect();
    let secret = groups[3..6].join("-");
    assert!(!ran.to_string().contains(&secret), "the key is told");
    assert!(!written(&mesh, 0).contains(&secret), "the key is told");
    // Cora alone is left.
    renewed(&mesh, &rescue.join("ca.pem"), 0..2);
    let line = ["status", "--node", "n1,n2"];
    mesh.wait_for("she is believed by all", LIMIT, |mesh| {
        (ctl_in(mesh, &config, &line).code == 0).then_some(())
    });
    let removed = ["mesh", "user", "remove", "ana", "--reason", "lost", "--yes"];
    ctl_in(&mesh, &config, &removed).expect(3);
    let ana = mesh.cbctl(&["status", "--node", "n1"]);
    assert_ne!(ana.code, 0, "{ana}");

    // Who was away hears of it from the others, and believes it by the recovery key's signature.
    mesh.start_agent_alone(2);
    renewed(&mesh, &rescue.join("ca.pem"), [2]);
    mesh.wait_for("she is believed there, too", LIMIT, |mesh| {
        (ctl_in(mesh, &config, &["status"]).code == 0).then_some(())
    });
    // She is an admin as any other, and ends the old root.
    ctl_in(
        &mesh,
        &config,
        &["mesh", "label", "n2", "role=till", "--yes"],
    )
    .expect(0);
    let made = mesh.root().join("rescue").to_string_lossy().into_owned();
    let finish = ["mesh", "ca", "rotate", "--finish", "--yes", "--dir", &made];
    ctl_in(&mesh, &config, &finish).expect(0);
    ctl_in(&mesh, &config, &["status"]).expect(0);
    let issuer = ["mesh", "issuer", "add", "n2", "--yes", "--dir", &made];
    ctl_in(&mesh, &config, &issuer).expect(0);
}
