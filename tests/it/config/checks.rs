//! `[[check]]`: what the shipped file shows is taken, and what is wrong is named.

use super::{LEAST, folder, parse};
use cbagent::config::{HttpsTrust, ProbeConfig};
use cbddc_domain::health::Severity;
use std::fs;
use std::path::Path;

/// The lines of the shipped file that spell out a `[[check]]` or `[[cluster]]`, as one would take them over.
fn shipped_checks() -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/config/cbagent.toml");
    let text = fs::read_to_string(shipped).expect("packaging ships it");
    let lines = text.lines().filter_map(|line| {
        let line = line.strip_prefix("# ")?;
        let key = line.strip_prefix("  ");
        let is_head = ["[[check]]", "[[cluster]]", "[drain]"].contains(&line);
        is_head.then_some(line).or(key)
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_check_that_the_shipped_file_shows_is_taken() {
    let folder = folder();
    let pem = "-----BEGIN CERTIFICATE-----\n";
    fs::write(folder.path().join("health-ca.pem"), pem).expect("written");
    let token = folder.path().join("west-token");
    fs::copy(folder.path().join("token"), token).expect("copied");
    let checks = shipped_checks();
    let text = format!("{LEAST}databases = [\"node.db\", \"b.db\"]\n{checks}");
    let config = parse(folder.path(), &text).expect("examples");
    let names: Vec<&str> = config
        .checks
        .iter()
        .map(|check| check.policy.name.as_str())
        .collect();
    // Those of the short form first; a check with the name of one has taken its place.
    let expected = [
        "unit",
        "cbddc-west",
        "tcp-west",
        "database",
        "database-2",
        "database-west",
        "host",
        "admin-port",
        "http",
        "cbddc",
        "disk",
    ];
    assert_eq!(names, expected, "{checks}");
    let host = &config.checks[6];
    assert_eq!(host.policy.severity, Severity::Warning);
    let ProbeConfig::Host {
        max_load_per_cpu,
        min_free_disk,
        ..
    } = &host.probe
    else {
        panic!("{host:?}");
    };
    assert_eq!((*max_load_per_cpu, *min_free_disk), (Some(4.0), 1 << 30));
    let disk = &config.checks[10].policy;
    assert_eq!((disk.interval_ms, disk.timeout_ms), (60_000, 10_000));
    assert_eq!((disk.severity, disk.fall), (Severity::Warning, 2));
    let ProbeConfig::Http { trust, .. } = &config.checks[8].probe else {
        panic!("{:?}", config.checks[8]);
    };
    assert_eq!(trust, &Some(HttpsTrust::Authority(pem.into())));
}

#[test]
fn faults_of_checks_name_the_check() {
    let folder = folder();
    for (check, said) in [
        ("kind = \"tpc\"", "check 1.kind: must be one of unit, tcp,"),
        ("name = \"a\"", "check `a`.kind: is missing"),
        ("kind = \"tcp\"", "check 1.address: is missing"),
        (
            "kind = \"unit\"\nfal = 1",
            "check 1.fal: there is no such key",
        ),
        (
            "kind = \"unit\"\nfall = 0",
            "check 1.fall: must be a whole number",
        ),
        (
            "kind = \"unit\"\nseverity = \"low\"",
            "severity: must be critical or warning",
        ),
        (
            "kind = \"unit\"\nname = \"all\"",
            "check `all`.name: must be",
        ),
        ("kind = \"exec\"", "check 1.command: must name a program"),
        ("kind = \"cbddc\"", "check 1.kind: needs a section [cbddc]"),
        ("kind = \"database\"", "check 1.path: is missing"),
        ("kind = \"http\"", "check 1.url: is missing"),
        (
            "kind = \"http\"\nurl = \"https://a/\"",
            "check 1.url: must be a URL",
        ),
        (
            "kind = \"http\"\nurl = \"https://a/\"\nca = \"mesh.toml\"",
            "mesh.toml holds no certificate",
        ),
        (
            "kind = \"host\"\nmax_load_per_cpu = -1",
            "must be a number from 0",
        ),
        (
            "kind = \"unit\"\nname = \"a\"\n[[check]]\nkind = \"host\"\nname = \"a\"",
            "check `a`: two checks have this name",
        ),
    ] {
        let text = format!("{LEAST}[[check]]\n{check}\n");
        let error = parse(folder.path(), &text).expect_err(check).to_string();
        assert!(error.contains(said), "no `{said}` in {error}");
    }
    let many: String = (0..40)
        .map(|n| format!("[[check]]\nkind = \"unit\"\nname = \"c{n}\"\n"))
        .collect();
    let error = parse(folder.path(), &format!("{LEAST}{many}")).expect_err("too many");
    assert!(
        error.to_string().contains("checks are more than 32"),
        "{error}"
    );
    assert!(parse(folder.path(), &format!("check = 1\n{LEAST}")).is_err());
}

#[test]
fn a_database_in_a_builds_folder_is_refused() {
    let folder = folder();
    let tree = folder.path().join("state/store/builds/a/tree");
    fs::create_dir_all(tree.join("data")).expect("folders");
    fs::write(tree.join("data/node.db"), b"").expect("a file");
    std::os::unix::fs::symlink("builds/a/tree", folder.path().join("state/store/current"))
        .expect("a link");
    std::os::unix::fs::symlink("state/store/current/data", folder.path().join("data"))
        .expect("a link");
    let of = |path: &str, more: &str| {
        let text = format!("{more}{LEAST}databases = [\"{path}\"]\n");
        parse(folder.path(), &text)
    };
    for (path, more) in [
        ("state/store/current/data/node.db", ""),
        ("data/node.db", ""),
        ("elsewhere/builds/x/node.db", "store_dir = \"elsewhere\"\n"),
    ] {
        let error = of(path, more).expect_err(path).to_string();
        assert!(error.contains("lies in the build store"), "{path}: {error}");
    }
    of("state/node.db", "").expect("it is no build's");
}
