//! Rollouts, failed rollouts and rollbacks in random order, with a writer at every node, on nodes of
//! each release: no false finding, no missing one, no node that is stuck, no error in a node's log.

#![expect(
    clippy::disallowed_methods,
    reason = "runs for as long as it is told to"
)]

use super::{LIMIT, all_agree_on, logs_are_quiet, mesh_on_1_0, phase};
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::mesh::{MeshOptions, TestMesh, Timing, Writer};
use cbddc_tests::sim::random::Random;
use std::time::{Duration, Instant};

/// What is wrong with a build that must not stay.
const BAD: [&str; 3] = ["crash-on-start", "stall-sync", "drop-every=1"];

/// A number from the environment, for long runs.
fn setting(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(usual, |text| text.parse().expect("a number"))
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
        assert_eq!(ran.code, 0, "after {what}: {ran}");
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
    let writer = Writer::start(&story.mesh, "orders");
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
    let count = mesh.count_documents(&written, LIMIT);
    drop(goes_on);
    assert!(count.is_clean(), "seed {seed}: {count:?}");
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
