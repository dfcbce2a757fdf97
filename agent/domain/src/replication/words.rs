//! The sentences of findings, and how many of them are told.

use super::{Finding, FindingKind, Grade, Known};
use crate::id::NodeName;
use std::collections::BTreeMap;

/// How many findings of one kind are told per node, before the rest is only counted.
pub const FINDINGS_TOLD_MAX: usize = 20;

/// How many characters of a collection, key or id are repeated.
const PLAIN_CHARS_MAX: usize = 60;

/// How many nodes a sentence names.
const NAMED_MAX: usize = 5;

/// Somebody else's word, cut and free of control characters and line breaks.
pub(super) fn plain(text: &str) -> String {
    let mut clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(PLAIN_CHARS_MAX)
        .collect();
    if text.chars().nth(PLAIN_CHARS_MAX).is_some() {
        clean.push('…');
    }
    clean
}

/// `n1`, `n1 and n2`, `n1, n2 and n3`, `n1, n2, n3, n4, n5 and 3 more`.
pub(super) fn list<T: AsRef<str>>(names: &[T]) -> String {
    let mut told: Vec<String> = names
        .iter()
        .take(NAMED_MAX)
        .map(|name| name.as_ref().to_owned())
        .collect();
    if names.len() > NAMED_MAX {
        told.push(format!("{} more", names.len() - NAMED_MAX));
    }
    match told.split_last() {
        None => "nobody".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// A moment for people: UTC with milliseconds, as in RFC 3339, and the counter if there is one.
///
/// Moments beyond the year 9999 stay numbers: they are nonsense, but may well be what a node says.
pub(super) fn utc((wall, logic): (i64, i32)) -> String {
    let counter = if logic == 0 {
        String::new()
    } else {
        format!(" (counter {logic})")
    };
    if !(0..253_402_300_800_000).contains(&wall) {
        return format!("{wall} ms{counter}");
    }
    let (days, ms) = (wall / 86_400_000, wall % 86_400_000);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z{counter}",
        ms % 1000
    )
}

/// Year, month and day of a day since 1970-01-01, which is not negative: years begin in March, so
/// that the leap day is the last one.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// That a node could not be asked.
pub(super) fn not_asked(node: &NodeName, why: &str) -> String {
    format!("{node} could not be asked: {}", plain(why))
}

/// Collects findings, bounded per kind and node.
#[derive(Debug, Default)]
pub(super) struct Report {
    buckets: BTreeMap<(FindingKind, NodeName), Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    count: usize,
    told: Vec<(String, String)>,
}

impl Report {
    /// Takes a finding; its words are only made when they are told.
    pub(super) fn add(
        &mut self,
        kind: FindingKind,
        node: &NodeName,
        origin: &str,
        detail: impl FnOnce() -> String,
    ) {
        let bucket = self.buckets.entry((kind, node.clone())).or_default();
        bucket.count += 1;
        let limit = if kind.is_definite() {
            FINDINGS_TOLD_MAX
        } else {
            1
        };
        if bucket.told.len() < limit {
            bucket.told.push((origin.to_owned(), detail()));
        }
    }

    /// The findings, the headlines of the definite ones that are more than `allows` says, one per kind
    /// and node, and how many there are of each.
    pub(super) fn finish(
        self,
        allows: impl Fn(FindingKind, &NodeName) -> u64,
    ) -> (Vec<Finding>, Vec<String>, Vec<Known>) {
        let mut findings = Vec::new();
        let mut headlines = Vec::new();
        let mut totals = Vec::new();
        let missed: Vec<NodeName> = self
            .buckets
            .keys()
            .filter(|(kind, _)| *kind == FindingKind::Missed)
            .map(|(_, node)| node.clone())
            .collect();
        for ((kind, node), bucket) in self.buckets {
            let Some((first_origin, first)) = bucket.told.first().cloned() else {
                continue;
            };
            let headline = format!("{node} {}{first}", kind.verb(bucket.count));
            // A missed event leaves a gap: one cause, told once.
            let told_already = kind == FindingKind::ChainGap && missed.contains(&node);
            let count = bucket.count as u64;
            if kind.is_definite() && !told_already && count > allows(kind, &node) {
                headlines.push(headline.clone());
            }
            if kind.is_definite() {
                totals.push(Known {
                    cluster: String::new(),
                    node: node.clone(),
                    kind,
                    count,
                    text: headline.clone(),
                });
            }
            if !kind.is_definite() {
                findings.push(Finding {
                    kind,
                    node,
                    origin: first_origin,
                    cluster: String::new(),
                    grade: Grade::Unranked,
                    text: headline,
                    is_old: false,
                    generation: None,
                });
                continue;
            }
            let rest = bucket.count - bucket.told.len();
            for (origin, detail) in bucket.told {
                findings.push(Finding {
                    kind,
                    node: node.clone(),
                    origin,
                    cluster: String::new(),
                    grade: Grade::Unranked,
                    text: format!("{node} {}{detail}", kind.verb(1)),
                    is_old: false,
                    generation: None,
                });
            }
            if rest > 0 {
                let text = format!("{node}: {rest} more findings of this kind ({kind})");
                findings.push(Finding {
                    kind,
                    node,
                    origin: first_origin,
                    cluster: String::new(),
                    grade: Grade::Unranked,
                    text,
                    is_old: false,
                    generation: None,
                });
            }
        }
        (findings, headlines, totals)
    }
}

#[cfg(test)]
mod tests {
    use super::{list, plain, utc};

    #[test]
    fn moments_are_told_in_utc() {
        let cases = [
            ((0, 0), "1970-01-01T00:00:00.000Z"),
            ((951_782_399_999, 0), "2000-02-28T23:59:59.999Z"),
            ((951_782_400_000, 0), "2000-02-29T00:00:00.000Z"),
            (
                (1_700_000_000_123, 7),
                "2023-11-14T22:13:20.123Z (counter 7)",
            ),
            ((4_107_542_400_000, 0), "2100-03-01T00:00:00.000Z"),
            ((i64::MAX, 0), "9223372036854775807 ms"),
            ((-1, 0), "-1 ms"),
        ];
        for (moment, expected) in cases {
            assert_eq!(utc(moment), expected);
        }
    }

    #[test]
    fn foreign_words_are_cut_and_lists_bounded() {
        assert_eq!(plain("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(plain(&"x".repeat(500)).chars().count(), 61);
        assert_eq!(list::<&str>(&[]), "nobody");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(list(&["a"; 7]), "a, a, a, a, a and 2 more");
    }
}
