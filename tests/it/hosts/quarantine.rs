//! A node that is cut off from its peers by nftables or by stopping it, also over a boot of its host, and
//! let go.

use super::cuts::LIMIT;
use super::story::{adopt, ready};
use cbddc_tests::hosts::{Hosts, SYNC_PORT};
use cbddc_tests::mesh::wait_for;

/// The drop-in that the shipped configuration tells of.
const RIGHTS: &str =
    "[Service]\nCapabilityBoundingSet=CAP_NET_ADMIN\nRestrictAddressFamilies=AF_NETLINK\n";

const QUARANTINE: [&str; 7] = [
    "node",
    "quarantine",
    "--node",
    "h2",
    "--reason",
    "it forks",
    "--yes",
];

const RELEASE: [&str; 7] = [
    "node", "release", "--node", "h2", "--reason", "mended", "--yes",
];

/// Whether the first host reaches the sync port of the second.
fn reaches(hosts: &Hosts) -> bool {
    connects(hosts, 1, &hosts.address(2).to_string())
}

fn connects(hosts: &Hosts, from: u8, to: &str) -> bool {
    let line = format!("timeout 1 bash -c '</dev/tcp/{to}/{SYNC_PORT}'");
    hosts.shell(from, &line).code == 0
}

fn pid(hosts: &Hosts) -> String {
    hosts.say(2, "systemctl show -P MainPID cbddc")
}

#[test]
fn a_node_that_is_cut_off_serves_on_and_loses_nothing() {
    let Some(hosts) = ready(2) else { return };
    adopt(&hosts);
    let ports = format!(
        "printf '\\n[quarantine]\\nports = [\"{SYNC_PORT}\"]\\n' >> /etc/cbagent/cbagent.toml \
         && systemctl restart cbagent && sync"
    );
    hosts.shell(2, &ports).expect(0);
    hosts.wait_for_agent(2, LIMIT);
    let (writers, before) = (hosts.start_writers("orders"), pid(&hosts));
    // The unit as it is shipped has no right to.
    let refused = hosts.cbctl(&QUARANTINE);
    assert_ne!(refused.code, 0, "{refused}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("CAP_NET_ADMIN"), "{refused}");
    assert!(reaches(&hosts));

    // With the right it is done: at the start already, since it was asked for.
    let path = "/etc/systemd/system/cbagent.service.d/60-quarantine.conf";
    hosts.write(2, path, RIGHTS, 0o644);
    let restart = "systemctl daemon-reload && systemctl restart cbagent && sync";
    hosts.shell(2, restart).expect(0);
    hosts.wait_for_agent(2, LIMIT);
    wait_for("it is cut off", LIMIT, || (!reaches(&hosts)).then_some(()));
    hosts.cbctl(&QUARANTINE).expect(0);
    assert_eq!(pid(&hosts), before, "the node goes on");
    assert!(connects(&hosts, 2, "127.0.0.1"), "for its host it serves");
    let shown = hosts.status(2);
    assert!(!shown["result"]["quarantined"].is_null(), "{shown}");

    hosts.stop(2);
    hosts.boot(2);
    hosts.wait_for_agent(2, LIMIT);
    wait_for("it is cut off again", LIMIT, || {
        (!reaches(&hosts)).then_some(())
    });
    hosts.wait_for_node(2, LIMIT);

    hosts.cbctl(&RELEASE).expect(0);
    wait_for("it is let go", LIMIT, || reaches(&hosts).then_some(()));
    let left = hosts.say(2, "nft list tables");
    assert!(!left.contains("cbagent"), "{left}");
    stopped_instead(&hosts);
    let count = hosts.count_documents(&writers.stop(), LIMIT);
    assert!(count.acknowledged > 50 && count.is_clean(), "{count:?}");
}

/// The same where the node is stopped: neither its host nor systemd starts it before it is let go.
fn stopped_instead(hosts: &Hosts) {
    let by = "sed -i 's/^ports = .*/by = \"stop\"/' /etc/cbagent/cbagent.toml \
              && systemctl restart cbagent && sync";
    hosts.shell(2, by).expect(0);
    hosts.wait_for_agent(2, LIMIT);
    hosts.cbctl(&QUARANTINE).expect(0);
    assert_eq!(active(hosts), "inactive");

    hosts.stop(2);
    hosts.boot(2);
    hosts.wait_for_agent(2, LIMIT);
    // The start that systemd has begun ends with it.
    wait_for("it is kept from starting", LIMIT, || {
        let status = hosts.status(2);
        let says = status["result"]["phase_text"].as_str().unwrap_or_default();
        let is_told = says.contains("stopped for its quarantine");
        // The gate, which is what had started, was ended.
        let is_off = ["inactive", "failed"].contains(&active(hosts).as_str());
        (is_told && is_off).then_some(())
    });
    assert_eq!(starts(hosts), "0");
    hosts.cbctl(&RELEASE).expect(0);
    hosts.wait_for_node(2, LIMIT);
    assert_eq!(
        (active(hosts).as_str(), starts(hosts).as_str()),
        ("active", "1")
    );
}

/// How often the node began in this boot, as its own journal says.
fn starts(hosts: &Hosts) -> String {
    let line = "journalctl --sync && journalctl --boot --unit cbddc -o cat --no-pager \
                | grep -c 'version .* starts' || true";
    hosts.say(2, line)
}

fn active(hosts: &Hosts) -> String {
    let ran = hosts.shell(2, "systemctl is-active cbddc");
    ran.stdout.trim().to_owned()
}
