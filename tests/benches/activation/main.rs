//! What it costs that a build starts from files that no earlier run of it has changed: its files are
//! verified, and what lies beside them is moved away, instead of a copy of the tree for each activation.
//! On trees of the sizes that .NET makes: framework-dependent with its libraries, and self-contained.
//!
//! ```text
//! cargo bench -p cbddc-tests --bench activation
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark starts the programs that it is compared with"
)]

use cbagent::adapters::builds::BuildStore;
use cbddc_domain::build::BuildRef;
use cbddc_domain::manifest::Limits;
use cbddc_tests::figures::{compare, heading, median, timed};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const ROUNDS: u32 = 7;
/// A file of this many bytes each: the middle of a published application's.
const FILE_BYTES: usize = 400_000;

fn main() {
    heading();
    for megabytes in [40, 115] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = BuildStore::open(&folder.path().join("store"), Limits::default());
        let store = store.expect("a store");
        let build = import(&store, &folder.path().join("source"), megabytes);
        let tree = store.tree(&build);
        let (mut ours, mut copied) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            open(&tree);
            fs::write(tree.join("entgldb_metrics.bin"), b"figures").expect("a file");
            ours.push(timed(|| {
                store.make_sound(&build).expect("a sound build");
                store.clear(&build).expect("a cleared folder");
            }));
            let to = folder.path().join(format!("copy-{round}"));
            copied.push(timed(|| copy(&tree, &to)));
        }
        let job = format!("activation of {megabytes} MB");
        let peer = "cp -a --reflink=auto, sync -f";
        compare(&job, peer, median(&ours), median(&copied), None);
    }
}

/// Makes a build of files that do not compress to nothing.
fn import(store: &BuildStore, source: &Path, megabytes: usize) -> BuildRef {
    fs::create_dir_all(source).expect("a folder");
    let mut state = 0x9e37_79b9_u32;
    for number in 0..megabytes * 1_000_000 / FILE_BYTES {
        let bytes: Vec<u8> = (0..FILE_BYTES)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state.to_be_bytes()[0]
            })
            .collect();
        fs::write(source.join(format!("lib{number}.dll")), bytes).expect("a file");
    }
    let id = "app@1".parse().expect("a name");
    store.import_folder(source, id).expect("an import").build
}

/// The node may write to its folder, as one of root may.
fn open(tree: &Path) {
    fs::set_permissions(tree, fs::Permissions::from_mode(0o755)).expect("a mode");
}

fn copy(from: &Path, to: &Path) {
    for words in [
        &[
            "cp",
            "-a",
            "--reflink=auto",
            &from.display().to_string(),
            &to.display().to_string(),
        ][..],
        &["sync", "-f", &to.display().to_string()],
    ] {
        let status = Command::new(words[0]).args(&words[1..]).status();
        assert!(status.expect("it runs").success(), "{words:?}");
    }
}
