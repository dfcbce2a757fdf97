//! What an admin has put on each host: a CBDDC node that was set up by hand, and the agent's files.

use super::{Hosts, Packages, network};
use crate::mesh::options::dialect_wanted;
use crate::mesh::{Ran, Timing, wait_for};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Where nodes listen for peers.
pub const SYNC_PORT: u16 = 4001;
/// Where nodes listen for HTTP.
pub const HTTP_PORT: u16 = 5000;
/// Where agents listen.
pub const AGENT_PORT: u16 = 7443;

/// The token of the nodes' cluster.
pub(super) const TOKEN: &str = "a-token-for-tests";

/// The unit of a node as people write them.
const NODE_UNIT: &str = "\
[Unit]
Description=CBDDC node
After=network.target

[Service]
User=cbddc
StateDirectory=cbddc
ExecStart=/opt/cbddc/fixture-node --settings /etc/cbddc/appsettings.json
Restart=on-failure

[Install]
WantedBy=multi-user.target
";

/// What the agent is told of its node. Only this changes when the agent takes units over.
const AGENT_SERVICE: &str = r#"[service]
unit = "cbddc.service"
databases = ["/var/lib/cbddc/node.db"]
stop_timeout = "10s"
ready_timeout = "10s"
sync_interval = "200ms"
"#;

impl Hosts {
    /// Sets a node up on each host, as an admin did long before there were agents, and starts it.
    #[track_caller]
    pub fn set_nodes_up(&self) {
        self.on_each(|host| self.set_node_up(host));
        self.on_each(|host| self.wait_for_node(host, crate::ground::PATIENCE));
    }

    /// The same on one host.
    #[track_caller]
    pub fn set_node_up(&self, host: u8) {
        let root = self.folder().join("nodes").join(self.name(host));
        self.write_node(host, &root);
        self.plant(host, &root);
        let line = "systemd-sysusers && chgrp cbddc /etc/cbddc/appsettings.json \
                    && systemctl daemon-reload && systemctl enable --quiet --now cbddc && sync";
        self.shell(host, line).expect(0);
    }

    fn write_node(&self, host: u8, root: &Path) {
        let others = self.numbers().filter(|other| *other != host);
        let peer = |other: u8| {
            serde_json::json!({
                "NodeId": self.name(other), "Host": self.address(other), "Port": SYNC_PORT,
            })
        };
        let settings = serde_json::json!({
            "EntglDb": {
                "NodeName": self.name(host),
                "Port": SYNC_PORT,
                "AuthToken": TOKEN,
                "KnownPeers": others.map(peer).collect::<Vec<_>>(),
            },
            "Database": { "Path": "/var/lib/cbddc/node.db" },
            "Fixture": {
                "Like": dialect_wanted().name(),
                "Listen": "0.0.0.0", "Http": HTTP_PORT, "IntervalMs": 200, "MaxBackoffMs": 400,
                // What a test counts must not be lost by the node itself.
                "Durable": true,
            },
        });
        let settings = format!("{settings:#}\n");
        write(root, "etc/cbddc/appsettings.json", &settings, 0o640);
        write(root, "etc/systemd/system/cbddc.service", NODE_UNIT, 0o644);
        let user = "u cbddc - \"CBDDC node\" /var/lib/cbddc\n";
        write(root, "etc/sysusers.d/cbddc.conf", user, 0o644);
        write(root, "opt/cbddc/version", "adopted\n", 0o644);
        let program = root.join("opt/cbddc/fixture-node");
        fs::create_dir_all(program.parent().expect("it lies in a folder")).expect("a new folder");
        fs::copy(Packages::get().fixture_node(), program).expect("the fixture node can be copied");
    }

    /// Installs a package on a host from its file.
    #[track_caller]
    pub fn install(&self, host: u8, package: &str, version: &str) {
        let file = Packages::get().file(package, version);
        let path = format!("/var/cache/{package}.deb");
        self.put(host, &file, &path, 0o644);
        // `--force-confdef`: as an admin answers who keeps what he changed.
        let line = format!("dpkg --force-confdef --force-confold -i {path} && sync");
        self.shell(host, &line).expect(0);
    }

    /// Makes the mesh's authority on the machine, as `cbctl mesh init` does.
    #[track_caller]
    pub fn make_mesh(&self) {
        let authority = self.folder().join("authority");
        let mut arguments: Vec<String> = ["mesh", "init", "--name", "shop", "--user", "ana"]
            .map(str::to_owned)
            .into();
        arguments.push("--no-passphrase".into());
        arguments.extend(["--dir".into(), authority.to_string_lossy().into()]);
        for host in self.numbers() {
            let (name, address) = (self.name(host), self.address(host));
            arguments.extend(["--member".into(), format!("{name}={address}:{AGENT_PORT}")]);
        }
        self.cbctl(&arguments).expect(0);
    }

    /// Gives every host its certificate and configuration; the package must be installed.
    #[track_caller]
    pub fn configure_agents(&self) {
        self.on_each(|host| {
            let (name, root) = (self.name(host), self.folder().join("agents"));
            let root = root.join(&name);
            let folder = root.join("etc/cbagent");
            fs::create_dir_all(root.join("etc")).expect("a new folder");
            let out = folder.to_string_lossy();
            self.cbctl(&["mesh", "issue", &name, "--out", &out])
                .expect(0);
            self.plant(host, &root);
            self.configure_agent(host);
        });
    }

    /// Gives a host the configuration of its agent, without a certificate.
    #[track_caller]
    pub fn configure_agent(&self, host: u8) {
        let root = self.folder().join("configured").join(self.name(host));
        write(&root, "etc/cbagent/token", &format!("{TOKEN}\n"), 0o600);
        let config = self.agent_config(host);
        write(&root, "etc/cbagent/cbagent.toml", &config, 0o600);
        self.plant(host, &root);
    }

    pub(super) fn agent_config(&self, host: u8) -> String {
        let others = self.numbers().filter(|other| *other != host);
        let peers = others.map(|other| format!("\"{}:{SYNC_PORT}\"", self.address(other)));
        format!(
            r#"node = "{name}"
state_dir = "/var/lib/cbagent"
mesh_file = "mesh.toml"

[tls]
ca = "ca.pem"
cert = "node.pem"
key = "node.key"

{AGENT_SERVICE}
[cbddc]
address = "127.0.0.1:{SYNC_PORT}"
token_file = "token"
expected_peers = [{peers}]

[health]
http = "http://127.0.0.1:{HTTP_PORT}/health"
interval = "500ms"
min_free_disk = "1MiB"

[peers]
poll = "500ms"
ask_limit = "2s"
call_timeout = "2s"
"#,
            name = self.name(host),
            peers = peers.collect::<Vec<_>>().join(", "),
        )
    }

    /// Makes a build `cbddc@VERSION` of the fixture node with these faults, and sends it to every host.
    #[track_caller]
    pub fn make_build(&self, version: &str, faults: &str) {
        let folder = self.folder().join("builds").join(version);
        write(&folder, "version", &format!("{version}\n"), 0o644);
        write(&folder, "faults", &format!("{faults}\n"), 0o644);
        let program = folder.join("fixture-node");
        fs::copy(Packages::get().fixture_node(), program).expect("the fixture node can be copied");
        self.push_build(version, &folder);
    }

    /// Packs this folder as `cbddc@VERSION`, and sends it to every host.
    #[track_caller]
    pub fn push_build(&self, version: &str, folder: &Path) {
        let bundle = self.folder().join(format!("{version}.cbundle"));
        let (id, folder, bundle) = (
            format!("cbddc@{version}"),
            folder.to_string_lossy().into_owned(),
            bundle.to_string_lossy().into_owned(),
        );
        self.cbctl(&["build", "pack", &folder, "--build", &id, "--out", &bundle])
            .expect(0);
        self.cbctl(&["build", "push", &bundle]).expect(0);
    }

    /// Rolls such a build out over the whole mesh, with limits that a busy machine does not reach.
    #[track_caller]
    pub fn roll_out(&self, version: &str) -> Ran {
        let words = self.rollout_in(version, Timing::GENEROUS);
        self.cbctl(&words).expect(0)
    }

    /// The arguments that roll such a build out over the whole mesh, with short times.
    pub fn rollout(&self, version: &str) -> Vec<String> {
        self.rollout_in(version, Timing::default())
    }

    /// The same with times of its own.
    pub fn rollout_in(&self, version: &str, timing: Timing) -> Vec<String> {
        let build = format!("cbddc@{version}");
        let words = ["rollout", "start", "--build", &build, "--mesh", "--yes"];
        let words = words.into_iter().map(str::to_owned);
        words.chain(timing.arguments()).collect()
    }

    /// Waits until every host is steady on this build, and its node says that it is that version.
    #[track_caller]
    pub fn wait_until_all_run(&self, version: &str, limit: Duration) {
        for host in self.numbers() {
            self.wait_until_runs(host, version, limit);
        }
    }

    /// Waits until a host is steady on this build, and its node says that it is that version.
    #[track_caller]
    pub fn wait_until_runs(&self, host: u8, version: &str, limit: Duration) {
        let id = format!("cbddc@{version}");
        wait_for(&format!("h{host} runs {id}"), limit, || {
            let status = self.status(host);
            let result = &status["result"];
            let runs = result["phase"] == "steady" && result["release"]["build"] == id;
            runs.then_some(())
        });
        // A host that has just booted is steady before its node has started.
        let said = wait_for(&format!("the node of h{host} answers"), limit, || {
            self.node_version(host)
        });
        assert_eq!(said, version, "h{host}");
    }

    /// The version that a host's node says it is, if it answers.
    pub fn node_version(&self, host: u8) -> Option<String> {
        let (_, stats) = network::request(self, host, "GET", "/stats", "").ok()?;
        let stats: Value = serde_json::from_str(&stats).ok()?;
        stats["version"].as_str().map(str::to_owned)
    }

    /// Waits until a host is in this phase.
    #[track_caller]
    pub fn wait_for_phase(&self, host: u8, wanted: &str, limit: Duration) {
        wait_for(&format!("h{host} is in {wanted}"), limit, || {
            (self.status(host)["result"]["phase"] == wanted).then_some(())
        });
    }

    /// Starts the agent of every host and waits until it answers.
    #[track_caller]
    pub fn start_agents(&self) {
        self.on_each(|host| {
            let line = "systemctl daemon-reload && systemctl start cbagent";
            self.shell(host, line).expect(0);
        });
        for host in self.numbers() {
            self.wait_for_agent(host, crate::ground::PATIENCE);
        }
    }

    /// Does the same on all hosts at once.
    pub fn on_each(&self, work: impl Fn(u8) + Sync) {
        std::thread::scope(|scope| {
            for host in self.numbers() {
                let work = &work;
                scope.spawn(move || work(host));
            }
        });
    }
}

/// Writes a file of a tree that will be laid over a host's root.
#[track_caller]
fn write(root: &Path, path: &str, text: &str, mode: u32) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a new folder");
    fs::write(&path, text).expect("a file can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode can be set");
}
