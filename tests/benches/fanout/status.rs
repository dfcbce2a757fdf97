//! `cbctl status`, from the start of a cold process to its end.

use crate::ssh::Ssh;
use cbddc_tests::bare_client;
use cbddc_tests::figures::{compare, median, timed};
use cbddc_tests::mesh::{MeshOptions, TestMesh};
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
    let ssh = match Ssh::start(COUNTS[COUNTS.len() - 1]) {
        Ok(ssh) => Some(ssh),
        Err(why) => {
            println!("left out: ssh as a peer ({why})");
            None
        }
    };
    for count in COUNTS {
        // One of its own for each: the client learns all members from any of them.
        let mesh = TestMesh::start(MeshOptions {
            nodes: count,
            // As quiet as an agent is by default: what is measured is the question, not the agents.
            health_interval: Duration::from_secs(5),
            peers_poll: Duration::from_secs(10),
            peers_probe: Duration::from_secs(2),
            ..MeshOptions::default()
        });
        let (mut ours, mut bare, mut by_ssh) = (Vec::new(), Vec::new(), Vec::new());
        // The first round only warms up.
        for round in 0..=rounds(count) {
            let cbctl = timed(|| succeed(mesh.cbctl_command(&["status"])));
            let client = timed(|| succeed(bare_client::command(&mesh, count)));
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

/// Runs it, with its output thrown away.
fn succeed(mut command: Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let ended = command.status().expect("a program that starts");
    assert!(ended.success(), "{command:?} ended with {ended}");
}
