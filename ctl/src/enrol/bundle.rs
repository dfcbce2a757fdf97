//! What is put into the agent's folder, and how it travels: names and sizes in the script, the bytes
//! behind it.

use crate::enrol::plan::Step;
use cbddc_domain::id::NodeName;
use std::fmt::Write as _;

/// How a host joins: by a token, for a key that it makes itself.
pub struct Join {
    /// The token's text; goes through standard input.
    pub token: String,
    /// Where the token's issuer listens.
    pub issuer: String,
    /// The host's name in the mesh.
    pub node: NodeName,
    /// Where its agent listens.
    pub listen: String,
}

/// Why a configuration cannot be brought to a host.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// It is no TOML.
    #[error("it is not written as TOML")]
    Syntax(#[source] Box<toml::de::Error>),
    /// It is another node's.
    #[error("it names the node {0}")]
    OtherNode(String),
    /// The node could not be written into it.
    #[error("write `node = \"{0}\"` into it, above the first section")]
    NoPlace(NodeName),
}

/// A configuration for one node: the text as it was written, with that node's name.
///
/// With `shared`, the text is for several hosts, and the name in it, if any, is only an example.
pub fn config_of(text: &str, node: &NodeName, shared: bool) -> Result<String, ConfigFault> {
    let name_in = |text: &str| -> Result<Option<String>, ConfigFault> {
        let table: toml::Table = text
            .parse()
            .map_err(|error| ConfigFault::Syntax(Box::new(error)))?;
        let name = table.get("node").and_then(|name| name.as_str());
        Ok(name.map(str::to_owned))
    };
    let named = name_in(text)?;
    match &named {
        Some(name) if name == node.as_str() => return Ok(text.to_owned()),
        Some(name) if !shared => return Err(ConfigFault::OtherNode(name.clone())),
        Some(_) | None => {}
    }
    let line = format!("node = \"{node}\"");
    let written = if named.is_some() {
        with_node_line(text, &line)
    } else {
        format!("{line}\n{text}")
    };
    // Read again: a line within a longer text may only look like the one that was meant.
    match name_in(&written) {
        Ok(Some(name)) if name == node.as_str() => Ok(written),
        Ok(_) | Err(_) => Err(ConfigFault::NoPlace(node.clone())),
    }
}

/// The text with its first `node =` replaced.
fn with_node_line(text: &str, line: &str) -> String {
    let is_it = |line: &str| {
        let rest = line.trim_start().strip_prefix("node");
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let mut done = false;
    let mut written = String::new();
    for old in text.lines() {
        let this = !done && is_it(old);
        done |= this;
        let _ = writeln!(written, "{}", if this { line } else { old });
    }
    written
}

/// Files for the agent's folder. Holds a private key: neither printed nor written anywhere here.
#[derive(Default)]
pub struct Bundle {
    files: Vec<(&'static str, Vec<u8>)>,
    join: Option<Join>,
}

impl Bundle {
    /// What the plan puts, in its order, each file from `content`; without those that it has not got.
    pub fn of(steps: &[Step], content: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        let put = steps.iter().filter_map(|step| match step {
            Step::Put(file) => Some((*file, content(file)?)),
            Step::Join(_)
            | Step::Install(_)
            | Step::KeepAgent(_)
            | Step::Issue { .. }
            | Step::Admit { .. }
            | Step::MakeIssuer
            | Step::Keep(_)
            | Step::Enable
            | Step::Start { .. }
            | Step::Check => None,
        });
        Self {
            files: put.collect(),
            join: None,
        }
    }

    /// The same for a host that joins by a token.
    pub fn joining(self, join: Join) -> Self {
        Self {
            join: Some(join),
            ..self
        }
    }

    /// The script that puts them.
    pub fn script(&self, replace: bool) -> String {
        let mut files = String::new();
        for (name, bytes) in &self.files {
            let _ = write!(files, "{name}:{} ", bytes.len());
        }
        let replace = if replace { "yes" } else { "no" };
        let files = files.trim_end();
        let join = self.join.as_ref().map_or_else(String::new, |join| {
            let (size, node) = (join.token.len(), &join.node);
            let (issuer, listen) = (quoted(&join.issuer), quoted(&join.listen));
            format!("JOIN={size} NODE={node} ISSUER={issuer} LISTEN={listen}\n")
        });
        format!(
            "FILES='{files}' REPLACE={replace}\n{join}{}",
            include_str!("put.sh")
        )
    }

    /// What the script reads.
    pub fn payload(&self) -> Vec<u8> {
        let files = self.files.iter().flat_map(|(_, bytes)| bytes);
        let token = self.join.iter().flat_map(|join| join.token.as_bytes());
        files.chain(token).copied().collect()
    }
}

/// A word that the shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
