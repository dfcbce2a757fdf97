//! The topology, several clusters in one process, and policy for each environment.

use super::{LEAST, MESH, folder, parse};
use cbagent::config::{ChannelMode, Config, ConfigError, ProbeConfig};
use cbddc_domain::replication::Topology;
use cbddc_domain::trigger::{Reaction, Trigger};
use std::fs;

const TWO: &str = r#"
[[cluster]]
name = "east"
address = "127.0.0.1:4001"
token_file = "token"
database = "east.db"
[[cluster]]
name = "west"
address = "127.0.0.1:4002"
token_file = "token"
channel = "plaintext"
database = "west.db"
critical_collections = ["orders"]
"#;

/// A hosted server of two clusters; what comes after them is in the second one.
fn hosted(more: &str) -> String {
    format!("topology = \"hosted\"\n{LEAST}{TWO}{more}")
}

#[test]
fn several_clusters_have_checks_and_databases_of_their_own() {
    let folder = folder();
    let config = parse(folder.path(), &hosted("")).expect("it is sound");
    assert_eq!(config.topology, Topology::Hosted);
    let clusters = config.clusters.iter();
    let clusters: Vec<_> = clusters.map(|one| (&*one.name, one.channel)).collect();
    let expected = [
        ("east", ChannelMode::Auto),
        ("west", ChannelMode::Plaintext),
    ];
    assert_eq!(clusters, expected);
    // Otherwise a rollback would lose one of them.
    let databases = ["east.db", "west.db"].map(|name| folder.path().join(name));
    assert_eq!(config.service.databases, databases);
    let names = config.checks.iter().map(|check| check.policy.name.as_str());
    let expected = [
        "unit",
        "cbddc-east",
        "tcp-east",
        "cbddc-west",
        "tcp-west",
        "database-east",
        "database-west",
        "host",
    ];
    assert_eq!(names.collect::<Vec<_>>(), expected);
    let last = config.checks.iter().find(|check| {
        let west = ProbeConfig::Cbddc {
            cluster: "west".into(),
        };
        check.probe == west
    });
    assert_eq!(
        last.map(|check| check.policy.name.as_str()),
        Some("cbddc-west")
    );
}

#[test]
fn a_database_that_is_named_twice_is_copied_once() {
    let folder = folder();
    let service = "[service]\ndatabases = [\"east.db\", \"more.db\"]";
    let text = hosted("").replace("[service]", service);
    let config = parse(folder.path(), &text).expect("it is sound");
    let names = ["east.db", "more.db", "west.db"].map(|name| folder.path().join(name));
    assert_eq!(config.service.databases, names);
    let names = config.checks.iter().map(|check| check.policy.name.as_str());
    let databases = names.filter(|name| name.starts_with("database"));
    let expected = ["database-east", "database", "database-west"];
    assert_eq!(databases.collect::<Vec<_>>(), expected);
}

#[test]
fn faults_of_clusters_are_named_one_by_one() {
    for (change, with, said) in [
        (
            "\"hosted\"",
            "\"star\"",
            "topology: `star` is neither mesh nor hosted",
        ),
        ("name = \"east\"\n", "", "cluster 1.name: is missing"),
        ("\"east\"", "\"a b\"", "cluster `a b`.name: must be 1 to 24"),
        (
            "\"east\"",
            "\"west\"",
            "cluster `west`: two clusters have this name",
        ),
        (
            "4002",
            "4001",
            "cluster `west`.address: another cluster has it",
        ),
        (
            "west.db",
            "east.db",
            "cluster `west`.database: another cluster has it",
        ),
        (
            "channel = \"plaintext\"",
            "channel = \"tls\"",
            "cluster `west`.channel: must be auto",
        ),
        (
            "channel = \"plaintext\"",
            "chanel = \"secure\"",
            "cluster `west`.chanel: there is no such key",
        ),
        (
            "channel = \"plaintext\"",
            "expected_peers = [\"10.0.0.2:4001\"]",
            "cluster `west`.expected_peers: a hosted server joins nobody",
        ),
        (
            "channel = \"plaintext\"",
            "canary = \"https://10.0.0.1/x\"",
            "cluster `west`.canary: must be push, or where",
        ),
        (
            "channel = \"plaintext\"",
            "canary = \"push\"\ncanary_command = [\"/bin/x\"]",
            "cluster `west`.canary_command: one of both writes",
        ),
        (
            "channel = \"plaintext\"",
            "canary_command = []",
            "cluster `west`.canary_command: must name a program",
        ),
        (
            "channel = \"plaintext\"",
            "expected_peers = [\"n2=nowhere\"]",
            "`n2=nowhere` is not HOST:PORT",
        ),
        (
            "[service]",
            "[cbddc]\naddress = \"127.0.0.1:1\"\ntoken_file = \"token\"\n[service]",
            "cluster: takes the place of [cbddc]",
        ),
        (
            "[service]",
            "[[check]]\nkind = \"cbddc\"\ncluster = \"north\"\n[service]",
            "check 1.cluster: no [[cluster]] is named `north`",
        ),
    ] {
        let folder = folder();
        let text = hosted("");
        assert!(text.contains(change), "{change}");
        let error = parse(folder.path(), &text.replacen(change, with, 1)).expect_err(said);
        let ConfigError::Faults { faults, .. } = &error else {
            panic!("{said}: {error}");
        };
        let fitting = faults.iter().filter(|fault| fault.contains(said));
        assert_eq!(fitting.count(), 1, "{said}: {faults:?}");
    }
}

/// The configuration of a member of a mesh of that environment.
fn within(environment: &str, more: &str) -> Result<Config, ConfigError> {
    let folder = folder();
    let mesh = MESH.replace("\"local\"", &format!("\"{environment}\""));
    fs::write(folder.path().join("mesh.toml"), mesh).expect("written");
    parse(folder.path(), &format!("{LEAST}{more}"))
}

#[test]
fn policy_is_that_of_the_meshs_environment() {
    let sections = r#"
[triggers]
sync_regression = "ask"
sustain = "5s"
[triggers.production]
sync_regression = "revert-node"
after_bake = "revert-mesh"
[triggers.staging]
data_integrity = "alarm"
"#;
    let policy = |environment| {
        let config = within(environment, sections).expect("it is sound");
        let policy = config.triggers.policy;
        let reaction = |trigger| policy.baking[&trigger];
        (
            reaction(Trigger::SyncRegression),
            reaction(Trigger::DataIntegrity),
            policy.baked,
            policy.sustain_ms,
        )
    };
    let (ask, node, mesh) = (Reaction::Ask, Reaction::RevertNode, Reaction::RevertMesh);
    assert_eq!(policy("production"), (node, mesh, mesh, 5000));
    let alarm = Reaction::Alarm;
    assert_eq!(policy("staging"), (ask, alarm, alarm, 5000));
    assert_eq!(policy("local"), (ask, node, alarm, 5000));
    // The procedure's, where nothing is said.
    let usual = within("production", "").expect("it is sound").triggers;
    let usual = usual.policy.baking;
    assert_eq!(usual[&Trigger::DataIntegrity], mesh);
    assert_eq!(usual[&Trigger::SyncRegression], mesh);
    assert_eq!(usual[&Trigger::AuthOrConnectivity], node);
}

#[test]
fn faults_of_every_environment_are_told_everywhere() {
    for (section, said) in [
        (
            "[triggers.production]\nsync_regression = \"panic\"",
            "triggers.production.sync_regression: must be alarm, ask",
        ),
        (
            "[triggers.staging]\nquarantine = true",
            "triggers.staging.quarantine: needs `ports`",
        ),
        (
            "[triggers.prod]\nsustain = \"1s\"",
            "triggers.prod: there is no such key",
        ),
        (
            "[triggers.local]\nfound_dir = \"x\"",
            "triggers.local.found_dir: there is no such key",
        ),
    ] {
        let error = within("local", section).expect_err(said);
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
}
