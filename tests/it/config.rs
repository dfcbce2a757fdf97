//! The agent's configuration: what is taken, and that all faults come together.

mod checks;
mod clusters;
mod drain;
mod times;

use self::times::is_example;
use cbagent::config::{ChannelMode, Config, ConfigError, CutOff, Folders, RUN_DIR, STATE_DIR};
use cbddc_domain::id::NodeName;
use cbddc_domain::replication::Topology;
use cbddc_domain::trigger::{Reaction, Trigger};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const MESH: &str = "name = \"shop\"\nenvironment = \"local\"\n[[member]]\nname = \"n1\"\naddress = \"10.0.0.1:7443\"\n";
pub(crate) const LEAST: &str = r#"
node = "n1"
state_dir = "state"
mesh_file = "mesh.toml"
[tls]
ca = "ca.pem"
cert = "node.pem"
key = "node.key"
[service]
program = "bin/cbddc"
"#;

/// A folder with a mesh file and a token.
pub(crate) fn folder() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("mesh.toml"), MESH).expect("written");
    let token = folder.path().join("token");
    fs::write(&token, "s3cret-token\n").expect("written");
    fs::set_permissions(token, fs::Permissions::from_mode(0o600)).expect("own file");
    folder
}

pub(crate) fn parse(folder: &Path, text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, &folder.join("cbagent.toml"))
}

#[test]
fn the_least_that_is_needed() {
    let folder = folder();
    let config = parse(folder.path(), LEAST).expect("enough");
    assert_eq!(config.listen, "10.0.0.1:7443");
    assert_eq!(config.state_dir, folder.path().join("state"));
    assert_eq!(config.service.stop_timeout, Duration::from_secs(30));
    assert_eq!(config.service.program, PathBuf::from("bin/cbddc"));
    assert!(config.clusters.is_empty() && config.health.http.is_none());
    assert_eq!(config.topology, Topology::Mesh);
    assert_eq!(config.limits.snapshots_kept, 10);
}

#[test]
fn everything_that_can_be_said() {
    let folder = folder();
    let listen = LEAST.replace("[tls]", "listen = \"127.0.0.1:0\"\n[tls]");
    let text = format!(
        r#"{listen}
args = ["--settings", "a b"]
env = {{ K = "V" }}
working_dir = "/var/lib/x"
databases = ["node.db", "/abs.db"]
stop_timeout = "500ms"
drain = ["/bin/drain", "now"]
[cbddc]
address = "127.0.0.1:4001"
token_file = "token"
channel = "secure"
expected_peers = ["10.0.0.2:4001", "n3=10.0.0.3:4001"]
canary = "push"
[health]
http = "http://127.0.0.1:5000/health"
fall = 3
min_free_disk = "1GiB"
tcp = "127.0.0.1:5000"
[limits]
bundle_unpacked = "64MiB"
[peers]
poll = "1min"
probe = "700ms"
[remediation]
restarts = 0
window = "1h"
[triggers]
sync_regression = "ask"
after_bake = "revert-node"
quarantine = true
[quarantine]
ports = ["4001"]
[haproxy]
agent_check = "127.0.0.1:7444"
"#
    );
    let config = parse(folder.path(), &text).expect("all of it is known");
    assert_eq!(config.listen, "127.0.0.1:0");
    assert_eq!(
        config.service.databases,
        [folder.path().join("node.db"), "/abs.db".into()]
    );
    assert_eq!(config.service.stop_timeout, Duration::from_millis(500));
    assert_eq!(config.health.min_free_disk, 1 << 30);
    assert_eq!(config.health.tcp, "127.0.0.1:5000".parse().ok());
    let policy = &config.triggers.policy;
    assert_eq!(
        (policy.remediation.restarts, policy.remediation.window_ms),
        (0, 3_600_000)
    );
    assert_eq!(policy.remediation.backoff_ms, 30_000);
    assert_eq!(policy.baking[&Trigger::SyncRegression], Reaction::Ask);
    assert_eq!(
        policy.baking[&Trigger::PersistentUnhealthy],
        Reaction::RevertNode
    );
    assert_eq!(
        (policy.baked, policy.quarantine),
        (Reaction::RevertNode, true)
    );
    assert_eq!(config.triggers.cut_off, Some(CutOff::Ports(vec![4001])));
    assert_eq!(config.triggers.agent_check, "127.0.0.1:7444".parse().ok());
    assert_eq!(config.peers.poll, Duration::from_secs(60));
    assert_eq!(config.peers.probe, Duration::from_millis(700));
    let [cbddc] = config.clusters.as_slice() else {
        panic!("one cluster");
    };
    let nodes = cbddc.expected_peers.iter().map(|peer| &peer.node);
    let nodes: Vec<Option<&str>> = nodes.map(|it| it.as_ref().map(NodeName::as_str)).collect();
    assert_eq!((cbddc.name.as_str(), nodes), ("", vec![None, Some("n3")]));
    assert_eq!(
        (cbddc.node_id.as_str(), cbddc.channel),
        ("n1", ChannelMode::Secure)
    );
    assert_eq!(cbddc.token.reveal(), "s3cret-token");
    assert!(
        !format!("{config:?}").contains("s3cret"),
        "a secret is shown"
    );
}

#[test]
fn faults_are_named_one_by_one() {
    for (change, with, said) in [
        ("node = \"n1\"", "", "node: is missing"),
        (
            "node = \"n1\"",
            "node = \"N1\"",
            "node: node name `N1` is not valid",
        ),
        ("node = \"n1\"", "node = \"n9\"", "does not list n9"),
        ("node = \"n1\"", "node = 1", "node: must be a text"),
        (
            "[tls]",
            "stat_dir = \"x\"\n[tls]",
            "stat_dir: there is no such key; known here: node, state_dir",
        ),
        (
            "[tls]",
            "listen = \"nowhere\"\n[tls]",
            "listen: `nowhere` is not HOST:PORT",
        ),
        (
            "[service]",
            "[service]\nstop_timeout = 30",
            "service.stop_timeout: must be a text",
        ),
        (
            "[service]",
            "[service]\nstop_timeout = \"30\"",
            "service.stop_timeout: duration `30` is not valid",
        ),
        (
            "[service]",
            "[service]\nstop_timeout = \"0s\"",
            "service.stop_timeout: must be from 1ms to 1d",
        ),
        (
            "[service]",
            "[triggers]\nafter_bake = \"panic\"\n[service]",
            "triggers.after_bake: must be alarm, ask, revert-node or revert-mesh",
        ),
        (
            "[service]",
            "[triggers]\nquarantine = true\n[service]",
            "triggers.quarantine: needs `ports`, or `by = \"stop\"`, under [quarantine]",
        ),
        (
            "[service]",
            "[quarantine]\nports = [\"sync\"]\n[service]",
            "quarantine.ports: must be ports as texts",
        ),
        (
            "[service]",
            "[quarantine]\nby = \"stop\"\nports = [\"4001\"]\n[service]",
            "quarantine.ports: blocks nothing where a node is stopped",
        ),
        (
            "[service]",
            "[quarantine]\nby = \"hope\"\n[service]",
            "quarantine.by: must be nftables or stop",
        ),
        (
            "[service]",
            "[haproxy]\nagent_check = \"10.0.0.1:7444\"\n[service]",
            "haproxy.agent_check: must be a loopback address",
        ),
        (
            "[service]",
            "[health]\ntcp = \"localhost\"\n[service]",
            "health.tcp: must be an IP address and a port",
        ),
        (
            "[service]",
            "[service]\nargs = [1]",
            "service.args: must be a list of texts",
        ),
        (
            "[service]",
            "[service]\nstop_timout = \"3s\"",
            "service.stop_timout: there is no such key",
        ),
        (
            "bin/cbddc",
            "/usr/bin/cbddc",
            "service.program: must be a path inside the build",
        ),
        (
            "bin/cbddc",
            "../cbddc",
            "service.program: must be a path inside the build",
        ),
        (
            "[service]",
            "[healht]\n[service]",
            "healht: there is no such key",
        ),
        (
            "[service]",
            "[health]\nhttp = \"https://x/\"\n[service]",
            "health.http: must be a URL",
        ),
        (
            "[service]",
            "[health]\nfall = 0\n[service]",
            "health.fall: must be a whole number from 1",
        ),
        (
            "[service]",
            "[limits]\nsnapshots_kept = 1\n[service]",
            "limits.snapshots_kept: must be",
        ),
        (
            "[service]",
            "[limits]\nbundle_unpacked = \"4GB\"\n[service]",
            "limits.bundle_unpacked: size `4GB`",
        ),
        (
            "[service]",
            "[cbddc]\naddress = \"x:0\"\ntoken_file = \"token\"\n[service]",
            "cbddc.address: `x:0` is not HOST:PORT",
        ),
        (
            "[service]",
            "[cbddc]\naddress = \"x:1\"\ntoken_file = \"none\"\n[service]",
            "cbddc.token_file: cannot read",
        ),
        (
            "[service]",
            "[cbddc]\naddress = \"x:1\"\ntoken_file = \"mesh.toml\"\n[service]",
            "others may read",
        ),
        (
            "[service]",
            "[cbddc]\naddress = \"x:1\"\ntoken_file = \"token\"\nchannel = \"tls\"\n[service]",
            "cbddc.channel: must be auto",
        ),
        ("mesh.toml", "none.toml", "mesh_file: "),
        ("key = \"node.key\"", "", "tls.key: is missing"),
    ] {
        let folder = folder();
        assert!(LEAST.contains(change), "{change}");
        let error = parse(folder.path(), &LEAST.replacen(change, with, 1)).expect_err(said);
        let ConfigError::Faults { faults, .. } = &error else {
            panic!("{said}: {error}");
        };
        assert_eq!(faults.len(), 1, "{said}: {faults:?}");
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
}

#[test]
fn all_faults_come_together() {
    let folder = folder();
    let text = "nod = \"n1\"\nstate_dir = \"\"\n[tls]\nca = 1\n[service]\nstop_timeout = \"soon\"\n[peers]\npol = \"1s\"\n";
    let error = parse(folder.path(), text).expect_err("nothing in it is right");
    let ConfigError::Faults { faults, .. } = error else {
        panic!("{error}");
    };
    for key in [
        "nod:",
        "node:",
        "state_dir:",
        "mesh_file:",
        "tls.ca:",
        "tls.cert:",
        "tls.key:",
        "service.program:",
        "service.stop_timeout:",
        "peers.pol:",
    ] {
        assert!(
            faults.iter().any(|fault| fault.starts_with(key)),
            "{key} is not among {faults:#?}"
        );
    }
    assert!(matches!(
        parse(folder.path(), "node = "),
        Err(ConfigError::Syntax { .. })
    ));
}

#[test]
fn the_shipped_file_is_taken() {
    let folder = folder();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/config/cbagent.toml");
    let text = fs::read_to_string(shipped).expect("packaging ships it");
    let config = parse(folder.path(), &text).expect("it is an example");
    // What its comments call defaults must be the defaults.
    let spelled: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // The one key that excludes others.
            Some(rest) if rest.starts_with("unit = ") => String::new(),
            Some(rest) if is_example(rest) => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let spelled = parse(folder.path(), &spelled).expect("every key in a comment exists");
    assert_eq!(spelled.service.stop_timeout, config.service.stop_timeout);
    assert_eq!(spelled.service.ready_timeout, config.service.ready_timeout);
    assert_eq!(spelled.service.sync_interval, config.service.sync_interval);
    assert_eq!(
        spelled.service.command_timeout,
        config.service.command_timeout
    );
    assert_eq!(spelled.run_dir, PathBuf::from(RUN_DIR));
    let mut health = spelled.health;
    // Examples, not defaults.
    assert_eq!(health.grace.take(), Some(Duration::from_secs(60)));
    assert_eq!(health.tcp.take(), "127.0.0.1:5000".parse().ok());
    let reads = "http://127.0.0.1:5000/api/orders?take=1";
    assert_eq!(health.reads.take().as_deref(), Some(reads));
    assert_eq!(health, config.health);
    assert_eq!(spelled.limits, config.limits);
    assert_eq!(spelled.peers, config.peers);
    assert_eq!(spelled.service.undrain, ["/usr/local/bin/undrain"]);
}

const UNIT: &str = "unit = \"cbddc.service\"\n";

/// The least that is needed where systemd runs the node.
fn least_with_unit() -> String {
    LEAST.replace("program = \"bin/cbddc\"\n", UNIT)
}

#[test]
fn a_unit_takes_the_place_of_the_program() {
    let folder = folder();
    let config = parse(folder.path(), LEAST).expect("enough");
    assert_eq!(config.service.unit, None);
    assert_eq!(config.run_dir, folder.path().join("state/run"));

    let least = least_with_unit();
    let config = parse(folder.path(), &least).expect("enough");
    assert_eq!(config.service.unit.as_deref(), Some("cbddc.service"));
    assert_eq!(config.run_dir, PathBuf::from(RUN_DIR));
    let elsewhere = least.replace("[tls]", "run_dir = \"here\"\n[tls]");
    let config = parse(folder.path(), &elsewhere).expect("a folder");
    assert_eq!(config.run_dir, folder.path().join("here"));

    for key in [
        "program = \"bin/x\"",
        "args = [\"x\"]",
        "env = { A = \"b\" }",
        "working_dir = \"/x\"",
    ] {
        let error = parse(folder.path(), &format!("{least}{key}\n")).expect_err(key);
        let ConfigError::Faults { faults, .. } = &error else {
            panic!("{key}: {error}");
        };
        assert_eq!(faults.len(), 1, "{key}: {faults:?}");
        let name = key.split(' ').next().expect("a key");
        let said = format!("service.{name}: is given by the unit");
        assert!(faults[0].starts_with(&said), "{faults:?}");
    }
    for wrong in [
        "cbddc",
        "cbddc.socket",
        ".service",
        "a b.service",
        "a/b.service",
        "a@.service",
        "@a.service",
    ] {
        let error = parse(folder.path(), &least.replace("cbddc.service", wrong)).expect_err(wrong);
        let said = "service.unit: must be the name of a service unit";
        assert!(error.to_string().contains(said), "{wrong}: {error}");
    }
    for right in [
        "a.service",
        "a@b.service",
        "a-b_c:d.e.service",
        "a\\\\x2db.service",
    ] {
        parse(folder.path(), &least.replace("cbddc.service", right)).expect(right);
    }
}

#[test]
fn folders_are_found_in_any_file() {
    let folder = folder();
    let file = folder.path().join("cbagent.toml");
    let (state, run) = (Path::new(STATE_DIR), Path::new(RUN_DIR));
    for (text, state, run, sound) in [
        (
            "state_dir = \"s\"\nrun_dir = \"/r\"\nnonsense = 1\n",
            &*folder.path().join("s"),
            Path::new("/r"),
            true,
        ),
        ("state_dir = 7\n", state, run, true),
        ("state_dir = ", state, run, false),
    ] {
        fs::write(&file, text).expect("written");
        let (folders, fault) = Folders::load(&file);
        assert_eq!(
            (&*folders.state_dir, &*folders.run_dir),
            (state, run),
            "{text}"
        );
        assert_eq!(fault.is_none(), sound, "{text}: {fault:?}");
    }
    let (folders, fault) = Folders::load(&folder.path().join("none"));
    assert_eq!((&*folders.state_dir, &*folders.run_dir), (state, run));
    assert!(matches!(fault, Some(ConfigError::Read { .. })), "{fault:?}");
}
