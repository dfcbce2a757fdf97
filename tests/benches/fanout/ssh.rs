//! The peer: OpenSSH in parallel over connections that are open already (ControlMaster), against as
//! many servers of our own.

use cbddc_tests::mesh::ports;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

/// How long a server or a connection may take to be there.
const LIMIT: Duration = Duration::from_secs(30);

/// Servers with one open connection each. All end when dropped.
pub(crate) struct Ssh {
    folder: TempDir,
    /// Servers first, then the connections' masters.
    children: Vec<Child>,
}

impl Ssh {
    /// Starts so many servers and connects to each; says why it cannot.
    pub(crate) fn start(count: usize) -> Result<Self, String> {
        install()?;
        let folder = tempfile::Builder::new().prefix("cbddc-ssh-").tempdir();
        let folder = folder.map_err(|error| error.to_string())?;
        let mut ssh = Self {
            folder,
            children: Vec::new(),
        };
        for key in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            command
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(ssh.path(key));
            run(command)?;
        }
        fs::copy(ssh.path("user.pub"), ssh.path("authorized_keys")).map_err(|e| e.to_string())?;
        let ports = ports::free(count);
        ssh.write_client_config(&ports);
        for port in &ports {
            ssh.start_server(*port)?;
        }
        for host in 0..count {
            ssh.connect(host)?;
        }
        Ok(ssh)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_client_config(&self, ports: &[u16]) {
        let at = |name| self.path(name).display().to_string();
        let mut text = format!(
            "Host *\nHostName 127.0.0.1\nIdentityFile {}\nIdentitiesOnly yes\nBatchMode yes\n\
             StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n\
             KexAlgorithms curve25519-sha256\nControlPath {}\n",
            at("user"),
            at("%n.control")
        );
        for (host, port) in ports.iter().enumerate() {
            text.push_str(&format!("Host h{host}\nPort {port}\n"));
        }
        fs::write(self.path("config"), text).expect("a file in a new folder");
    }

    fn start_server(&mut self, port: u16) -> Result<(), String> {
        let at = |name| self.path(name).display().to_string();
        // Debian's bash reads ~/.bashrc for the outermost shell of an SSH session only (SHLVL): what
        // the user of this machine keeps there is not what is measured.
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             KexAlgorithms curve25519-sha256\nSetEnv SHLVL=2\n",
            at("host"),
            at("authorized_keys")
        );
        let config = self.path(&format!("{port}.sshd"));
        fs::write(&config, text).map_err(|error| error.to_string())?;
        let mut command = Command::new(SSHD);
        command.arg("-D").arg("-f").arg(config);
        self.children.push(start(command)?);
        wait_until("an SSH server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
    }

    fn connect(&mut self, host: usize) -> Result<(), String> {
        let mut command = self.client();
        command.args(["-M", "-N"]).arg(format!("h{host}"));
        self.children.push(start(command)?);
        let control = self.path(&format!("h{host}.control"));
        wait_until("an SSH connection is open", || control.exists())
    }

    fn client(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.path("config"));
        command
    }

    /// Runs `true` on the first hosts, all at once.
    pub(crate) fn run_true(&self, count: usize) {
        let clients: Vec<Child> = (0..count)
            .map(|host| {
                let mut command = self.client();
                command.arg(format!("h{host}")).arg("true");
                start(command).expect("a client that starts")
            })
            .collect();
        for mut client in clients {
            let ended = client.wait().expect("a child can be waited for");
            assert!(ended.success(), "an SSH client ended with {ended}");
        }
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Installs OpenSSH where it is missing and this may be done.
fn install() -> Result<(), String> {
    let is_there = || Path::new(SSHD).exists() && Path::new("/usr/bin/ssh").exists();
    if !is_there() {
        if !rustix::process::geteuid().is_root() {
            return Err("openssh-server is not installed, and only root may install it".into());
        }
        let mut command = Command::new("apt-get");
        command
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(["openssh-server", "openssh-client"])
            .env("DEBIAN_FRONTEND", "noninteractive");
        run(command)?;
        if !is_there() {
            return Err("openssh-server was installed, but is not where Debian has it".into());
        }
    }
    if rustix::process::geteuid().is_root() {
        // Made by the init script, which does not run here.
        fs::create_dir_all("/run/sshd").map_err(|error| format!("/run/sshd: {error}"))?;
    }
    Ok(())
}

fn start(mut command: Command) -> Result<Child, String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{command:?}: {error}"))
}

fn run(command: Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let ended = start(command)?.wait().map_err(|error| error.to_string())?;
    if ended.success() {
        Ok(())
    } else {
        Err(format!("{shown} ended with {ended}"))
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) -> Result<(), String> {
    let until = Instant::now() + LIMIT;
    while !condition() {
        if Instant::now() >= until {
            return Err(format!("waited {LIMIT:?} in vain until {what}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
