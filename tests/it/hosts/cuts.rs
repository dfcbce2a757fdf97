//! Power cuts in each phase: what was not synced is gone, and then the host boots. The right
//! generation runs, from the first start on; nothing runs twice; nothing acknowledged is lost.

use super::story::{adopt, ready};
use cbddc_tests::hosts::Hosts;
use cbddc_tests::mesh::{Timing, wait_for};
use serde_json::Value;
use std::time::Duration;

/// Longer than a host waits for its voters after a boot would show that it waited in vain.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Three hosts that run the committed release 1.1.
pub(super) fn hosts_on_1_1() -> Option<Hosts> {
    let hosts = ready(3)?;
    adopt(&hosts);
    // Where nothing is written, each mesh check waits for events before it says `unproven`.
    let _moving = hosts.start_writers("moving");
    roll_out(&hosts, "1.1");
    Some(hosts)
}

/// Brings all hosts to a new good release.
#[track_caller]
pub(super) fn roll_out(hosts: &Hosts, version: &str) {
    hosts.make_build(version, "");
    hosts.wait_until_free(LIMIT);
    hosts.roll_out(version);
    hosts.wait_until_all_run(version, LIMIT);
}

/// The arguments that roll a build out that no check lets pass. It stays on probation for as long as its
/// client is there, and goes back soon after.
fn bad_rollout(hosts: &Hosts, version: &str) -> Vec<String> {
    verified_in(hosts, version, Duration::from_secs(60))
}

/// The arguments that roll a build out, where each wave has this long to pass the checks.
pub(super) fn verified_in(hosts: &Hosts, version: &str, verify: Duration) -> Vec<String> {
    let timing = Timing {
        verify,
        ..Timing::default()
    };
    hosts.rollout_in(version, timing)
}

/// Has the agent of a host end itself at a point of a rollout, and cuts the power at that moment. The
/// client is lost, too.
#[track_caller]
pub(super) fn cut_at(hosts: &Hosts, host: u8, point: &str, words: &[String]) {
    hosts.wait_until_free(LIMIT);
    hosts.crash_agent_at(host, point);
    let client = hosts.cbctl_spawn(words);
    hosts.wait_for_agent_crash(host, LIMIT);
    hosts.cut(host);
    client.kill();
}

/// The same on the way back from a bad build: what a revert does, a switch has done before it.
#[track_caller]
fn cut_on_the_way_back(hosts: &Hosts, host: u8, point: &str, words: &[String]) {
    hosts.wait_until_free(LIMIT);
    let client = hosts.cbctl_spawn(words);
    hosts.wait_for_phase(host, "probation", LIMIT);
    hosts.crash_agent_at(host, point);
    // Nobody renews its probation any more.
    client.kill();
    hosts.wait_for_agent_crash(host, LIMIT);
    hosts.cut(host);
}

/// All hosts run this version, and these ones started nothing else since they booted.
#[track_caller]
pub(super) fn booted_into(hosts: &Hosts, booted: &[u8], version: &str, point: &str) {
    hosts.wait_until_all_run(version, LIMIT);
    for host in booted {
        let started = hosts.versions_started(*host);
        assert_eq!(started, [version], "h{host} after {point}");
        assert_eq!(hosts.nodes_running(*host), 1, "h{host} after {point}");
    }
}

/// Runs a part of a test while documents are written, and proves that none was lost or doubled, and
/// that no node ever ran twice.
#[track_caller]
pub(super) fn while_written(hosts: &Hosts, work: impl FnOnce()) {
    let (writers, watch) = (hosts.start_writers("orders"), hosts.watch_for_two_nodes());
    work();
    let most = watch.most();
    assert!(
        most.iter().all(|most| *most == 1),
        "nodes at once: {most:?}"
    );
    let count = hosts.count_documents(&writers.stop(), LIMIT);
    assert!(count.acknowledged > 50 && count.is_clean(), "{count:?}");
}

#[test]
fn in_a_switch_or_in_probation_the_host_goes_back() {
    let Some(hosts) = hosts_on_1_1() else { return };
    hosts.make_build("1.2", "");
    let points = [
        (1, "after:switch_began"),
        (2, "after:stop"),
        (1, "before:snapshot"),
        (3, "before:point"),
        (1, "before:start"),
        (2, "before:probation_began"),
        (1, "after:probation_began"),
        (3, "after:probation_clean"),
    ];
    while_written(&hosts, || {
        for (host, point) in points {
            cut_at(&hosts, host, point, &hosts.rollout("1.2"));
            hosts.boot(host);
            booted_into(&hosts, &[host], "1.1", point);
        }
    });
}

#[test]
fn in_a_revert_the_host_arrives() {
    let Some(hosts) = hosts_on_1_1() else { return };
    hosts.make_build("1.2", "unhealthy-after=0");
    let points = [
        "after:revert_began",
        "before:point",
        "before:start",
        "before:check",
        "before:reverted",
        "after:reverted",
    ];
    while_written(&hosts, || {
        for point in points {
            cut_on_the_way_back(&hosts, 1, point, &bad_rollout(&hosts, "1.2"));
            hosts.boot(1);
            booted_into(&hosts, &[1], "1.1", point);
        }
    });
}

#[test]
fn in_a_rollback_the_hosts_arrive() {
    let Some(hosts) = hosts_on_1_1() else { return };
    // Two of three hosts: they find a majority only when both are there again.
    let rounds = [
        ["after:fetch", "before:stop"],
        ["before:snapshot", "before:point"],
        ["before:start", "before:check"],
        ["before:committed", "after:committed"],
    ];
    let back = ["rollback", "--mesh", "--yes"].map(str::to_owned);
    while_written(&hosts, || {
        for (number, points) in rounds.iter().enumerate() {
            roll_out(&hosts, &format!("1.2.{number}"));
            hosts.wait_until_free(LIMIT);
            let pairs = [(1, points[0]), (3, points[1])];
            for (host, point) in pairs {
                hosts.crash_agent_at(host, point);
            }
            let client = hosts.cbctl_spawn(&back);
            for (host, _) in pairs {
                hosts.wait_for_agent_crash(host, LIMIT);
                hosts.cut(host);
            }
            client.kill();
            hosts.boot_together(&[1, 3]);
            booted_into(&hosts, &[1, 3], "1.1", &points.join(" and "));
        }
    });
}

/// Boots a host; once it has either begun to wait for the others or started its node, boots those.
#[track_caller]
fn boot_before_the_others(hosts: &Hosts, host: u8) {
    let others: Vec<u8> = hosts.numbers().filter(|other| *other != host).collect();
    std::thread::scope(|scope| {
        // Its boot is only over once its node has started.
        scope.spawn(|| hosts.boot(host));
        wait_for("the host waits for the others", LIMIT, || {
            let waits = "journalctl -b -u cbagent | grep -q start_waits";
            let begun = hosts.nodes_running(host) > 0 || hosts.shell(host, waits).code == 0;
            begun.then_some(())
        });
        hosts.boot_together(&others);
    });
}

#[test]
fn what_the_mesh_decided_meanwhile_is_what_starts_first() {
    let Some(hosts) = hosts_on_1_1() else { return };
    let rounds = [
        ("before:start", ""),
        ("after:probation_clean", ""),
        ("before:point", "unhealthy-after=0"),
        ("before:check", "unhealthy-after=0"),
    ];
    let back = "rollback --mesh --yes --verify 1s --timeout 1s --to cbddc@1.1";
    let back: Vec<&str> = back.split(' ').collect();
    while_written(&hosts, || {
        for (number, (point, faults)) in rounds.into_iter().enumerate() {
            let (base, next) = (format!("1.2.{number}"), format!("1.3.{number}"));
            roll_out(&hosts, &base);
            hosts.make_build(&next, faults);
            if faults.is_empty() {
                cut_at(&hosts, 1, point, &hosts.rollout(&next));
            } else {
                cut_on_the_way_back(&hosts, 1, point, &bad_rollout(&hosts, &next));
            }
            // Neither what the host was going to nor what it came from is right now; and those who
            // know it are up later than the host.
            hosts.cbctl(&back).expect(3);
            for host in [2, 3] {
                hosts.wait_until_runs(host, "1.1", LIMIT);
                hosts.cut(host);
            }
            boot_before_the_others(&hosts, 1);
            booted_into(&hosts, &[1, 2, 3], "1.1", point);
        }
    });
}

#[test]
fn what_was_acknowledged_is_there() {
    let Some(hosts) = hosts_on_1_1() else { return };
    while_written(&hosts, || {
        // A build, by all hosts.
        hosts.make_build("1.2", "");
        for host in hosts.numbers() {
            hosts.cut(host);
        }
        hosts.boot_together(&[1, 2, 3]);
        booted_into(&hosts, &[1, 2, 3], "1.1", "a push");
        let list = hosts.cbctl(&["build", "list", "-o", "json"]).expect(0);
        let nodes = list.json()["nodes"].as_array().cloned().unwrap_or_default();
        let held = |node: &&Value| node["result"].to_string().contains("1.2");
        assert_eq!(nodes.iter().filter(held).count(), 3, "{list}");

        // A vote, by the two hosts that alone know of the decision.
        hosts.crash_agent_at(3, "before:voted");
        // Long: only that this is another boot ends the probation.
        let timing = Timing {
            probation: Duration::from_secs(60),
            ..Timing::default()
        };
        let client = hosts.cbctl_spawn(&hosts.rollout_in("1.2", timing));
        hosts.wait_for_agent_crash(3, LIMIT);
        wait_for("it is decided", LIMIT, || {
            client.stderr().contains("decided: ").then_some(())
        });
        for host in hosts.numbers() {
            hosts.cut(host);
        }
        client.kill();
        hosts.boot_together(&[1, 2, 3]);
        booted_into(&hosts, &[1, 2, 3], "1.2", "a vote");

        // A rollback.
        hosts.wait_until_free(LIMIT);
        hosts.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
        for host in hosts.numbers() {
            hosts.cut(host);
        }
        hosts.boot_together(&[1, 2, 3]);
        booted_into(&hosts, &[1, 2, 3], "1.1", "a rollback");
        let again = hosts.cbctl(&hosts.rollout("1.2")).expect(2);
        assert!(again.stderr.contains("revoked"), "{again}");
    });
}
