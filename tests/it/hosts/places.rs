//! Where builds are kept on a host, and what it could not start from there.

use super::story::{adopt, ready};
use cbddc_tests::ground::PATIENCE;
use cbddc_tests::hosts::Hosts;
use std::fs;

const RELEASES: &str = "/opt/cbddc-releases";

fn program(hosts: &Hosts) -> String {
    hosts.say(1, "readlink /proc/$(systemctl show -P MainPID cbddc)/exe")
}

#[test]
fn builds_may_lie_elsewhere_and_what_cannot_start_there_is_refused_before_the_switch() {
    let Some(hosts) = ready(1) else { return };
    let setting = format!("store_dir = \"{RELEASES}\"");
    let line = format!("sed -i '/^state_dir/a {setting}' /etc/cbagent/cbagent.toml");
    hosts.say(1, &line);
    // systemd lets the agent write where a drop-in says so, and the agent tells.
    assert_ne!(hosts.shell(1, "systemctl restart cbagent").code, 0);
    let said = hosts.say(1, "journalctl -u cbagent -o cat -n 20");
    assert!(said.contains("ReadWritePaths="), "{said}");
    let drop_in = format!("[Service]\nReadWritePaths={RELEASES}\n");
    hosts.write(
        1,
        "/etc/systemd/system/cbagent.service.d/place.conf",
        &drop_in,
        0o644,
    );
    let line = format!("mkdir {RELEASES} && systemctl daemon-reload && systemctl restart cbagent");
    hosts.say(1, &line);
    hosts.wait_for_agent(1, PATIENCE);

    adopt(&hosts);
    hosts.make_build("1.1", "");
    hosts.roll_out("1.1");
    hosts.wait_until_all_run("1.1", PATIENCE);
    let running = program(&hosts);
    assert!(running.starts_with(RELEASES), "{running}");

    let refused = |version: &str, words: &str| {
        let before = hosts.say(1, "systemctl show -P MainPID cbddc");
        let ran = hosts.cbctl(&hosts.rollout(version)).expect(2);
        assert!(ran.stderr.contains(words), "{ran}");
        hosts.wait_until_all_run("1.1", PATIENCE);
        assert_eq!(hosts.say(1, "systemctl show -P MainPID cbddc"), before);
    };
    let empty = hosts.folder().join("empty");
    fs::create_dir(&empty).expect("a new folder");
    fs::write(empty.join("version"), "1.2\n").expect("a file can be written");
    hosts.push_build("1.2", &empty);
    refused("1.2", "has no file fixture-node");

    // Not in the agent's own sandbox, which has other mounts.
    let line =
        format!("mount --bind {RELEASES} {RELEASES} && mount -o remount,bind,noexec {RELEASES}");
    hosts.say(1, &line);
    hosts.make_build("1.3", "");
    refused("1.3", "noexec");
    // The agent's sandbox was made of what was mounted when it started.
    hosts.say(
        1,
        &format!("umount {RELEASES} && systemctl restart cbagent"),
    );
    hosts.wait_for_agent(1, PATIENCE);
    hosts.roll_out("1.3");

    // A reboot finds it again.
    hosts.stop(1);
    hosts.boot(1);
    hosts.wait_until_all_run("1.3", PATIENCE);
}
