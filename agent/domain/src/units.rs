//! Durations and sizes as people write them: `30s`, `256MiB`. A bare number is refused, because
//! nobody can see what it counts.

use crate::id::InvalidName;

const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const SIZES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads a duration such as `500ms`, `30s`, `5min`, `1h` or `1d`; the answer is in milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, InvalidName> {
    let rule = "a whole number and its unit, one of ms, s, min, h, d: `30s`";
    parse(text, &DURATIONS).ok_or_else(|| InvalidName::new("duration", text, rule))
}

/// Reads a size such as `512B`, `64KiB`, `256MiB`, `4GiB` or `1TiB`; the answer is in bytes.
pub fn parse_size_bytes(text: &str) -> Result<u64, InvalidName> {
    let rule = "a whole number and its unit, one of B, KiB, MiB, GiB, TiB: `256MiB`";
    parse(text, &SIZES).ok_or_else(|| InvalidName::new("size", text, rule))
}

/// A duration as people read it: the largest unit that fits, rounded down, and the next one.
pub fn show_duration_ms(ms: u64) -> String {
    let Some(index) = DURATIONS.iter().position(|(_, unit)| ms >= *unit) else {
        return "0s".to_owned();
    };
    let (name, unit) = DURATIONS[index];
    let whole = format!("{}{name}", ms / unit);
    match DURATIONS.get(index + 1) {
        // Milliseconds beside seconds are noise.
        Some((next_name, next)) if *next > 1 && ms % unit / next > 0 => {
            format!("{whole} {}{next_name}", ms % unit / next)
        }
        Some(_) | None => whole,
    }
}

/// A size as people read it, with one decimal: `1.5GiB`.
pub fn show_size_bytes(bytes: u64) -> String {
    match SIZES.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, 1)) => format!("{bytes}{name}"),
        Some((name, unit)) => {
            let tenths = bytes % unit * 10 / unit;
            format!("{}.{tenths}{name}", bytes / unit)
        }
        None => "0B".to_owned(),
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::{parse_duration_ms, parse_size_bytes, show_duration_ms, show_size_bytes};

    #[test]
    fn durations() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("5min", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for bad in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "30 s",
            "30S",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(parse_duration_ms(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0B", 0),
            ("64KiB", 65_536),
            ("256MiB", 268_435_456),
            ("4GiB", 4_294_967_296),
        ] {
            assert_eq!(parse_size_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["256", "256MB", "256 MiB", "MiB", "99999999TiB"] {
            assert!(parse_size_bytes(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn shown_to_people() {
        for (ms, text) in [
            (0, "0s"),
            (999, "999ms"),
            (1_999, "1s"),
            (61_000, "1min 1s"),
            (3_600_000, "1h"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(show_duration_ms(ms), text);
        }
        for (bytes, text) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1_536, "1.5KiB"),
            (4 << 30, "4.0GiB"),
        ] {
            assert_eq!(show_size_bytes(bytes), text);
        }
    }
}
