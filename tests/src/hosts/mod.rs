//! Several real systemd hosts on this machine, each with an agent and a fixture node as a unit.
//!
//! In reading order: [`hosts`] boots them, reaches into them and ends them; [`packages`] makes the
//! packages and what else is copied to a host; [`layout`] is what an admin has put on a host, a node
//! and the agent's configuration; [`admin`] is the admin's way to them; [`network`] speaks to them
//! as a machine of their network does; [`documents`] writes and counts documents, [`processes`] sees
//! what runs, and [`ends`] is for agents and hosts that end suddenly.
//! The work is done by `tests/hosts/hosts.sh`, which people can use by hand as well.
//!
//! What goes wrong in the harness panics with a sentence: there is nobody to handle it.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness starts programs and waits for them"
)]

pub mod admin;
pub mod documents;
pub mod ends;
#[expect(clippy::module_inception, reason = "the hosts as a whole")]
pub mod hosts;
pub mod layout;
pub mod network;
pub mod packages;
pub mod processes;

pub use documents::HostWriters;
pub use hosts::Hosts;
pub use layout::{AGENT_PORT, HTTP_PORT, SYNC_PORT};
pub use packages::Packages;
pub use processes::TwoNodesWatch;

use std::path::{Path, PathBuf};

/// The script that does the work.
fn script() -> PathBuf {
    workspace().join("tests/hosts/hosts.sh")
}

/// The top of the workspace.
fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the workspace").into()
}

/// Whether a test may be left out on this machine.
pub(crate) fn all_tests_are_required() -> bool {
    let is = |name: &str, wanted: &str| std::env::var_os(name).is_some_and(|value| value == wanted);
    is("CBDDC_TESTS_REQUIRE_ALL", "1") || is("CI", "true")
}
