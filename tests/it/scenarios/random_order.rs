//! Rollouts, failed rollouts and rollbacks in random order, with a writer at every node, on nodes of
//! each release: no false finding, no missing one, no node that is stuck, no error in a node's log. Clients
//! take the nodes' word: what a node acknowledged is everywhere in the end, or named with the node that
//! has it. As every stop of a node that serves drains first, nothing is.

#![expect(
    clippy::disallowed_methods,
    reason = "runs for as long as it is told to"
)]

use super::{LIMIT, all_agree_on, logs_are_quiet, mesh_on_1_0, phase};
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::mesh::{MeshOptions, TestMesh, Timing, Writer};
use cbddc_tests::sim::random::Random;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long what is on its way may take where something stays away for good.
const ARRIVES: Duration = Duration::from_secs(10);

/// What is wrong with a build that must not stay.
const BAD: [&str; 3] = ["crash-on-start", "stall-sync", "drop-every=1"];

/// A number from the environment, for long runs.
fn setting(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(usual, |text| text.parse().expect("a number"))
}

/// Whether a finding of an audit leaves its exit code as it is.
fn is_note(finding: &Value) -> bool {
    let notes = ["lagging", "snapshot-swapped", "no-hash", "unknown-hash"];
    notes.iter().any(|note| finding["kind"] == *note)
}

/// What a mesh runs, and what it could go back to.
struct Story {
    mesh: TestMesh,
    releases: Vec<String>,
    builds: u64,
}

impl Story {
    fn new_build(&mut self, faults: &str) -> String {
        self.builds += 1;
        let version = format!("1.{}", self.builds);
        self.mesh.make_build(&version, faults);
        version
    }

    fn forward(&mut self) {
        let version = self.new_build("");
        self.mesh.roll_out(&version);
        self.releases.push(version);
    }

    fn bad(&mut self, faults: &str) {
        let version = self.new_build(faults);
        self.mesh.cbctl(&self.mesh.rollout(&version)).expect(4);
    }

    fn back(&mut self) {
        if self.releases.len() > 1 {
            self.mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
            self.releases.pop();
        }
    }

    #[track_caller]
    fn check(&self, what: &str) {
        all_agree_on(&self.mesh, self.releases.last().expect("something runs"));
        for index in 0..self.mesh.len() {
            assert_ne!(phase(&self.mesh, index), "stuck", "after {what}");
        }
        let line = ["replication", "audit", "-o", "json", "--settle", "1s"];
        let ran = self.mesh.cbctl(&line);
        let json = ran.json();
        let findings = json["findings"].as_array().expect("a list");
        let (stranded, others): (Vec<&Value>, Vec<&Value>) = findings
            .iter()
            .filter(|finding| !is_note(finding))
            .partition(|finding| finding["kind"] == "document-without-event");
        let expected = if stranded.is_empty() { 0 } else { 8 };
        assert_eq!(
            (ran.code, others.len()),
            (expected, 0),
            "after {what}: {ran}"
        );
    }

    /// The documents that no event takes anywhere, with who has them, as the audit names them.
    fn stranded(&self) -> BTreeMap<String, Value> {
        let line = ["replication", "audit", "-o", "json", "--settle", "1s"];
        let json = self.mesh.cbctl(&line).json();
        let findings = json["findings"].as_array().cloned().expect("a list");
        let of = |finding: Value| {
            assert_eq!(finding["kind"], "document-without-event", "{finding}");
            let key = finding["key"].as_str().expect("a key").to_owned();
            (key, finding["on"].clone())
        };
        let wrong = findings.into_iter().filter(|finding| !is_note(finding));
        wrong.map(of).collect()
    }
}

fn in_random_order(like: Dialect) {
    let seconds = setting("CBDDC_ORDER_SECONDS", 40);
    let drawn = u64::from(std::process::id());
    let seed = setting("CBDDC_ORDER_SEED", drawn);
    println!("CBDDC_ORDER_SEED={seed}");
    let mut random = Random::new(seed);
    let timing = Timing {
        probation: Duration::from_secs(5),
        ..Timing::default()
    };
    let options = MeshOptions {
        timing,
        ..MeshOptions::default()
    };
    let mut story = Story {
        mesh: mesh_on_1_0(options.like(like)),
        releases: vec!["1.0".to_owned()],
        builds: 0,
    };
    let nodes = story.mesh.nodes().iter().map(|node| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.http_port));
        (node.name.clone(), address)
    });
    let writer = Writer::start_unflushed_at(nodes.collect(), "orders", || ());
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut kinds = [0; 3];
    while Instant::now() < until || kinds.contains(&0) {
        // Each of them once at least, whatever is drawn.
        let rare = kinds.iter().position(|times| *times == 0);
        let kind = match rare.filter(|_| Instant::now() >= until) {
            Some(rare) => rare,
            None => random.index(3),
        };
        kinds[kind] += 1;
        let what = match kind {
            0 => {
                story.forward();
                "a rollout".to_owned()
            }
            1 => {
                let faults = BAD[random.index(BAD.len())];
                story.bad(faults);
                format!("a rollout with {faults}")
            }
            _ => {
                story.back();
                "a rollback".to_owned()
            }
        };
        story.check(&format!("{what} (CBDDC_ORDER_SEED={seed})"));
    }
    let mesh = &story.mesh;
    let written = writer.stop();
    // Now and then a node like 0.9.1 shows an empty clock until somebody writes, and its peers take nothing
    // from it meanwhile.
    let goes_on = Writer::start(mesh, "stock");
    let stranded = story.stranded();
    let limit = match stranded.is_empty() {
        true => LIMIT,
        false => ARRIVES,
    };
    let count = mesh.count_documents(&written, limit);
    drop(goes_on);
    assert_eq!(
        count.doubled,
        Vec::<String>::new(),
        "seed {seed}: {count:?}"
    );
    let lost = count
        .lost
        .iter()
        .map(|lost| lost.split_once(": ").expect("NODE: KEY").1);
    let lost: BTreeSet<&str> = lost.collect();
    let named: BTreeSet<&str> = stranded.keys().map(String::as_str).collect();
    assert_eq!(lost, named, "seed {seed}: {count:?}");
    for (key, on) in &stranded {
        let (writer, _) = key.split_once('-').expect("NODE-NUMBER");
        assert_eq!(*on, json!([writer]), "seed {seed}: {key}");
    }
    assert!(stranded.is_empty(), "seed {seed}: {stranded:?}");
    logs_are_quiet(mesh);
}

#[test]
fn on_2_3() {
    in_random_order(Dialect::V2_3);
}

#[test]
fn on_1_1() {
    in_random_order(Dialect::V1_1);
}

#[test]
fn on_0_9() {
    in_random_order(Dialect::V0_9);
}
