//! Where certificates come from, with real agents: issuers, another root, the key on paper.

mod forged;
mod issuers;
mod recovery;
mod rotation;

use crate::joining::{member, members_by};
use cbddc_pki::certificate::{facts, from_pem};
use cbddc_pki::signature::Roots;
use cbddc_tests::mesh::TestMesh;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long agents may take to renew, and news to be everywhere.
const LIMIT: Duration = Duration::from_secs(40);

fn roots(file: &Path) -> Roots {
    Roots::from_pem(&fs::read(file).expect("a root's file")).expect("a root")
}

/// Waits until the agents of these hosts have renewed their certificates under a root.
#[track_caller]
fn renewed(mesh: &TestMesh, root: &Path, who: impl IntoIterator<Item = usize>) {
    let root = roots(root);
    for index in who {
        mesh.wait_for("a certificate of the new root", LIMIT, |mesh| {
            let pem = fs::read(mesh.node(index).folder.join("state/node.pem")).ok()?;
            let chain = from_pem(&pem).expect("a chain");
            facts(&chain[0], "shop").expect("of the mesh");
            root.vouch_for(&chain, "shop").then_some(())
        });
    }
}

/// Waits until these members know a host.
#[track_caller]
fn everybody_knows(mesh: &TestMesh, name: &str, who: impl IntoIterator<Item = usize>) {
    for index in who {
        mesh.wait_for("a member is known", LIMIT, |mesh| {
            member(&members_by(mesh, index), name).map(drop)
        });
    }
}

/// All that an agent has written: its log, and its journal as it tells it.
fn written(mesh: &TestMesh, index: usize) -> String {
    let log = fs::read_to_string(mesh.node(index).agent_log()).unwrap_or_default();
    format!("{log}{:?}", mesh.journal(index))
}
