//! The hosts as a whole: up, reached into, cut off, down.

use super::{all_tests_are_required, network, script};
use crate::bins::binary;
use crate::mesh::{Ran, Running};
use crate::mesh::{interrupt, wait_for};
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// One verb of the script; a host that does not boot says so after 60 s.
const VERB_LIMIT: Duration = Duration::from_secs(120);

/// The first `up` on a machine also makes the base tree.
const UP_LIMIT: Duration = Duration::from_secs(600);

/// One command of an admin.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// How many lines of each host's journal are shown when a test fails.
const JOURNAL_LINES: &str = "60";

/// Hosts are heavy: one test of a process at a time has some. How many processes do, is for
/// `.config/nextest.toml` to say.
static TURN: Mutex<()> = Mutex::new(());

/// Numbers the networks of this process.
static NETWORKS: AtomicU8 = AtomicU8::new(0);

/// Hosts that run, numbered from 1 and called h1, h2, …. Everything goes when this is dropped.
#[derive(Debug)]
pub struct Hosts {
    folder: TempDir,
    tag: String,
    network: [u8; 3],
    count: u8,
    _turn: MutexGuard<'static, ()>,
}

impl Hosts {
    /// Boots so many hosts. Where this machine cannot, says what is left out and returns `None`.
    ///
    /// # Panics
    /// If all tests are required and this machine cannot, or if a host does not come up.
    #[track_caller]
    pub fn up(count: u8) -> Option<Self> {
        interrupt::end_when_time_is_up();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new().prefix("cbddc-hosts-").tempdir();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let hosts = Self {
            folder: folder.expect("a temporary folder"),
            tag: format!("cbh-{}-{number}", std::process::id()),
            network: [10, 77, number],
            count,
            _turn: turn,
        };
        let check = hosts.script(&["check"], VERB_LIMIT);
        if check.code != 0 {
            let why = check.stderr.trim();
            assert!(!all_tests_are_required(), "all tests are required: {why}");
            eprintln!("LEFT OUT: a test on {count} systemd hosts ({why})");
            return None;
        }
        // What an earlier run left that was killed.
        hosts.script(&["sweep"], VERB_LIMIT).expect(0);
        hosts
            .script(&["up", &count.to_string()], UP_LIMIT)
            .expect(0);
        Some(hosts)
    }

    /// How many there are.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// Their numbers.
    pub fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.count
    }

    /// A host's name, for the mesh, too.
    pub fn name(&self, host: u8) -> String {
        format!("h{host}")
    }

    /// A host's address.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, host)
    }

    /// A folder of this test on the machine.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What keeps the hosts of this run apart from those of others.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// The network in which the machine reaches them.
    pub(super) fn network_namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(format!("{}-switch", self.tag))
    }

    fn script(&self, arguments: &[&str], limit: Duration) -> Ran {
        self.spawn(arguments, &[]).wait(limit)
    }

    fn spawn(&self, arguments: &[&str], env: &[(&str, &Path)]) -> Running {
        let mut command = Command::new(script());
        let [a, b, c] = self.network;
        command
            .args(arguments)
            .env("CBDDC_HOSTS_TAG", &self.tag)
            .env("CBDDC_HOSTS_NET", format!("{a}.{b}.{c}"))
            .env("CBDDC_HOSTS_OWNER", std::process::id().to_string())
            .envs(env.iter().copied());
        let said = self.folder().join("said");
        fs::create_dir_all(&said).expect("a folder for what programs say");
        Running::start(arguments.join(" "), command, &said)
    }

    /// A verb of the script that must succeed, about one host.
    #[track_caller]
    fn verb(&self, verb: &str, host: u8, rest: &[&str]) -> Ran {
        let host = host.to_string();
        let arguments = [&[verb, &host], rest].concat();
        self.script(&arguments, VERB_LIMIT).expect(0)
    }

    /// Runs a command on a host, as a unit of its own, to its end.
    #[track_caller]
    pub fn run(&self, host: u8, command: &[&str]) -> Ran {
        let host = host.to_string();
        let arguments = [&["run", &host], command].concat();
        self.script(&arguments, COMMAND_LIMIT)
    }

    /// Runs a command beside a host's own processes, without making a unit of it: the quickest way in.
    #[track_caller]
    pub fn enter(&self, host: u8, command: &[&str]) -> Ran {
        let host = host.to_string();
        let arguments = [&["enter", &host], command].concat();
        self.script(&arguments, COMMAND_LIMIT)
    }

    /// Runs a line of shell on a host.
    #[track_caller]
    pub fn shell(&self, host: u8, line: &str) -> Ran {
        self.run(host, &["/bin/sh", "-c", line])
    }

    /// What a line of shell prints that must succeed, without the spaces around it.
    #[track_caller]
    pub fn say(&self, host: u8, line: &str) -> String {
        let ran = self.shell(host, line).expect(0);
        ran.stdout.trim().to_owned()
    }

    /// Copies a file to a host; a power cut does not take it away.
    #[track_caller]
    pub fn put(&self, host: u8, file: &Path, path: &str, mode: u32) {
        let (file, mode) = (file.to_string_lossy(), format!("{mode:o}"));
        self.verb("put", host, &[&file, path, &mode]);
    }

    /// Writes a file on a host; a power cut does not take it away.
    #[track_caller]
    pub fn write(&self, host: u8, path: &str, text: &str, mode: u32) {
        let file = tempfile::NamedTempFile::new_in(self.folder()).expect("a temporary file");
        fs::write(file.path(), text).expect("a temporary file can be written");
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(file.path(), permissions).expect("a mode can be set");
        self.put(host, file.path(), path, mode);
    }

    /// Lays all files below a folder over a host's root.
    #[track_caller]
    pub fn plant(&self, host: u8, folder: &Path) {
        self.verb("plant", host, &[&folder.to_string_lossy()]);
    }

    /// Makes durable what a host has written so far.
    #[track_caller]
    pub fn sync(&self, host: u8) {
        self.run(host, &["sync"]).expect(0);
    }

    /// The power of a host fails: what it had not synced is gone.
    #[track_caller]
    pub fn cut(&self, host: u8) {
        self.verb("cut", host, &[]);
    }

    /// All processes of a host die at once; its disk keeps everything.
    #[track_caller]
    pub fn crash(&self, host: u8) {
        self.verb("crash", host, &[]);
    }

    /// Shuts a host down.
    #[track_caller]
    pub fn stop(&self, host: u8) {
        self.verb("stop", host, &[]);
    }

    /// Boots a host that is down; returns once its systemd has started everything.
    #[track_caller]
    pub fn boot(&self, host: u8) {
        self.verb("boot", host, &[]);
    }

    /// Puts a new disk into a host that is down, with nothing on it but a fresh system.
    #[track_caller]
    pub fn replace_disk(&self, host: u8) {
        self.verb("wipe", host, &[]);
    }

    /// Separates these hosts from all others. The machine stays with the others.
    #[track_caller]
    pub fn cut_off(&self, apart: &[u8]) {
        let list = |hosts: Vec<u8>| {
            let numbers: Vec<String> = hosts.iter().map(u8::to_string).collect();
            numbers.join(",")
        };
        let others = self.numbers().filter(|host| !apart.contains(host));
        let (others, apart) = (list(others.collect()), list(apart.to_vec()));
        self.script(&["split", &others, &apart], VERB_LIMIT)
            .expect(0);
    }

    /// All hosts reach each other again.
    #[track_caller]
    pub fn heal(&self) {
        self.cut_off(&[]);
    }

    /// Pulls the cable of a host, or puts it back.
    #[track_caller]
    pub fn plug(&self, host: u8, plugged: bool) {
        self.verb("link", host, &[if plugged { "up" } else { "down" }]);
    }

    /// The end of a host's journal, also while it is down.
    pub fn journal(&self, host: u8) -> String {
        let host = host.to_string();
        let ran = self.script(&["journal", &host, JOURNAL_LINES], VERB_LIMIT);
        ran.stdout + &ran.stderr
    }

    /// Runs `cbctl` as the admin of the mesh, on a machine of the hosts' network, to its end.
    #[track_caller]
    pub fn cbctl<S: AsRef<str>>(&self, arguments: &[S]) -> Ran {
        self.cbctl_spawn(arguments).wait(COMMAND_LIMIT)
    }

    /// Starts `cbctl` and goes on.
    #[track_caller]
    pub fn cbctl_spawn<S: AsRef<str>>(&self, arguments: &[S]) -> Running {
        let program = binary("cbctl");
        let program = program.to_string_lossy();
        let words = arguments.iter().map(AsRef::as_ref);
        let arguments: Vec<&str> = ["net", &*program].into_iter().chain(words).collect();
        self.spawn(&arguments, &[("CBCTL_CONFIG", &self.cbctl_config())])
    }

    /// The folder of the admin's `cbctl`.
    pub fn cbctl_config(&self) -> PathBuf {
        self.folder().join("cbctl")
    }

    /// What `cbctl status -o json` says of a host: `outcome`, and `result` if it answered.
    #[track_caller]
    pub fn status(&self, host: u8) -> Value {
        let name = self.name(host);
        let ran = self.cbctl(&["status", "-o", "json", "--timeout", "2s", "--node", &name]);
        ran.json()["nodes"][0].clone()
    }

    /// Waits until the agent of a host answers.
    #[track_caller]
    pub fn wait_for_agent(&self, host: u8, limit: Duration) {
        let what = format!("the agent of h{host} answers");
        wait_for(&what, limit, || {
            (self.status(host)["outcome"] == "ok").then_some(())
        });
    }

    /// Waits until a host's node answers that it is healthy.
    #[track_caller]
    pub fn wait_for_node(&self, host: u8, limit: Duration) {
        wait_for(&format!("the node of h{host} is healthy"), limit, || {
            let answer = network::request(self, host, "GET", "/health", "").ok()?;
            (answer.0 == 200).then_some(())
        });
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in self.numbers() {
                eprintln!("--- journal of h{host}\n{}", self.journal(host));
            }
        }
        let down = self.script(&["down"], VERB_LIMIT);
        if down.code != 0 {
            eprintln!("the hosts were not removed: {down}");
        }
    }
}
