//! How long a node is waited for.

use super::{LEAST, folder, parse};
use std::time::Duration;

#[test]
fn a_busy_start_is_waited_for_at_least_as_long_as_an_idle_one() {
    let folder = folder();
    let busy = |more: &str| {
        let config = parse(folder.path(), &format!("{LEAST}{more}"));
        config.map(|config| config.service.ready_timeout_busy)
    };
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    assert_eq!(busy("").ok(), Some(minutes(10)));
    let longer = "ready_timeout = \"20min\"\n";
    assert_eq!(busy(longer).ok(), Some(minutes(20)));
    let given = "ready_timeout_busy = \"5min\"\n";
    assert_eq!(busy(given).ok(), Some(minutes(5)));
    let error = busy(&format!("{longer}{given}")).expect_err("it is shorter");
    let text = error.to_string();
    let words = "service.ready_timeout_busy: must not be shorter than ready_timeout";
    assert!(text.contains(words), "{text}");
}

/// Whether a line of a sample is a setting that is switched off.
pub(super) fn is_example(line: &str) -> bool {
    line.split_once(" = ")
        .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}
