//! Hosts whose past is not what it was: a clock that begins in 1970 with each boot, and a state
//! database from an old backup.

use super::cuts::{LIMIT, booted_into, hosts_on_1_1, roll_out};
use cbddc_tests::hosts::Hosts;
use cbddc_tests::mesh::wait_for;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where the library lies on the host.
const FAKE: &str = "/usr/lib/libfaketime.so.1";

/// The agent of a host sees its clock begin in 1970 from its next start on.
fn takes_its_battery_away(hosts: &Hosts, host: u8, library: &Path) {
    hosts.put(host, library, FAKE, 0o644);
    let text = format!(
        "[Service]\nEnvironment=LD_PRELOAD={FAKE}\nEnvironment=\"FAKETIME=@1970-01-01 00:00:10\"\n\
         Environment=DONT_FAKE_MONOTONIC=1\n"
    );
    let path = "/etc/systemd/system/cbagent.service.d/95-battery.conf";
    hosts.write(host, path, &text, 0o644);
    hosts.sync(host);
}

fn library() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").expect("every system has it");
    let mut files = places.filter_map(|place| {
        let file = place.ok()?.path().join("faketime/libfaketime.so.1");
        file.exists().then_some(file)
    });
    files.next()
}

/// Whether the agent of a host thinks that it is 1970.
fn is_in_1970(entry: &Value) -> bool {
    entry["at"]
        .as_str()
        .is_some_and(|at| at.starts_with("1970"))
}

#[test]
fn a_host_whose_clock_begins_in_1970_is_not_locked_out() {
    let Some(library) = library() else {
        let required =
            std::env::var_os("CBDDC_TESTS_REQUIRE_ALL").is_some_and(|all| !all.is_empty());
        assert!(!required, "all tests are required: install libfaketime");
        eprintln!("LEFT OUT: a host in 1970 (libfaketime is not installed)");
        return;
    };
    let Some(hosts) = hosts_on_1_1() else { return };
    takes_its_battery_away(&hosts, 3, &library);
    roll_out(&hosts, "1.2");
    hosts.stop(3);
    hosts
        .cbctl(&[
            "rollback",
            "--mesh",
            "--yes",
            "--verify",
            "3s",
            "--timeout",
            "2s",
        ])
        .expect(3);
    hosts.boot(3);
    booted_into(&hosts, &[3], "1.1", "a boot in 1970");
    // It takes part: its promise and its vote count, and it goes along.
    roll_out(&hosts, "1.3");
    let entries = hosts.entries(3);
    let voted = |entry: &Value| entry["kind"] == "voted" && is_in_1970(entry);
    assert!(
        entries.iter().any(voted),
        "its clock was right: {entries:#?}"
    );
    // A probation that nobody renews ends after its time, not in 50 years.
    hosts.make_build("1.4", "");
    let client = hosts.cbctl_spawn(&hosts.rollout("1.4"));
    hosts.wait_for_phase(3, "probation", LIMIT);
    client.kill();
    hosts.wait_until_all_run("1.3", LIMIT);
}

#[test]
fn a_state_database_from_an_old_backup_starts_nothing_that_was_revoked() {
    let Some(hosts) = hosts_on_1_1() else { return };
    roll_out(&hosts, "1.2");
    let backup = "systemctl stop cbagent && mkdir -p /var/backup && cp -a /var/lib/cbagent/state.db* \
                  /var/backup/ && systemctl start cbagent && sync";
    hosts.shell(3, backup).expect(0);
    hosts.wait_for_agent(3, LIMIT);
    hosts.wait_until_free(LIMIT);
    hosts.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
    hosts.wait_until_all_run("1.1", LIMIT);
    // What it knew of the rollback is gone, the file that names what was revoked included.
    let restore = "systemctl stop cbagent && systemctl disable --quiet cbagent && rm -f \
                   /var/lib/cbagent/state.db* /var/lib/cbagent/revoked && cp -a /var/backup/state.db* \
                   /var/lib/cbagent/ && systemctl enable --quiet cbagent && sync";
    hosts.shell(3, restore).expect(0);
    hosts.stop(3);
    hosts.boot(3);
    booted_into(&hosts, &[3], "1.1", "a boot with an old state");
    wait_for("it has its memory back", LIMIT, || {
        let entries = hosts.entries(3);
        let has = |kind: &str| entries.iter().any(|entry| entry["kind"] == kind);
        (has("memory_lost") && has("memory_recovered")).then_some(())
    });
    let _moving = hosts.start_writers("moving");
    // It votes again: without it, two of three would not decide with one of them away.
    hosts.make_build("1.3", "");
    hosts.stop(1);
    let voted = |hosts: &Hosts| {
        let entries = hosts.entries(3);
        let voted = entries.iter().filter(|entry| entry["kind"] == "voted");
        voted.count()
    };
    let before = voted(&hosts);
    let words = [
        "rollout",
        "start",
        "--build",
        "cbddc@1.3",
        "--node",
        "h2,h3",
        "--yes",
        "--timeout",
        "2s",
        "--healthy",
        "500ms",
        "--verify",
        "20s",
    ];
    // The third hears of it later.
    hosts.cbctl(&words).expect(3);
    hosts.wait_until_runs(3, "1.3", LIMIT);
    assert!(voted(&hosts) > before, "{:#?}", hosts.entries(3));
}
