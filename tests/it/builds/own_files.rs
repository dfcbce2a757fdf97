//! What a node writes into the folder it runs from.

use super::Place;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn what_a_node_writes_into_its_build_is_told_kept_and_no_damage() {
    let place = Place::new();
    let (build, bytes) = place.packed("app@1");
    place.import(&bytes).expect("an import");
    let tree = place.store.tree(&build);
    for folder in [&tree, &tree.join("bin")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    fs::write(tree.join("entgldb_metrics.bin"), b"figures").expect("a file");
    fs::write(tree.join("bin/more"), b"more").expect("a file");
    fs::create_dir(tree.join("data2")).expect("a folder");
    fs::write(tree.join("data2/node.db"), b"SQLite format 3\0").expect("a file");
    place.store.verify(&build).expect("no damage");
    let surplus = place.store.surplus(&build).expect("a list");
    assert_eq!(surplus, ["bin/more", "data2", "entgldb_metrics.bin"]);
    assert!(place.import(&bytes).expect("an import").already_present);
    // What is named is put right, and what is not named stays where it is.
    fs::remove_file(tree.join("app.dll")).expect("a removal");
    fs::remove_dir_all(tree.join("data")).expect("a removal");
    let (_, damage) = place.store.make_sound(&build).expect("it is put right");
    let damage = damage.expect("there was damage").to_string();
    assert!(damage.contains("`app.dll` is missing"), "{damage}");
    assert_eq!(
        place.store.make_sound(&build).expect("sound").1.map(|_| ()),
        None
    );
    assert_eq!(place.store.surplus(&build).expect("a list"), surplus);
    let kept = fs::read(tree.join("data2/node.db")).expect("the node's own file");
    assert_eq!(kept, b"SQLite format 3\0");
    // Another bundle of it does the same.
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::remove_file(tree.join("app.dll")).expect("a removal");
    assert!(!place.import(&bytes).expect("an import").already_present);
    place.store.verify(&build).expect("no damage");
    assert_eq!(place.store.surplus(&build).expect("a list"), surplus);
}
