//! From when on events have to be read, so that clocks which differ can be judged by what nodes hold.

use super::sights::Moment;
use crate::hlc::VectorClock;
use std::collections::BTreeSet;

/// The beginning of a window that reaches back to where the clocks of nodes that are judged together
/// begin to differ, Unix time in milliseconds: not later than `since_wall_ms`, and not earlier than
/// `floor_wall_ms`.
///
/// A clock that does not name an origin, as after some restarts, is no difference where the last event
/// of that origin is older than the floor.
pub fn reach_back(clocks: &[VectorClock], since_wall_ms: i64, floor_wall_ms: i64) -> i64 {
    let origins: BTreeSet<&String> = clocks.iter().flat_map(|clock| clock.0.keys()).collect();
    let from = origins.into_iter().filter_map(|origin| {
        let named = clocks.iter().filter_map(|clock| clock.get(origin));
        let least: Moment = named.clone().min()?;
        let most = named.clone().max()?;
        if least < most {
            return Some(least.0.max(floor_wall_ms));
        }
        let is_lacked = named.count() < clocks.len();
        (is_lacked && most.0 >= floor_wall_ms).then_some(most.0)
    });
    from.fold(since_wall_ms, i64::min)
}

#[cfg(test)]
mod tests {
    use super::reach_back;
    use crate::hlc::VectorClock;

    #[test]
    fn the_window_reaches_back_to_where_clocks_differ() {
        let clock = |of: &[(&str, i64)]| {
            let of = of
                .iter()
                .map(|(origin, wall)| ((*origin).to_owned(), (*wall, 0)));
            VectorClock(of.collect())
        };
        let back = |clocks: &[&[(&str, i64)]]| {
            let clocks: Vec<VectorClock> = clocks.iter().map(|of| clock(of)).collect();
            reach_back(&clocks, 1_000, 500)
        };
        assert_eq!(back(&[]), 1_000);
        assert_eq!(back(&[&[("a", 700)], &[("a", 700)]]), 1_000, "they agree");
        assert_eq!(back(&[&[("a", 700)], &[("a", 800)]]), 700);
        assert_eq!(back(&[&[("a", 1_200)], &[("a", 1_300)]]), 1_000);
        assert_eq!(back(&[&[("a", 100)], &[("a", 800)]]), 500, "the floor");
        assert_eq!(back(&[&[], &[("a", 800)]]), 800, "one does not say");
        assert_eq!(back(&[&[], &[("a", 100)]]), 1_000, "too long ago to tell");
        let both: &[&[(&str, i64)]] = &[&[("a", 900), ("b", 600)], &[("a", 950), ("b", 650)]];
        assert_eq!(back(both), 600);
    }
}
