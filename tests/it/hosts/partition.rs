//! A host that is cut off in the middle of a rollout decides for itself, and agrees with the others
//! once they reach each other again.

use super::cuts::{LIMIT, hosts_on_1_1, verified_in, while_written};
use cbddc_tests::hosts::{Hosts, Packages};
use cbddc_tests::mesh::wait_for;
use serde_json::Value;
use std::time::Duration;

/// How long a client waits for a host in vain, and then once more for its way back.
const VERIFY: Duration = Duration::from_secs(8);

/// What an admin sees who sits at the host itself.
fn seen_there(hosts: &Hosts, far: u8, words: &[&str]) -> Value {
    let cbctl = ["cbctl", "--socket", "/run/cbagent/agent.sock", "-o", "json"];
    hosts.run(far, &[&cbctl[..], words].concat()).json()
}

/// Waits until the host that is cut off has gone back to 1.1 by itself, and says why.
#[track_caller]
fn goes_back_by_itself(hosts: &Hosts, far: u8) {
    let build = "cbddc@1.1";
    wait_for("the host that is cut off goes back", LIMIT, || {
        let status = seen_there(hosts, far, &["status"]);
        let node = &status["nodes"][0]["result"];
        (node["phase"] == "steady" && node["release"]["build"] == build).then_some(())
    });
    let stats =
        "exec 3<>/dev/tcp/127.0.0.1/5000; printf 'GET /stats HTTP/1.1\\r\\n\\r\\n' >&3; cat <&3";
    let stats = hosts.run(far, &["/bin/bash", "-c", stats]).expect(0);
    assert!(stats.stdout.contains("\"version\":\"1.1\""), "{stats}");
    let journal = seen_there(hosts, far, &["journal", "list"]);
    let lines = journal["entries"].as_array().cloned().unwrap_or_default();
    let last_of = |kind: &str| {
        let last = lines.iter().rev().find(|line| line["kind"] == kind);
        last.and_then(|line| line["text"].as_str())
            .unwrap_or_default()
    };
    assert!(
        last_of("probation_ended").contains("asking the voters"),
        "{journal:#}"
    );
    assert!(last_of("revert_began").contains("in doubt"), "{journal:#}");
}

/// The hosts that are not cut off agree on this version.
#[track_caller]
fn others_run(hosts: &Hosts, far: u8, version: &str) {
    for host in hosts.numbers().filter(|host| *host != far) {
        hosts.wait_until_runs(host, version, LIMIT);
    }
}

/// Three hosts that run 1.1 and hold a good 1.2; `cbctl` is on those that will be cut off.
fn hosts_with_1_2() -> Option<Hosts> {
    let hosts = hosts_on_1_1()?;
    for far in [1, 3] {
        hosts.install(far, "cbctl", &Packages::get().version());
    }
    hosts.make_build("1.2", "");
    Some(hosts)
}

/// After healing all hosts run this version, without hands, and are ready for what comes next.
#[track_caller]
fn heals_to(hosts: &Hosts, version: &str) {
    hosts.heal();
    hosts.wait_until_all_run(version, LIMIT);
    hosts.wait_until_free(LIMIT);
    let status = hosts.cbctl(&["status", "-o", "json"]).expect(0).json();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    assert!(
        nodes.iter().all(|node| node["result"]["drift"].is_null()),
        "{status:#}"
    );
    assert_eq!(
        status["summary"]["in_doubt"],
        serde_json::json!([]),
        "{status:#}"
    );
}

#[test]
fn cut_off_before_the_vote_all_go_back() {
    let Some(hosts) = hosts_with_1_2() else {
        return;
    };
    while_written(&hosts, || {
        // In the first wave, while the others wait for theirs; and in the last one, while they are on
        // probation, too.
        for far in [1, 3] {
            hosts.wait_until_free(LIMIT);
            let soak = ["--soak", "3s"].map(str::to_owned);
            let words: Vec<String> = verified_in(&hosts, "1.2", VERIFY)
                .into_iter()
                .chain(soak)
                .collect();
            let mut client = hosts.cbctl_spawn(&words);
            hosts.wait_for_phase(far, "probation", LIMIT);
            hosts.cut_off(&[far]);
            goes_back_by_itself(&hosts, far);
            let ran = client.wait(LIMIT);
            // The client cannot tell that the host went back.
            assert_eq!(ran.code, 5, "{ran}");
            assert!(ran.stderr.contains(&hosts.name(far)), "{ran}");
            others_run(&hosts, far, "1.1");
            heals_to(&hosts, "1.1");
        }
    });
}

#[test]
fn cut_off_while_the_others_vote_it_follows_them_later() {
    let Some(hosts) = hosts_with_1_2() else {
        return;
    };
    let far = 3;
    while_written(&hosts, || {
        hosts.crash_agent_at(far, "before:voted");
        let mut client = hosts.cbctl_spawn(&verified_in(&hosts, "1.2", VERIFY));
        hosts.wait_for_agent_crash(far, LIMIT);
        hosts.cut_off(&[far]);
        hosts.start_agent_again(far);
        others_run(&hosts, far, "1.2");
        goes_back_by_itself(&hosts, far);
        let ran = client.wait(LIMIT);
        assert!([0, 3].contains(&ran.code), "{ran}");
        // The others are not swayed by what it does.
        others_run(&hosts, far, "1.2");
        heals_to(&hosts, "1.2");
    });
}
