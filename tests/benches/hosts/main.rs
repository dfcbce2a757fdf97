//! A switch on a real host, over D-Bus, beside `systemctl restart` of the same unit.
//!
//! ```text
//! cargo build --release --workspace --bins
//! cargo bench -p cbddc-tests --bench hosts
//! ```
//!
//! What is compared is how long the node does not serve, as its users see it: an agent waits out two sync
//! cycles before it stops a node, but the node serves meanwhile. The last line has the whole command as
//! well, less the cycles. Needs root, as the tests on hosts do.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints"
)]

mod outage;

use cbddc_tests::figures::{compare, heading, median, timed};
use cbddc_tests::ground::PATIENCE;
use cbddc_tests::hosts::{Hosts, Packages};
use outage::Watch;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;
use std::time::Duration;

/// How often a release is rolled out and back; the first time only warms up.
const ROUNDS: u32 = 7;

/// What a switch may take of a restart's time.
const GOAL: f64 = 1.15;

/// The sync cycle that the agent waits out twice, and what it waits beyond.
const SYNC: &str = "1ms";
const QUIESCE: Duration = Duration::from_millis(502);

/// How long a node takes before it begins, as a service of its kind does.
const NODE_START: &str = "#!/bin/sh\nsleep 0.25\nexec \"${0%/*}/node\" \"$@\"\n";

fn main() -> ExitCode {
    let Some(hosts) = adopted_host() else {
        return ExitCode::FAILURE;
    };
    heading();
    let (mut restarts, mut activations, mut rollbacks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut commands, mut bare) = (Vec::new(), Vec::new());
    start(&hosts, "1.0");
    for round in 0..=ROUNDS {
        // A build that was rolled back is revoked, so each round has its own.
        let version = format!("1.{}", round + 1);
        push(&hosts, &version);
        let activation = outage_during(&hosts, || start(&hosts, &version));
        let mut restart = Duration::ZERO;
        let outage = outage_during(&hosts, || {
            restart = timed(|| {
                hosts.enter(1, &["systemctl", "restart", "cbddc"]).expect(0);
                hosts.wait_for_node(1, PATIENCE);
            });
        });
        let mut command = Duration::ZERO;
        let rollback = outage_during(&hosts, || {
            command = timed(|| {
                hosts.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
            });
        });
        if round > 0 {
            activations.push(activation);
            restarts.push(outage);
            rollbacks.push(rollback);
            bare.push(restart);
            commands.push(command.saturating_sub(QUIESCE));
        }
    }
    let peer = "systemctl restart, to healthy";
    let restarts = median(&restarts);
    let (activations, rollbacks) = (median(&activations), median(&rollbacks));
    compare("activation", peer, activations, restarts, Some(GOAL));
    compare("rollback", peer, rollbacks, restarts, Some(GOAL));
    let (commands, bare) = (median(&commands), median(&bare));
    compare("rollback, whole command", peer, commands, bare, None);
    ExitCode::SUCCESS
}

/// One host, whose node was set up by hand and taken over.
fn adopted_host() -> Option<Hosts> {
    let hosts = Hosts::up(1)?;
    hosts.set_nodes_up();
    hosts.make_mesh();
    hosts.install(1, "cbagent", &Packages::get().version());
    hosts.configure_agents();
    let config = "/etc/cbagent/cbagent.toml";
    let line = format!("sed -i 's/^sync_interval = .*/sync_interval = \"{SYNC}\"/' {config}");
    hosts.shell(1, &line).expect(0);
    hosts.start_agents();
    let unit = ["--mesh", "--unit", "cbddc.service", "--yes"];
    hosts
        .cbctl(&[&["node", "adopt"], &unit[..]].concat())
        .expect(0);
    hosts.wait_for_agent(1, PATIENCE);
    push(&hosts, "1.0");
    Some(hosts)
}

/// Makes a build that takes its time to begin, and sends it to the host.
fn push(hosts: &Hosts, version: &str) {
    let folder = hosts.folder().join("slow").join(version);
    fs::create_dir_all(&folder).expect("a new folder");
    fs::write(folder.join("version"), format!("{version}\n")).expect("a file can be written");
    fs::copy(Packages::get().fixture_node(), folder.join("node")).expect("a program");
    let program = folder.join("fixture-node");
    fs::write(&program, NODE_START).expect("a script can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode can be set");
    hosts.push_build(version, &folder);
}

fn start(hosts: &Hosts, version: &str) {
    hosts.cbctl(&hosts.rollout(version)).expect(0);
    hosts.wait_until_all_run(version, PATIENCE);
}

/// The longest time without a good answer while something is done.
fn outage_during(hosts: &Hosts, work: impl FnOnce()) -> Duration {
    let watch = Watch::start(hosts);
    work();
    watch.end()
}
