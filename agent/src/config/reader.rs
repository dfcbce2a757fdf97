//! Takes values out of a TOML table, one key at a time, and remembers every fault on the way.

use cbddc_domain::id::NodeName;
use cbddc_domain::replication::ExpectedPeer;
use cbddc_domain::units::{parse_duration_ms, parse_size_bytes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};

/// One section of the file. What is still in it at [`Reader::finish`] is unknown.
pub(super) struct Reader<'a> {
    section: String,
    table: Table,
    base: &'a Path,
    faults: &'a mut Vec<String>,
    known: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        section: impl Into<String>,
        table: Table,
        base: &'a Path,
        faults: &'a mut Vec<String>,
    ) -> Self {
        Self {
            section: section.into(),
            table,
            base,
            faults,
            known: Vec::new(),
        }
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.join(", ");
        for key in self.table.keys() {
            let key = full_key(&self.section, key);
            self.faults
                .push(format!("{key}: there is no such key; known here: {known}"));
        }
    }

    /// Reports keys that must not be there, and takes them.
    pub(super) fn banned(&mut self, keys: &[&'static str], text: &str) {
        for key in keys {
            if self.table.remove(*key).is_some() {
                self.fault(key, text);
            }
        }
    }

    /// Reports a fault of a key's value.
    pub(super) fn fault(&mut self, key: &str, text: &str) {
        let key = full_key(&self.section, key);
        self.faults.push(format!("{key}: {text}"));
    }

    fn take<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        let taken = read(value);
        if taken.is_none() {
            self.fault(key, &format!("must be {expected}"));
        }
        taken
    }

    fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let missing = !self.table.contains_key(key);
        let taken = read(self);
        if missing {
            self.fault(key, "is missing");
        }
        taken
    }

    pub(super) fn section(&mut self, key: &'static str) -> Option<Table> {
        let table = |value: Value| value.as_table().cloned();
        self.take(key, &format!("a section, [{key}]"), table)
    }

    /// Sections of one name, [[key]]; unset: none.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Table> {
        let tables = |value: Value| {
            let items = value.as_array()?.iter();
            items.map(|item| item.as_table().cloned()).collect()
        };
        let expected = format!("one or more sections, each under [[{key}]]");
        self.take(key, &expected, tables).unwrap_or_default()
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        let text = |value: Value| {
            value
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        self.take(key, "a text that is not empty", text)
    }

    pub(super) fn required_string(&mut self, key: &'static str) -> Option<String> {
        self.required(key, |reader| reader.string(key))
    }

    pub(super) fn name(&mut self, key: &'static str) -> Option<NodeName> {
        let text = self.string(key)?;
        let name = text.parse::<NodeName>();
        name.map_err(|fault| self.fault(key, &fault.to_string()))
            .ok()
    }

    pub(super) fn required_name(&mut self, key: &'static str) -> Option<NodeName> {
        self.required(key, |reader| reader.name(key))
    }

    /// A path; a relative one is relative to the file.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let text = self.string(key)?;
        Some(self.base.join(text))
    }

    pub(super) fn required_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.required(key, |reader| reader.path(key))
    }

    pub(super) fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let texts = |value: Value| {
            let items = value.as_array()?.iter();
            items.map(|item| item.as_str().map(str::to_owned)).collect()
        };
        self.take(key, "a list of texts", texts)
    }

    pub(super) fn paths(&mut self, key: &'static str) -> Option<Vec<PathBuf>> {
        let texts = self.strings(key)?;
        Some(texts.iter().map(|text| self.base.join(text)).collect())
    }

    pub(super) fn pairs(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let pairs = |value: Value| {
            let pairs = value.as_table()?.iter();
            pairs
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect()
        };
        self.take(key, "a table of texts, { NAME = \"value\" }", pairs)
    }

    pub(super) fn truth(&mut self, key: &'static str) -> Option<bool> {
        self.take(key, "true or false", |value| value.as_bool())
    }

    /// A whole number between `least` and `most`.
    pub(super) fn count(&mut self, key: &'static str, least: u32, most: u32) -> Option<u32> {
        let expected = format!("a whole number from {least} to {most}");
        self.take(key, &expected, |value| {
            let number = u32::try_from(value.as_integer()?).ok()?;
            (least..=most).contains(&number).then_some(number)
        })
    }

    /// A number from zero to a million.
    pub(super) fn number(&mut self, key: &'static str) -> Option<f64> {
        self.take(key, "a number from 0 to 1000000", |value| {
            #[expect(clippy::cast_precision_loss, reason = "bounded right after")]
            let number = value
                .as_float()
                .or(value.as_integer().map(|whole| whole as f64))?;
            (0.0..=1e6).contains(&number).then_some(number)
        })
    }

    /// A duration with its unit, from 1 ms to one day.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.string(key)?;
        match parse_duration_ms(&text) {
            Ok(ms @ 1..=86_400_000) => Some(Duration::from_millis(ms)),
            Ok(_) => {
                self.fault(key, "must be from 1ms to 1d");
                None
            }
            Err(fault) => {
                self.fault(key, &fault.to_string());
                None
            }
        }
    }

    /// A size with its unit, in bytes.
    pub(super) fn size(&mut self, key: &'static str) -> Option<u64> {
        let text = self.string(key)?;
        let size = parse_size_bytes(&text);
        size.map_err(|fault| self.fault(key, &fault.to_string()))
            .ok()
    }

    /// `HOST:PORT`, where the port is not 0.
    pub(super) fn required_address(&mut self, key: &'static str) -> Option<String> {
        let text = self.required_string(key)?;
        if is_host_and_port(&text, false) {
            return Some(text);
        }
        self.fault(key, &format!("`{text}` is not HOST:PORT"));
        None
    }

    /// A list of `HOST:PORT` or `NODE=HOST:PORT`.
    pub(super) fn peers(&mut self, key: &'static str) -> Option<Vec<ExpectedPeer>> {
        let texts = self.strings(key)?;
        let peers = texts.iter().filter_map(|text| {
            let (node, address) = match text.split_once('=') {
                Some((node, address)) => (Some(node.parse::<NodeName>()), address),
                None => (None, text.as_str()),
            };
            if !is_host_and_port(address, false) {
                let text = format!("`{text}` is not HOST:PORT, or NODE=HOST:PORT");
                self.fault(key, &text);
            }
            let node = node.transpose();
            let node = node.map_err(|fault| self.fault(key, &fault.to_string()));
            Some(ExpectedPeer {
                address: address.to_owned(),
                node: node.ok()?,
            })
        });
        Some(peers.collect())
    }
}

/// Whether a text is `HOST:PORT`.
pub(super) fn is_host_and_port(text: &str, zero_allowed: bool) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let port = port.parse::<u16>().ok();
        !host.is_empty() && port.is_some_and(|port| zero_allowed || port > 0)
    })
}

fn full_key(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}
