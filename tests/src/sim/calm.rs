//! Meshes without faults, where everything must end well.

use super::client::Script;
use super::mesh::{Faults, Mesh};
use super::random::Random;
use super::world::Quality;
use cbddc_domain::proposer::Outcome;
use cbddc_domain::release::Release;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// A rollout of a build that behaves like this.
    Rollout(Quality),
    /// A rollout, then a rollback.
    Rollback,
    /// A rollout whose client dies, then a resume.
    Resume,
    /// A rollout whose client dies, then an abort.
    Abort,
}

/// Runs a scenario on the mesh of `seed`; the error says what did not end well.
pub fn run(seed: u64, scenario: Scenario) -> Result<(), String> {
    let mut random = Random::new(seed);
    let hosts = [1, 2, 3, 4, 5, 7][random.index(6)];
    let faults = Faults {
        until_ms: 1,
        delay_ms: 40,
        ..Faults::default()
    };
    let mut mesh = Mesh::new(random, hosts, hosts, faults, false);
    let first = mesh.build(1, Quality::Good);
    mesh.seed_record(&first);
    let quality = match scenario {
        Scenario::Rollout(quality) => quality,
        Scenario::Rollback | Scenario::Resume | Scenario::Abort => Quality::Good,
    };
    let second = mesh.build(2, quality);
    let dies = matches!(scenario, Scenario::Resume | Scenario::Abort);
    // A rollout takes about ten seconds a wave: the death may come at any point of it.
    let lives = mesh.random.below(1_500 + 10_000 * hosts as u64);
    let rollout = Script::Rollout(second.clone(), (0..hosts).collect());
    mesh.add_client(15_000, rollout, dies.then_some(15_000 + lives));
    let later = mesh.random.below(25_000);
    match scenario {
        Scenario::Rollout(_) => {}
        Scenario::Rollback => {
            let (revoke, otherwise) = (mesh.random.chance(500), first.clone());
            mesh.add_client(120_000, Script::Rollback { revoke, otherwise }, None);
        }
        Scenario::Resume => mesh.add_client(15_000 + lives + later, Script::Resume, None),
        Scenario::Abort => mesh.add_client(15_000 + lives + later, Script::Abort, None),
    }
    mesh.run()?;
    judge(&mesh, scenario, &first, &second)
}

fn judge(mesh: &Mesh, scenario: Scenario, first: &Release, second: &Release) -> Result<(), String> {
    let outcome = |client: usize| mesh.clients[client].outcome.as_ref();
    let all_run = |release: &Release| {
        let running = |host: &super::mesh::Host| {
            let number = host.node.phase.running()?;
            host.node.history.get(number).map(|g| g.release.clone())
        };
        mesh.hosts
            .iter()
            .all(|host| running(host).as_ref() == Some(release))
    };
    let decided = |client: usize| matches!(outcome(client), Some(Outcome::Decided { pending, failed }) if pending.is_empty() && failed.is_empty());
    let reverted = |client: usize| matches!(outcome(client), Some(Outcome::Reverted { pending, failed, .. }) if pending.is_empty() && failed.is_empty());
    let well = match scenario {
        Scenario::Rollout(Quality::Good) => decided(0) && all_run(second),
        Scenario::Rollout(_) => reverted(0) && all_run(first),
        Scenario::Rollback => decided(0) && decided(1) && all_run(first),
        // The dead client may have got to the end of it, or never have begun.
        Scenario::Resume | Scenario::Abort => match outcome(1) {
            None => all_run(first) || all_run(second),
            Some(Outcome::Changed) => all_run(second),
            Some(_) => (decided(1) && all_run(second)) || (reverted(1) && all_run(first)),
        },
    };
    let words: Vec<_> = (0..mesh.clients.len()).map(outcome).collect();
    if well {
        Ok(())
    } else {
        Err(format!(
            "{scenario:?} ended with {words:?}; all on the old release: {}, all on the new one: {}",
            all_run(first),
            all_run(second)
        ))
    }
}
