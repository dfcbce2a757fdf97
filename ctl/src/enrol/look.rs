//! What a host says of itself before anything is done there.

use std::collections::BTreeSet;

/// The script that looks; it reads only.
pub const SCRIPT: &str = include_str!("look.sh");

/// The line with which the answer begins. What a login prints before it is not ours.
const BEGIN: &str = "cbagent-look 1";
/// The line with which it ends; without it the connection ended first.
const END: &str = "end";

/// What a host has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Who the script ran as; 0 is root.
    pub uid: u32,
    /// The version of systemd; [`None`] where there is none.
    pub systemd: Option<u32>,
    /// What the installed agent says its version is; [`None`] where there is none.
    pub agent: Option<String>,
    /// What systemd makes of the agent's unit: `loaded`, `not-found`, `masked`.
    pub unit: String,
    /// Whether the agent runs: `active`, `inactive`, `failed` or between two of them.
    pub active: String,
    /// Whether it starts at boot: `enabled`, `disabled` or another word of systemctl's.
    pub enabled: String,
    /// Which of `node.pem`, `cbagent.toml` and `token` the agent's folder has.
    pub has: BTreeSet<String>,
    /// The node that the configuration names.
    pub configured_node: Option<String>,
}

/// An answer that is not one of the script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookFault {
    /// The script's first line is missing.
    #[error("the host did not run the script: is there a shell for this login?")]
    NoBeginning,
    /// The script's last line is missing.
    #[error("the host's answer ends in the middle")]
    NoEnd,
    /// A line that the script does not print.
    #[error("the host's answer has a line that makes no sense: {0:?}")]
    Line(String),
}

impl Look {
    /// Reads what the script printed.
    pub fn parse(text: &str) -> Result<Self, LookFault> {
        let mut lines = text.lines().skip_while(|line| *line != BEGIN);
        lines.next().ok_or(LookFault::NoBeginning)?;
        let mut look = Self {
            uid: u32::MAX,
            ..Self::default()
        };
        for line in lines {
            if line == END {
                return Ok(look);
            }
            look.take(line)
                .ok_or_else(|| LookFault::Line(line.chars().take(80).collect()))?;
        }
        Err(LookFault::NoEnd)
    }

    /// Takes one line; [`None`] where it makes no sense.
    fn take(&mut self, line: &str) -> Option<()> {
        let (key, value) = line.split_once('=')?;
        let text: String = value.chars().filter(|c| !c.is_control()).collect();
        match key {
            "uid" => self.uid = value.parse().ok()?,
            "systemd" if value.is_empty() => self.systemd = None,
            "systemd" => self.systemd = Some(value.parse().ok()?),
            // "cbagent 0.1.0"
            "agent" => {
                let version = text.strip_prefix("cbagent ").unwrap_or(&text);
                self.agent = Some(version.to_owned());
            }
            "unit" => self.unit = text,
            "active" => self.active = text,
            "enabled" => self.enabled = text,
            "has" => drop(self.has.insert(text)),
            "node" => self.configured_node = node_of(value),
            _ => return None,
        }
        Some(())
    }
}

/// The node that a line of a configuration names, `node = "h1" # so`.
fn node_of(line: &str) -> Option<String> {
    let table: toml::Table = line.parse().ok()?;
    Some(table.get("node")?.as_str()?.to_owned())
}
