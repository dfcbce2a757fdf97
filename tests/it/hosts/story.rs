//! The main job on hosts on which a node ran by hand long before there were agents.

use cbddc_tests::ground::PATIENCE;
use cbddc_tests::hosts::{Hosts, Packages, network};
use cbddc_tests::mesh::{Timing, wait_for};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn pid(hosts: &Hosts, host: u8) -> String {
    hosts.say(host, "systemctl show -P MainPID cbddc")
}

/// Everything of the unit's setting up that could be changed.
fn unit(hosts: &Hosts, host: u8) -> String {
    let line = "find /etc/systemd -exec stat -c '%n %a %u %g %s' {} + | sort; \
                systemctl cat cbddc; systemctl show -p ExecStart --value cbddc | cut -d';' -f1-2";
    hosts.say(host, line)
}

/// Hosts with a node set up by hand, and an agent beside it that was just enrolled.
pub(super) fn ready(count: u8) -> Option<Hosts> {
    let hosts = Hosts::up(count)?;
    hosts.set_nodes_up();
    hosts.make_mesh();
    hosts.enrol();
    Some(hosts)
}

pub(super) fn adopt(hosts: &Hosts) {
    let words = [
        "node",
        "adopt",
        "--mesh",
        "--unit",
        "cbddc.service",
        "--yes",
    ];
    hosts.cbctl(&words).expect(0);
    for host in hosts.numbers() {
        // It begins anew, so that it may write to the database's folder.
        hosts.wait_for_agent(host, PATIENCE);
    }
    hosts.wait_until_all_run("adopted", PATIENCE);
}

#[test]
fn a_service_is_taken_over_rolled_forth_and_back_and_let_go() {
    let Some(hosts) = ready(3) else { return };
    let pids: Vec<String> = hosts.numbers().map(|host| pid(&hosts, host)).collect();
    let before: Vec<String> = hosts.numbers().map(|host| unit(&hosts, host)).collect();

    let planned = hosts
        .cbctl(&["node", "adopt", "--mesh", "--dry-run", "-o", "json"])
        .expect(0)
        .json();
    let plan: &Value = &planned["nodes"][0]["result"];
    assert_eq!(plan["program"], "/opt/cbddc/fixture-node", "{planned}");
    assert_eq!(plan["databases"][0], "/var/lib/cbddc/node.db", "{planned}");
    assert_eq!(plan["user"], "cbddc", "{planned}");
    let same: Vec<String> = hosts.numbers().map(|host| unit(&hosts, host)).collect();
    assert_eq!(same, before, "a dry run changes nothing");

    adopt(&hosts);
    let same: Vec<String> = hosts.numbers().map(|host| pid(&hosts, host)).collect();
    assert_eq!(same, pids, "the same processes go on");
    let again = hosts.cbctl(&["node", "adopt", "--mesh", "--yes"]).expect(1);
    assert!(again.stderr.contains("is taken over already"), "{again}");

    // Where nothing is written, each mesh check waits for events before it says `unproven`.
    let moving = hosts.start_writers("moving");
    hosts.make_build("1.1", "");
    hosts.roll_out("1.1");
    hosts.wait_until_all_run("1.1", PATIENCE);
    hosts.make_build("1.2", "unhealthy-after=0");
    let soon = Timing {
        verify: Duration::from_secs(5),
        ..Timing::default()
    };
    let refused = hosts.cbctl(&hosts.rollout_in("1.2", soon)).expect(4);
    assert!(refused.stderr.contains("h1"), "{refused}");
    hosts.wait_until_all_run("1.1", PATIENCE);
    // What a node said before it ended by itself stands in the journal: the system's log has it.
    hosts.make_build("1.3", "crash-on-start=3");
    hosts.cbctl(&hosts.rollout_in("1.3", soon)).expect(4);
    hosts.wait_until_all_run("1.1", PATIENCE);
    let journal = ["journal", "list", "--node", "h1", "--limit", "1000"];
    let journal = hosts.cbctl(&journal).expect(0).stdout;
    let said = "the node's last lines: version 1.3 starts | cbddc.service: Main process exited, code=exited, status=3";
    assert!(journal.contains(said), "{journal}");
    hosts.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
    hosts.wait_until_all_run("adopted", PATIENCE);
    let count = hosts.count_documents(&moving.stop(), PATIENCE);
    assert!(count.acknowledged > 50 && count.is_clean(), "{count:?}");

    let pids: Vec<String> = hosts.numbers().map(|host| pid(&hosts, host)).collect();
    hosts
        .cbctl(&["node", "unadopt", "--mesh", "--yes"])
        .expect(0);
    let after: Vec<String> = hosts.numbers().map(|host| unit(&hosts, host)).collect();
    assert_eq!(after, before, "the units are as they were");
    for host in hosts.numbers() {
        hosts.shell(host, "dpkg --purge cbagent").expect(0);
        assert_eq!(pid(&hosts, host), pids[usize::from(host) - 1]);
        hosts.wait_for_node(host, PATIENCE);
        hosts.shell(host, "systemctl restart cbddc").expect(0);
        hosts.wait_for_node(host, PATIENCE);
    }
}

#[test]
fn a_host_that_boots_runs_what_the_mesh_has_decided() {
    let Some(hosts) = ready(3) else { return };
    adopt(&hosts);
    let _moving = hosts.start_writers("moving");
    hosts.make_build("1.1", "");
    hosts.roll_out("1.1");
    hosts.wait_until_all_run("1.1", PATIENCE);

    // The power fails on one host; the mesh goes back meanwhile.
    hosts.cut(3);
    hosts
        .cbctl(&["rollback", "--mesh", "--yes", "--verify", "3s"])
        .expect(3);
    hosts.boot(3);
    hosts.wait_until_all_run("adopted", PATIENCE);
    // The revoked build was not started at all.
    let started = "journalctl -b -u cbddc -o cat | grep -c 'Started' || true";
    assert_eq!(hosts.say(3, started), "1");

    // All at once: each finds the others, and every node serves.
    for host in hosts.numbers() {
        hosts.cut(host);
    }
    std::thread::scope(|scope| {
        for host in hosts.numbers() {
            let hosts = &hosts;
            scope.spawn(move || hosts.boot(host));
        }
    });
    hosts.wait_until_all_run("adopted", PATIENCE);
}

#[test]
fn a_node_starts_without_its_agent() {
    let Some(hosts) = ready(1) else { return };
    adopt(&hosts);
    hosts.make_build("1.1", "");
    hosts.roll_out("1.1");
    hosts.wait_until_all_run("1.1", PATIENCE);

    // An agent that crashes.
    let crashing = "printf '#!/bin/sh\\nkill -SEGV $$\\n' > /usr/bin/cbagent.new \
                    && chmod 755 /usr/bin/cbagent.new && cp /usr/bin/cbagent /var/cache/cbagent \
                    && mv /usr/bin/cbagent.new /usr/bin/cbagent && sync";
    hosts.shell(1, crashing).expect(0);
    hosts.stop(1);
    hosts.boot(1);
    hosts.wait_for_node(1, PATIENCE);
    hosts
        .shell(
            1,
            "cp /var/cache/cbagent /usr/bin/cbagent && systemctl restart cbagent",
        )
        .expect(0);
    hosts.wait_for_agent(1, PATIENCE);
    hosts.wait_until_all_run("1.1", PATIENCE);

    // No agent at all.
    hosts.shell(1, "dpkg --remove cbagent && sync").expect(0);
    hosts.stop(1);
    hosts.boot(1);
    hosts.wait_for_node(1, PATIENCE);
}

/// Ends the asking also where a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks a node until it is told to stop; returns how many answers were good and how many were not.
fn ask_until(hosts: &Hosts, stop: &AtomicBool) -> (usize, usize) {
    let (mut good, mut bad) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        match network::request(hosts, 1, "GET", "/health", "") {
            Ok((200, _)) => good += 1,
            Ok(_) | Err(_) => bad += 1,
        }
    }
    (good, bad)
}

#[test]
fn the_node_serves_while_its_agent_crashes_and_is_upgraded() {
    let Some(hosts) = ready(1) else { return };
    adopt(&hosts);
    let node = pid(&hosts, 1);
    let agent = || hosts.say(1, "systemctl show -P MainPID cbagent");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_until(&hosts, &stop));
        let enough = Stop(&stop);
        for _ in 0..3 {
            let before = agent();
            hosts
                .shell(1, "systemctl kill --signal=KILL cbagent")
                .expect(0);
            wait_for("another agent", PATIENCE, || {
                (agent() != before).then_some(())
            });
            hosts.wait_for_agent(1, PATIENCE);
        }
        let before = agent();
        hosts.install(1, "cbagent", &Packages::get().newer_version());
        assert_ne!(agent(), before, "the upgrade starts the new agent");
        hosts.wait_for_agent(1, PATIENCE);
        drop(enough);
        let (good, bad) = asking.join().expect("the requests were made");
        assert!(good > 100, "only {good} requests");
        assert_eq!(bad, 0, "of {good} requests");
    });
    assert_eq!(pid(&hosts, 1), node);
    hosts.wait_until_all_run("adopted", PATIENCE);
}
