//! `cbagent gate`: looks, decides, and answers with the exit code, which is 0 or 1 whatever happens.

use super::{Current, Lookout, Verdict, wait_for_verdict};
use crate::adapters::gate_files::FileLookout;
use crate::config::Folders;
use crate::error_chain;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

/// How long the gate waits for the agent's permit unless told otherwise; below `TimeoutStartSec`,
/// whose default is 90 s.
pub const WAIT: Duration = Duration::from_secs(75);

/// The longest that it waits, whatever it is told.
pub const WAIT_MAX: Duration = Duration::from_secs(600);

/// The condition passes: the unit starts.
const PASS: u8 = 0;

/// The unit is skipped.
const SKIP: u8 = 1;

/// Asks the gate of the agent with this configuration; returns the exit code. What it has to say goes to
/// stderr, which is the journal of the unit.
pub fn run(config: &Path, wait: Duration) -> u8 {
    let (folders, fault) = Folders::load(config);
    if let Some(fault) = fault {
        say(&format!(
            "{}; looking in {} and {}",
            error_chain(&fault),
            folders.state_dir.display(),
            folders.run_dir.display()
        ));
    }
    let lookout = || FileLookout::new(folders.state_dir.clone(), folders.run_dir.clone());
    guarded(
        || wait_for_verdict(&mut lookout(), wait.min(WAIT_MAX)),
        || {
            let sight = lookout().look(false);
            matches!(sight.current, Current::Build(build) if sight.revoked.contains(&build))
        },
    )
}

/// The exit code for a verdict. A fault of the gate must not keep a node down, unless its build is known
/// to be revoked.
fn guarded(verdict: impl FnOnce() -> Verdict, is_revoked: impl FnOnce() -> bool) -> u8 {
    match catch_unwind(AssertUnwindSafe(verdict)) {
        Ok(Verdict::Start) => PASS,
        Ok(Verdict::StartUnverified(why)) => {
            say(&format!("the node starts unverified: {why}"));
            PASS
        }
        Ok(Verdict::Refuse(why)) => {
            say(&format!("the node does not start: {why}"));
            SKIP
        }
        Ok(Verdict::Wait) | Err(_) => {
            say("the gate has a fault of its own");
            match catch_unwind(AssertUnwindSafe(is_revoked)) {
                Ok(true) => SKIP,
                Ok(false) | Err(_) => PASS,
            }
        }
    }
}

/// Tells a person. Nobody may be listening, which must not matter.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "cbagent gate: {text}");
}

#[cfg(test)]
mod tests {
    use super::{PASS, SKIP, Verdict, guarded};

    #[test]
    fn a_fault_of_the_gate_lets_all_but_the_revoked_start() {
        let fault = || -> Verdict { panic!("played") };
        assert_eq!(guarded(fault, || false), PASS);
        assert_eq!(guarded(fault, || true), SKIP);
        assert_eq!(guarded(fault, || panic!("played")), PASS);
        assert_eq!(guarded(|| Verdict::Start, || true), PASS);
        assert_eq!(guarded(|| Verdict::Refuse("x".into()), || false), SKIP);
    }
}
