//! `kill -9` at any moment: a process that works on a store is killed again and again, and each time
//! what is left must be whole.

use crate::builds::{self, name};
use crate::snapshots::{self, SUM, bank, digest, names, one, transfer};
use cbagent::adapters::builds::BuildStore;
use cbagent::adapters::snapshots::SnapshotStore;
use cbddc_domain::manifest::Limits;
use cbddc_pack::{PackOptions, pack};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tells the child where to work; without it, a child's test does nothing.
const FOLDER: &str = "CBDDC_TESTS_CRASH_FOLDER";
const KILLS: u64 = 25;

/// Ever longer, so that on a slow host too some kills come late.
fn moment(kill: u64) -> f64 {
    (8.0 * 1.18_f64.powf(kill as f64)).min(5000.0)
}

fn work_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Runs one test of this binary in a process of its own, and kills it after `milliseconds`.
#[expect(
    clippy::disallowed_methods,
    reason = "the test kills a process of its own"
)]
fn run_and_kill(test: &str, folder: &Path, milliseconds: f64) {
    let program = std::env::current_exe().expect("this program");
    let mut child = std::process::Command::new(program)
        .args(["--exact", "--ignored", test])
        .env(FOLDER, folder)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a child");
    // Not waiting for something: the moment is meant to be any.
    std::thread::sleep(Duration::from_secs_f64(milliseconds / 1000.0));
    child.kill().expect("a kill");
    child.wait().expect("an end");
}

#[test]
#[ignore = "a child of the tests of this module, killed by them"]
fn child_that_imports_and_removes() {
    let Some(folder) = work_folder() else { return };
    let store = BuildStore::open(&folder.join("store"), Limits::default()).expect("a store");
    loop {
        for version in ["app@1", "app@2"] {
            let bytes = fs::read(folder.join(version)).expect("a bundle");
            let imported = builds::import_into(&store, &bytes, None).expect("an import");
            store.point_current(Some(&imported.build)).expect("a link");
            for stored in store.list().expect("a list") {
                if stored.build != imported.build {
                    store.remove(&stored.build, || false).expect("a removal");
                }
            }
        }
    }
}

#[test]
fn a_killed_agent_leaves_no_half_build() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("a folder");
    for number in 0..40 {
        fs::write(source.join(number.to_string()), vec![number; 3000]).expect("a file");
    }
    for version in ["app@1", "app@2"] {
        let out = folder.path().join(version);
        pack(&source, name(version), &PackOptions::default(), &out).expect("a bundle");
    }
    let (mut builds_seen, mut leftovers) = (0, 0);
    // Later and later, until some were too early and some late enough, however slow the machine is.
    for kill in 0..3 * KILLS {
        if kill >= KILLS && builds_seen > 0 && leftovers > 0 {
            break;
        }
        run_and_kill(
            "crashes::child_that_imports_and_removes",
            folder.path(),
            moment(kill),
        );
        let root = folder.path().join("store");
        leftovers += fs::read_dir(root.join("incoming")).map_or(0, Iterator::count);
        let store = BuildStore::open(&root, Limits::default()).expect("a store");
        assert_eq!(
            fs::read_dir(root.join("incoming"))
                .expect("a folder")
                .count(),
            0
        );
        let builds = store.list().expect("a list");
        assert_eq!(
            builds.len(),
            fs::read_dir(root.join("builds")).expect("a folder").count()
        );
        for stored in &builds {
            store.verify(&stored.build).expect("a whole build");
        }
        builds_seen += builds.len();
        if let Some(digest) = store.current().expect("a link") {
            assert!(
                builds.iter().any(|stored| stored.build.digest == digest),
                "a dangling link"
            );
        }
    }
    assert!(
        builds_seen > 0 && leftovers > 0,
        "the kills hit nothing: {builds_seen}, {leftovers}"
    );
}

#[test]
#[ignore = "a child of the tests of this module, killed by them"]
fn child_that_restores() {
    let Some(folder) = work_folder() else { return };
    let store = SnapshotStore::open(&folder.join("snapshots")).expect("a store");
    let id = fs::read_to_string(folder.join("keep-as")).expect("a name");
    store.restore("good", &id, 1).expect("a restore");
    fs::write(folder.join("done"), "").expect("a file");
}

#[test]
fn a_killed_restore_is_finished_by_the_next_and_loses_nothing() {
    let place = snapshots::Place::new();
    drop(bank(&place.database(), "wal"));
    place.take("good").expect("a snapshot");
    let good = digest(&place.root().join("good/0.db"));
    let query = "SELECT balance FROM account WHERE id = 5";
    let (mut interrupted, mut finished, mut longer) = (0, 0, 0);
    for kill in 0..3 * KILLS {
        if kill >= KILLS && interrupted < kill {
            break;
        }
        let mut connection = rusqlite::Connection::open(place.database()).expect("a database");
        transfer(&mut connection, 5);
        drop(connection);
        let id = format!("kept-{kill}");
        fs::write(place.folder.path().join("keep-as"), &id).expect("a file");
        run_and_kill(
            "crashes::child_that_restores",
            place.folder.path(),
            moment(longer),
        );
        longer += 1;
        if fs::remove_file(place.folder.path().join("done")).is_err() {
            interrupted += 1;
        } else {
            finished += 1;
            longer = longer.saturating_sub(6);
        }
        let store = SnapshotStore::open(&place.root()).expect("a store");
        store
            .restore("good", &id, 2)
            .expect("the restore, finished");
        assert_eq!(digest(&place.database()), good);
        assert_eq!(names(&place.node()), ["node.db"]);
        let kept = place.root().join(&id).join("0.db");
        assert_eq!(
            (one::<i64>(&kept, query), one::<i64>(&kept, SUM)),
            (99, 100_000)
        );
        store.remove(&id).expect("a removal");
    }
    assert!(
        interrupted > 0 && finished > 0,
        "{interrupted} were interrupted, {finished} were not"
    );
}
