//! What the supervisor is told about the node.

use std::fmt;
use std::path::PathBuf;

/// What to run, and where its traces go.
#[derive(Clone)]
pub struct ProcessSettings {
    /// Where the lock file lives; created if missing. One node, one folder. Give it a path that no
    /// cleaner of temporary files visits.
    pub run_dir: PathBuf,
    /// Where both outputs of the node are appended; its folder must exist.
    pub log_file: PathBuf,
    /// The program, an absolute path. May lead through the `current` link: it is resolved at each
    /// start.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, beside `PATH`, `HOME`, `LANG` and `TZ`, which pass through. May hold
    /// secrets; never shown.
    pub env: Vec<(String, String)>,
    /// The folder it starts in.
    pub working_dir: PathBuf,
    /// The `cbagent` binary, which `launch`es the node; `/proc/self/exe` in the agent itself.
    pub launcher: PathBuf,
}

impl fmt::Debug for ProcessSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ProcessSettings")
            .field("run_dir", &self.run_dir)
            .field("log_file", &self.log_file)
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env_names", &names)
            .field("working_dir", &self.working_dir)
            .field("launcher", &self.launcher)
            .finish()
    }
}

/// The launcher where the supervisor runs inside the agent: this very binary, also after the file
/// was replaced by an upgrade.
pub fn own_binary() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}
