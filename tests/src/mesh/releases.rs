//! Builds for a mesh, and how they are rolled out there.

use super::run::Ran;
use super::{TestMesh, Timing, build};
use std::path::PathBuf;

impl TestMesh {
    /// The arguments of `cbctl rollout start` for a build on the whole mesh, with this mesh's times.
    pub fn rollout(&self, version: &str) -> Vec<String> {
        let build = format!("cbddc@{version}");
        let words = ["rollout", "start", "--build", &build, "--mesh", "--yes"];
        let words = words.into_iter().map(str::to_owned);
        words.chain(self.options().timing.arguments()).collect()
    }

    /// Rolls a build out that the hosts have, with limits that a busy machine does not reach.
    #[track_caller]
    pub fn roll_out(&self, version: &str) -> Ran {
        self.roll_out_with(version, &[])
    }

    /// The first release of a mesh on which nothing runs: on all hosts at once.
    #[track_caller]
    pub fn first_release(&self, version: &str) -> Ran {
        self.roll_out_with(version, &["--waves", "100%"])
    }

    /// The same with further arguments.
    #[track_caller]
    pub fn roll_out_with(&self, version: &str, more: &[&str]) -> Ran {
        let build = format!("cbddc@{version}");
        let words = ["rollout", "start", "--build", &build, "--mesh", "--yes"];
        let words = words.iter().chain(more).map(ToString::to_string);
        let words: Vec<String> = words.chain(Timing::GENEROUS.arguments()).collect();
        self.cbctl(&words).expect(0)
    }

    /// Makes a build `cbddc@VERSION` with these faults of the fixture node; returns its bundle.
    #[track_caller]
    pub fn pack_build(&self, version: &str, faults: &str) -> PathBuf {
        let folder = build::write(&self.root().join("builds").join(version), version, faults);
        let bundle = self.root().join(format!("cbddc@{version}.cbundle"));
        let (id, folder, out) = (
            format!("cbddc@{version}"),
            text_of(&folder),
            text_of(&bundle),
        );
        self.cbctl(&["build", "pack", &folder, "--build", &id, "--out", &out])
            .expect(0);
        bundle
    }

    /// Makes a build and sends it to every host.
    #[track_caller]
    pub fn make_build(&self, version: &str, faults: &str) -> PathBuf {
        let bundle = self.pack_build(version, faults);
        self.cbctl(&["build", "push", &text_of(&bundle)]).expect(0);
        bundle
    }
}

fn text_of(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}
