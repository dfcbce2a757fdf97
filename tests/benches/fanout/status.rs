//! `cbctl status`, from the start of a cold process to its end.

use crate::bare;
use crate::ssh::Ssh;
use cbddc_tests::figures::{compare, median, timed};
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// For how many agents.
const COUNTS: [usize; 5] = [1, 3, 10, 30, 100];

/// What `cbctl status` may take of the bare client's time.
const GOAL: f64 = 1.5;

/// How often each is measured, by turns.
fn rounds(count: usize) -> usize {
    if count <= 10 { 41 } else { 15 }
}

pub(crate) fn measure() {
    let mesh = TestMesh::start(MeshOptions {
        nodes: COUNTS[COUNTS.len() - 1],
        // As quiet as an agent is by default: what is measured is the question, not the agents.
        health_interval: Duration::from_secs(5),
        peers_poll: Duration::from_secs(10),
        ..MeshOptions::default()
    });
    let ssh = match Ssh::start(COUNTS[COUNTS.len() - 1]) {
        Ok(ssh) => Some(ssh),
        Err(why) => {
            println!("left out: ssh as a peer ({why})");
            None
        }
    };
    for count in COUNTS {
        let context = smaller_context(&mesh, count);
        let (mut ours, mut bare, mut by_ssh) = (Vec::new(), Vec::new(), Vec::new());
        // The first round only warms up.
        for round in 0..=rounds(count) {
            let cbctl = timed(|| status(&mesh, &context));
            let client = timed(|| bare_client(&mesh, count));
            let peer = ssh.as_ref().map(|ssh| timed(|| ssh.run_true(count)));
            if round > 0 {
                ours.push(cbctl);
                bare.push(client);
                by_ssh.extend(peer);
            }
        }
        let job = format!("status of {count}");
        compare(
            &job,
            "bare tonic client, mTLS",
            median(&ours),
            median(&bare),
            Some(GOAL),
        );
        if !by_ssh.is_empty() {
            compare(
                &job,
                "ssh in parallel, ControlMaster",
                median(&ours),
                median(&by_ssh),
                None,
            );
        }
    }
}

/// A configuration folder of `cbctl` whose mesh file lists the first agents only.
fn smaller_context(mesh: &TestMesh, count: usize) -> PathBuf {
    let (whole, part) = (
        mesh.cbctl_config(),
        mesh.root().join(format!("cbctl-{count}")),
    );
    let inside = Path::new("contexts").join(&mesh.options().name);
    fs::create_dir_all(part.join(&inside)).expect("a new folder");
    for file in ["ca.pem", "user.pem", "user.key"] {
        fs::copy(
            whole.join(&inside).join(file),
            part.join(&inside).join(file),
        )
        .expect("a copy");
    }
    fs::copy(whole.join("current"), part.join("current")).expect("a copy");
    let text = fs::read_to_string(whole.join(&inside).join("mesh.toml")).expect("a mesh file");
    let mut file: toml::Table = text.parse().expect("TOML");
    let members = file["member"].as_array_mut().expect("a list of members");
    members.truncate(count);
    fs::write(part.join(&inside).join("mesh.toml"), file.to_string()).expect("a mesh file");
    part
}

fn status(mesh: &TestMesh, context: &Path) {
    let mut command = mesh.cbctl_command(&["status"]);
    command.env("CBCTL_CONFIG", context);
    succeed(command);
}

fn bare_client(mesh: &TestMesh, count: usize) {
    let program = std::env::current_exe().expect("the path of the running program");
    let mut command = Command::new(program);
    let folder = mesh
        .cbctl_config()
        .join("contexts")
        .join(&mesh.options().name);
    command.arg(bare::WORD).arg(folder);
    for node in &mesh.nodes()[..count] {
        command.arg(format!("{}=127.0.0.1:{}", node.name, node.agent_port));
    }
    succeed(command);
}

/// Runs it, with its output thrown away.
fn succeed(mut command: Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let ended = command.status().expect("a program that starts");
    assert!(ended.success(), "{command:?} ended with {ended}");
}
