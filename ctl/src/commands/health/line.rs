//! A status over time in one line of text.

/// How many cells a line has.
pub(super) const CELLS: usize = 48;

/// A change: from this moment on, this status.
pub(super) type Change = (i64, String);

/// How bad a status is, and its cell.
fn cell(status: &str) -> (u8, char) {
    match status {
        "healthy" => (1, '▁'),
        "degraded" => (2, '▃'),
        "unhealthy" => (4, '█'),
        _ => (3, '▅'),
    }
}

/// Draws the time between two moments; each cell shows the worst of its time. `changes` are in order;
/// those before `from` tell what held then.
pub(super) fn draw(changes: &[Change], from: i64, until: i64) -> String {
    let cells = i64::try_from(CELLS).unwrap_or(1);
    let width = (until - from).max(cells);
    let edge = |index: i64| from + width * index / cells;
    let worst = |index: i64| {
        let (begin, end) = (edge(index), edge(index + 1));
        let held = changes.iter().rev().find(|(at, _)| *at <= begin);
        let within = changes.iter().filter(|(at, _)| *at > begin && *at < end);
        let seen = held.into_iter().chain(within);
        let worst = seen.map(|(_, status)| cell(status)).max();
        worst.map_or('·', |(_, shown)| shown)
    };
    (0..cells).map(worst).collect()
}

#[cfg(test)]
mod tests {
    use super::{CELLS, draw};

    #[track_caller]
    fn check(changes: &[(i64, &str)], drawn: &str) {
        let changes: Vec<(i64, String)> = changes
            .iter()
            .map(|(at, status)| (*at, (*status).to_owned()))
            .collect();
        let line = draw(&changes, 1_000, 1_000 + 48 * 100);
        assert_eq!(line.chars().count(), CELLS);
        assert_eq!(line, drawn);
    }

    #[test]
    fn time_runs_from_left_to_right_and_the_worst_is_shown() {
        check(&[], &"·".repeat(48));
        check(&[(5, "healthy")], &"▁".repeat(48));
        check(&[(2_000, "degraded")], &("·".repeat(10) + &"▃".repeat(38)));
        // Bad for a moment within one cell.
        check(
            &[(5, "healthy"), (2_010, "unhealthy"), (2_020, "healthy")],
            &("▁".repeat(10) + "█" + &"▁".repeat(37)),
        );
        check(
            &[(5, "healthy"), (5_750, "unknown")],
            &("▁".repeat(47) + "▅"),
        );
    }
}
