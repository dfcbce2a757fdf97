//! A mesh without a fault has no finding, whatever else happens: load, restarts, prunes, partitions,
//! clock steps. `CBDDC_CALM_SECONDS=3600` goes on for an hour.

#![expect(
    clippy::disallowed_methods,
    reason = "pruning goes by wall time, and the test for as long as it is told"
)]

use super::{audit, counts, mesh_of, restart, setting};
use cbddc_tests::mesh::{TestMesh, Writer, http};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The pause between two kills of one node, after which its agent starts it without delay again: it
/// takes a node that ran for a minute for a sound one.
const SOUND: Duration = Duration::from_secs(65);

/// One disturbance after the other.
fn disturb(mesh: &TestMesh, round: usize, killed: &mut [Option<Instant>]) {
    let index = round % mesh.len();
    match round % 5 {
        // The agent starts the node again.
        0 if killed[index].is_none_or(|at| at.elapsed() > SOUND) => {
            restart(mesh, index);
            killed[index] = Some(Instant::now());
        }
        0 | 1 => prune(mesh, index),
        2 => {
            mesh.fault(index, "stall-sync");
            std::thread::sleep(Duration::from_secs(1));
            mesh.fault(index, "clear");
        }
        3 => {
            // The node is away while the audit begins.
            mesh.fault(index, "stall-sync");
            let port = mesh.node(index).http_port;
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(3));
                http::request(port, "POST", "/fault", "clear")
            });
        }
        _ => {
            mesh.fault(index, "clock-skew=20000");
            std::thread::sleep(Duration::from_millis(300));
            mesh.fault(index, "clock-skew=-20000");
            std::thread::sleep(Duration::from_millis(300));
            mesh.fault(index, "clear");
        }
    }
}

/// Lets a node forget what is older than three seconds.
fn prune(mesh: &TestMesh, index: usize) {
    let port = mesh.node(index).http_port;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let up_to_ms = now.expect("a sane clock").as_millis() - 3000;
    let pruned = http::request(port, "POST", "/prune", &up_to_ms.to_string());
    assert_eq!(pruned.expect("the node answers").0, 200);
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let mesh = mesh_of(3);
    let writer = Writer::start(&mesh, "orders");
    let seconds = setting("CBDDC_CALM_SECONDS", 30);
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let (mut looks, mut killed) = (0, vec![None; mesh.len()]);
    for round in 0.. {
        disturb(&mesh, round, &mut killed);
        // Partitions are left open every other time; nobody stays behind for 60 s.
        let ran = audit(&mesh, &["--quiesce", "60s"]);
        let found = counts(&ran);
        let found: Vec<_> = found
            .iter()
            .filter(|(kind, _)| *kind != "lagging")
            .collect();
        assert!(found.is_empty(), "round {round}: {ran}");
        looks += 1;
        if Instant::now() > until {
            break;
        }
    }
    let check = ["replication", "check", "--measure", "2s"];
    let ran = mesh.cbctl(&check).expect(0);
    assert!(ran.stdout.contains("(p99)"), "{ran}");
    assert!(looks > 5 && writer.stop().acknowledged.len() > 100);
}
