//! What a seed stands for: which mesh, which clients, which faults.

use super::client::Script;
use super::mesh::{Faults, Mesh};
use super::random::Random;
use super::world::Quality;
use cbddc_domain::release::Release;
use std::collections::BTreeSet;

/// What became of one simulated mesh.
pub struct Report {
    /// The broken rule, if any.
    pub broken: Option<String>,
    /// What happened, where it was asked for.
    pub trace: Vec<String>,
    /// Transitions that were seen.
    pub seen: BTreeSet<(&'static str, &'static str)>,
    /// How many steps the agents took.
    pub steps: u64,
    /// How the clients ended, in a word each.
    pub outcomes: Vec<String>,
}

/// Runs the mesh of `seed`.
pub fn run(seed: u64, trace: bool) -> Report {
    let mut mesh = rough_mesh(seed, trace);
    let result = mesh.run();
    Report {
        broken: result.err(),
        trace: mesh.trace.take().unwrap_or_default(),
        seen: std::mem::take(&mut mesh.seen),
        steps: mesh.steps,
        outcomes: mesh
            .clients
            .iter()
            .map(super::client::Client::word)
            .collect(),
    }
}

fn faults(random: &mut Random) -> Faults {
    let mut pick = |choices: &[u64]| choices[random.index(choices.len())];
    Faults {
        until_ms: pick(&[60_000, 120_000, 200_000]),
        loss: pick(&[0, 0, 5, 40, 150]),
        double: pick(&[0, 100, 300]),
        delay_ms: pick(&[20, 100, 300, 1_200]),
        late: pick(&[0, 0, 5, 50]),
        effect_fails: pick(&[0, 0, 10, 80]),
        crash_at_step: pick(&[0, 0, 3, 15]),
        crash_every_ms: pick(&[0, 0, 15_000, 60_000]),
        partition_every_ms: pick(&[0, 0, 8_000, 30_000]),
        exit_every_ms: pick(&[0, 0, 30_000]),
    }
}

fn quality(random: &mut Random, hosts: usize) -> Quality {
    match random.below(14) {
        0 => Quality::FailsStart,
        1 => Quality::FailsCheck,
        2 => Quality::Exits,
        3 => Quality::FailsMesh,
        4 => Quality::FailsOn(random.index(hosts)),
        _ => Quality::Good,
    }
}

fn rough_mesh(seed: u64, trace: bool) -> Mesh {
    let mut random = Random::new(seed);
    let hosts = [1, 2, 3, 3, 3, 4, 5, 7][random.index(8)];
    let voters = if hosts > 3 && random.chance(300) {
        3
    } else {
        hosts
    };
    let faults = faults(&mut random);
    let until = faults.until_ms;
    let mut mesh = Mesh::new(random, hosts, voters, faults, trace);
    let first = mesh.build(1, Quality::Good);
    if mesh.random.chance(700) {
        mesh.seed_record(&first);
    }
    let clients = mesh.random.between(1, 7);
    let mut begins = 8_000 + mesh.random.below(8_000);
    let mut left_behind = false;
    for client in 0..clients {
        let script = script(&mut mesh, client, &first, left_behind);
        let life = mesh.random.below(30_000);
        left_behind = mesh.random.chance(350);
        mesh.add_client(begins, script, left_behind.then_some(begins + life));
        // Sometimes together with the one before, often while it is at work.
        let pause = if mesh.random.chance(300) {
            2_000
        } else {
            45_000
        };
        begins = (begins + mesh.random.below(pause)).min(until);
    }
    mesh
}

fn script(mesh: &mut Mesh, client: u64, first: &Release, left_behind: bool) -> Script {
    let choice = if client == 0 {
        0
    } else if (left_behind || mesh.random.chance(300)) && mesh.random.chance(700) {
        60 + mesh.random.below(40)
    } else {
        mesh.random.below(80)
    };
    match choice {
        0..55 => {
            let hosts = mesh.hosts.len();
            let quality = quality(&mut mesh.random, hosts);
            let release = mesh.build(client + 2, quality);
            let mut targets: Vec<usize> = (0..hosts).collect();
            if mesh.random.chance(250) {
                let first = mesh.random.index(hosts);
                targets = (first..hosts).collect();
            }
            Script::Rollout(release, targets)
        }
        55..75 => {
            let revoke = mesh.random.chance(500);
            let otherwise = first.clone();
            Script::Rollback { revoke, otherwise }
        }
        75..92 => Script::Resume,
        _ => Script::Abort,
    }
}
