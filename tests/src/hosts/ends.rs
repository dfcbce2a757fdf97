//! How an agent is ended at a chosen moment, and what a host shows after the boot that follows.

use super::Hosts;
use crate::ground::PATIENCE;
use crate::mesh::wait_for;
use serde_json::Value;
use std::time::Duration;

/// A drop-in of this boot only: the next one knows nothing of it.
const CRASH_FILE: &str = "/run/systemd/system/cbagent.service.d/90-crash.conf";

impl Hosts {
    /// Starts the agent of a host anew; it ends itself at this point, such as `after:stop`, and stays
    /// down until the next boot.
    #[track_caller]
    pub fn crash_agent_at(&self, host: u8, point: &str) {
        let text = format!("[Service]\\nEnvironment=CBAGENT_CRASH={point}\\nRestart=no\\n");
        let line = format!(
            "mkdir -p {folder} && printf '{text}' >{CRASH_FILE} \
             && systemctl daemon-reload && systemctl restart cbagent",
            folder = CRASH_FILE.rsplit_once('/').map_or("", |(folder, _)| folder),
        );
        self.shell(host, &line).expect(0);
        // On a slow machine it has reached the point before anybody could ask it.
        wait_for(&format!("the agent of h{host} answers"), PATIENCE, || {
            let begun = self.status(host)["outcome"] == "ok" || !self.agent_lives(host);
            begun.then_some(())
        });
    }

    /// Starts the agent of a host that was ended so, as it was before.
    #[track_caller]
    pub fn start_agent_again(&self, host: u8) {
        let line = format!("rm {CRASH_FILE} && systemctl daemon-reload && systemctl start cbagent");
        self.shell(host, &line).expect(0);
    }

    /// Waits until the agent of a host has ended itself.
    #[track_caller]
    pub fn wait_for_agent_crash(&self, host: u8, limit: Duration) {
        wait_for(&format!("the agent of h{host} ends itself"), limit, || {
            (!self.agent_lives(host)).then_some(())
        });
    }

    /// The versions that were started on a host since it booted, in order.
    #[track_caller]
    pub fn versions_started(&self, host: u8) -> Vec<String> {
        let line = "journalctl --sync && journalctl -b -u cbddc -o cat --no-pager";
        let said = self.say(host, line);
        let version = |line: &str| {
            let rest = line.strip_prefix("version ")?;
            rest.strip_suffix(" starts").map(str::to_owned)
        };
        said.lines().filter_map(version).collect()
    }

    /// The newest entries of the journal of a host's agent, oldest first.
    #[track_caller]
    pub fn entries(&self, host: u8) -> Vec<Value> {
        let name = self.name(host);
        let list = ["journal", "list", "-o", "json", "--limit", "1000"];
        let words = [&list[..], &["--node", &name]].concat();
        let json = self.cbctl(&words).expect(0).json();
        json["entries"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until nobody holds any host.
    #[track_caller]
    pub fn wait_until_free(&self, limit: Duration) {
        wait_for("nobody holds a host", limit, || {
            let json = self.cbctl(&["status", "-o", "json"]).json();
            let nodes = json["nodes"].as_array()?;
            let free = |node: &Value| node["outcome"] == "ok" && node["result"]["lock"].is_null();
            nodes.iter().all(free).then_some(())
        });
    }

    /// Boots several hosts at once.
    pub fn boot_together(&self, booted: &[u8]) {
        std::thread::scope(|scope| {
            for host in booted {
                scope.spawn(move || self.boot(*host));
            }
        });
    }
}
