//! A real mesh on loopback without root: one `cbagent` and one fixture node for each host, a
//! certificate authority of its own, and `cbctl` as an admin runs it.
//!
//! In reading order: [`options`] is what it is told; [`node`] is one host; [`test_mesh`] joins them;
//! [`build`] makes builds, bad ones too, and `releases` rolls them out; [`run`] runs programs and keeps what they say; [`writer`]
//! writes documents all the time and [`count`] proves that none was lost or doubled; [`http`],
//! [`ports`], [`processes`] and [`interrupt`] are the small things below.
//!
//! What goes wrong in the harness panics with a sentence: there is nobody to handle it.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness starts programs and waits for them"
)]

pub mod build;
pub mod count;
mod documents;
pub mod http;
pub mod interrupt;
pub mod node;
pub mod options;
pub mod ports;
pub mod processes;
mod releases;
pub mod run;
pub mod test_mesh;
pub mod twice;
pub mod writer;

pub use count::Count;
pub use options::{MeshOptions, Timing};
pub use run::{Ran, Running};
pub use test_mesh::TestMesh;
pub use twice::TwiceWatch;
pub use writer::{Writer, Written};

use std::time::{Duration, Instant};

/// How often a condition is looked at, at most.
const POLL: Duration = Duration::from_millis(25);

/// The pause after a look, in lengths of the look: whoever waits leaves the machine to what is waited
/// for.
const REST: u32 = 1;

/// Waits for a condition and returns what it gave; panics with its name when it does not come true
/// within the limit.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    wait_for_or_tell(what, limit, || condition().ok_or_else(String::new))
}

/// The same for a condition that says what it saw instead.
#[track_caller]
pub fn wait_for_or_tell<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + limit;
    loop {
        let looked_at = Instant::now();
        let seen = match condition() {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        interrupt::check();
        assert!(
            Instant::now() < until,
            "waited {limit:?} in vain until {what}: {seen}"
        );
        std::thread::sleep(POLL.max(looked_at.elapsed() * REST));
    }
}
