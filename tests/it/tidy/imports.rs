//! Who may import whom: STYLE's table, read from the `use` lines and from paths in the code.

use super::{files, none};
use std::collections::BTreeSet;

/// A part of the code, what it must not name, and what to do instead.
struct Rule {
    /// Files and folders, by the beginnings of their paths.
    part: &'static [&'static str],
    /// Paths in the code that may not occur.
    banned: &'static [&'static str],
    /// What to do instead.
    instead: &'static str,
}

/// What is there although a rule bans it, and why.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "agent/src/grpc/builds.rs",
        "std::fs",
        "reads the bundle that it streams to a peer",
    ),
    (
        "agent/src/grpc/rollouts.rs",
        "std::fs",
        "asks the size of the databases for the check of disk space",
    ),
];

const RULES: &[Rule] = &[
    Rule {
        part: &["agent/domain/src/"],
        banned: &[
            "tokio",
            "tonic",
            "prost",
            "rusqlite",
            "rustls",
            "hyper",
            "reqwest",
            "getrandom",
            "rand",
            "cbagent",
            "cbctl",
            "cbddc_proto",
            "std::fs",
            "std::net",
            "std::process",
            "std::env",
            "std::thread",
            "std::io",
            "std::os",
            "std::time::Instant",
            "std::time::SystemTime",
        ],
        instead: "the domain only decides: take time and randomness as arguments, return an effect, \
                  and let an adapter perform it",
    },
    Rule {
        part: &["agent/src/ports.rs"],
        banned: &[
            "tokio",
            "tonic",
            "prost",
            "rusqlite",
            "cbddc_proto",
            "cbctl",
            "crate::adapters",
            "crate::engine",
            "crate::grpc",
            "crate::config",
            "crate::monitor",
            "std::fs",
            "std::net",
            "std::process",
        ],
        instead: "a port speaks in domain types only: turn the library's types into them in the adapter",
    },
    Rule {
        part: &[
            "agent/src/engine.rs",
            "agent/src/engine/",
            "agent/src/monitor.rs",
            "agent/src/monitor/",
        ],
        banned: &[
            "tonic",
            "prost",
            "rusqlite",
            "rustls",
            "hyper",
            "sysinfo",
            "cbddc_proto",
            "cbctl",
            "crate::adapters",
            "crate::grpc",
            "crate::config",
            "tokio::net",
            "tokio::fs",
            "tokio::process",
            "std::fs",
            "std::net",
            "std::process",
        ],
        instead: "the engine and the monitor know the world through `ports` alone: add what is needed \
                  to a port, and do it in an adapter",
    },
    Rule {
        part: &["agent/src/grpc/"],
        banned: &[
            "rusqlite",
            "cbctl",
            "crate::config",
            "std::fs",
            "std::process",
        ],
        instead: "a service turns a request into domain types and hands it to the engine or to an \
                  adapter it was given: do the work there",
    },
    Rule {
        part: &["agent/src/adapters/"],
        banned: &["cbctl", "crate::engine", "crate::grpc", "crate::monitor"],
        instead: "an adapter knows its technology, `ports` and the domain: let the engine call it",
    },
    Rule {
        part: &["agent/src/config.rs", "agent/src/config/"],
        banned: &[
            "tokio",
            "tonic",
            "prost",
            "cbddc_proto",
            "crate::adapters",
            "crate::engine",
            "crate::grpc",
        ],
        instead: "the configuration becomes domain types and plain values: let `main` hand them on",
    },
    Rule {
        part: &["ctl/src/"],
        banned: &["cbagent", "rusqlite"],
        instead: "the client speaks to agents over the wire only: move what both need to the domain or \
                  the proto crate",
    },
    Rule {
        part: &["agent/pki/src/"],
        banned: &[
            "cbagent",
            "cbctl",
            "cbddc_proto",
            "tokio",
            "tonic",
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::time::Instant",
            "std::time::SystemTime",
        ],
        instead: "certificates and keys are texts there, and the time is an argument: read files and \
                  clocks in the agent's adapters or in the client",
    },
    Rule {
        part: &["agent/oplog/src/"],
        banned: &[
            "cbagent",
            "cbctl",
            "cbddc_proto",
            "tokio",
            "tonic",
            "std::fs",
            "std::net",
        ],
        instead: "it only reads a database: decide in the domain, and say what to read from outside",
    },
    Rule {
        part: &["proto/src/"],
        banned: &[
            "cbagent", "cbctl", "tokio", "rusqlite", "std::fs", "std::net",
        ],
        instead: "the proto crate is the contract and its conversion, nothing else",
    },
];

/// Adapters that hold a port of the agent to the outside; everybody else gets adapters from `main`.
const PICKS_ADAPTERS: &str = "agent/src/main.rs";
/// The part of `main` that picks between two of them.
const PICKS_SUPERVISOR: &str = "agent/src/supervising.rs";

/// The code without comments, strings and its unit tests: tests may use what they need.
fn code(text: &str) -> String {
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    let lines = text.lines().map(|line| {
        let line = line.split("//").next().unwrap_or_default();
        // Every other part is inside quotes; escaped quotes are rare enough not to matter here.
        line.split('"').step_by(2).collect::<Vec<_>>().join("\"")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Every path that the code names, with groups written out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut prefixes: Vec<String> = Vec::new();
    let mut word = String::new();
    for c in code.chars() {
        if c.is_alphanumeric() || c == '_' || c == ':' {
            word.push(c);
            continue;
        }
        let prefix = prefixes.last().cloned().unwrap_or_default();
        let whole = format!("{prefix}{}", word.trim_end_matches(':'));
        match c {
            '{' if word.ends_with("::") => prefixes.push(format!("{prefix}{word}")),
            '{' if prefixes.is_empty() => {}
            '}' if !prefixes.is_empty() => drop(prefixes.pop()),
            _ => {}
        }
        if word.contains("::") || !prefix.is_empty() {
            found.insert(whole);
        }
        word.clear();
    }
    found
}

fn names(path: &str, banned: &str) -> bool {
    path == banned
        || path
            .strip_prefix(banned)
            .is_some_and(|rest| rest.starts_with("::"))
}

fn faults_of(file: &str, text: &str, rule: &Rule) -> Vec<String> {
    let paths = paths(&code(text));
    let known = |banned: &str| KNOWN.iter().any(|(f, b, _)| *f == file && *b == banned);
    let found = rule
        .banned
        .iter()
        .filter(|banned| paths.iter().any(|path| names(path, banned)) && !known(banned));
    found
        .map(|banned| format!("{file} names `{banned}`: {}", rule.instead))
        .collect()
}

#[test]
fn nobody_imports_what_is_not_its_business() {
    let all = [
        "proto/src",
        "agent/src",
        "agent/domain/src",
        "agent/oplog/src",
        "agent/pki/src",
        "ctl/src",
    ];
    let all: Vec<_> = all
        .into_iter()
        .flat_map(|folder| files(folder, ".rs"))
        // Unit tests may use what they need, in files of their own, too.
        .filter(|(file, _)| !file.ends_with("/tests.rs"))
        .collect();
    let mut faults = Vec::new();
    for rule in RULES {
        let part = all
            .iter()
            .filter(|(file, _)| rule.part.iter().any(|part| file.starts_with(part)));
        let mut seen = 0;
        for (file, text) in part {
            seen += 1;
            faults.extend(faults_of(file, text, rule));
        }
        assert!(seen > 0, "nothing lies at {:?}: correct RULES", rule.part);
    }
    none(&faults);
}

#[test]
fn only_main_makes_adapters() {
    // A service holds adapters that `main` made; making one is what tells them apart.
    let making = [
        "SqliteStore::open",
        "ProcessSupervisor::new",
        "BuildStore::open",
        "SnapshotStore::open",
        "Peers::new",
        "NodeProtocol::new",
        "Tls::load",
        "SystemClock::new",
    ];
    let all = files("agent/src", ".rs");
    let others = all
        .iter()
        .filter(|(file, _)| file != PICKS_ADAPTERS && file != PICKS_SUPERVISOR)
        .filter(|(file, _)| !file.starts_with("agent/src/adapters/"));
    let mut faults = Vec::new();
    for (file, text) in others {
        let paths = paths(&code(text));
        let made = making.iter().filter(|making| paths.contains(**making));
        faults.extend(made.map(|making| {
            format!(
                "{file} calls `{making}`: let {PICKS_ADAPTERS} make the adapter and hand it over"
            )
        }));
    }
    none(&faults);
}

#[test]
fn paths_are_read_with_their_groups() {
    let text =
        "use a::{b, c::{d, e}};\n// use x::y;\nfn f() { g::h(\"i::j\"); }\nuse std::fs::File;";
    let found = paths(&code(text));
    for path in ["a::b", "a::c::d", "a::c::e", "g::h", "std::fs::File"] {
        assert!(found.contains(path), "{path} is not in {found:?}");
    }
    for path in ["x::y", "i::j"] {
        assert!(!found.contains(path), "{path} is in {found:?}");
    }
    let rule = &RULES[0];
    assert_eq!(faults_of("f", "use std::{fmt, fs};", rule).len(), 1);
    assert_eq!(faults_of("f", "let x = tokio::spawn(y);", rule).len(), 1);
    assert_eq!(
        faults_of("f", "use std::fmt; use tokios::x;", rule).len(),
        0
    );
}
