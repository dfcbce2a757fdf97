//! The agent's unit: what its sandbox must allow, and what it must not.

use cbddc_tests::hosts::{Hosts, Packages};
use cbddc_tests::mesh::build;

/// Runs in place of the agent and tries what the agent does on a host. Each line that it prints is
/// `ok` or `no` and what was tried.
const PROBE: &str = r#"#!/bin/sh
try() {
    what="$1"
    shift
    if "$@" >/dev/null 2>&1; then echo "ok $what"; else echo "no $what"; fi
}
systemd=org.freedesktop.systemd1
manager() {
    busctl call $systemd /org/freedesktop/systemd1 $systemd.Manager "$@"
}
db=/var/lib/cbddc/node.db
restore() {
    cp $db $db.new && chown cbddc:cbddc $db.new && chmod 640 $db.new &&
        touch -d 2001-01-01 $db.new && mv $db.new $db
}
drop_in() {
    mkdir -p /etc/systemd/system/cbddc.service.d &&
        echo '[Unit]' >/etc/systemd/system/cbddc.service.d/50-cbagent.conf
}
try 'restart the unit' manager RestartUnit ss cbddc.service replace
try 'reload units' manager Reload
pid="$(systemctl show -P MainPID cbddc)"
try 'see the program of the node' readlink /proc/$pid/exe
try 'see its folder' readlink /proc/$pid/cwd
try 'see its files' ls /proc/$pid/fd/
try 'read its settings' cat /etc/cbddc/appsettings.json
try 'read the database' cat $db
try 'restore the database' restore
try 'write a drop-in' drop_in
try 'keep state' touch /var/lib/cbagent/probe
try 'leave a permit' touch /run/cbagent/probe
try 'read the boot id' cat /proc/sys/kernel/random/boot_id
try 'write to /etc' touch /etc/probe
try 'write to /usr' touch /usr/bin/probe
try 'write to a home' touch ~root/probe
try 'become somebody else' setpriv --reuid=cbddc --clear-groups true
try 'kill the node' kill $pid
try 'make a namespace' unshare --mount true
try 'mount' mount -t tmpfs tmpfs /var/lib/cbagent
"#;

/// The agent's unit with the probe for its program.
const DROP_IN: &str = "\
[Service]
Type=oneshot
Restart=no
ExecStart=
ExecStart=/opt/probe
ReadWritePaths=/var/lib/cbddc
";

/// What the probe must not be able to do.
const FORBIDDEN: &[&str] = &[
    "write to /etc",
    "write to /usr",
    "write to a home",
    "become somebody else",
    "kill the node",
    "make a namespace",
    "mount",
];

#[test]
fn the_unit_allows_what_the_agent_needs_and_no_more() {
    let Some(hosts) = Hosts::up(1) else { return };
    hosts.set_nodes_up();
    hosts.install(1, "cbagent", &Packages::get().version());
    hosts.write(1, "/opt/probe", PROBE, 0o755);
    let drop_in = "/etc/systemd/system/cbagent.service.d/90-probe.conf";
    hosts.write(1, drop_in, DROP_IN, 0o644);
    hosts.say(
        1,
        "touch /etc/cbagent/cbagent.toml && systemctl daemon-reload",
    );
    hosts.say(1, "systemctl start cbagent");

    let said = hosts.say(
        1,
        "journalctl --sync && journalctl -u cbagent -o cat --no-pager",
    );
    let tried: Vec<(&str, &str)> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(answer, _)| ["ok", "no"].contains(answer))
        .collect();
    assert_eq!(tried.len(), PROBE.matches("\ntry '").count(), "{said}");
    for (answer, what) in tried {
        let wanted = if FORBIDDEN.contains(&what) {
            "no"
        } else {
            "ok"
        };
        assert_eq!(answer, wanted, "{what}\n{said}");
    }
    // The database is its user's again, with the mode and time it was given.
    let owner = hosts.say(1, "stat -c '%U %a %y' /var/lib/cbddc/node.db");
    assert!(owner.starts_with("cbddc 640 2001-01-01"), "{owner}");
    // A permit outlives whoever wrote it.
    hosts.say(1, "test -e /run/cbagent/probe");
}

#[test]
fn the_user_of_the_node_can_run_a_build_and_read_nothing_else() {
    let Some(hosts) = Hosts::up(1) else { return };
    hosts.set_nodes_up();
    hosts.install(1, "cbagent", &Packages::get().version());
    hosts.make_mesh();
    hosts.configure_agents();
    hosts.start_agents();
    let folder = build::write(&hosts.folder().join("build"), "1.1", "");
    let bundle = hosts.folder().join("cbddc@1.1.cbundle");
    let (folder, bundle) = (folder.to_string_lossy(), bundle.to_string_lossy());
    let pack = [
        "build",
        "pack",
        &folder,
        "--build",
        "cbddc@1.1",
        "--out",
        &bundle,
    ];
    hosts.cbctl(&pack).expect(0);
    hosts.cbctl(&["build", "push", &bundle]).expect(0);

    let as_user = |line: &str| {
        let user = "setpriv --reuid=cbddc --regid=cbddc --clear-groups";
        hosts.shell(1, &format!("{user} sh -c '{line}'")).code == 0
    };
    let program = hosts.say(1, "ls /var/lib/cbagent/store/builds/*/tree/bin/cbddc");
    assert!(as_user(&format!("test -r {program} && test -x {program}")));
    for closed in [
        "ls /var/lib/cbagent",
        "cat /var/lib/cbagent/state.db",
        "cat /var/lib/cbagent/state.db-wal",
        "ls /var/lib/cbagent/snapshots",
        "ls /run/cbagent",
        "ls /etc/cbagent",
    ] {
        hosts.shell(1, closed).expect(0);
        assert!(!as_user(closed), "the node's user could `{closed}`");
    }
}
