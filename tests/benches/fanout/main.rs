//! Speed, beside peers that were measured in the same run: `cbctl status` over many agents,
//! `cbctl rollback --mesh` over 30 nodes, and what an idle agent costs.
//!
//! ```text
//! cargo build --release --workspace --bins
//! cargo bench -p cbddc-tests --bench fanout [-- status | rollback | idle]...
//! ```
//!
//! In reading order: [`cbddc_tests::figures`] are medians and the table; [`status`] measures `cbctl status` beside
//! [`bare_client`], a client that does nothing else, and [`ssh`]; [`rollback`] and [`idle`] are the rest.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark starts programs and reads the clock"
)]

mod idle;
mod restart;
mod rollback;
mod ssh;
mod status;

use cbddc_tests::bare_client;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|word| word == bare_client::WORD)
    {
        return bare_client::run(&arguments[1..]);
    }
    // Cargo adds `--bench`.
    arguments.retain(|argument| !argument.starts_with("--"));
    let known = ["status", "rollback", "idle"];
    if let Some(unknown) = arguments.iter().find(|job| !known.contains(&job.as_str())) {
        eprintln!(
            "there is no job {unknown:?}; known are: {}",
            known.join(", ")
        );
        return ExitCode::from(64);
    }
    let is_wanted = |job: &str| arguments.is_empty() || arguments.iter().any(|one| one == job);
    cbddc_tests::figures::heading();
    if is_wanted("idle") {
        idle::measure();
    }
    if is_wanted("status") {
        status::measure();
    }
    if is_wanted("rollback") {
        rollback::measure();
    }
    ExitCode::SUCCESS
}
