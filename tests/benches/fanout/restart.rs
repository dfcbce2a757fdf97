//! A node that nobody supervises: how long it takes by itself to stop, start and be healthy.

use crate::rollback::read_json;
use cbddc_tests::bins::binary;
use cbddc_tests::mesh::processes::Process;
use cbddc_tests::mesh::{TestMesh, http, ports};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(30);

/// One node by itself.
pub(crate) struct Alone {
    program: PathBuf,
    settings: PathBuf,
    http_port: u16,
    child: Child,
}

impl Alone {
    /// Starts one with a database of its own, otherwise like the first one of the mesh.
    pub(crate) fn start(mesh: &TestMesh, program: &Path, number: usize) -> Self {
        let folder = mesh.root().join(format!("alone-{number}"));
        fs::create_dir(&folder).expect("a new folder");
        let ports = ports::free(2);
        let mut settings = read_json(&mesh.node(0).folder.join("appsettings.json"));
        settings["EntglDb"]["NodeName"] = json!(format!("alone-{number}"));
        settings["EntglDb"]["Port"] = json!(ports[0]);
        settings["Fixture"]["Http"] = json!(ports[1]);
        settings["Database"]["Path"] = json!(folder.join("node.db"));
        let path = folder.join("appsettings.json");
        fs::write(&path, settings.to_string()).expect("a file in a new folder");
        let mut alone = Self {
            program: program.to_owned(),
            http_port: ports[1],
            child: spawn(program, &path),
            settings: path,
        };
        alone.wait_until_healthy();
        alone
    }

    /// Stops it, starts it, and waits until it is healthy.
    pub(crate) fn restart(&mut self) {
        let process = Process::of(self.child.id()).expect("the node lives");
        process.signal(Signal::TERM);
        self.child.wait().expect("a child can be waited for");
        self.child = spawn(&self.program, &self.settings);
        self.wait_until_healthy();
    }

    /// Restarts many at once.
    pub(crate) fn restart_all(all: &mut [Self]) {
        std::thread::scope(|scope| {
            for one in all {
                scope.spawn(|| one.restart());
            }
        });
    }

    fn wait_until_healthy(&mut self) {
        let until = Instant::now() + LIMIT;
        let is_healthy = || {
            let answer = http::request(self.http_port, "GET", "/health", "");
            answer.is_ok_and(|(status, _)| status == 200)
        };
        while !is_healthy() {
            assert!(Instant::now() < until, "the node is not healthy in time");
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, settings: &Path) -> Child {
    Command::new(program)
        .arg("--settings")
        .arg(settings)
        .env("FIXTURE_NODE", binary("fixture-node"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the node can be started")
}
