//! A host whose power was cut, and whose node came up without a part of its own history: its clients are kept
//! away until it has that back, so that its chain never forks.

use super::cuts::LIMIT;
use super::drain::{allow, configure};
use super::story::{adopt, ready};
use cbddc_tests::ground::PATIENCE;
use cbddc_tests::hosts::Hosts;
use cbddc_tests::mesh::wait_for;

/// Once, before the node's next start: its database is what a snapshot holds.
const FORGETS: &str = "[Service]\nExecStartPre=+/bin/sh -c 'if [ -e /var/forget ]; then \
    rm -f /var/lib/cbddc/node.db*; cp /var/forget /var/lib/cbddc/node.db; \
    chown cbddc: /var/lib/cbddc/node.db; rm /var/forget; sync; fi'\n";

/// How many events a host's node holds.
fn events(hosts: &Hosts, host: u8) -> Option<u64> {
    let quick = ["--settle", "1s", "--quiesce", "1s", "--no-documents"];
    let line = ["replication", "audit", "-o", "json"];
    let ran = hosts.cbctl(&[&line[..], &quick].concat());
    let nodes = ran.json()["nodes"].clone();
    nodes[usize::from(host) - 1]["result"]["held"].as_u64()
}

fn acknowledged_more(hosts: &Hosts, than: u64) {
    wait_for("more events", LIMIT, || {
        (events(hosts, 1)? > than + 40 && events(hosts, 2)? > than + 40).then_some(())
    });
}

#[test]
fn a_node_that_forgot_in_a_power_cut_has_its_history_back_before_clients_write() {
    let Some(hosts) = ready(2) else { return };
    adopt(&hosts);
    configure(&hosts);
    allow(&hosts);
    let writers = hosts.start_writers("orders");
    acknowledged_more(&hosts, 0);
    let taken = hosts
        .cbctl(&["snapshot", "create", "--node", "h2", "-o", "json"])
        .expect(0);
    let id = taken.json()["nodes"][0]["result"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let held = events(&hosts, 2).expect("a count");
    acknowledged_more(&hosts, held);
    let line = format!("cp /var/lib/cbagent/snapshots/{id}/0.db /var/forget && sync");
    hosts.say(2, &line);
    let path = "/etc/systemd/system/cbddc.service.d/90-forgets.conf";
    hosts.write(2, path, FORGETS, 0o644);
    hosts.say(2, "systemctl daemon-reload && sync");
    hosts.cut(2);
    hosts.boot(2);
    hosts.wait_for_agent(2, LIMIT);
    wait_for(
        "it has forgotten, and has its history back",
        PATIENCE,
        || {
            let done = hosts.shell(2, "test ! -e /var/forget").code == 0;
            (done && events(&hosts, 2)? > held).then_some(())
        },
    );
    wait_for("clients come again", PATIENCE, || {
        let rules = hosts.say(2, "nft list tables");
        (!rules.contains("cbagent_drain")).then_some(())
    });
    let before = events(&hosts, 1).expect("a count");
    acknowledged_more(&hosts, before);
    drop(writers);
    wait_for("an audit", PATIENCE, || {
        let ran = hosts.cbctl(&["replication", "audit", "-o", "json", "--settle", "3s"]);
        let json = ran.json();
        let kinds = json["findings"]
            .as_array()?
            .iter()
            .map(|it| it["kind"].to_string());
        let kinds: Vec<String> = kinds.collect();
        let forked = kinds.iter().any(|kind| kind.contains("fork"));
        assert!(!forked, "{ran}");
        (ran.code == 0 && json["nodes"].as_array().map(Vec::len) == Some(2)).then_some(())
    });
}
