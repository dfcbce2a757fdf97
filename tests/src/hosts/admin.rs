//! The admin's way to hosts: ssh with a key of the test's own, and what the admin has at hand for
//! `cbctl mesh enrol`.

use super::{Hosts, Packages};
use crate::mesh::Ran;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

impl Hosts {
    /// Starts the ssh server of each host, and lets the admin's key in, as whoever has a login there.
    #[track_caller]
    pub fn start_ssh(&self) {
        let folder = self.ssh_folder();
        let key = folder.join("key");
        if !key.exists() {
            fs::create_dir_all(&folder).expect("a new folder");
            let mut keygen = Command::new("ssh-keygen");
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key);
            let output = keygen.output().expect("ssh-keygen can be started");
            assert!(output.status.success(), "{output:?}");
        }
        let public = fs::read_to_string(key.with_extension("pub")).expect("a public key");
        self.on_each(|host| {
            self.write(host, "/etc/ssh/authorized_keys", &public, 0o644);
            let settings = "AuthorizedKeysFile /etc/ssh/authorized_keys\n";
            self.write(host, "/etc/ssh/sshd_config.d/tests.conf", settings, 0o644);
            let key = "/etc/ssh/ssh_host_ed25519_key";
            let line = format!(
                "test -e {key} || ssh-keygen -q -t ed25519 -N '' -f {key}; \
                 systemctl start ssh && cat {key}.pub"
            );
            let shown = self.say(host, &line);
            let known = format!("{} {shown}\n", self.address(host));
            fs::write(folder.join(format!("known-{host}")), known).expect("a file can be written");
        });
        let known: Vec<String> = self
            .numbers()
            .map(|host| format!("{}/known-{host}", folder.display()))
            .collect();
        let config = format!(
            "User root\nIdentityFile {}\nIdentitiesOnly yes\nGlobalKnownHostsFile none\nUserKnownHostsFile {}\n\
             StrictHostKeyChecking yes\n",
            key.display(),
            known.join(" "),
        );
        fs::write(self.ssh_config(), config).expect("a file can be written");
    }

    fn ssh_folder(&self) -> PathBuf {
        self.folder().join("ssh")
    }

    /// The configuration with which ssh reaches all hosts.
    pub fn ssh_config(&self) -> PathBuf {
        self.ssh_folder().join("config")
    }

    /// The folder with a configuration for the agent of each host.
    #[track_caller]
    pub fn agent_configs(&self) -> PathBuf {
        let folder = self.folder().join("configs");
        fs::create_dir_all(&folder).expect("a new folder");
        for host in self.numbers() {
            let path = folder.join(format!("{}.toml", self.name(host)));
            fs::write(path, self.agent_config(host)).expect("a file can be written");
        }
        folder
    }

    /// The arguments that enrol these nodes, with all that hosts of a test lack; `more` comes last.
    #[track_caller]
    pub fn enrolment(&self, nodes: &[&str], more: &[&str]) -> Vec<String> {
        let package = Packages::get().file("cbagent", &Packages::get().version());
        let token = self.folder().join("token");
        fs::write(&token, format!("{}\n", super::layout::TOKEN)).expect("a file can be written");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
        let configs = self.agent_configs();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut words = vec!["mesh".to_owned(), "enrol".to_owned()];
        words.extend(nodes.iter().map(|node| (*node).to_owned()));
        for (option, path) in [
            ("--package", package.as_path()),
            ("--config", &configs),
            ("--token", &token),
            ("--ssh-config", &self.ssh_config()),
        ] {
            words.extend([option.to_owned(), text(path)]);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words
    }

    /// Enrols every host over ssh, the package included, as an admin does who begins.
    #[track_caller]
    pub fn enrol(&self) -> Ran {
        self.start_ssh();
        let names: Vec<String> = self.numbers().map(|host| self.name(host)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.cbctl(&self.enrolment(&names, &["--yes"])).expect(0)
    }
}
