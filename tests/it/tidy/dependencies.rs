//! What is depended on: licences, and versions that are there twice.

use super::{none, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Licences that any part of a dependency may have. All but one are permissive: they ask for their
/// text and a copyright line to be passed on, and for nothing else.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    // Apache with an exception that gives more freedom.
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    // ring, rustls-webpki, untrusted: like MIT in other words.
    "ISC",
    // foca: changes to its own files are to be published; linking asks for nothing.
    "MPL-2.0",
    // unicode-ident: the tables of Unicode, beside MIT or Apache.
    "Unicode-3.0",
    // foldhash: asks for no credit in binaries.
    "Zlib",
    // aho-corasick, memchr: the public domain, as an alternative to MIT.
    "Unlicense",
];

/// Crates that are there in two versions because others ask for both. A new one is a reason to look
/// whether one of them can be avoided.
const DOUBLED: &[(&str, &str)] = &[
    ("base64", "tonic and a newer crate ask for different ones"),
    ("foldhash", "comes with hashbrown"),
    ("getrandom", "ring asks for the old one"),
    (
        "hashbrown",
        "petgraph, for building the protos, asks for the old one",
    ),
    (
        "prettyplease",
        "prost-build asks for the old one; only while building",
    ),
    (
        "syn",
        "macros move to version 3 one by one; only while building",
    ),
];

#[expect(clippy::disallowed_methods, reason = "asks Cargo what is depended on")]
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("cargo speaks UTF-8")
}

/// All packages that are built on this platform.
fn packages() -> Vec<Value> {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.expect("cargo tells its host");
    let metadata = cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--offline",
        "--filter-platform",
        host,
    ]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// True when an SPDX expression can be met with allowed licences alone: one alternative of each
/// `OR` (formerly `/`), all parts of each `AND`.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ");
    let words = plain.replace(['(', ')'], "");
    // Brackets occur only around alternatives that stand before an AND.
    let parts: Vec<&str> = words.split(" AND ").collect();
    parts.iter().all(|part| {
        let mut alternatives = part.split(" OR ");
        alternatives.any(|licence| LICENCES.contains(&licence.trim()))
    })
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let fault = |package: Value| {
        let name = package["name"].as_str()?;
        match package["license"].as_str() {
            Some(licence) if is_allowed(licence) => None,
            Some(licence) => Some(format!(
                "{name} is licensed as `{licence}`: take another crate, or add the licence to \
                 LICENCES in tests/it/tidy/dependencies.rs with the reason why it may be used"
            )),
            None => Some(format!("{name} names no licence: take another crate")),
        }
    };
    let faults: Vec<String> = packages().into_iter().filter_map(fault).collect();
    none(&faults);
}

#[test]
fn licences_are_read_as_spdx_says() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
    ] {
        assert!(is_allowed(good), "{good}");
    }
    for bad in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR GPL-3.0) AND SSPL-1.0",
        "",
    ] {
        assert!(!is_allowed(bad), "{bad}");
    }
}

#[test]
fn doubled_versions_are_known() {
    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    for package in packages() {
        let (name, version) = (package["name"].as_str(), package["version"].as_str());
        let (name, version) = name.zip(version).expect("every package has both");
        versions
            .entry(name.into())
            .or_default()
            .insert(version.into());
    }
    versions.retain(|_, versions| versions.len() > 1);
    let known: BTreeSet<&str> = DOUBLED.iter().map(|(name, _)| *name).collect();
    let new = versions
        .iter()
        .filter(|(name, _)| !known.contains(name.as_str()));
    let mut faults: Vec<String> = new
        .map(|(name, versions)| {
            format!(
                "{name} is there in versions {versions:?}: find out who asks with `cargo tree -i \
                 {name}@VERSION`, and avoid one or add it to DOUBLED with the reason"
            )
        })
        .collect();
    let gone = known.iter().filter(|name| !versions.contains_key(**name));
    faults.extend(gone.map(|name| format!("{name} is no longer doubled: take it out of DOUBLED")));
    none(&faults);
}
