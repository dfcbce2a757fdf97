//! Clients that are kept from a node while it is replaced, by nftables: nothing that it acknowledged is
//! lost.

use super::cuts::LIMIT;
use super::story::{adopt, ready};
use cbddc_tests::ground::PATIENCE;
use cbddc_tests::hosts::{HTTP_PORT, Hosts};
use cbddc_tests::mesh::{Timing, wait_for};

/// The drop-in that the shipped configuration tells of.
const RIGHTS: &str =
    "[Service]\nCapabilityBoundingSet=CAP_NET_ADMIN\nRestrictAddressFamilies=AF_NETLINK\n";

pub(super) fn configure(hosts: &Hosts) {
    for host in hosts.numbers() {
        let section = "printf '\\n[drain]\\nby = \"nftables\"\\n' >> /etc/cbagent/cbagent.toml \
                       && systemctl restart cbagent && sync";
        hosts.shell(host, section).expect(0);
        hosts.wait_for_agent(host, LIMIT);
    }
}

pub(super) fn allow(hosts: &Hosts) {
    for host in hosts.numbers() {
        let path = "/etc/systemd/system/cbagent.service.d/60-drain.conf";
        hosts.write(host, path, RIGHTS, 0o644);
        let restart = "systemctl daemon-reload && systemctl restart cbagent && sync";
        hosts.shell(host, restart).expect(0);
        hosts.wait_for_agent(host, LIMIT);
    }
}

/// A command that writes down its name, and whether clients are refused while it runs.
const COMMAND: &str = "#!/bin/sh\n\
    refused=no\n/usr/sbin/nft list table inet cbagent_drain >/dev/null 2>&1 && refused=yes\n\
    echo \"${0##*/}, refused: $refused\" >>/var/lib/cbagent/commands\n";

/// The commands of an admin's own beside `[drain]`.
fn add_commands(hosts: &Hosts, host: u8) {
    for path in ["/usr/local/bin/drain", "/usr/local/bin/undrain"] {
        hosts.write(host, path, COMMAND, 0o755);
    }
    let keys = r#"drain = ["/usr/local/bin/drain"]\nundrain = ["/usr/local/bin/undrain"]"#;
    let line = format!("sed -i 's|^\\[service\\]|&\\n{keys}|' /etc/cbagent/cbagent.toml && sync");
    hosts.shell(host, &line).expect(0);
}

/// Whether the first host reaches the page of the second, where clients write.
fn reaches(hosts: &Hosts) -> bool {
    let address = hosts.address(2);
    let line = format!("timeout 1 bash -c '</dev/tcp/{address}/{HTTP_PORT}'");
    hosts.shell(1, &line).code == 0
}

fn journal(hosts: &Hosts, host: &str) -> String {
    let list = ["journal", "list", "--limit", "1000", "--node", host];
    hosts.cbctl(&list).expect(0).stdout
}

#[test]
fn clients_are_kept_away_while_nodes_are_replaced_and_nothing_is_lost() {
    let Some(hosts) = ready(2) else { return };
    adopt(&hosts);
    hosts.make_build("1.1", "");
    let plan = ["rollout", "plan", "--build", "cbddc@1.1", "--mesh"];
    let warned = "note: h1, h2: writers go on while it is replaced";
    let planned = hosts.cbctl(&plan).expect(0);
    assert!(planned.stderr.contains(warned), "{planned}");

    // The unit as it is shipped has no right to: that is told, with what it costs, and stops nothing.
    configure(&hosts);
    let moving = hosts.start_writers("moving");
    let planned = hosts.cbctl(&plan).expect(0);
    assert!(!planned.stderr.contains(warned), "{planned}");
    hosts.roll_out("1.1");
    hosts.wait_until_all_run("1.1", PATIENCE);
    let told = journal(&hosts, "h2");
    for words in [
        "CAP_NET_ADMIN",
        "so the writers were not stopped",
        "what it acknowledged then may be lost",
    ] {
        assert!(told.contains(words), "no `{words}` in {told}");
    }
    drop(moving);

    // With the right, clients write all the time and take the node's word.
    allow(&hosts);
    let writers = hosts.start_unflushed_writers("orders");
    for (version, faults, code) in [
        ("1.2", "", 0),
        ("1.3", "crash-on-start=3", 4),
        ("1.4", "", 0),
    ] {
        hosts.make_build(version, faults);
        match code {
            0 => drop(hosts.roll_out(version)),
            code => drop(
                hosts
                    .cbctl(&hosts.rollout_in(version, Timing::default()))
                    .expect(code),
            ),
        }
    }
    hosts.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
    hosts.wait_until_all_run("1.2", PATIENCE);
    wait_for("clients come again", LIMIT, || {
        reaches(&hosts).then_some(())
    });
    let written = writers.stop();
    let count = hosts.count_documents(&written, PATIENCE);
    assert!(count.acknowledged > 50 && count.is_clean(), "{count:?}");
    let told = journal(&hosts, "h2");
    assert!(
        told.matches("the writers were stopped; waited").count() >= 3,
        "{told}"
    );
    for host in hosts.numbers() {
        let tables = hosts.say(host, "nft list tables");
        assert!(!tables.contains("cbagent_drain"), "{tables}");
    }
}

#[test]
fn an_agent_that_dies_while_clients_are_kept_away_lets_them_in_again() {
    let Some(hosts) = ready(2) else { return };
    adopt(&hosts);
    configure(&hosts);
    allow(&hosts);
    hosts.make_build("1.1", "");
    hosts.crash_agent_at(2, "before:stop");
    let moving = hosts.start_writers("moving");
    let soon = Timing {
        verify: std::time::Duration::from_secs(30),
        ..Timing::default()
    };
    let client = hosts.cbctl_spawn(&hosts.rollout_in("1.1", soon));
    hosts.wait_for_agent_crash(2, LIMIT);
    assert!(!reaches(&hosts), "the rules outlast the agent");
    let tables = hosts.say(2, "nft list tables");
    assert!(tables.contains("cbagent_drain"), "{tables}");
    client.kill();
    hosts.start_agent_again(2);
    hosts.wait_for_agent(2, LIMIT);
    wait_for("clients come again", LIMIT, || {
        reaches(&hosts).then_some(())
    });
    drop(moving);
}

#[test]
fn a_drain_command_beside_nftables_has_its_turn_while_clients_are_refused() {
    let Some(hosts) = ready(1) else { return };
    adopt(&hosts);
    add_commands(&hosts, 1);
    configure(&hosts);
    let mut seen = 0;
    let mut roll_out = |version: &str| -> (Vec<String>, String) {
        hosts.make_build(version, "");
        hosts.roll_out(version);
        hosts.wait_until_all_run(version, PATIENCE);
        let lines = hosts.say(1, "cat /var/lib/cbagent/commands");
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        let new = lines[std::mem::replace(&mut seen, lines.len())..].to_vec();
        (new, journal(&hosts, "h1"))
    };

    // Without the right to, the command alone keeps writers away, and that is told.
    let (commands, told) = roll_out("1.1");
    assert_eq!(commands, ["drain, refused: no", "undrain, refused: no"]);
    let words = "the drain command stopped the writers, [drain] did not: ";
    assert!(told.contains(words), "no `{words}` in {told}");

    // With it, clients are refused before the command runs, and until after the other one did.
    allow(&hosts);
    let (commands, told) = roll_out("1.2");
    assert_eq!(commands, ["drain, refused: yes", "undrain, refused: yes"]);
    assert_eq!(
        told.matches("the writers were stopped; waited").count(),
        1,
        "{told}"
    );
    wait_for("clients are let in", LIMIT, || {
        let tables = hosts.say(1, "nft list tables");
        (!tables.contains("cbagent_drain")).then_some(())
    });
}
