//! An agent ends at each step that its journal tells, before and after the line is saved, and comes
//! back: it finishes or undoes, and nothing ever runs twice.

use super::{LIMIT, all_agree_on, mesh_on_1_0, options};
use cbddc_tests::mesh::{MeshOptions, TestMesh, TwiceWatch, Writer};
use serde_json::Value;
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

/// Where the agent ended before an effect was written down, nothing of it may be seen.
#[track_caller]
fn nothing_was_done_before(mesh: &TestMesh, point: &str, version: &str) {
    let state = mesh.node(0).folder.join("state");
    match point {
        "before:stop" => assert!(mesh.node_pid(0).is_some(), "it was stopped too soon"),
        "before:point" => {
            let current = std::fs::read_to_string(state.join("store/current/version"));
            assert_eq!(
                current.expect("a build").trim(),
                version,
                "pointed too soon"
            );
        }
        "before:start" => assert_eq!(mesh.node_pid(0), None, "it was started too soon"),
        _ => {}
    }
}

/// What the journal says with these lines.
#[track_caller]
fn lines(mesh: &TestMesh, kind: &str) -> Vec<Value> {
    let mut lines = mesh.journal(0);
    lines.retain(|line| line["kind"] == kind);
    lines
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
        nothing_was_done_before(&mesh, &point, "1.0");
        // A dead client cannot renew: what the agent finds is for itself to decide.
        client.kill();
        mesh.start_agent(0);
        all_agree_on(&mesh, "1.0");
        assert!(watch.most() <= 1, "{point}: the node ran twice");
    }
    // 1.0 was on probation, and those that had got there; no other went on after its crash.
    let began = lines(&mesh, "probation_began");
    assert_eq!(began.len(), 1 + 3, "{began:#?}");
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
        mesh.roll_out(&version);
        mesh.stop_agent(0);
        mesh.start_agent_crashing(0, Some(&point));
        let watch = TwiceWatch::start(&mesh, 0);
        let client = mesh.cbctl_spawn(&["rollback", "--mesh", "--yes"]);
        mesh.wait_for_crash(0, LIMIT);
        nothing_was_done_before(&mesh, &point, &version);
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
    // What was done, but not written down, could be done again.
    let failed = lines(&mesh, "effect_failed");
    assert!(failed.is_empty(), "{failed:#?}");
    let count = mesh.count_documents(&writer.stop(), LIMIT);
    assert!(count.acknowledged > 10 && count.is_clean(), "{count:?}");
}
