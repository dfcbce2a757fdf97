//! The harness itself: a power cut must lose what a power cut loses, and a partition must part.

use cbddc_tests::ground::PATIENCE;
use cbddc_tests::hosts::{AGENT_PORT, Hosts, network};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[test]
fn a_power_cut_loses_what_was_not_synced_and_nothing_else() {
    let Some(hosts) = Hosts::up(1) else { return };
    let boot = hosts.say(1, "cat /proc/sys/kernel/random/boot_id");
    let machine = hosts.say(1, "cat /etc/machine-id");
    hosts.say(1, "echo kept >/var/synced && sync /var/synced /var");
    hosts.say(1, "echo lost >/var/unsynced && echo lost >>/var/synced");
    hosts.cut(1);
    hosts.boot(1);
    assert_eq!(hosts.say(1, "cat /var/synced"), "kept");
    assert_eq!(hosts.shell(1, "test -e /var/unsynced").code, 1);
    assert_eq!(hosts.say(1, "cat /etc/machine-id"), machine);
    assert_ne!(hosts.say(1, "cat /proc/sys/kernel/random/boot_id"), boot);

    // A crash of all processes, and a shutdown, lose nothing.
    hosts.say(1, "echo crash >/var/unsynced");
    hosts.crash(1);
    hosts.boot(1);
    hosts.say(1, "echo stop >>/var/unsynced");
    hosts.stop(1);
    assert!(hosts.journal(1).contains("h1"), "read while it is down");
    hosts.boot(1);
    assert_eq!(hosts.say(1, "cat /var/unsynced"), "crash\nstop");
}

#[test]
fn hosts_can_be_cut_off_from_each_other() {
    let Some(hosts) = Hosts::up(3) else { return };
    let reach = |from: u8, to: u8| {
        let address = hosts.address(to);
        // A refusal is an answer. /dev/tcp is bash's.
        let line = format!("timeout 1 bash -c '</dev/tcp/{address}/9' 2>&1 | grep -q refused");
        hosts.shell(from, &line).code == 0
    };
    let machine_reaches = |to: u8| {
        let address = SocketAddr::from((hosts.address(to), AGENT_PORT));
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
        let error = network::inside(&hosts, connect).expect_err("nothing listens there");
        error.kind() == std::io::ErrorKind::ConnectionRefused
    };
    assert!(reach(1, 3) && reach(3, 1) && machine_reaches(3));
    hosts.cut_off(&[3]);
    assert!(reach(1, 2) && machine_reaches(1));
    assert!(!reach(1, 3) && !reach(3, 1) && !machine_reaches(3));
    hosts.heal();
    cbddc_tests::mesh::wait_for("h3 is reached again", PATIENCE, || {
        (reach(1, 3) && machine_reaches(3)).then_some(())
    });
    hosts.plug(2, false);
    assert!(!reach(1, 2) && reach(1, 3));
}
