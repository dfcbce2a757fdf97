//! A unit that does not do as it is told, and a bus that is away: over real D-Bus.

use super::story::{adopt, ready};
use cbddc_tests::ground::PATIENCE;
use cbddc_tests::hosts::Hosts;
use cbddc_tests::mesh::wait_for;
use std::time::Duration;

fn pid(hosts: &Hosts) -> String {
    // Not over the bus.
    let ran = hosts.enter(1, &["systemctl", "show", "-P", "MainPID", "cbddc"]);
    ran.expect(0).stdout.trim().to_owned()
}

fn roll_out(hosts: &Hosts, version: &str) {
    hosts.roll_out(version);
    hosts.wait_until_all_run(version, PATIENCE);
}

/// It is refused, in these words, and the node goes on.
fn refused(hosts: &Hosts, version: &str, words: &str) {
    let before = pid(hosts);
    let ran = hosts.cbctl(&hosts.rollout(version)).expect(2);
    assert!(ran.stderr.contains(words), "{ran}");
    assert_eq!(pid(hosts), before);
    hosts.wait_for_node(1, PATIENCE);
}

#[test]
fn a_unit_that_hangs_is_masked_or_reloaded_and_a_bus_that_goes_away() {
    let Some(hosts) = ready(1) else { return };
    // From where packages put units: only such a unit can be masked.
    let line =
        "mv /etc/systemd/system/cbddc.service /usr/lib/systemd/system/ && systemctl daemon-reload";
    hosts.say(1, line);
    adopt(&hosts);

    hosts.make_build("1.1", "hang-on-stop");
    roll_out(&hosts, "1.1");
    hosts.make_build("1.2", "");
    roll_out(&hosts, "1.2");
    let journal = hosts.cbctl(&["journal", "list"]).expect(0);
    assert!(journal.stdout.contains("and was killed"), "{journal}");

    hosts.make_build("1.3", "");
    let mut client = hosts.cbctl_spawn(&hosts.rollout("1.3"));
    let mut reloads = 0;
    wait_for("the rollout ends", PATIENCE, || {
        hosts.enter(1, &["systemctl", "daemon-reload"]).expect(0);
        reloads += 1;
        let status = hosts.status(1);
        let result = &status["result"];
        let ended = result["release"]["build"] == "cbddc@1.3" && result["phase"] == "steady";
        ended.then_some(())
    });
    client.wait(PATIENCE).expect(0);
    assert!(reloads > 1, "only {reloads}");

    hosts.say(1, "systemctl mask cbddc");
    hosts.make_build("1.4", "");
    refused(&hosts, "1.4", "is masked");
    hosts.say(1, "systemctl unmask cbddc");
    roll_out(&hosts, "1.4");

    let line = "systemctl stop dbus.socket dbus.service; systemctl kill --signal=KILL dbus; \
                rm -f /run/dbus/system_bus_socket";
    hosts.enter(1, &["/bin/sh", "-c", line]);
    hosts.make_build("1.5", "");
    refused(&hosts, "1.5", "system bus");
    assert_eq!(hosts.status(1)["outcome"], "ok", "the agent answers");
    hosts
        .enter(1, &["systemctl", "start", "dbus.socket"])
        .expect(0);
    let busctl = ["busctl", "--timeout=2", "status"];
    wait_for("the bus is back", Duration::from_secs(20), || {
        (hosts.enter(1, &busctl).code == 0).then_some(())
    });
    roll_out(&hosts, "1.5");
    what_systemd_does_by_itself_shows(&hosts);
}

/// What the check of the unit says, and what it comes to.
fn unit_check(hosts: &Hosts) -> (String, String) {
    let shown = hosts.cbctl(&["health", "show", "-o", "json"]).json();
    let checks = shown["nodes"][0]["result"]["checks"].as_array().cloned();
    let unit = checks
        .unwrap_or_default()
        .into_iter()
        .find(|check| check["name"] == "unit");
    let unit = unit.unwrap_or_else(|| panic!("no check of the unit in {shown}"));
    let text = |key: &str| unit[key].as_str().unwrap_or_default().to_owned();
    (text("judged"), text("detail"))
}

/// systemd starts a node that was killed again before its agent does, which is no reason to think well
/// of it.
fn what_systemd_does_by_itself_shows(hosts: &Hosts) {
    let watched = "[Service]\nWatchdogSec=1h\n";
    let path = "/etc/systemd/system/cbddc.service.d/70-watched.conf";
    hosts.write(1, path, watched, 0o644);
    hosts.say(1, "systemctl daemon-reload");
    kill(hosts);
    // It holds from the next start on.
    wait_for("the watchdog is told", PATIENCE, || {
        let (judged, detail) = unit_check(hosts);
        (judged == "healthy" && detail.contains("watched every 3600 s")).then_some(())
    });
    kill(hosts);
    kill(hosts);
    wait_for("its restarts degrade it", PATIENCE, || {
        let (judged, detail) = unit_check(hosts);
        (judged == "degraded" && detail.contains("was started again 3 times")).then_some(())
    });
}

fn kill(hosts: &Hosts) {
    let before = pid(hosts);
    hosts.say(1, "systemctl kill --signal=KILL cbddc");
    wait_for("systemd starts it again", PATIENCE, || {
        let now = pid(hosts);
        (now != before && now != "0").then_some(())
    });
}
