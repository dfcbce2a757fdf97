//! Keeps the tree as STYLE says: who imports whom, licences, doubled versions, comments of the wire
//! contract, the length of files. Each failure says what to do instead.

mod dependencies;
mod imports;
mod proto;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

/// The top of the workspace.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the workspace").into()
}

/// All files below a folder of the workspace whose names end so, with their texts; sorted.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let name = path.strip_prefix(&root).expect("below the top");
                let text = fs::read_to_string(&path).expect("a text file");
                found.push((name.to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "there is no *{ending} below {folder}");
    found.sort();
    found
}

/// All source files of the workspace.
fn sources() -> Vec<(String, String)> {
    [
        "proto/src",
        "agent/src",
        "agent/domain/src",
        "agent/oplog/src",
        "agent/pki/src",
        "ctl/src",
        "tests",
    ]
    .into_iter()
    .flat_map(|folder| files(folder, ".rs"))
    .collect()
}

/// Fails with all faults at once.
#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
