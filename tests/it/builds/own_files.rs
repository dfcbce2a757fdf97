//! What a node writes into the folder it runs from.

use super::Place;
use cbagent::adapters::builds::{BuildError, Grown};
use cbddc_domain::build::BuildRef;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

const SQLITE: &[u8] = b"SQLite format 3\0and pages";

/// A place with a build whose folder a node of the same user may write to, as one of root may.
fn written() -> (Place, BuildRef, PathBuf) {
    let place = Place::new();
    let (build, bytes) = place.packed("app@1");
    place.import(&bytes).expect("an import");
    let tree = place.store.tree(&build);
    open(&tree);
    (place, build, tree)
}

fn open(tree: &Path) {
    for folder in [tree, &tree.join("bin")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
}

fn write(path: PathBuf, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, bytes).expect("a file");
}

/// A BLite database of one page.
fn blite() -> Vec<u8> {
    let mut page = vec![0; 8_192];
    page[4] = 1;
    page[5..7].copy_from_slice(&8_160_u16.to_le_bytes());
    page[31] = 1;
    page
}

#[test]
fn what_a_node_writes_into_its_build_is_told_kept_and_no_damage() {
    let (place, build, tree) = written();
    let bytes = place.packed("app@1").1;
    write(tree.join("entgldb_metrics.bin"), b"figures");
    write(tree.join("bin/more"), b"more");
    write(tree.join("data2/node.db"), SQLITE);
    place.store.verify(&build).expect("no damage");
    let grown = place.store.grown(&build).expect("a look");
    let names = ["bin/more", "data2", "entgldb_metrics.bin"].map(str::to_owned);
    let expected = Grown {
        files: 3,
        bytes: (7 + 4 + SQLITE.len()) as u64,
        names: names.to_vec(),
        databases: vec!["data2/node.db".into()],
        more: false,
    };
    assert_eq!(grown, expected);
    assert!(place.import(&bytes).expect("an import").already_present);
    // What is named is put right, and what is not named stays where it is.
    fs::remove_file(tree.join("app.dll")).expect("a removal");
    fs::remove_dir_all(tree.join("data")).expect("a removal");
    let (_, damage) = place.store.make_sound(&build).expect("it is put right");
    let damage = damage.expect("there was damage").to_string();
    assert!(damage.contains("`app.dll` is missing"), "{damage}");
    let again = place.store.make_sound(&build).expect("sound").1;
    assert!(again.is_none(), "{again:?}");
    assert_eq!(place.store.grown(&build).expect("a look"), expected);
    let kept = fs::read(tree.join("data2/node.db")).expect("the node's own file");
    assert_eq!(kept, SQLITE);
    // Another bundle of it does the same.
    open(&tree);
    fs::remove_file(tree.join("app.dll")).expect("a removal");
    assert!(!place.import(&bytes).expect("an import").already_present);
    place.store.verify(&build).expect("no damage");
    assert_eq!(place.store.grown(&build).expect("a look"), expected);
}

#[test]
fn an_activation_finds_nothing_of_an_earlier_run_but_its_data() {
    let (place, build, tree) = written();
    let outside = tempfile::tempdir().expect("a folder");
    write(outside.path().join("node.db"), SQLITE);
    for (name, bytes) in [
        ("appsettings.Production.json", &b"{}"[..]),
        ("bin/node.log", b"a line"),
        ("logs/old/1.log", b"a line"),
        ("store/node.db", SQLITE),
        ("store/readme", b"read me"),
        ("mesh.blite", &blite()),
        ("mesh.wal", b"a log of its own form"),
        ("mesh.blite.meta", &blite()),
        ("mesh.blite.wal", b"another"),
    ] {
        write(tree.join(name), bytes);
    }
    symlink(outside.path(), tree.join("elsewhere")).expect("a link");
    symlink("/nowhere", tree.join("lost")).expect("a link");
    let pipe = tree.join("pipe");
    let (kind, mode) = (FileType::Fifo, Mode::from_raw_mode(0o600));
    mknodat(CWD, &pipe, kind, mode, 0).expect("a named pipe");
    let cleared = place.store.clear(&build).expect("it is cleared");
    let databases = [
        "elsewhere/node.db",
        "mesh.blite",
        "mesh.blite.meta",
        "store/node.db",
    ];
    assert_eq!(cleared.grown.databases, databases);
    let left = cleared.moved_to.expect("something was moved");
    for moved in [
        "appsettings.Production.json",
        "bin/node.log",
        "logs/old/1.log",
        "lost",
        "pipe",
    ] {
        assert!(fs::symlink_metadata(left.join(moved)).is_ok(), "{moved}");
        assert!(fs::symlink_metadata(tree.join(moved)).is_err(), "{moved}");
    }
    let stays = [
        "elsewhere",
        "mesh.blite",
        "mesh.blite.meta",
        "mesh.blite.wal",
    ];
    let stays = stays.into_iter().chain(["mesh.wal", "store"]);
    let grown = place.store.grown(&build).expect("a look");
    assert_eq!(grown.names, stays.collect::<Vec<_>>());
    place.store.verify(&build).expect("no damage");
    // Once more, as after a crash, nothing changes.
    assert_eq!(place.store.clear(&build).expect("cleared").moved_to, None);
    assert_eq!(place.store.grown(&build).expect("a look"), grown);
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!((mode(&tree), mode(&tree.join("bin"))), (0o555, 0o555));
    // The newest three leftovers stay.
    for number in 2..=5 {
        open(&tree);
        write(tree.join("figures"), number.to_string().as_bytes());
        let cleared = place.store.clear(&build).expect("it is cleared");
        let left = cleared.moved_to.expect("something was moved");
        assert!(left.ends_with(format!("left/{number}")), "{left:?}");
    }
    let mut kept: Vec<_> = fs::read_dir(left.parent().expect("a folder"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    kept.sort();
    assert_eq!(kept, ["3", "4", "5"]);
}

#[test]
fn a_build_whose_folder_holds_data_is_not_removed() {
    for name in ["node.db", "node.db-wal", "deep/er/node.blite"] {
        let (place, build, tree) = written();
        let bytes = match name {
            "node.db" => SQLITE.to_vec(),
            "node.db-wal" => vec![0x37, 0x7f, 0x06, 0x82, 1, 2, 3],
            _ => blite(),
        };
        write(tree.join(name), &bytes);
        let refused = place
            .store
            .remove(&build, || false)
            .expect_err("it holds data");
        assert!(matches!(refused, BuildError::HoldsData { .. }), "{refused}");
        let path = tree.join(name).display().to_string();
        assert!(refused.to_string().contains(&path), "{refused}");
        assert_eq!(fs::read(tree.join(name)).expect("it stays"), bytes);
        open(&tree);
        fs::remove_file(tree.join(name)).expect("the data was moved away");
        place.store.remove(&build, || false).expect("a removal");
    }
}

#[test]
fn a_database_in_the_place_of_a_named_file_is_data_and_no_damage() {
    let place = Place::new();
    place.write("data/seed.db", SQLITE, 0o644);
    let (build, bytes) = place.packed("app@1");
    place.import(&bytes).expect("an import");
    let tree = place.store.tree(&build);
    let seed = tree.join("data/seed.db");
    assert_eq!(place.store.grown(&build).expect("a look"), Grown::default());
    fs::set_permissions(tree.join("data"), fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::remove_file(&seed).expect("a removal");
    let written = [SQLITE, b"with documents"].concat();
    fs::write(&seed, &written).expect("a file");
    let grown = place.store.grown(&build).expect("a look");
    assert_eq!(grown.databases, ["data/seed.db"]);
    assert!(place.store.make_sound(&build).expect("sound").1.is_none());
    assert!(place.import(&bytes).expect("an import").already_present);
    place.store.repair(&build).expect("a repair");
    assert_eq!(fs::read(&seed).expect("it stays"), written);
    assert!(place.store.remove(&build, || false).is_err());
    // A folder in the place of a file goes aside, with all that is in it.
    let (place, build, tree) = self::written();
    fs::remove_file(tree.join("app.dll")).expect("a removal");
    write(tree.join("app.dll/node.db"), SQLITE);
    let (_, damage) = place.store.make_sound(&build).expect("it is put right");
    assert!(damage.is_some());
    let aside = tree.with_file_name("left").join("1/app.dll/node.db");
    assert_eq!(fs::read(aside).expect("it is kept"), SQLITE);
    assert!(place.store.remove(&build, || false).is_err());
}
