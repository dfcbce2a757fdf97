//! The clock of this host against those of the other members. Events are ordered by wall time, so a
//! host whose clock is ahead wins over what was written after it.

use crate::id::NodeName;

/// How another member's clock differs from this host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockOffset {
    /// Whose.
    pub member: NodeName,
    /// How far it is ahead of this host's, in milliseconds; below zero: behind.
    pub ahead_ms: i64,
    /// How far off that may be: half the time of the answer.
    pub error_ms: i64,
}

/// Why this host's clock is doubted, if it is: the middle one of the others differs by more than
/// `most_ms`, also when it is read in this host's favour. One clock that is wrong among many is that
/// member's own matter. With a single other, nobody can tell which of the two is wrong.
pub fn doubt_clock(offsets: &[ClockOffset], most_ms: u64) -> Option<String> {
    let mut sorted: Vec<&ClockOffset> = offsets.iter().collect();
    sorted.sort_by_key(|offset| offset.ahead_ms);
    // Of an even number, the one nearer to this host's clock.
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    let middle = if upper.ahead_ms.abs() < lower.ahead_ms.abs() {
        upper
    } else {
        lower
    };
    let surely = middle
        .ahead_ms
        .saturating_abs()
        .saturating_sub(middle.error_ms);
    if surely <= i64::try_from(most_ms).unwrap_or(i64::MAX) {
        return None;
    }
    let by = format!("{} ms", middle.ahead_ms.saturating_abs());
    // Theirs is ahead, so this one is behind.
    let way = if middle.ahead_ms > 0 {
        "behind"
    } else {
        "ahead of"
    };
    Some(match sorted.len() {
        1 => format!(
            "the clock is {by} {way} that of {}; one of both is wrong",
            middle.member
        ),
        number => format!("the clock is {by} {way} those of the others ({number} were asked)"),
    })
}

#[cfg(test)]
mod tests {
    use super::{ClockOffset, doubt_clock};

    #[track_caller]
    fn check(offsets: &[(i64, i64)], doubt: Option<&str>) {
        let offsets: Vec<ClockOffset> = (1..)
            .zip(offsets)
            .map(|(number, (ahead_ms, error_ms))| ClockOffset {
                member: format!("n{number}").parse().unwrap(),
                ahead_ms: *ahead_ms,
                error_ms: *error_ms,
            })
            .collect();
        assert_eq!(
            doubt_clock(&offsets, 1_000).as_deref(),
            doubt,
            "{offsets:?}"
        );
    }

    #[test]
    fn the_middle_of_the_others_decides() {
        check(&[], None);
        check(&[(900, 1)], None);
        check(
            &[(5_000, 1)],
            Some("the clock is 5000 ms behind that of n1; one of both is wrong"),
        );
        // One of three is wrong: not this one.
        check(&[(60_000, 1), (3, 1), (-4, 1)], None);
        check(&[(60_000, 1), (3, 1)], None);
        let behind = "the clock is 2000 ms behind those of the others (3 were asked)";
        check(&[(2_000, 1), (2_100, 1), (-4, 1)], Some(behind));
        let ahead = "the clock is 2000 ms ahead of those of the others (2 were asked)";
        check(&[(-2_000, 1), (-2_100, 1)], Some(ahead));
        // Just as much as it may.
        check(&[(1_001, 1)], None);
        // A slow answer proves nothing.
        check(&[(2_000, 1_500)], None);
    }
}
