//! Which nodes change together.

use crate::id::{InvalidName, NodeName};
use std::str::FromStr;

/// The size of one wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaveSize {
    /// So many nodes.
    Nodes(usize),
    /// So many hundredths of all targets, rounded up.
    Percent(u8),
}

/// The sizes of the waves; the last one repeats until every target has its wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveSizes(Vec<WaveSize>);

impl WaveSizes {
    /// The default: up to 4 targets one at a time, otherwise 1, then 25 %, then the rest.
    pub fn default_for(targets: usize) -> Self {
        if targets <= 4 {
            Self(vec![WaveSize::Nodes(1)])
        } else {
            Self(vec![
                WaveSize::Nodes(1),
                WaveSize::Percent(25),
                WaveSize::Percent(100),
            ])
        }
    }
}

impl WaveSizes {
    /// The same number of nodes in every wave.
    pub fn of(nodes: usize) -> Self {
        Self(vec![WaveSize::Nodes(nodes)])
    }
}

impl FromStr for WaveSizes {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = || {
            InvalidName::new(
                "wave sizes",
                text,
                "numbers of nodes or percentages above zero, such as `1,25%,100%`",
            )
        };
        let size = |part: &str| match part.trim().strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 1..=100) => Ok(WaveSize::Percent(percent)),
                Ok(_) | Err(_) => Err(wrong()),
            },
            None => match part.trim().parse() {
                Ok(0) | Err(_) => Err(wrong()),
                Ok(nodes) => Ok(WaveSize::Nodes(nodes)),
            },
        };
        text.split(',')
            .map(size)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The most nodes that may change at once in a mesh of `members`: the others keep a majority.
pub fn wave_limit(members: usize) -> usize {
    (members.saturating_sub(1) / 2).max(1)
}

/// Distributes `targets`, in their order, over waves.
pub fn waves(targets: &[NodeName], sizes: &WaveSizes, members: usize) -> Vec<Vec<NodeName>> {
    let limit = wave_limit(members);
    let mut sizes = sizes.0.iter().copied();
    let mut size = sizes.next().unwrap_or(WaveSize::Nodes(1));
    let (mut waves, mut rest) = (Vec::new(), targets);
    while !rest.is_empty() {
        let wanted = match size {
            WaveSize::Nodes(nodes) => nodes,
            WaveSize::Percent(percent) => (targets.len() * usize::from(percent)).div_ceil(100),
        };
        let (wave, after) = rest.split_at(wanted.clamp(1, limit).min(rest.len()));
        waves.push(wave.to_vec());
        rest = after;
        size = sizes.next().unwrap_or(size);
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::{WaveSizes, waves};
    use crate::id::NodeName;

    fn check(targets: usize, sizes: Option<&str>, expected: &[usize]) {
        let names: Vec<NodeName> = (0..targets)
            .map(|n| format!("n{n}").parse().expect("a name"))
            .collect();
        let sizes = sizes.map_or(WaveSizes::default_for(targets), |text| {
            text.parse().expect("sizes")
        });
        let waves = waves(&names, &sizes, targets);
        assert_eq!(
            waves.iter().map(Vec::len).collect::<Vec<_>>(),
            expected,
            "{targets} {sizes:?}"
        );
        assert_eq!(waves.concat(), names);
    }

    #[test]
    fn sizes() {
        check(0, None, &[]);
        check(1, None, &[1]);
        check(3, None, &[1, 1, 1]);
        check(4, None, &[1, 1, 1, 1]);
        check(5, None, &[1, 2, 2]);
        check(10, None, &[1, 3, 4, 2]);
        check(30, None, &[1, 8, 14, 7]);
        check(10, Some("2,50%"), &[2, 4, 4]);
        check(3, Some("100%"), &[1, 1, 1]);
        check(9, Some("100%"), &[4, 4, 1]);
    }

    #[test]
    fn bad_sizes() {
        for bad in ["", "0", "x", "0%", "101%", "1,,2", "-1", "1;2"] {
            assert!(bad.parse::<WaveSizes>().is_err(), "{bad:?} was taken");
        }
    }
}
