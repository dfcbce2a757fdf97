//! Five hosts: one loses its power in the middle of a rollback, a partition splits them in two and
//! three, and the disk of one dies.

use super::cuts::{LIMIT, booted_into, roll_out, while_written};
use super::story::{adopt, ready};
use cbddc_tests::hosts::{AGENT_PORT, Hosts, Packages};
use cbddc_tests::mesh::{Ran, wait_for};
use serde_json::{Value, json};

/// What all hosts show when nothing is left to do.
#[track_caller]
fn settled(hosts: &Hosts) {
    wait_for("all are settled", LIMIT, || {
        let status = hosts.cbctl(&["status", "-o", "json"]).json();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let settled =
            |node: &Value| node["result"]["phase"] == "steady" && node["result"]["drift"].is_null();
        let doubts = &status["summary"]["in_doubt"];
        (nodes.len() == usize::from(hosts.count())
            && nodes.iter().all(settled)
            && *doubts == json!([]))
        .then_some(())
    });
}

/// `cbctl` of an admin who sits on a host, with the certificate.
#[track_caller]
fn cbctl_on(hosts: &Hosts, host: u8, words: &[&str]) -> Ran {
    let config = ["/usr/bin/env", "CBCTL_CONFIG=/var/admin", "cbctl"];
    hosts.run(host, &[&config[..], words].concat())
}

fn rollout_of<'a>(build: &'a str, targets: &[&'a str]) -> Vec<&'a str> {
    let start = ["rollout", "start", "--build", build, "--yes"];
    let times = ["--timeout", "2s", "--healthy", "500ms", "--verify", "20s"];
    [&start[..], &times, targets].concat()
}

/// Its power fails while it stops its node for the rollback; what was taken back is not started.
fn one_is_cut_in_a_rollback(hosts: &Hosts) {
    roll_out(hosts, "1.2");
    hosts.crash_agent_at(5, "before:stop");
    let mut client = hosts.cbctl_spawn(&["rollback", "--mesh", "--yes", "--verify", "10s"]);
    hosts.wait_for_agent_crash(5, LIMIT);
    hosts.cut(5);
    let ran = client.wait(LIMIT);
    assert_eq!(ran.code, 3, "{ran}");
    assert!(ran.stderr.contains("h5"), "{ran}");
    for host in 1..5 {
        hosts.wait_until_runs(host, "1.1", LIMIT);
    }
    hosts.boot(5);
    booted_into(hosts, &[5], "1.1", "a cut during the rollback");
    settled(hosts);
}

/// Two hosts and an admin on one side, three and the machine on the other.
fn split_in_two_and_three(hosts: &Hosts) {
    hosts.make_build("1.3", "");
    hosts.cut_off(&[4, 5]);
    let refused = cbctl_on(hosts, 4, &rollout_of("cbddc@1.3", &["--mesh"]));
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.stderr.contains("required are away"), "{refused}");
    // Also for the two alone: they are no majority.
    let refused = cbctl_on(hosts, 4, &rollout_of("cbddc@1.3", &["--node", "h4,h5"]));
    assert_eq!(refused.code, 2, "{refused}");
    assert!(
        refused.stderr.contains("h1: no answer in time"),
        "{refused}"
    );
    assert!(refused.stderr.contains("nothing was changed"), "{refused}");
    for host in [4, 5] {
        let started = hosts.versions_started(host);
        assert!(!started.contains(&"1.3".to_owned()), "h{host}: {started:?}");
    }

    let three = hosts.cbctl(&rollout_of("cbddc@1.3", &["--node", "h1,h2,h3"]));
    // The other two hear of it later.
    let three = three.expect(3);
    assert!(three.stderr.contains("is away, and no target"), "{three}");
    for host in 1..4 {
        hosts.wait_until_runs(host, "1.3", LIMIT);
    }
    let back = [
        "rollback",
        "--mesh",
        "--to",
        "cbddc@1.1",
        "--yes",
        "--verify",
        "10s",
        "--timeout",
        "2s",
    ];
    let ran = hosts.cbctl(&back).expect(3);
    assert!(
        ran.stderr.contains("h4") && ran.stderr.contains("h5"),
        "{ran}"
    );
    hosts.heal();
    hosts.wait_until_all_run("1.1", LIMIT);
    settled(hosts);
    // What was decided while they were apart holds for all.
    let revoked = hosts.cbctl(&rollout_of("cbddc@1.3", &["--node", "h5"]));
    assert_eq!(revoked.code, 2, "{revoked}");
    assert!(revoked.stderr.contains("revoked"), "{revoked}");
}

/// The disk of a host dies: on the new one there is nothing of agent, node and mesh.
fn one_gets_a_new_disk(hosts: &Hosts, host: u8) {
    let name = hosts.name(host);
    let old = hosts.folder().join("old/etc/cbagent");
    std::fs::create_dir_all(&old).expect("a new folder");
    for file in ["node.key", "node.pem"] {
        let text = hosts.say(host, &format!("cat /etc/cbagent/{file}"));
        std::fs::write(old.join(file), text + "\n").expect("a file can be written");
    }
    hosts.cut(host);
    hosts.replace_disk(host);
    hosts.boot(host);

    // As the README says it.
    hosts.set_node_up(host);
    hosts.install(host, "cbagent", &Packages::get().version());
    hosts.configure_agent(host);
    let token = hosts.cbctl(&["mesh", "replace", &name, "--yes"]).expect(0);
    let (issuer, own) = (hosts.address(1), hosts.address(host));
    let join = format!(
        "echo '{}' | cbagent join {issuer}:{AGENT_PORT} --token - --name {name} --replace \
         --listen {own}:{AGENT_PORT} && systemctl enable --quiet --now cbagent",
        token.stdout.trim()
    );
    hosts.shell(host, &join).expect(0);
    hosts.wait_for_agent(host, LIMIT);
    // It hears of the record, and leaves a unit alone that is not the agent's.
    wait_for("it has heard of the record", LIMIT, || {
        let told = |entry: &Value| {
            let text = entry["text"].as_str().unwrap_or_default();
            text.contains("run `cbctl node adopt`")
        };
        hosts.entries(host).iter().any(told).then_some(())
    });
    let adopt = ["node", "adopt", "--node", &name, "--yes"];
    let refused = hosts.cbctl(&adopt).expect(1);
    assert!(refused.stderr.contains("--switch"), "{refused}");
    assert_eq!(hosts.node_version(host).as_deref(), Some("adopted"));
    let ran = hosts.cbctl(&[&adopt[..], &["--switch"]].concat()).expect(0);
    assert!(ran.stdout.contains("goes on to cbddc@1.1"), "{ran}");
    // Nobody sent it the build: a peer had it.
    hosts.wait_until_runs(host, "1.1", LIMIT);
    hosts.cbctl(&["mesh", "voters", "--yes"]).expect(0);
    settled(hosts);

    // Whoever finds the old disk is nobody any more.
    hosts.plant(host, &hosts.folder().join("old"));
    let restart = "chmod 600 /etc/cbagent/node.key && rm -f /var/lib/cbagent/node.pem \
                   && systemctl restart cbagent";
    hosts.shell(host, restart).expect(0);
    wait_for("the old key is refused", LIMIT, || {
        let said = hosts.say(host, "journalctl -u cbagent -o cat --no-pager -n 200");
        said.contains(&format!("{name} has another key now"))
            .then_some(())
    });
}

#[test]
fn a_power_cut_in_a_rollback_a_partition_and_a_new_disk() {
    let Some(hosts) = ready(5) else { return };
    adopt(&hosts);
    hosts.install(4, "cbctl", &Packages::get().version());
    let admin = hosts.folder().join("admin");
    copy_all(&hosts.cbctl_config(), &admin.join("var/admin"));
    hosts.plant(4, &admin);
    while_written(&hosts, || {
        roll_out(&hosts, "1.1");
        one_is_cut_in_a_rollback(&hosts);
        split_in_two_and_three(&hosts);
    });
    one_gets_a_new_disk(&hosts, 5);
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a new folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file");
        }
    }
}
