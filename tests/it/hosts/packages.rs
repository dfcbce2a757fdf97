//! The packages on a host: installed, upgraded, removed, purged.

use cbddc_tests::ground::PATIENCE;
use cbddc_tests::hosts::{Hosts, Packages, network};

/// The most that `systemd-analyze security cbagent` may say; systemd 252 and 257 say 2.4, and 247, which
/// counts otherwise, 2.5. Lower it when the unit gets tighter;
/// whoever raises it has to say in the unit which new right the agent needs, and why.
const EXPOSURE_MAX: f64 = 2.4;

/// Where a package could leave something behind. The journal and dpkg's own log stay, as they should.
const LEFT: &str = "find / /run -xdev \\( -path /proc -o -path /sys -o -path /var/log -o -path /var/cache \\) \
     -prune -o \\( -iname '*cbagent*' -o -iname '*cbctl*' \\) -print | sort";

#[test]
fn a_fresh_installation_waits_for_its_configuration() {
    let Some(hosts) = Hosts::up(1) else { return };
    let packages = Packages::get();
    hosts.install(1, "cbagent", &packages.version());
    hosts.install(1, "cbctl", &packages.version());
    assert_eq!(hosts.say(1, "systemctl is-enabled cbagent"), "enabled");
    assert_eq!(
        hosts.say(1, "systemctl show -P ActiveState cbagent"),
        "inactive"
    );
    assert_eq!(
        hosts.say(1, "systemctl show -P ConditionResult cbagent"),
        "no"
    );
    assert_eq!(hosts.say(1, "systemctl is-system-running"), "running");
    assert_eq!(hosts.say(1, "stat -c %a /etc/cbagent"), "700");
    let units = "systemd-analyze verify /usr/lib/systemd/system/cbagent.service 2>&1";
    // What else is said is about other units, or about the manual, which small hosts do not keep.
    let said = hosts.shell(1, units).stdout;
    let faults = said.lines().filter(|line| line.contains("cbagent.service"));
    let faults: Vec<&str> = faults.filter(|line| !line.contains("man ")).collect();
    assert!(faults.is_empty(), "{said}");
    hosts.run(1, &["cbctl", "--version"]).expect(0);

    let analysis = "SYSTEMD_COLORS=0 systemd-analyze security --no-pager cbagent";
    let said = hosts.say(1, analysis);
    let exposure = said.lines().last().and_then(|line| {
        let words = line.split("cbagent.service:").nth(1)?;
        words.split_whitespace().next()?.parse::<f64>().ok()
    });
    let exposure = exposure.unwrap_or_else(|| panic!("no figure in: {said}"));
    assert!(
        exposure <= EXPOSURE_MAX,
        "{exposure} > {EXPOSURE_MAX}: {said}"
    );
}

#[test]
fn an_older_systemd_is_refused_before_anything_is_unpacked() {
    let Some(hosts) = Hosts::up(1) else { return };
    // Found first in the path that dpkg hands on.
    let older = "#!/bin/sh\necho 'systemd 246 (246.1-1)'\n";
    hosts.write(1, "/usr/local/bin/systemctl", older, 0o755);
    let packages = Packages::get();
    let file = packages.file("cbagent", &packages.version());
    hosts.put(1, &file, "/var/cache/cbagent.deb", 0o644);
    let path = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin";
    let ran = hosts.shell(1, &format!("{path} dpkg -i /var/cache/cbagent.deb"));
    assert_ne!(ran.code, 0, "{ran}");
    assert!(
        ran.stderr
            .contains("cbagent needs systemd 247 or newer; this host has systemd 246."),
        "{ran}"
    );
    assert_eq!(hosts.say(1, LEFT), "");
}

#[test]
fn an_upgrade_keeps_settings_and_node_and_a_purge_leaves_nothing() {
    let Some(hosts) = Hosts::up(1) else { return };
    let packages = Packages::get();
    hosts.set_nodes_up();
    let node = hosts.say(1, "systemctl show -P MainPID cbddc");
    assert_eq!(hosts.say(1, LEFT), "", "nothing was installed yet");

    hosts.install(1, "cbagent", &packages.version());
    hosts.make_mesh();
    hosts.configure_agents();
    hosts.start_agents();

    // An upgrade: what the admin changed stays; a new agent serves; the node notices nothing.
    hosts.say(1, "echo CBAGENT_LOG=debug >>/etc/default/cbagent");
    let settings = "cat /etc/default/cbagent /etc/cbagent/* | sha256sum";
    let (before, agent) = (hosts.say(1, settings), agent_pid(&hosts));
    hosts.install(1, "cbagent", &packages.newer_version());
    let installed = hosts.say(1, "dpkg-query -W -f '${Version} ${Status}' cbagent");
    assert_eq!(
        installed,
        format!("{} install ok installed", packages.newer_version())
    );
    hosts.wait_for_agent(1, PATIENCE);
    assert_ne!(agent_pid(&hosts), agent, "the new agent runs");
    assert_eq!(hosts.say(1, settings), before);
    assert_eq!(hosts.say(1, "systemctl show -P MainPID cbddc"), node);

    // Removed: program and drop-ins are gone, also one at the node's unit; settings and state stay.
    let drop_in = "/etc/systemd/system/cbddc.service.d/50-cbagent.conf";
    hosts.write(1, drop_in, "[Unit]\n", 0o644);
    hosts.run(1, &["dpkg", "--remove", "cbagent"]).expect(0);
    let gone = format!("ls {drop_in} /usr/bin/cbagent /etc/systemd/system/cbddc.service.d");
    assert_eq!(hosts.shell(1, &gone).stdout, "");
    let kept = "ls /etc/cbagent/cbagent.toml /var/lib/cbagent/state.db /etc/default/cbagent";
    hosts.shell(1, kept).expect(0);
    assert_eq!(
        hosts.say(1, "systemctl show -P ActiveState cbagent"),
        "inactive"
    );

    hosts.run(1, &["dpkg", "--purge", "cbagent"]).expect(0);
    // What the test itself put there.
    let own = "rm -rf /etc/systemd/system/cbagent.service.d";
    hosts.shell(1, own).expect(0);
    assert_eq!(hosts.say(1, LEFT), "");
    assert_eq!(
        hosts
            .say(1, "dpkg-query -W -f '${Status}' cbagent 2>&1 || true")
            .lines()
            .count(),
        1
    );

    // All the while, and after a boot, the node serves.
    assert_eq!(hosts.say(1, "systemctl show -P MainPID cbddc"), node);
    hosts.sync(1);
    hosts.cut(1);
    hosts.boot(1);
    hosts.wait_for_node(1, PATIENCE);
    assert_eq!(hosts.say(1, "systemctl is-system-running"), "running");
    let answer = network::request(&hosts, 1, "GET", "/stats", "").expect("the node answers");
    assert_eq!(answer.0, 200);
}

fn agent_pid(hosts: &Hosts) -> String {
    hosts.say(1, "systemctl show -P MainPID cbagent")
}

#[test]
fn lintian_finds_no_errors() {
    if !Packages::has_lintian() {
        let required = std::env::var_os("CBDDC_TESTS_REQUIRE_ALL").is_some_and(|all| all == "1");
        assert!(!required, "all tests are required, but lintian is missing");
        eprintln!("LEFT OUT: lintian is not installed");
        return;
    }
    let errors = Packages::get().lintian_errors();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}
