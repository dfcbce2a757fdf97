//! `cbctl mesh enrol` on hosts, over a real ssh.

use cbddc_tests::ground::PATIENCE;
use cbddc_tests::hosts::{AGENT_PORT, Hosts};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What an enrolment could change on a host, with modes, owners and times.
const TREE: &str =
    "find /etc /root /usr /var/lib/dpkg -xdev -printf '%p %m %U %G %s %T@\\n' | sort | sha256sum";

fn trees(hosts: &Hosts) -> Vec<String> {
    hosts.numbers().map(|host| hosts.say(host, TREE)).collect()
}

/// All files below a folder, with what they hold.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = fs::read(&path).expect("a file");
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}

/// All files of the admin but what is known of the members: addresses, labels and public keys.
fn of_the_admin(hosts: &Hosts) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = files(&hosts.cbctl_config());
    all.extend(files(&hosts.folder().join("authority")));
    all.retain(|(path, _)| !path.ends_with("mesh.toml"));
    all
}

fn row<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let nodes = answer["nodes"].as_array().expect("an array");
    let row = nodes.iter().find(|row| row["node"] == name);
    row.unwrap_or_else(|| panic!("no {name} in {answer:#}"))
}

fn certificate(hosts: &Hosts, host: u8) -> String {
    hosts.say(host, "cat /etc/cbagent/node.pem")
}

fn agent(hosts: &Hosts, host: u8) -> String {
    hosts.say(host, "systemctl show -P MainPID cbagent")
}

/// An ssh that writes down what it was called with, whole.
fn logging_ssh(hosts: &Hosts) -> (PathBuf, PathBuf) {
    let (program, log) = (
        hosts.folder().join("logging-ssh"),
        hosts.folder().join("calls"),
    );
    let text = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >>{}\nexec ssh \"$@\"\n",
        log.display()
    );
    fs::write(&program, text).expect("a file can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode can be set");
    (program, log)
}

/// A package that cannot be installed, because it depends on what there is not.
fn unfit_package(hosts: &Hosts, name: &str) -> String {
    let folder = hosts.folder().join(name);
    fs::create_dir_all(folder.join("DEBIAN")).expect("a new folder");
    let control = format!(
        "Package: {name}\nVersion: 9\nArchitecture: all\nMaintainer: x <x@x>\nDepends: nonsuch\nDescription: x\n"
    );
    fs::write(folder.join("DEBIAN/control"), control).expect("a file can be written");
    let file = folder.with_extension("deb");
    #[expect(clippy::disallowed_methods, reason = "the test makes a package")]
    let made = std::process::Command::new("dpkg-deb")
        .arg("-b")
        .arg(&folder)
        .arg(&file)
        .output();
    assert!(made.is_ok_and(|made| made.status.success()), "a package");
    file.to_string_lossy().into_owned()
}

#[test]
fn hosts_are_enrolled_and_one_that_is_away_stops_nobody() {
    let Some(hosts) = Hosts::up(3) else { return };
    hosts.make_mesh();
    hosts.start_ssh();
    let (before, mine) = (trees(&hosts), of_the_admin(&hosts));

    // Nothing is installed without being told.
    let config = hosts.ssh_config();
    let bare = [
        "mesh",
        "enrol",
        "h1",
        "h2",
        "h3",
        "--yes",
        "--ssh-config",
        &config.to_string_lossy(),
    ];
    let ran = hosts.cbctl(&bare).expect(1);
    assert!(ran.stderr.contains("cbagent is not installed"), "{ran}");
    assert!(ran.stderr.contains("--package"), "{ran}");
    // Nor is anything else by only looking.
    let all = ["h1", "h2", "h3"];
    let ran = hosts
        .cbctl(&hosts.enrolment(&all, &["--dry-run", "-o", "json"]))
        .expect(0);
    let steps = |name| row(&ran.json(), name)["result"]["steps"].to_string();
    let first = [
        "issue a certificate",
        "make it the first issuer",
        "node.key",
    ];
    let second = ["make a key there, and join by a token of h1"];
    let both = ["install cbagent_", "start cbagent.service"];
    for (name, own) in [("h1", &first[..]), ("h2", &second)] {
        let steps = steps(name);
        for step in own.iter().chain(&both) {
            assert!(steps.contains(step), "{step} is not in {steps}");
        }
    }
    assert!(!steps("h2").contains("node.key"), "its key goes nowhere");
    assert_eq!(trees(&hosts), before);
    assert_eq!(of_the_admin(&hosts), mine);

    // Nor is half a package left behind.
    for (package, why) in [
        ("cbagent", "nonsuch"),
        ("other", "the package other, not cbagent"),
    ] {
        let file = unfit_package(&hosts, package);
        let words = hosts.enrolment(&["h1"], &["--yes"]);
        let words: Vec<String> = words
            .into_iter()
            .map(|word| {
                if word.ends_with(".deb") {
                    file.clone()
                } else {
                    word
                }
            })
            .collect();
        let ran = hosts.cbctl(&words).expect(1);
        assert!(ran.stderr.contains(why), "{ran}");
        let there = "dpkg-query -W cbagent other 2>/dev/null; ls -A /etc/cbagent 2>/dev/null";
        assert_eq!(hosts.shell(1, there).stdout, "");
    }

    // One host is away.
    hosts.plug(3, false);
    let (ssh, calls) = logging_ssh(&hosts);
    let ssh = ssh.to_string_lossy();
    let options = ["--yes", "--timeout", "2s", "-o", "json", "--ssh", &*ssh];
    let ran = hosts.cbctl(&hosts.enrolment(&all, &options)).expect(3);
    let answer = ran.json();
    assert_eq!(row(&answer, "h3")["outcome"], "unreachable", "{ran}");
    for (host, name) in [(1, "h1"), (2, "h2")] {
        assert_eq!(row(&answer, name)["outcome"], "ok", "{ran}");
        assert_eq!(
            hosts.status(host)["outcome"],
            "ok",
            "no waiting: it was checked"
        );
        let modes =
            "stat -c '%n %a %U %G' /etc/cbagent /etc/cbagent/.[!.]* /etc/cbagent/* 2>/dev/null";
        let wanted = "/etc/cbagent 700,/etc/cbagent/ca.pem 600,/etc/cbagent/cbagent.toml 600,\
                      /etc/cbagent/mesh.toml 600,/etc/cbagent/node.key 600,/etc/cbagent/node.pem 600,\
                      /etc/cbagent/token 600";
        let issuing = "/etc/cbagent/issuing.key 600,/etc/cbagent/issuing.pem 600,";
        let at = wanted.find("/etc/cbagent/mesh.toml").expect("a place");
        let mut wanted = wanted.to_owned();
        wanted.insert_str(at, if host == 1 { issuing } else { "" });
        let wanted: Vec<String> = wanted
            .split(',')
            .map(|line| format!("{line} root root"))
            .collect();
        assert_eq!(hosts.shell(host, modes).stdout.trim(), wanted.join("\n"));
    }
    hosts.plug(3, true);
    hosts.cbctl(&hosts.enrolment(&["h3"], &["--yes"])).expect(0);
    // What was acknowledged survives.
    hosts.cut(3);
    hosts.boot(3);
    hosts.wait_for_agent(3, PATIENCE);
    hosts.cbctl(&["status"]).expect(0);

    // Keys were nowhere on the way.
    assert_eq!(of_the_admin(&hosts), mine, "nothing was written here");
    let calls = fs::read_to_string(calls).expect("ssh was called");
    assert!(calls.contains(&hosts.address(1).to_string()), "{calls}");
    assert!(
        !calls.contains("cbddc1:"),
        "a token was an argument: {calls}"
    );
    for host in hosts.numbers() {
        let key = hosts.say(host, "sed -n 2p /etc/cbagent/node.key");
        assert_eq!(key.len(), 64, "a line of a key");
        assert!(!calls.contains(&key), "a key was an argument");
        // The question must not bring the key into the journal by itself.
        let told = "key=$(sed -n 2p /etc/cbagent/node.key | cut -c1-32); journalctl --sync; \
                    journalctl --no-pager -o export --all | grep -acF \"$key\" || true";
        assert_eq!(hosts.say(host, told), "0", "the key is in the journal");
    }
}

#[test]
fn an_enrolled_host_is_left_alone_unless_told() {
    let Some(hosts) = Hosts::up(2) else { return };
    hosts.make_mesh();
    hosts.enrol();
    let (before, agents) = (trees(&hosts), [agent(&hosts, 1), agent(&hosts, 2)]);
    let old = certificate(&hosts, 1);

    let ran = hosts
        .cbctl(&hosts.enrolment(&["h1", "h2"], &["--yes"]))
        .expect(1);
    assert!(ran.stderr.contains("already_enrolled"), "{ran}");
    assert!(ran.stderr.contains("--replace"), "{ran}");
    // The wrong host for the name.
    let other = format!("h1={}", hosts.address(2));
    let ran = hosts
        .cbctl(&hosts.enrolment(&[&other], &["--yes", "--replace"]))
        .expect(1);
    assert!(
        ran.stderr.contains("its cbagent.toml is of the node h2"),
        "{ran}"
    );
    assert_eq!(trees(&hosts), before);
    assert_eq!([agent(&hosts, 1), agent(&hosts, 2)], agents);

    // Switched off by somebody: who enrols a host wants its agent to run.
    hosts.say(1, "systemctl --quiet disable --now cbagent && sync");
    hosts
        .cbctl(&hosts.enrolment(&["h1"], &["--yes", "--replace"]))
        .expect(0);
    assert_ne!(certificate(&hosts, 1), old);
    assert_ne!(agent(&hosts, 1), agents[0], "the agent began anew");
    assert_eq!(hosts.say(1, "systemctl is-enabled cbagent"), "enabled");
    hosts.cut(1);
    hosts.boot(1);
    hosts.wait_for_agent(1, PATIENCE);
    assert_eq!(hosts.status(1)["outcome"], "ok");
    assert_eq!(
        hosts.say(2, TREE),
        before[1],
        "the other one was not touched"
    );

    // A voter with another key is another voter, as somebody else's disk would be.
    let ran = hosts
        .cbctl(&hosts.enrolment(&["h2"], &["--yes", "--replace"]))
        .expect(0);
    assert!(ran.stderr.contains("cbctl mesh voters"), "{ran}");
    let votes = |hosts: &Hosts| {
        let members = hosts
            .cbctl(&["mesh", "members", "-o", "json"])
            .expect(0)
            .json();
        let members = members["members"].as_array().expect("members").clone();
        let second = members.into_iter().find(|row| row["name"] == "h2");
        second.expect("h2")["votes"].clone()
    };
    assert_eq!(votes(&hosts), false);
    hosts.cbctl(&["mesh", "voters", "--yes"]).expect(0);
    assert_eq!(votes(&hosts), true);
    let second = agent(&hosts, 2);

    // A configuration with which the agent would not start: nothing changes, the agent goes on.
    hosts.say(2, "sed -i '1i bogus = 1' /etc/cbagent/cbagent.toml");
    let before = hosts.say(2, "find /etc/cbagent -type f -exec sha256sum {} + | sort");
    let ran = hosts
        .cbctl(&hosts.enrolment(&["h2"], &["--yes", "--replace"]))
        .expect(1);
    assert!(ran.stderr.contains("nothing was changed"), "{ran}");
    assert!(ran.stderr.contains("/etc/cbagent/cbagent.toml"), "{ran}");
    assert!(ran.stderr.contains("bogus"), "{ran}");
    assert_eq!(
        hosts.say(2, "find /etc/cbagent -type f -exec sha256sum {} + | sort"),
        before
    );
    assert_eq!(agent(&hosts, 2), second);

    // An agent that reads other files than it was given: it runs, and is not taken for enrolled.
    let elsewhere = "sed -i -e '/^bogus/d' -e 's/\"node\\./\"old\\./' /etc/cbagent/cbagent.toml && \
                     cd /etc/cbagent && cp node.pem old.pem && cp node.key old.key";
    hosts.say(2, elsewhere);
    let ran = hosts
        .cbctl(&hosts.enrolment(&["h2"], &["--yes", "--replace"]))
        .expect(1);
    assert!(ran.stderr.contains("another certificate"), "{ran}");
    assert!(ran.stderr.contains("journal"), "{ran}");
}

#[test]
fn a_new_member_joins_through_a_login_that_is_not_root() {
    let Some(hosts) = Hosts::up(2) else { return };
    let authority = hosts.folder().join("authority");
    let first = format!("h1={}:{AGENT_PORT}", hosts.address(1));
    let dir = authority.to_string_lossy();
    let words = [
        "mesh",
        "init",
        "--name",
        "shop",
        "--user",
        "ana",
        "--dir",
        &dir,
        "--member",
        &first,
        "--no-passphrase",
    ];
    hosts.cbctl(&words).expect(0);
    hosts.start_ssh();
    hosts.cbctl(&hosts.enrolment(&["h1"], &["--yes"])).expect(0);
    hosts.say(2, "useradd --create-home ops");

    // Unknown here, and nothing says where it is.
    let ran = hosts.cbctl(&hosts.enrolment(&["h2"], &["--yes"])).expect(1);
    assert!(ran.stderr.contains("h2 is not in the mesh file"), "{ran}");
    let second = format!("h2=ops@{}", hosts.address(2));
    let ran = hosts
        .cbctl(&hosts.enrolment(&[&second], &["--yes"]))
        .expect(1);
    assert!(
        ran.stderr.contains("not_root") && ran.stderr.contains("--sudo"),
        "{ran}"
    );
    let ran = hosts
        .cbctl(&hosts.enrolment(&[&second], &["--yes", "--sudo"]))
        .expect(1);
    assert!(ran.stderr.contains("password"), "{ran}");
    let mesh = || fs::read_to_string(authority.join("mesh.toml")).expect("a mesh file");
    assert!(
        !mesh().contains("h2"),
        "it joined although nothing was done"
    );

    hosts.write(
        2,
        "/etc/sudoers.d/ops",
        "ops ALL=(root) NOPASSWD: ALL\n",
        0o440,
    );
    let words = hosts.enrolment(&[&second], &["--dry-run", "--sudo"]);
    let ran = hosts.cbctl(&words).expect(0);
    assert!(ran.stdout.contains("list it in mesh.toml at"), "{ran}");
    assert!(ran.stdout.contains("by a token of h1"), "{ran}");
    assert!(!mesh().contains("h2"), "a dry run changed the mesh");
    let ran = hosts
        .cbctl(&hosts.enrolment(&[&second], &["--yes", "--sudo", "-o", "json"]))
        .expect(0);
    assert_eq!(ran.json()["stale"], serde_json::json!([]), "{ran}");
    assert!(mesh().contains(&format!("{}:{AGENT_PORT}", hosts.address(2))));
    hosts.cbctl(&["status", "--node", "h2"]).expect(0);
    assert_eq!(
        hosts.say(2, "stat -c '%U %a' /etc/cbagent/node.key"),
        "root 600"
    );

    // The other host knows it by the issuer's word, not by its file.
    assert!(!hosts.say(1, "cat /etc/cbagent/mesh.toml").contains("h2"));
    hosts.cbctl(&["status"]).expect(0);
    let told = hosts.cbctl(&["journal", "list", "--node", "h1"]).expect(0);
    assert!(told.stdout.contains("h2 joins with a token"), "{told}");

    // A host that has the name of another one, with nothing on it.
    hosts.say(2, "systemctl stop cbagent && rm /etc/cbagent/node.*");
    let again = hosts.enrolment(&[&second], &["--yes", "--sudo"]);
    let ran = hosts.cbctl(&again).expect(1);
    assert!(ran.stderr.contains("--replace lets this one"), "{ran}");
    // With a key that the issuer knows already, it goes on where it was.
    hosts.say(1, "grep -c BEGIN /etc/cbagent/node.key");
    let words = hosts.enrolment(&[&second], &["--yes", "--sudo", "--replace"]);
    hosts.cbctl(&words).expect(0);
    hosts.say(
        2,
        "cd /etc/cbagent && mv node.key node.key.new && rm node.pem",
    );
    hosts.cbctl(&again).expect(0);
    assert_eq!(hosts.shell(2, "ls /etc/cbagent/node.key.new").stdout, "");
    hosts.cbctl(&["status"]).expect(0);
}
