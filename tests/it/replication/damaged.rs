//! A mesh that is damaged before a rollout: refused, or taken as it is with a reason, and then only
//! what is new counts.

use super::{LIMIT, follow_fast, mesh_of, told};
use cbddc_tests::mesh::{TestMesh, Writer};

/// The node that has dropped events.
const BAD: usize = 1;

#[test]
fn a_damaged_mesh_is_refused_or_taken_as_it_is() {
    let mut mesh = mesh_of(3);
    follow_fast(&mut mesh);
    let writer = Writer::start(&mesh, "orders");
    mesh.fault(BAD, "drop-every=7");
    mesh.wait_for("the damage is seen", LIMIT, |mesh| {
        let ran = mesh.cbctl(&["replication", "check", "--measure", "1s"]);
        (ran.code == 8 && ran.stdout.contains("n2 missed")).then_some(())
    });
    mesh.fault(BAD, "clear");
    // Its agent knows it, too, and blames no release that comes later for it.
    mesh.wait_for("n2 tells of the gap", LIMIT, |mesh| {
        (told(mesh, BAD, "chain-gap:") > 0).then_some(())
    });
    mesh.make_build("1.1", "");
    mesh.make_build("1.2", "dup-every=3");
    let generations = |mesh: &TestMesh| {
        let numbers = (0..3).map(|index| mesh.status_of(index)["result"]["generation"].clone());
        numbers.collect::<Vec<_>>()
    };
    let before = generations(&mesh);
    for word in ["plan", "start"] {
        let mut line = vec!["rollout", word, "--build", "cbddc@1.1", "--mesh"];
        line.extend((word == "start").then_some("--yes"));
        let ran = mesh.cbctl(&line).expect(2);
        let told = [
            "before the rollout: nothing was changed",
            "n2 missed",
            " at 20",
        ];
        assert!(told.iter().all(|it| ran.stderr.contains(it)), "{ran}");
        assert!(ran.stderr.contains("--accept-findings"), "{ran}");
        line.extend(["--accept-findings", " "]);
        mesh.cbctl(&line).expect(64);
    }
    assert_eq!(generations(&mesh), before);

    let accept = ["--accept-findings", "known since Monday"];
    let ran = mesh.roll_out_with("1.1", &accept);
    let words = "ana took replication as it was (known since Monday): n2 missed";
    assert!(ran.stderr.contains(words), "{ran}");
    mesh.wait_until_all_run("1.1", LIMIT);
    for index in 0..3 {
        let journal = mesh.journal(index);
        let told = journal.iter().any(|line| {
            line["kind"] == "findings_accepted"
                && line["text"]
                    .as_str()
                    .is_some_and(|it| it.starts_with(words))
        });
        assert!(told, "on node {index}");
    }

    // What is new is found all the same.
    let line = [&mesh.rollout("1.2")[..], &accept.map(str::to_owned)].concat();
    let ran = mesh.cbctl(&line).expect(4);
    assert!(ran.stderr.contains("more than once"), "{ran}");
    mesh.wait_until_all_run("1.1", LIMIT);
    assert!(writer.stop().acknowledged.len() > 30);
}
