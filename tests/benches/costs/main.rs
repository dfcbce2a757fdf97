//! What the agent's care for data costs: syncing a BLite node's files once a second, comparing documents,
//! and keeping clients away while a node is replaced. Each beside the same without it, in turns.
//!
//! ```text
//! cargo bench -p cbddc-tests --bench costs    # TMPDIR names the disk
//! ```
//!
//! Rules of nftables are put in place in a network namespace of the benchmark's own, which takes root.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock, prints, and starts itself in a namespace"
)]

mod appends;
mod documents;
mod namespace;

use cbddc_tests::figures::heading;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(namespace::WORD) {
        namespace::measure();
        return;
    }
    heading();
    appends::measure();
    documents::measure();
    namespace::enter();
}
