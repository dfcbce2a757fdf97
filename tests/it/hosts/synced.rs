//! Files that the node does not sync, as BLite's log, and a power cut.

use super::cuts::LIMIT;
use super::story::{adopt, ready};
use cbddc_tests::hosts::Hosts;
use cbddc_tests::mesh::wait_for;

/// Has the agent know the database of a node that was adopted, and sync it so often.
fn configure(hosts: &Hosts, pace: &str) {
    let keys = format!("blite = [\"/var/lib/cbddc/shop.blite\"]\\nsync_files = \"{pace}\"");
    let line = format!(
        "sed -i -e '/^blite = /d' -e '/^sync_files = /d' -e 's|^\\[service\\]|[service]\\n{keys}|' \
         /etc/cbagent/cbagent.toml && systemctl restart cbagent && sync"
    );
    hosts.shell(1, &line).expect(0);
    hosts.wait_for_agent(1, LIMIT);
}

/// How often the agent has synced so far, by the figures of its check.
fn syncs(hosts: &Hosts) -> Option<u64> {
    let shown = hosts.cbctl(&["health", "show", "-o", "json"]).json();
    let found = shown["nodes"][0]["result"]["checks"]
        .as_array()?
        .iter()
        .find(|one| one["name"] == "blite")?["figures"]
        .as_array()?
        .iter()
        .find(|figure| figure["label"] == "syncs")?["value"]
        .as_f64()?;
    Some(found as u64)
}

/// Writes as the node does, and never syncs.
fn write(hosts: &Hosts, text: &str) {
    hosts.say(1, &format!("echo {text} >>/var/lib/cbddc/shop.wal"));
}

#[test]
fn what_a_node_wrote_without_syncing_it_outlasts_a_power_cut() {
    let Some(hosts) = ready(1) else { return };
    adopt(&hosts);
    hosts.say(
        1,
        "cd /var/lib/cbddc && echo data >shop.blite && echo first >shop.wal && sync",
    );

    // Nobody syncs it: the cut takes it.
    configure(&hosts, "never");
    write(&hosts, "second");
    assert_eq!(syncs(&hosts), None);
    hosts.cut(1);
    hosts.boot(1);
    hosts.wait_for_agent(1, LIMIT);
    // The length may be there already, and nothing in it.
    let kept = hosts.say(1, "tr -d '\\0' </var/lib/cbddc/shop.wal");
    assert_eq!(kept, "first");

    configure(&hosts, "500ms");
    // What is new is synced twice.
    let before = wait_for("the agent syncs", LIMIT, || {
        syncs(&hosts).filter(|syncs| *syncs >= 2)
    });
    write(&hosts, "second");
    wait_for("it is synced", LIMIT, || {
        (syncs(&hosts)? > before + 1).then_some(())
    });
    // Nothing changes, and nothing is done.
    let done = syncs(&hosts);
    let shown = hosts.cbctl(&["health", "show"]).expect(0);
    assert!(shown.stdout.contains("synced every 500ms"), "{shown}");
    assert_eq!(syncs(&hosts), done);
    hosts.cut(1);
    hosts.boot(1);
    hosts.wait_for_agent(1, LIMIT);
    assert_eq!(hosts.say(1, "cat /var/lib/cbddc/shop.wal"), "first\nsecond");
}
