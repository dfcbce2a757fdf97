//! An agent ends at each step that its journal tells, before and after the line is saved, and comes
//! back: it finishes or undoes, and nothing ever runs twice.

use super::{LIMIT, all_agree_on, mesh_on_1_0, options};
use cbddc_tests::mesh::{MeshOptions, TwiceWatch, Writer};
use std::time::Duration;

fn one_node() -> MeshOptions {
    MeshOptions {
        nodes: 1,
        ..options(Duration::from_secs(2), Duration::from_secs(10))
    }
}

/// Crash points of both kinds for each of these lines.
fn points(kinds: &[&str]) -> Vec<String> {
    let both = |kind: &&str| [format!("before:{kind}"), format!("after:{kind}")];
    kinds.iter().flat_map(both).collect()
}

#[test]
fn in_a_rollout_it_goes_back() {
    let mut mesh = mesh_on_1_0(one_node());
    let writer = Writer::start(&mesh, "orders");
    let kinds = [
        "switch_began",
        "stop",
        "snapshot",
        "point",
        "start",
        "probation_began",
        "probation_clean",
    ];
    for (number, point) in points(&kinds).into_iter().enumerate() {
        let version = format!("1.1.{number}");
        mesh.make_build(&version, "");
        mesh.stop_agent(0);
        mesh.start_agent_crashing(0, Some(&point));
        let watch = TwiceWatch::start(&mesh, 0);
        let client = mesh.cbctl_spawn(&mesh.rollout(&version));
        mesh.wait_for_crash(0, LIMIT);
        // A dead client cannot renew: what the agent finds is for itself to decide.
        client.kill();
        mesh.start_agent(0);
        all_agree_on(&mesh, "1.0");
        assert!(watch.most() <= 1, "{point}: the node ran twice");
    }
    let count = mesh.count_documents(&writer.stop(), LIMIT);
    assert!(count.acknowledged > 10 && count.is_clean(), "{count:?}");
}

#[test]
fn in_a_revert_it_goes_on() {
    let mut mesh = mesh_on_1_0(one_node());
    let kinds = ["revert_began", "point", "check", "reverted"];
    for (number, point) in points(&kinds).into_iter().enumerate() {
        let version = format!("1.1.{number}");
        mesh.make_build(&version, "unhealthy-after=0");
        mesh.stop_agent(0);
        mesh.start_agent_crashing(0, Some(&point));
        let watch = TwiceWatch::start(&mesh, 0);
        let client = mesh.cbctl_spawn(&mesh.rollout(&version));
        mesh.wait_for_crash(0, LIMIT);
        client.kill();
        mesh.start_agent(0);
        all_agree_on(&mesh, "1.0");
        assert!(watch.most() <= 1, "{point}: the node ran twice");
    }
}

#[test]
fn in_a_rollback_it_arrives() {
    let mut mesh = mesh_on_1_0(one_node());
    let kinds = [
        "decided",
        "fetch",
        "drain",
        "stop",
        "snapshot",
        "point",
        "start",
        "check",
        "committed",
    ];
    let writer = Writer::start(&mesh, "orders");
    for (number, point) in points(&kinds).into_iter().enumerate() {
        let version = format!("1.1.{number}");
        mesh.make_build(&version, "");
        mesh.cbctl(&mesh.rollout(&version)).expect(0);
        mesh.stop_agent(0);
        mesh.start_agent_crashing(0, Some(&point));
        let watch = TwiceWatch::start(&mesh, 0);
        let client = mesh.cbctl_spawn(&["rollback", "--mesh", "--yes"]);
        mesh.wait_for_crash(0, LIMIT);
        client.kill();
        mesh.start_agent(0);
        if ["before:decided", "before:fetch"].contains(&point.as_str()) {
            // The vote was not given: nothing was acknowledged, and nothing has happened.
            all_agree_on(&mesh, &version);
            mesh.cbctl(&["rollback", "--mesh", "--yes"]).expect(0);
        }
        all_agree_on(&mesh, "1.0");
        assert!(watch.most() <= 1, "{point}: the node ran twice");
    }
    let count = mesh.count_documents(&writer.stop(), LIMIT);
    assert!(count.acknowledged > 10 && count.is_clean(), "{count:?}");
}
