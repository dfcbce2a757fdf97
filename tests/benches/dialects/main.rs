//! A rollout to three nodes that nobody writes to, beside the same one on nodes that are like 2.3.
//!
//! ```text
//! cargo build --release --workspace --bins
//! cargo bench -p cbddc-tests --bench dialects
//! ```
//!
//! What nodes do not answer must not make a rollout slower: the goal is the same time on all of them.

use cbddc_tests::figures::{compare, heading, median, timed};
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::time::Duration;

/// How often a build is rolled out on each mesh; the first time only warms up.
const ROUNDS: u32 = 5;

/// What a rollout may take of the time on nodes like 2.3.
const GOAL: f64 = 1.15;

fn main() {
    let meshes = [Dialect::V2_3, Dialect::V1_1, Dialect::V0_9].map(|like| {
        let mesh = TestMesh::start(MeshOptions::default().like(like));
        mesh.make_build("1.0", "");
        mesh.first_release("1.0");
        (like, mesh)
    });
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..=ROUNDS {
        for ((_, mesh), times) in meshes.iter().zip(&mut times) {
            let version = format!("1.{}", round + 1);
            mesh.make_build(&version, "");
            let took = timed(|| drop(mesh.roll_out(&version)));
            if round > 0 {
                times.push(took);
            }
        }
    }
    heading();
    let first = median(&times[0]);
    for ((like, _), times) in meshes.iter().zip(&times) {
        let job = format!("rollout of 3, like {}", like.name());
        compare(&job, "the same, like 2.3", median(times), first, Some(GOAL));
    }
}
