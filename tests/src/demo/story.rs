//! What is played: 1.0, 1.1, the bad 1.2, and back.

use super::health_watch::HealthWatch;
use super::replaced::Replaced;
use super::stage::Stage;
use super::{keep, timeline};
use crate::mesh::options::text_of;
use crate::mesh::{Count, MeshOptions, TestMesh, Writer, build, wait_for};
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// How long the story may take, the build of the programs apart: three times what it takes on a quiet host of
/// two cores.
const STORY_LIMIT: Duration = Duration::from_secs(120);

/// How long nodes may take to replicate what was written last.
const CONVERGE_LIMIT: Duration = Duration::from_secs(15);

/// The collection that the writer writes to.
const COLLECTION: &str = "orders";

/// Plays it.
///
/// # Errors
/// When the mesh cannot be kept. Everything that is not as told panics.
pub fn play(keep_mesh: bool) -> Result<()> {
    let stage = Stage::new();
    let mesh = TestMesh::start(MeshOptions::default());
    introduce(&stage, &mesh);

    stage.act("1.0, the first release, on an empty mesh");
    send_build(&stage, &mesh, "1.0", "");
    stage.cbctl(&mesh, &rollout(&mesh, "1.0", "the first release"), 0);
    mesh.wait_until_all_run("1.0", CONVERGE_LIMIT);

    stage.act("from now on, documents are written at every node that answers");
    let writer = Writer::start(&mesh, COLLECTION);
    let mut replaced = Replaced::default();
    written_more(&writer, 50);
    stage.say(&format!("{} so far", writer.acknowledged()));

    stage.act("1.1 in waves, checked across the mesh after each");
    send_build(&stage, &mesh, "1.1", "");
    replaced.during(&writer, || {
        stage.cbctl(&mesh, &rollout(&mesh, "1.1", "faster search"), 0);
        mesh.wait_until_all_run("1.1", CONVERGE_LIMIT);
    });
    stage.cbctl(&mesh, &["status"], 0);

    play_bad_build(&stage, &mesh, &writer, &mut replaced);

    stage.act("an admin goes back to 1.0, on every node at once");
    let reason = "1.1 is slower than it was";
    replaced.during(&writer, || {
        let back = ["rollback", "--mesh", "--yes", "--reason", reason];
        stage.cbctl(&mesh, &back, 0);
        mesh.wait_until_all_run("1.0", CONVERGE_LIMIT);
    });
    stage.cbctl(&mesh, &["status"], 0);

    written_more(&writer, 20);
    let written = writer.stop();
    timeline::show(&stage, &mesh);
    let count = mesh.count_documents(&written, CONVERGE_LIMIT);
    show_count(&stage, &count, written.unknown.len());
    replaced.show(&stage, &mesh, &written, CONVERGE_LIMIT);
    let took = stage.elapsed();
    assert!(took < STORY_LIMIT, "the story took {took:?}");
    stage.act("all of it as told");
    if keep_mesh {
        show_kept(&keep::keep(mesh)?);
    }
    Ok(())
}

fn introduce(stage: &Stage, mesh: &TestMesh) {
    let options = mesh.options();
    let timing = options.timing;
    stage.act(&format!(
        "a mesh of {} hosts on loopback: an agent and a CBDDC node each",
        mesh.len()
    ));
    stage.say(&format!(
        "made with `cbctl mesh init` and `cbctl mesh issue`; every port of an agent speaks mutual TLS\n\
         times, far shorter than the defaults: sync cycle {}, healthy for {}, probation {} renewed every {},\n\
         a wave verified within {}, peers asked every {}",
        text_of(options.sync_interval),
        text_of(timing.healthy),
        text_of(timing.probation),
        text_of(timing.renew),
        text_of(timing.verify),
        text_of(options.peers_poll),
    ));
    for node in mesh.nodes() {
        stage.say(&format!(
            "{}: agent on port {}, node on {} and http://127.0.0.1:{}/health",
            node.name, node.agent_port, node.sync_port, node.http_port
        ));
    }
    stage.cbctl(mesh, &["mesh", "show"], 0);
}

fn send_build(stage: &Stage, mesh: &TestMesh, version: &str, faults: &str) {
    let folder = format!("builds/{version}");
    build::write(&mesh.root().join(&folder), version, faults);
    let id = format!("cbddc@{version}");
    stage.cbctl(mesh, &["build", "pack", &folder, "--build", &id], 0);
    stage.cbctl(mesh, &["build", "push", &format!("{id}.cbundle")], 0);
}

fn rollout(mesh: &TestMesh, version: &str, reason: &str) -> Vec<String> {
    let mut words = mesh.rollout(version);
    words.extend(["--reason".to_owned(), reason.to_owned()]);
    words
}

/// 1.2 says that it is healthy and loses every event that its peers send.
fn play_bad_build(stage: &Stage, mesh: &TestMesh, writer: &Writer, replaced: &mut Replaced) {
    stage.act("1.2, whose build silently drops replication events while /health says Healthy");
    send_build(stage, mesh, "1.2", "drop-every=1");
    let watch = HealthWatch::start(mesh.node(0).http_port, "1.2");
    let shown = replaced.during(writer, || {
        let shown = stage.cbctl(mesh, &rollout(mesh, "1.2", "new sync engine"), 4);
        mesh.wait_until_all_run("1.1", CONVERGE_LIMIT);
        shown
    });
    let said = watch.stop();
    assert!(
        shown.text.contains("missed"),
        "it was not the mesh check that noticed"
    );
    let healthy = BTreeSet::from(["Healthy".to_owned()]);
    assert_eq!(said, healthy, "what /health of 1.2 said");
    let ran_bad = |index: &usize| {
        mesh.journal(*index).iter().any(|entry| {
            let text = entry["text"].as_str().unwrap_or_default();
            entry["kind"] == "switch_began" && text.contains("cbddc@1.2")
        })
    };
    let touched: Vec<usize> = (0..mesh.len()).filter(ran_bad).collect();
    assert_eq!(touched, [0], "1.2 was to run on the canary only");
    stage.say(
        "the mesh went back to 1.1 by itself; 1.2 ran on the canary n1 only, and all that its /health\n\
         said in that time was: Healthy",
    );
    stage.cbctl(mesh, &["status"], 0);
}

fn written_more(writer: &Writer, count: usize) {
    let until = writer.acknowledged() + count;
    wait_for("more documents are written", CONVERGE_LIMIT, || {
        (writer.acknowledged() >= until).then_some(())
    });
}

fn show_count(stage: &Stage, count: &Count, unknown: usize) {
    stage.act("the count, in the databases of all nodes");
    for (node, present) in &count.present {
        stage.say(&format!(
            "{node} holds {present} of {} acknowledged documents",
            count.acknowledged
        ));
    }
    stage.say(&format!(
        "lost: {}, doubled: {}; {unknown} writes had no answer and are not counted",
        count.lost.len(),
        count.doubled.len()
    ));
    assert!(count.acknowledged > 0, "nothing was written");
    assert!(
        count.is_clean(),
        "lost: {:?}, doubled: {:?}",
        count.lost,
        count.doubled
    );
}

fn show_kept(folder: &Path) {
    let bins = crate::bins::binary("cbctl");
    let bins = bins.parent().unwrap_or(Path::new("."));
    println!(
        "\nThe mesh stays up. In another shell:\n\n\
         \x20 cd {folder}\n\
         \x20 export CBCTL_CONFIG={folder}/cbctl PATH={bins}:$PATH\n\
         \x20 cbctl status\n\
         \x20 cbctl journal follow\n\
         \x20 cbctl health show\n\
         \x20 cbctl snapshot list\n\
         \x20 cbctl rollout plan --build cbddc@1.2 --mesh\n\
         \x20 cbctl rollout start --build cbddc@1.1 --mesh --yes   # refused: the rollback revoked it\n\n\
         End it with:\n\n\
         \x20 tests/demo --end {folder}",
        folder = folder.display(),
        bins = bins.display(),
    );
}
