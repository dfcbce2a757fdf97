//! What a seed stands for: which mesh, which clients, which faults.

use super::client::Script;
use super::mesh::{Faults, Mesh};
use super::random::Random;
use super::world::{Quality, Rot};
use cbddc_domain::release::Release;
use cbddc_domain::trigger::{Policy, Reaction, Remediation, Trigger};
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
    /// The most rounds of gossip until every node knew the record that stands.
    pub rounds: u64,
    /// How many ways back triggers began, and how many records were decided that agents proposed.
    pub ways_back: (u64, u64),
    /// How the clients ended, in a word each.
    pub outcomes: Vec<String>,
}

/// Runs the mesh of `seed`.
pub fn run(seed: u64, trace: bool) -> Report {
    report(rough_mesh(seed, trace))
}

/// The same where a person quarantines nodes now and then, which stops them.
pub fn run_with_quarantines(seed: u64, trace: bool) -> Report {
    let mut mesh = rough_mesh(seed, trace);
    mesh.stops = Some(Random::new(!seed));
    mesh.policy.quarantine_stops = true;
    mesh.checker.quarantine_stops = true;
    report(mesh)
}

fn report(mut mesh: Mesh) -> Report {
    let result = mesh.run();
    Report {
        broken: result.err(),
        trace: mesh.trace.take().unwrap_or_default(),
        seen: std::mem::take(&mut mesh.seen),
        steps: mesh.steps,
        rounds: mesh.rounds,
        ways_back: mesh.checker.ways_back,
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
        restored: pick(&[0, 0, 300]),
        findings: pick(&[0, 0, 30, 150]),
    }
}

fn quality(random: &mut Random, hosts: usize) -> Quality {
    match random.below(18) {
        0 => Quality::FailsStart,
        1 => Quality::FailsCheck,
        2 => Quality::Exits,
        3 => Quality::FailsMesh,
        4 => Quality::FailsOn(random.index(hosts)),
        5 => Quality::Rots(Rot::Unhealthy),
        6..9 => Quality::Rots(Rot::Found(Trigger::ALL[random.index(4)])),
        _ => Quality::Good,
    }
}

/// What is done about triggers: mostly the way back, and now and then something else.
fn policy(random: &mut Random) -> Policy {
    let mut reaction = |often: Reaction| match random.below(8) {
        0 => Reaction::Alarm,
        1 => Reaction::Ask,
        2 => Reaction::RevertNode,
        3 => Reaction::RevertMesh,
        _ => often,
    };
    let baking = Trigger::ALL.map(|trigger| {
        let often = match trigger.spreads() {
            true => Reaction::RevertMesh,
            false => Reaction::RevertNode,
        };
        (trigger, reaction(often))
    });
    let baked = reaction(Reaction::Alarm);
    Policy {
        remediation: Remediation {
            restarts: u32::try_from(random.below(3)).unwrap_or(0),
            window_ms: 60_000,
            backoff_ms: 1_000,
        },
        sustain_ms: 3_000,
        baking: baking.into(),
        baked,
        quarantine: false,
        quarantine_stops: false,
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
    let (faults, policy) = (faults(&mut random), policy(&mut random));
    let bake_ms = [0, 20_000, 60_000, 300_000][random.index(4)];
    let until = faults.until_ms;
    let mut mesh = Mesh::new(random, hosts, voters, faults, trace);
    mesh.checker.remediation = Some(policy.remediation);
    (mesh.policy, mesh.bake_ms) = (policy, bake_ms);
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
        1..80 if mesh.random.chance(250) => amendment(mesh, first),
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

/// What changes the register without rolling anything out.
fn amendment(mesh: &mut Mesh, first: &Release) -> Script {
    match mesh.random.below(10) {
        0..6 => {
            let hosts = mesh.hosts.len();
            let mut voters: Vec<usize> = (0..hosts).filter(|_| mesh.random.chance(600)).collect();
            if voters.is_empty() {
                voters.push(mesh.random.index(hosts));
            }
            Script::Voters(voters)
        }
        6..8 => Script::Trust,
        _ => {
            let otherwise = first.clone();
            Script::Minority { otherwise }
        }
    }
}
