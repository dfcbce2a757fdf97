//! Values of arguments, from text.

use cbddc_domain::access::Role;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::Environment;
use cbddc_domain::units::parse_duration_ms;
use std::time::Duration;

/// The longest duration that an argument may name: one day, as for agents.
const DURATION_MS_MAX: u64 = 86_400_000;

/// The longest key or value of a label, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// The value of a label that is given none.
const LABEL_VALUE: &str = "yes";

/// A duration with its unit, at most one day.
pub fn duration(text: &str) -> Result<Duration, String> {
    match parse_duration_ms(text) {
        Ok(ms) if ms <= DURATION_MS_MAX => Ok(Duration::from_millis(ms)),
        Ok(_) => Err("must be at most 1d".to_owned()),
        Err(fault) => Err(fault.rule.to_owned()),
    }
}

pub(super) fn member(text: &str) -> Result<(NodeName, String), String> {
    let (name, address) = text.split_once('=').ok_or("must be NAME=HOST:PORT")?;
    let name = name
        .parse::<NodeName>()
        .map_err(|fault| fault.to_string())?;
    Ok((name, address.to_owned()))
}

/// `KEY[=VALUE]`; without a value it is `yes`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, LABEL_VALUE));
    let fits = |text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        (1..=LABEL_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
    };
    if fits(key) && fits(value) {
        return Ok((key.to_owned(), value.to_owned()));
    }
    Err(format!(
        "must be KEY or KEY=VALUE, each 1 to {LABEL_BYTES_MAX} letters, digits, `.`, `_`, `-` and `/`"
    ))
}

pub(super) fn role(text: &str) -> Result<Role, String> {
    text.parse()
        .map_err(|_| "must be viewer, operator, approver or admin".to_owned())
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
    use super::{duration, member};

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
