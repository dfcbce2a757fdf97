//! Keeping clients away by nftables, in a network namespace in which nobody is disturbed.

use cbagent::adapters::{drain, nft};
use cbddc_tests::figures::{compare, median};
use std::process::Command;
use std::time::Instant;
use tokio::runtime::Runtime;

/// With this word the benchmark is in the namespace.
pub(crate) const WORD: &str = "in-a-namespace";

const TURNS: u32 = 21;

/// A table that has nothing in it: what is left is the time that `nft` takes by itself.
const PEER: &str = "nft with an empty table";
const EMPTY: &str = "table inet cbagent_nothing\n";

/// Starts this program once more in a namespace, or says why not.
pub(crate) fn enter() {
    let myself = std::env::current_exe().expect("the benchmark has a file");
    let mut unshare = Command::new("unshare");
    let ended = unshare.args(["--net", "--"]).arg(myself).arg(WORD).status();
    let why = match ended {
        Ok(status) if status.success() => return,
        Ok(status) => format!("`unshare --net` takes root, and ended with {status}"),
        Err(error) => format!("`unshare` does not start: {error}"),
    };
    println!("left out: a drain by nftables: {why}");
}

/// Prints two lines.
pub(crate) fn measure() {
    let runtime = Runtime::new().expect("a runtime");
    let apply = |rules: &str| {
        let began = Instant::now();
        let applied = runtime.block_on(nft::apply("the benchmark", rules));
        applied.map(|()| began.elapsed())
    };
    if let Err(error) = apply(EMPTY) {
        println!("left out: a drain by nftables: {error}");
        return;
    }
    let (mut refused, mut opened, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        for (times, rules) in [
            (&mut refused, drain::refusing_rules(&[80, 443])),
            (&mut opened, drain::open_rules()),
            (&mut alone, EMPTY.to_owned()),
        ] {
            times.push(apply(&rules).expect("it was taken before"));
        }
    }
    let alone = median(&alone);
    compare("drain: rules set", PEER, median(&refused), alone, None);
    compare("drain: rules away", PEER, median(&opened), alone, None);
}
