//! The mesh as a whole.

use super::node::TestNode;
use super::run::{Ran, Running};
use super::{MeshOptions, interrupt, ports, wait_for, wait_for_or_tell};
use crate::bins::binary;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long an agent may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long one command of an admin may take; rollouts of tests are far shorter.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// How often a mesh is begun anew because somebody took a port in between.
const STARTS: u32 = 3;

/// The last lines of a log that are shown when a test fails.
const TAIL_LINES: usize = 40;

/// A mesh that runs. Everything that it started ends with it.
#[derive(Debug)]
pub struct TestMesh {
    folder: Option<TempDir>,
    root: PathBuf,
    options: MeshOptions,
    nodes: Vec<TestNode>,
}

impl TestMesh {
    /// Makes a mesh and starts its agents; returns once each of them answers. No node runs yet.
    #[track_caller]
    pub fn start(options: MeshOptions) -> Self {
        for _ in 1..STARTS {
            let mut mesh = Self::prepare(options.clone());
            if mesh.try_start() {
                return mesh;
            }
        }
        let mut mesh = Self::prepare(options);
        assert!(mesh.try_start(), "an agent ended at its start");
        mesh
    }

    /// Makes the files of a mesh; starts nothing.
    #[track_caller]
    pub fn prepare(options: MeshOptions) -> Self {
        interrupt::end_when_time_is_up();
        let folder = tempfile::Builder::new().prefix("cbddc-mesh-").tempdir();
        let folder = folder.expect("a temporary folder");
        let root = folder.path().to_owned();
        let ports = ports::free(5 * options.nodes);
        let nodes: Vec<TestNode> = ports
            .chunks(5)
            .enumerate()
            .map(|(index, ports)| TestNode::new(&root, index, ports))
            .collect();
        let mesh = Self {
            folder: Some(folder),
            root,
            options,
            nodes,
        };
        fs::create_dir(mesh.root.join("said")).expect("a new folder");
        mesh.issue_certificates();
        for node in &mesh.nodes {
            let others: Vec<&TestNode> = mesh
                .nodes
                .iter()
                .filter(|other| other.name != node.name)
                .collect();
            node.write_files(&mesh.options, &others);
        }
        mesh
    }

    fn issue_certificates(&self) {
        let authority = self.root.join("authority");
        let mut arguments = vec![
            "mesh".to_owned(),
            "init".into(),
            "--no-passphrase".into(),
            "--user".into(),
            "ana".into(),
        ];
        arguments.extend(["--name".into(), self.options.name.clone()]);
        arguments.extend(["--dir".into(), text(&authority)]);
        for node in &self.nodes {
            let member = format!("{}=127.0.0.1:{}", node.name, node.agent_port);
            arguments.extend(["--member".into(), member]);
        }
        self.cbctl(&arguments).expect(0);
        for (index, node) in self.nodes.iter().enumerate() {
            let out = text(&node.folder);
            let mut line = vec!["mesh", "issue", &node.name, "--out", &out];
            if index < self.options.issuers {
                line.push("--issuer");
            }
            self.cbctl(&line).expect(0);
        }
        // The labels of issuers came one by one.
        for node in &self.nodes {
            let newest = authority.join("mesh.toml");
            fs::copy(newest, node.folder.join("mesh.toml")).expect("a mesh file");
        }
    }

    /// Makes the files of one more host, which has no certificate yet, and returns its index.
    #[track_caller]
    pub fn add_host(&mut self) -> usize {
        let node = TestNode::new(&self.root, self.nodes.len(), &ports::free(5));
        fs::create_dir(&node.folder).expect("a new folder");
        let others: Vec<&TestNode> = self.nodes.iter().collect();
        node.write_files(&self.options, &others);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Runs `cbagent join` on a host, to its end. `issuer` is another host.
    #[track_caller]
    pub fn join(&self, index: usize, issuer: usize, token: &str, more: &[&str]) -> Ran {
        let node = &self.nodes[index];
        let address = format!("127.0.0.1:{}", self.nodes[issuer].agent_port);
        let listen = format!("127.0.0.1:{}", node.agent_port);
        let dir = text(&node.folder);
        let mut command = Command::new(binary("cbagent"));
        command.args(["join", &address, "--token", token, "--dir", &dir]);
        if !more.contains(&"--listen") {
            command.args(["--listen", &listen]);
        }
        if !more.contains(&"--name") {
            command.args(["--name", &node.name]);
        }
        command.args(more);
        self.run("cbagent join", command)
    }

    /// False when an agent ended, as it does when somebody took its port.
    fn try_start(&mut self) -> bool {
        self.nodes
            .iter_mut()
            .for_each(|node| node.spawn_agent(None));
        let folder = self.root.clone();
        wait_for("every agent answers", START_LIMIT, || {
            if self.nodes.iter_mut().any(TestNode::agent_ended) {
                return Some(false);
            }
            let status = self.cbctl(&["status", "-o", "json", "--timeout", "1s"]);
            let nodes = status.json()["nodes"].as_array().cloned();
            let all = nodes.is_some_and(|nodes| nodes.iter().all(|node| node["outcome"] == "ok"));
            all.then_some(true)
        }) || {
            eprintln!(
                "an agent of {} ended at its start; once more",
                folder.display()
            );
            false
        }
    }

    /// What it was told.
    pub fn options(&self) -> &MeshOptions {
        &self.options
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the admin's `cbctl`, for `CBCTL_CONFIG`.
    pub fn cbctl_config(&self) -> PathBuf {
        self.root.join("cbctl")
    }

    /// How many hosts it has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when it has no host.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A host; the first is 0 and called n1.
    pub fn node(&self, index: usize) -> &TestNode {
        &self.nodes[index]
    }

    /// All hosts.
    pub fn nodes(&self) -> &[TestNode] {
        &self.nodes
    }

    /// `cbctl` as the admin of this mesh, in the mesh's folder.
    pub fn cbctl_command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(binary("cbctl"));
        command
            .args(arguments.iter().map(AsRef::as_ref))
            .env("CBCTL_CONFIG", self.cbctl_config())
            .current_dir(&self.root);
        command
    }

    /// Runs `cbctl` to its end.
    #[track_caller]
    pub fn cbctl<S: AsRef<str>>(&self, arguments: &[S]) -> Ran {
        self.cbctl_spawn(arguments).wait(COMMAND_LIMIT)
    }

    /// Starts `cbctl` and goes on.
    #[track_caller]
    pub fn cbctl_spawn<S: AsRef<str>>(&self, arguments: &[S]) -> Running {
        let words: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let line = format!("cbctl {}", words.join(" "));
        let command = self.cbctl_command(arguments);
        Running::start(line, command, &self.root.join("said"))
    }

    /// Runs a program that a test made to its end.
    #[track_caller]
    pub fn run(&self, line: &str, command: Command) -> Ran {
        Running::start(line.to_owned(), command, &self.root.join("said")).wait(COMMAND_LIMIT)
    }

    /// Runs `cbagent run` or `check` with the configuration of a host, to its end.
    #[track_caller]
    pub fn cbagent(&self, index: usize, word: &str) -> Ran {
        let mut command = Command::new(binary("cbagent"));
        let config = self.nodes[index].config();
        command.arg(word).arg("--config").arg(config);
        self.run(&format!("cbagent {word}"), command)
    }

    /// Starts the agent of a host and waits until it answers.
    #[track_caller]
    pub fn start_agent(&mut self, index: usize) {
        self.start_agent_crashing(index, None);
    }

    /// Starts the agent of a host that nobody lets in yet; does not wait for an answer.
    #[track_caller]
    pub fn start_agent_alone(&mut self, index: usize) {
        self.nodes[index].spawn_agent(None);
    }

    /// The same as [`Self::start_agent`]; where `crash` names a point such as `after:stop`, the agent ends itself there.
    #[track_caller]
    pub fn start_agent_crashing(&mut self, index: usize, crash: Option<&str>) {
        self.nodes[index].spawn_agent(crash);
        let name = self.nodes[index].name.clone();
        wait_for("an agent answers", START_LIMIT, || {
            let ended = self.nodes[index].agent_ended();
            assert!(!ended, "the agent of {name} ended: {}", self.tails());
            let node = self.status_of(index);
            (node["outcome"] == "ok").then_some(())
        });
    }

    /// Gives the agent of a host these variables, from its next start on.
    pub fn set_environment(
        &mut self,
        index: usize,
        environment: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        self.nodes[index].environment = environment.into_iter().collect();
    }

    /// Waits until the agent of a host has ended by itself.
    #[track_caller]
    pub fn wait_for_crash(&mut self, index: usize, limit: Duration) {
        let node = &mut self.nodes[index];
        wait_for("the agent crashes", limit, || {
            node.agent_ended().then_some(())
        });
        node.kill_agent();
    }

    /// Kills the agent of a host as `kill -9` does; its node goes on.
    pub fn kill_agent(&mut self, index: usize) {
        self.nodes[index].kill_agent();
    }

    /// Asks the agent of a host to stop; its node goes on.
    #[track_caller]
    pub fn stop_agent(&mut self, index: usize) {
        self.nodes[index].stop_agent();
    }

    /// The process of a host's node, while it lives.
    pub fn node_pid(&self, index: usize) -> Option<u32> {
        self.nodes[index].node_process().map(|process| process.pid)
    }

    /// What `cbctl status -o json` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.cbctl(&["status", "-o", "json", "--timeout", "2s"])
            .json()
    }

    /// What `cbctl status -o json` says of one host: `outcome`, and `result` if it answered.
    #[track_caller]
    pub fn status_of(&self, index: usize) -> Value {
        let name = &self.nodes[index].name;
        let ran = self.cbctl(&["status", "-o", "json", "--timeout", "2s", "--node", name]);
        // Usage: a host that has just joined is not known to every member yet.
        match ran.code {
            64 => Value::Null,
            _ => ran.json()["nodes"][0].clone(),
        }
    }

    /// Waits until a condition of the mesh gives something; panics with its name otherwise.
    #[track_caller]
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        wait_for(what, limit, || condition(self))
    }

    /// Waits until every host is steady on `cbddc@VERSION` and healthy.
    #[track_caller]
    pub fn wait_until_all_run(&self, version: &str, limit: Duration) {
        let build = format!("cbddc@{version}");
        let runs = |node: &Value| {
            let node = &node["result"];
            node["phase"] == "steady"
                && node["health"]
                    .as_str()
                    .is_some_and(|health| health.eq_ignore_ascii_case("healthy"))
                && node["release"]["build"] == build.as_str()
        };
        wait_for_or_tell(&format!("every node runs {build}"), limit, || {
            let status = self.status();
            let nodes = status["nodes"].as_array();
            let all = nodes.is_some_and(|nodes| nodes.iter().all(runs));
            all.then_some(()).ok_or_else(|| format!("{status:#}"))
        });
    }

    /// The newest entries of a host's journal, oldest first.
    #[track_caller]
    pub fn journal(&self, index: usize) -> Vec<Value> {
        let name = &self.nodes[index].name;
        let list = ["journal", "list", "-o", "json", "--limit", "1000", "--node"];
        let ran = self.cbctl(&[&list[..], &[name]].concat()).expect(0);
        ran.json()["entries"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// The ends of all logs.
    pub fn tails(&self) -> String {
        let logs = self
            .nodes
            .iter()
            .flat_map(|node| [node.agent_log(), node.node_log()]);
        logs.filter_map(|log| {
            let text = fs::read_to_string(&log).ok()?;
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            Some(format!("--- {}\n{}\n", log.display(), tail.join("\n")))
        })
        .collect()
    }

    /// Leaves agents, nodes and folder as they are, and returns the folder.
    pub fn keep(mut self) -> PathBuf {
        self.nodes.iter_mut().for_each(TestNode::forget_agent);
        self.nodes.clear();
        if let Some(folder) = self.folder.take() {
            let _ = folder.keep();
        }
        self.root.clone()
    }

    /// Ends agents first, so that none starts its node again.
    fn end(&mut self) {
        self.nodes.iter_mut().for_each(TestNode::kill_agent);
        let nodes = self.nodes.iter().filter_map(TestNode::node_process);
        nodes.for_each(super::processes::Process::kill);
    }
}

impl Drop for TestMesh {
    fn drop(&mut self) {
        let failed = std::thread::panicking() && !interrupt::is_set();
        self.end();
        let Some(folder) = self.folder.take().filter(|_| failed) else {
            return;
        };
        let path = folder.keep();
        eprintln!(
            "{}the mesh's files stay in {}",
            self.tails(),
            path.display()
        );
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
