//! What a person stops until further notice: rollouts, and a node's traffic.

use super::{LIMIT, mesh_on_1_0, options, refused, roll_out, text};
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

fn usual(nodes: usize) -> MeshOptions {
    MeshOptions {
        nodes,
        ..options(Duration::from_secs(3), Duration::from_secs(20))
    }
}

#[test]
fn a_frozen_mesh_refuses_rollouts_and_lets_a_rollback_pass() {
    let mut mesh = mesh_on_1_0(usual(1));
    roll_out(&mesh, "1.1");
    mesh.make_build("1.2", "");
    let freeze = [
        "mesh",
        "freeze",
        "--reason",
        "quarter end",
        "--until",
        "1h",
        "--yes",
    ];
    mesh.cbctl(&freeze).expect(0);
    refused(&mesh.cbctl(&mesh.rollout("1.2")), 2, "quarter end");
    mesh.kill_agent(0);
    mesh.start_agent(0);
    refused(&mesh.cbctl(&mesh.rollout("1.2")), 2, "quarter end");
    let status = mesh.cbctl(&["status"]);
    assert!(status.stdout.contains("frozen until"), "{status}");
    mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    mesh.cbctl(&["mesh", "thaw", "--reason", "over", "--yes"])
        .expect(0);
    mesh.roll_out("1.2");
}

/// A host whose drain command leaves a file, and whose agent-check is on; gives both.
fn drainable() -> (TestMesh, std::path::PathBuf, SocketAddr) {
    let mut mesh = mesh_on_1_0(usual(1));
    let (config, drained) = (mesh.node(0).config(), mesh.node(0).folder.join("drained"));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let address = free.expect("a free port");
    mesh.stop_agent(0);
    let text = fs::read_to_string(&config).expect("its configuration");
    let file = drained.display();
    let commands = format!(
        "drain = [\"/usr/bin/touch\", \"{file}\"]\nundrain = [\"/bin/rm\", \"-f\", \"{file}\"]\ndatabases ="
    );
    let others = |line: &&str| !line.starts_with("drain =") && !line.starts_with("undrain =");
    let text: Vec<&str> = text.lines().filter(others).collect();
    let text = text.join("\n").replacen("databases =", &commands, 1);
    let text = format!("{text}\n[haproxy]\nagent_check = \"{address}\"\n");
    fs::write(config, text).expect("it can be written");
    mesh.start_agent(0);
    (mesh, drained, address)
}

fn haproxy_hears(address: SocketAddr) -> String {
    let mut said = String::new();
    let stream = TcpStream::connect(address);
    let read = stream.and_then(|mut stream| stream.read_to_string(&mut said));
    read.expect("an answer");
    said
}

#[test]
fn a_drained_node_stays_drained() {
    let (mut mesh, drained, address) = drainable();
    mesh.wait_until_all_run("1.0", LIMIT);
    assert_eq!(haproxy_hears(address), "ready up\n");
    let drain = [
        "node", "drain", "--node", "n1", "--reason", "new disk", "--yes",
    ];
    mesh.cbctl(&drain).expect(0);
    let is_drained = |mesh: &TestMesh| {
        let stop = mesh.status_of(0)["result"]["drained"].clone();
        drained.exists() && text(&stop["reason"]) == "new disk"
    };
    assert!(is_drained(&mesh));
    assert_eq!(haproxy_hears(address), "drain\n");
    mesh.kill_agent(0);
    mesh.start_agent(0);
    assert!(is_drained(&mesh));
    // A start of the node does not let its traffic go on.
    let node = mesh.node(0).node_process().expect("it runs");
    let before = node.pid;
    node.kill();
    mesh.wait_for("the node is started again", LIMIT, |mesh| {
        mesh.node_pid(0).filter(|pid| *pid != before)
    });
    mesh.wait_until_all_run("1.0", LIMIT);
    let journal = mesh.journal(0);
    assert!(journal.iter().any(|line| line["kind"] == "node_ended"));
    assert!(is_drained(&mesh));
    assert_eq!(haproxy_hears(address), "drain\n");
    mesh.cbctl(&["node", "undrain", "--node", "n1", "--yes"])
        .expect(0);
    assert!(!drained.exists());
    assert_eq!(haproxy_hears(address), "ready up\n");
}

#[test]
fn a_quarantine_that_is_not_set_up_says_so() {
    let mesh = mesh_on_1_0(usual(1));
    let cut = [
        "node",
        "quarantine",
        "--node",
        "n1",
        "--reason",
        "odd",
        "--yes",
    ];
    let ran = mesh.cbctl(&cut);
    assert_ne!(ran.code, 0, "{ran}");
    assert!(
        format!("{}{}", ran.stdout, ran.stderr).contains("[quarantine]"),
        "{ran}"
    );
    let release = [
        "node", "release", "--node", "n1", "--reason", "fine", "--yes",
    ];
    mesh.cbctl(&release).expect(0);
    assert!(mesh.status_of(0)["result"]["quarantined"].is_null());
}
