//! Power cuts at random moments, while rollouts and rollbacks follow each other.
//!
//! `CBDDC_CUTS=100` cuts more often than 8 times, and `CBDDC_CUTS_SEED=17` chooses the same deeds, hosts
//! and moments again; what happens at that moment still depends on the machine.

use super::cuts::{LIMIT, hosts_on_1_1, verified_in};
use cbddc_tests::hosts::Hosts;
use cbddc_tests::mesh::{Ran, Running, wait_for};
use cbddc_tests::sim::random::Random;
use serde_json::Value;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// How often the power is cut unless told otherwise.
const CUTS: u64 = 8;

/// The last moment of a cut, in milliseconds from the start of the client: shortly after a rollout of
/// three hosts, or a rollback, usually ends.
const MOMENT_MS_MAX: (u64, u64) = (9_500, 3_500);

/// How long a client waits for a host in vain, and then once more for its way back.
const VERIFY: Duration = Duration::from_secs(6);

/// A build that no check lets pass.
const BAD: &str = "bad";

/// What is under way when the power fails.
#[derive(Debug, Clone)]
enum Deed {
    Rollout(String),
    Rollback,
}

/// The mesh, and what a person would know of it.
struct Story {
    hosts: Hosts,
    random: Random,
    /// What runs.
    version: String,
    /// Releases to go back to, newest last.
    earlier: Vec<String>,
    /// A good build that all hosts hold, and that was never decided upon.
    next: String,
    number: u64,
}

/// A number from the environment.
fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

#[test]
fn cuts_at_random_moments() {
    let Some(hosts) = hosts_on_1_1() else { return };
    let seed = from_environment("CBDDC_CUTS_SEED");
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
    println!("CBDDC_CUTS_SEED={seed}");
    hosts.make_build(BAD, "unhealthy-after=0");
    let mut story = Story {
        hosts,
        random: Random::new(seed),
        version: "1.1".into(),
        earlier: vec!["adopted".into()],
        next: String::new(),
        number: 1,
    };
    story.make_next();
    let (writers, watch) = (
        story.hosts.start_writers("orders"),
        story.hosts.watch_for_two_nodes(),
    );
    for _ in 0..from_environment("CBDDC_CUTS").unwrap_or(CUTS) {
        story.one_cut();
    }
    let most = watch.most();
    assert!(
        most.iter().all(|most| *most == 1),
        "nodes at once: {most:?}"
    );
    let count = story.hosts.count_documents(&writers.stop(), LIMIT);
    assert!(count.acknowledged > 50 && count.is_clean(), "{count:?}");
}

impl Story {
    fn make_next(&mut self) {
        self.number += 1;
        self.next = format!("1.{}", self.number);
        self.hosts.make_build(&self.next, "");
    }

    fn choose(&mut self) -> Deed {
        match self.random.below(10) {
            0..2 => Deed::Rollout(BAD.into()),
            2..6 if !self.earlier.is_empty() => Deed::Rollback,
            _ => Deed::Rollout(self.next.clone()),
        }
    }

    fn begin(&self, deed: &Deed) -> Running {
        match deed {
            Deed::Rollout(version) => {
                let words = verified_in(&self.hosts, version, VERIFY);
                self.hosts.cbctl_spawn(&words)
            }
            Deed::Rollback => {
                let words = ["rollback", "--mesh", "--yes", "--verify", "6s"];
                self.hosts.cbctl_spawn(&words)
            }
        }
    }

    fn one_cut(&mut self) {
        let deed = self.choose();
        let host = u8::try_from(self.random.between(1, 3)).expect("three hosts");
        let moment_max = match deed {
            Deed::Rollout(_) => MOMENT_MS_MAX.0,
            Deed::Rollback => MOMENT_MS_MAX.1,
        };
        let moment = Duration::from_millis(self.random.below(moment_max));
        let (client_dies, others_first) = (self.random.chance(500), self.random.chance(500));
        let what = format!(
            "{deed:?} from {}, h{host} after {moment:?}, client_dies={client_dies}, \
             others_first={others_first}",
            self.version
        );
        println!("{what}");
        let client = self.begin(&deed);
        // The moment is what the test is about; there is nothing to wait for.
        std::thread::sleep(moment);
        let before = self.hosts.entries(host);
        self.hosts.cut(host);
        let told = self.end_and_boot(client, host, client_dies, others_first);

        let target = match &deed {
            Deed::Rollout(version) if version == BAD => None,
            Deed::Rollout(version) => Some(version.clone()),
            Deed::Rollback => self.earlier.last().cloned(),
        };
        let now = self.agreed(&[1, 2, 3]);
        let done = Some(&now) == target.as_ref();
        assert!(done || now == self.version, "{what}: it runs {now}");
        if told.code == 0 || told.stderr.contains("decided:") {
            assert!(done, "{what}: it was said to be done\n{told}");
        }
        self.booted_well(host, &now, others_first, &what);
        self.remembers(host, &before, &what);
        if done {
            match deed {
                Deed::Rollout(_) => self.earlier.push(self.version.clone()),
                Deed::Rollback => drop(self.earlier.pop()),
            }
            let left = std::mem::replace(&mut self.version, now);
            if left == self.next || self.version == self.next {
                self.make_next();
            }
        }
    }

    /// Lets the client end, or ends it, and boots the host: at once, or once the others have agreed.
    fn end_and_boot(&self, mut client: Running, host: u8, dies: bool, others_first: bool) -> Ran {
        let others: Vec<u8> = self.hosts.numbers().filter(|one| *one != host).collect();
        let ended = dies.then(|| client.kill_now());
        if others_first {
            let ended = ended.unwrap_or_else(|| client.wait(LIMIT));
            self.agreed(&others);
            self.hosts.boot(host);
            return ended;
        }
        self.hosts.boot(host);
        ended.unwrap_or_else(|| client.wait(LIMIT))
    }

    /// Waits until these hosts are steady on one version that their nodes confirm, and free; returns it.
    #[track_caller]
    fn agreed(&self, hosts: &[u8]) -> String {
        wait_for(&format!("{hosts:?} agree"), LIMIT, || {
            let json = self
                .hosts
                .cbctl(&["status", "-o", "json", "--timeout", "2s"])
                .json();
            let runs = |host: &u8| {
                let name = self.hosts.name(*host);
                let mut nodes = json["nodes"].as_array()?.iter();
                let node = &nodes.find(|node| node["node"] == name.as_str())?["result"];
                let version = self.hosts.node_version(*host)?;
                let build = format!("cbddc@{version}");
                let steady = node["phase"] == "steady" && node["lock"].is_null();
                (steady && node["release"]["build"] == build).then_some(version)
            };
            let versions: Option<Vec<String>> = hosts.iter().map(runs).collect();
            let mut versions = versions?;
            versions.dedup();
            match versions.as_slice() {
                [one] => Some(one.clone()),
                _ => None,
            }
        })
    }

    /// From the first start on, the host ran what was right at that time, and the bad build never.
    #[track_caller]
    fn booted_well(&self, host: u8, now: &String, others_first: bool, what: &str) {
        let started = self.hosts.versions_started(host);
        let right = |version: &String| version == now || !others_first && *version == self.version;
        assert!(started.iter().all(right), "{what}: {started:?}, now {now}");
        assert_eq!(started.last(), Some(now), "{what}: {started:?}");
        assert!(started.len() <= 2, "{what}: {started:?}");
        assert_eq!(self.hosts.nodes_running(host), 1, "{what}");
    }

    /// What the host's agent had told anybody is in its journal, word for word.
    #[track_caller]
    fn remembers(&self, host: u8, before: &[Value], what: &str) {
        let after = self.hosts.entries(host);
        let first = after.first().and_then(|line| line["number"].as_u64());
        let kept = before
            .iter()
            .filter(|line| line["number"].as_u64() >= first);
        for line in kept {
            assert!(after.contains(line), "{what}: forgot {line:#}");
        }
    }
}
