//! A mesh of a hundred agents: `cbctl status` of all of them by the address of one, beside a client
//! that knows every address and does nothing else; and what one idle agent costs there.
//!
//! ```text
//! cargo build --release --workspace --bins
//! cargo bench -p cbddc-tests --bench membership
//! ```

use cbddc_tests::bare_client;
use cbddc_tests::figures::{bounded, compare, heading, median, timed};
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use cbddc_tests::usage;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

const MEMBERS: usize = 100;

/// How often each client is measured, by turns.
const ROUNDS: usize = 15;

/// How long the agents are left alone before they are measured, so that each knows all others.
const WARM_UP: Duration = Duration::from_secs(60);

/// How long they are measured.
const MEASURED: Duration = Duration::from_secs(60);

/// Resident memory in MiB, and CPU in percent of one core.
const GOALS: (f64, f64) = (25.0, 0.5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|word| word == bare_client::WORD)
    {
        return bare_client::run(&arguments[1..]);
    }
    let mesh = TestMesh::start(MeshOptions {
        nodes: MEMBERS,
        // As an agent has them by default.
        health_interval: Duration::from_secs(5),
        peers_poll: Duration::from_secs(10),
        peers_probe: Duration::from_secs(2),
        ..MeshOptions::default()
    });
    heading();
    idle(&mesh);
    status(&mesh);
    ExitCode::SUCCESS
}

fn idle(mesh: &TestMesh) {
    sleep(WARM_UP);
    let agents = mesh.nodes().iter().filter_map(|node| node.agent_process());
    let agents: Vec<u32> = agents.map(|process| process.pid).collect();
    assert_eq!(agents.len(), mesh.len(), "an agent ended");
    let percent = usage::cpu_percent(&agents, MEASURED);
    let resident = agents.iter().map(|agent| usage::resident_mib(*agent));
    let resident = resident.fold(0.0, f64::max);
    bounded("agent among 100, memory", resident, "MiB", GOALS.0);
    bounded("agent among 100, CPU", percent, "% of a core", GOALS.1);
}

fn status(mesh: &TestMesh) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    // The first round only warms up.
    for round in 0..=ROUNDS {
        // What was learnt is kept, so each time begins with a folder of its own.
        let context = one_address(mesh, round);
        let mut cbctl = mesh.cbctl_command(&["status"]);
        cbctl.env("CBCTL_CONFIG", context);
        let cbctl = timed(|| succeed(cbctl));
        let client = timed(|| succeed(bare_client::command(mesh, MEMBERS)));
        if round > 0 {
            ours.push(cbctl);
            bare.push(client);
        }
    }
    let (ours, bare) = (median(&ours), median(&bare));
    compare(
        "status of 100 by one",
        "bare client, all addresses known",
        ours,
        bare,
        None,
    );
}

/// A configuration folder of `cbctl` whose mesh file lists one member only.
fn one_address(mesh: &TestMesh, round: usize) -> PathBuf {
    let part = mesh.root().join(format!("cbctl-{round}"));
    let inside = Path::new("contexts").join(&mesh.options().name);
    let whole = mesh.cbctl_config().join(&inside);
    fs::create_dir_all(part.join(&inside)).expect("a new folder");
    for file in ["ca.pem", "user.pem", "user.key"] {
        fs::copy(whole.join(file), part.join(&inside).join(file)).expect("a copy");
    }
    fs::copy(mesh.cbctl_config().join("current"), part.join("current")).expect("a copy");
    let text = fs::read_to_string(whole.join("mesh.toml")).expect("a mesh file");
    let mut file: toml::Table = text.parse().expect("TOML");
    let members = file["member"].as_array_mut().expect("a list of members");
    members.truncate(1);
    fs::write(part.join(&inside).join("mesh.toml"), file.to_string()).expect("a mesh file");
    part
}

/// Runs it, with its output thrown away.
fn succeed(mut command: Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let ended = command.status().expect("a program that starts");
    assert!(ended.success(), "{command:?} ended with {ended}");
}
