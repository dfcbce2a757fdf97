//! Values of arguments, from text.

use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::Environment;
use cbddc_domain::units::parse_duration_ms;
use std::time::Duration;

/// The longest duration that an argument may name: one day, as for agents.
const DURATION_MS_MAX: u64 = 86_400_000;

/// How large a wave is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaveSize {
    /// So many nodes.
    Count(usize),
    /// So many percent of all targets, rounded up, those of earlier waves included.
    Percent(u8),
}

/// A duration with its unit, at most one day.
pub fn duration(text: &str) -> Result<Duration, String> {
    match parse_duration_ms(text) {
        Ok(ms) if ms <= DURATION_MS_MAX => Ok(Duration::from_millis(ms)),
        Ok(_) => Err("must be at most 1d".to_owned()),
        Err(fault) => Err(fault.rule.to_owned()),
    }
}

/// One wave's size: `3` or `25%`.
pub fn waves(text: &str) -> Result<WaveSize, String> {
    let wrong = || "must be a number of nodes above 0, or a percentage from 1% to 100%".to_owned();
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse::<u8>().ok().filter(|p| (1..=100).contains(p));
        return percent.map(WaveSize::Percent).ok_or_else(wrong);
    }
    let count = text.parse::<usize>().ok().filter(|count| *count > 0);
    count.map(WaveSize::Count).ok_or_else(wrong)
}

pub(super) fn member(text: &str) -> Result<(NodeName, String), String> {
    let (name, address) = text.split_once('=').ok_or("must be NAME=HOST:PORT")?;
    let name = name
        .parse::<NodeName>()
        .map_err(|fault| fault.to_string())?;
    Ok((name, address.to_owned()))
}

pub(super) fn environment(text: &str) -> Result<Environment, String> {
    match text {
        "local" => Ok(Environment::Local),
        "staging" => Ok(Environment::Staging),
        "production" => Ok(Environment::Production),
        _ => Err("must be local, staging or production".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{WaveSize, duration, member, waves};

    #[test]
    fn wave_sizes() {
        assert_eq!(waves("3"), Ok(WaveSize::Count(3)));
        assert_eq!(waves("25%"), Ok(WaveSize::Percent(25)));
        for bad in ["0", "0%", "101%", "-1", "", "%", "1.5", "all"] {
            assert!(waves(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn durations_and_members() {
        assert!(duration("25h").is_err());
        assert!(duration("10").is_err());
        assert!(duration("10s").is_ok());
        assert!(member("n1=127.0.0.1:1").is_ok());
        assert!(member("n1").is_err());
        assert!(member("N1=127.0.0.1:1").is_err());
    }
}
