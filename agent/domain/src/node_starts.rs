//! How long starts of the node took, and how long the next one may take.
//!
//! A node reads the write-ahead log of its database when it starts. BLite's grows from start to start,
//! because no orderly stop empties it, and reading it took 18 s at 40 MB (`NODE.md`, section 8).

use crate::units::{show_duration_ms, show_size_bytes};

/// A start that was seen from its beginning until the node was healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStart {
    /// When the node was healthy, Unix time in milliseconds.
    pub wall_ms: i64,
    /// How long it took from the start of the process, in milliseconds.
    pub took_ms: u64,
    /// The size of its database's logs when it began, in bytes; unset: not known.
    pub log_bytes: Option<u64>,
}

/// How many starts are remembered.
pub const STARTS_KEPT: usize = 20;

/// A log of fewer bytes is no reason for a start to take long.
pub const LOG_COUNTS_BYTES: u64 = 1 << 20;

/// What a start takes per MiB of log where none with a log was seen: 18 s for 40 MB.
const MS_PER_MIB: u64 = 450;

/// How long a start with a log of this size may take, in milliseconds, from starts seen before, newest
/// first; `None`: nothing is known.
pub fn expected_ms(starts: &[NodeStart], log_bytes: Option<u64>) -> Option<u64> {
    let newest = starts.first().map(|start| start.took_ms);
    let Some(bytes) = log_bytes.filter(|bytes| *bytes >= LOG_COUNTS_BYTES) else {
        // What took long with a log that is gone says nothing.
        let mut alike = starts.iter();
        let alike = alike.find(|start| start.log_bytes.is_none_or(|log| log < LOG_COUNTS_BYTES));
        return alike.map(|start| start.took_ms);
    };
    let seen = starts.iter().find_map(|start| {
        let log = start.log_bytes.filter(|log| *log >= LOG_COUNTS_BYTES)?;
        Some(scaled(start.took_ms, bytes, log))
    });
    let by_log = seen.unwrap_or_else(|| scaled(MS_PER_MIB, bytes, 1 << 20));
    Some(by_log.max(newest.unwrap_or_default()))
}

/// `took_ms × bytes ⁄ log`, whatever the numbers.
fn scaled(took_ms: u64, bytes: u64, log: u64) -> u64 {
    let scaled = u128::from(took_ms) * u128::from(bytes) / u128::from(log.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// What there is to say before a start, where it may take longer than `ready_ms`.
pub fn warning(starts: &[NodeStart], log_bytes: Option<u64>, ready_ms: u64) -> Option<String> {
    let expected = expected_ms(starts, log_bytes).filter(|expected| *expected > ready_ms)?;
    let mut text = String::from("a start of the node");
    match log_bytes.filter(|bytes| *bytes >= LOG_COUNTS_BYTES) {
        Some(bytes) => text.push_str(&format!(
            ", which reads a log of {}, may take {}",
            show_size_bytes(bytes),
            show_duration_ms(rounded(expected))
        )),
        None => text.push_str(&format!(
            " took {} last time",
            show_duration_ms(rounded(expected))
        )),
    }
    text.push_str(&format!(
        ", and `ready_timeout` is {}: it is waited for longer only while it is seen to be busy",
        show_duration_ms(ready_ms)
    ));
    Some(text)
}

/// To whole seconds: the figure is a guess.
fn rounded(ms: u64) -> u64 {
    ms.saturating_add(500) / 1_000 * 1_000
}

#[cfg(test)]
mod tests {
    use super::{NodeStart, expected_ms, warning};

    const MIB: u64 = 1 << 20;

    fn start(took_ms: u64, log_bytes: Option<u64>) -> NodeStart {
        NodeStart {
            wall_ms: 0,
            took_ms,
            log_bytes,
        }
    }

    #[test]
    fn a_start_takes_as_long_as_the_last_ones_for_each_byte_of_log() {
        let expected = |starts: &[NodeStart], log| expected_ms(starts, log);
        assert_eq!(expected(&[], None), None);
        assert_eq!(expected(&[], Some(40 * MIB)), Some(18_000));
        let seen = [start(900, Some(0)), start(4_000, Some(8 * MIB))];
        assert_eq!(expected(&seen, Some(16 * MIB)), Some(8_000));
        assert_eq!(expected(&seen, Some(0)), Some(900));
        // Never less than the last one took.
        assert_eq!(expected(&seen, Some(MIB)), Some(900));
        // A log that is gone is not read.
        let seen = [start(60_000, Some(100 * MIB)), start(700, Some(10))];
        assert_eq!(expected(&seen, Some(0)), Some(700));
        assert_eq!(expected(&[start(5_000, None)], None), Some(5_000));
        assert_eq!(
            expected(&[start(u64::MAX, Some(MIB))], Some(u64::MAX)),
            Some(u64::MAX)
        );
    }

    #[test]
    fn a_warning_comes_where_the_time_will_not_do() {
        let seen = [start(30_000, Some(50 * MIB))];
        assert_eq!(warning(&seen, Some(60 * MIB), 60_000), None);
        let text = warning(&seen, Some(150 * MIB), 60_000).expect("a warning");
        assert!(
            text.contains("a log of 150.0MiB, may take 1min 30s"),
            "{text}"
        );
        assert!(text.contains("`ready_timeout` is 1min"), "{text}");
        let text = warning(&[start(70_000, None)], None, 60_000).expect("a warning");
        assert!(text.contains("took 1min 10s last time"), "{text}");
    }
}
