//! Taking over a service that runs: what to make of its unit, and why not.
//!
//! The program's folder becomes the first build, and one drop-in lets the unit run what `current`
//! points to. Nothing is stopped: the unit follows the link from its next start on. Pure; the
//! adapters read the unit and the files, and write the drop-in.

use std::io;
use std::path::{Component, Path, PathBuf};

/// The name of the drop-in in the unit's `.d` folder.
pub const DROP_IN: &str = "50-cbagent.conf";

/// Where an admin's units and drop-ins lie.
pub const UNITS: &str = "/etc/systemd/system";

/// What a unit needs at least for its start, in milliseconds: the gate waits for the agent, and the
/// agent for its peers.
pub const START_LIMIT_MIN_MS: u64 = 82_000;

/// Scripts that start scripts: further than this nobody looks.
const SCRIPTS_MAX: usize = 3;

/// How much of a program is read to see what it is, in bytes.
pub const HEAD_BYTES: usize = 16 * 1024;

/// Folders that many programs share: none of them is a build.
const SHARED: [&str; 14] = [
    "/",
    "/bin",
    "/etc",
    "/home",
    "/lib",
    "/opt",
    "/root",
    "/sbin",
    "/srv",
    "/usr/bin",
    "/usr/lib",
    "/usr/local/bin",
    "/usr/sbin",
    "/var/lib",
];

/// What the service manager says of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitFacts {
    /// Its name, such as `cbddc.service`.
    pub name: String,
    /// `loaded`, `masked`, `not-found` and so on.
    pub load_state: String,
    /// Its commands: the words of each, the program's path first.
    pub commands: Vec<Vec<String>>,
    /// Its `WorkingDirectory=`; empty: the root folder.
    pub working_dir: String,
    /// The user that it runs as; empty: root.
    pub user: String,
    /// Its `RootDirectory=` or `RootImage=`; empty: the host's own root.
    pub root: String,
    /// How long its start may take, in milliseconds. Unset: for ever.
    pub start_limit_ms: Option<u64>,
    /// The process that it runs. Zero: none.
    pub main_pid: u32,
    /// Further instances of the same template that are loaded.
    pub siblings: Vec<String>,
}

/// What the plan needs to see of the host's files.
pub trait Files {
    /// The first bytes of a file, at most [`HEAD_BYTES`].
    fn head(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// A path without links.
    fn real(&self, path: &Path) -> io::Result<PathBuf>;
}

/// What a process has open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenFiles {
    /// Files that it may write to.
    pub written: Vec<PathBuf>,
    /// Those of them that are SQLite databases.
    pub databases: Vec<PathBuf>,
}

/// What taking a unit over would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The unit.
    pub unit: String,
    /// Its program, without links.
    pub program: PathBuf,
    /// The folder that becomes the first build.
    pub folder: PathBuf,
    /// The unit's command from now on.
    pub command: Vec<String>,
    /// Its working folder from now on, where that changes.
    pub working_dir: Option<PathBuf>,
    /// The user that it runs as; empty: root.
    pub user: String,
    /// Its databases: the configured ones, or those that it has open.
    pub databases: Vec<PathBuf>,
    /// Those that it has open and nobody has configured: no snapshot would hold them.
    pub undeclared: Vec<PathBuf>,
    /// The process that runs, and goes on.
    pub main_pid: u32,
    /// Where the drop-in goes.
    pub drop_in: PathBuf,
    /// What it says.
    pub text: String,
}

/// Why a unit is not taken over, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The unit is not there, or cannot be used.
    #[error(
        "the unit {unit} is {state}: name the unit that runs the node with `unit` in the agent's configuration"
    )]
    NotLoaded {
        /// Which.
        unit: String,
        /// Its load state.
        state: String,
    },
    /// Nothing runs.
    #[error("{0} does not run: start it, see that it is healthy, and adopt it then")]
    NotRunning(String),
    /// One template runs several nodes.
    #[error("{unit} is one of several instances of a template ({}): give this node a unit of its own", .others.join(", "))]
    Instances {
        /// Which.
        unit: String,
        /// The others.
        others: Vec<String>,
    },
    /// Not exactly one command.
    #[error(
        "{0} has {1} ExecStart= commands, and exactly one can be taken over: move the others to ExecStartPre= or ExecStartPost="
    )]
    Commands(String, usize),
    /// It runs in a root of its own.
    #[error(
        "{0} runs in a root folder of its own (RootDirectory= or RootImage=), where the agent's releases are not: run it in the host's root"
    )]
    Root(String),
    /// Its start may not take as long as the gate waits.
    #[error(
        "{unit} gives up on a start after {given_s} s (TimeoutStartSec=), but its gate may wait for {needed_s} s: raise it"
    )]
    StartLimit {
        /// Which.
        unit: String,
        /// What it gives, in seconds.
        given_s: u64,
        /// What is needed, in seconds.
        needed_s: u64,
    },
    /// A script whose program cannot be told.
    #[error("{} is a script that does more than start one program: let ExecStart= name the program itself", .0.display())]
    Script(PathBuf),
    /// The program cannot be read.
    #[error("cannot read the program {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It lies where other programs lie.
    #[error("the program {} lies in {}, which it shares with others: put it into a folder of its own", program.display(), folder.display())]
    SharedFolder {
        /// The program.
        program: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// A switch would leave data behind.
    #[error("{} lies inside the program's folder {}: after a switch the node would start without it. Move it out, for example to /var/lib, and let the node's configuration name the new place", file.display(), folder.display())]
    DataInside {
        /// What the node writes to.
        file: PathBuf,
        /// The program's folder.
        folder: PathBuf,
    },
    /// A word that a unit file cannot hold.
    #[error("the command of {0} has a line break or another control character in it")]
    Words(String),
}

/// Works out how to take a unit over. `databases` are the configured ones, `link` is `current`, and
/// `gate` is the line that asks the gate at start (see [`crate::gate::condition`]).
///
/// # Errors
/// See [`AdoptError`].
pub fn plan(
    facts: &UnitFacts,
    open: &OpenFiles,
    databases: &[PathBuf],
    link: &Path,
    gate: &str,
    files: &dyn Files,
) -> Result<Plan, AdoptError> {
    let command = command_of(facts)?;
    let found = resolve(command, files, SCRIPTS_MAX)?;
    let (program, folder) = (found.program, found.folder);
    if SHARED.iter().any(|shared| folder == Path::new(shared)) {
        return Err(AdoptError::SharedFolder { program, folder });
    }
    let real = |path: &PathBuf| files.real(path).unwrap_or_else(|_| path.clone());
    let declared: Vec<PathBuf> = databases.iter().map(real).collect();
    let undeclared = open
        .databases
        .iter()
        .filter(|path| !declared.contains(path));
    let undeclared: Vec<PathBuf> = undeclared.cloned().collect();
    let databases = if declared.is_empty() {
        undeclared.clone()
    } else {
        declared
    };
    let mut data = databases.iter().chain(&open.written);
    if let Some(file) = data.find(|file| file.starts_with(&folder)) {
        let file = file.clone();
        return Err(AdoptError::DataInside { file, folder });
    }
    let relative = program.strip_prefix(&folder).unwrap_or(&program);
    let mut command = found.command;
    command[found.word] = link.join(relative).display().to_string();
    let working_dir = files.real(Path::new(&facts.working_dir)).ok();
    let working_dir = working_dir.and_then(|given| {
        let inside = given.strip_prefix(&folder).ok()?;
        Some(link.join(inside).components().collect())
    });
    let text = drop_in(gate, &command, working_dir.as_deref());
    let text = text.ok_or_else(|| AdoptError::Words(facts.name.clone()))?;
    Ok(Plan {
        unit: facts.name.clone(),
        program,
        folder,
        command,
        working_dir,
        user: facts.user.clone(),
        databases,
        undeclared,
        main_pid: facts.main_pid,
        drop_in: drop_in_of(&facts.name),
        text,
    })
}

/// What the agent's own unit needs to write to the databases' folders; nothing where it may already.
pub fn own_drop_in(folders: &[PathBuf]) -> Option<String> {
    let mut text = String::from(
        "# Written by cbagent: the folders of the node's databases, to be restored in place.\n[Service]\n",
    );
    for folder in folders {
        text.push_str(&format!("ReadWritePaths={}\n", quoted(folder.to_str()?)?));
    }
    (!folders.is_empty()).then_some(text)
}

/// Where a unit's drop-in lies.
pub fn drop_in_of(unit: &str) -> PathBuf {
    Path::new(UNITS).join(format!("{unit}.d")).join(DROP_IN)
}

/// The unit's one command, where it can be taken over at all.
fn command_of(facts: &UnitFacts) -> Result<&[String], AdoptError> {
    let unit = || facts.name.clone();
    if facts.load_state != "loaded" {
        return Err(AdoptError::NotLoaded {
            unit: unit(),
            state: facts.load_state.clone(),
        });
    }
    if !facts.siblings.is_empty() {
        return Err(AdoptError::Instances {
            unit: unit(),
            others: facts.siblings.clone(),
        });
    }
    if !facts.root.is_empty() {
        return Err(AdoptError::Root(unit()));
    }
    if let Some(given) = facts
        .start_limit_ms
        .filter(|given| *given < START_LIMIT_MIN_MS)
    {
        return Err(AdoptError::StartLimit {
            unit: unit(),
            given_s: given / 1_000,
            needed_s: START_LIMIT_MIN_MS / 1_000,
        });
    }
    if facts.main_pid == 0 {
        return Err(AdoptError::NotRunning(unit()));
    }
    match facts.commands.as_slice() {
        [command] if !command.is_empty() => Ok(command),
        other => Err(AdoptError::Commands(unit(), other.len())),
    }
}

/// The program behind a command.
struct Found {
    /// The command, without scripts in between.
    command: Vec<String>,
    /// Which of its words names the program.
    word: usize,
    program: PathBuf,
    folder: PathBuf,
}

fn resolve(command: &[String], files: &dyn Files, scripts: usize) -> Result<Found, AdoptError> {
    let word = usize::from(is_dotnet(command));
    let named = Path::new(&command[word]);
    let read = |source| AdoptError::Read {
        path: named.to_owned(),
        source,
    };
    let program = files.real(named).map_err(read)?;
    let head = files.head(&program).map_err(read)?;
    if head.starts_with(b"#!") {
        let script = || AdoptError::Script(program.clone());
        let next = only_command(&head).ok_or_else(script)?;
        let next = next.into_iter().flat_map(|word| match word.as_str() {
            "$@" => command[1..].to_vec(),
            _ => vec![word],
        });
        let next: Vec<String> = next.collect();
        let left = scripts.checked_sub(1).ok_or_else(script)?;
        return resolve(&next, files, left);
    }
    let folder = program.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Found {
        command: command.to_vec(),
        word,
        program,
        folder,
    })
}

/// `dotnet FILE.dll …`: the runtime is shared, the file is the program.
fn is_dotnet(command: &[String]) -> bool {
    let runtime = Path::new(&command[0]).file_name();
    let file = command.get(1).map(Path::new);
    runtime.is_some_and(|name| name == "dotnet")
        && file.is_some_and(|file| {
            file.is_absolute() && file.extension().is_some_and(|end| end == "dll")
        })
}

/// The one command that a script consists of: `exec /a/program plain words "$@"`.
fn only_command(script: &[u8]) -> Option<Vec<String>> {
    // A script that was not read to its end is too long to be so simple.
    let text = std::str::from_utf8(script)
        .ok()
        .filter(|text| text.len() < HEAD_BYTES)?;
    let lines = text.lines().map(str::trim);
    let mut lines =
        lines.filter(|line| !line.is_empty() && !line.starts_with('#') && *line != "set -e");
    let (line, None) = (lines.next()?, lines.next()) else {
        return None;
    };
    let words: Vec<&str> = line.strip_prefix("exec ")?.split_whitespace().collect();
    let plain = |word: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@+".contains(c);
        !word.is_empty() && word.chars().all(fits)
    };
    let absolute = words.first().is_some_and(|word| word.starts_with('/'));
    let known = words.iter().all(|word| plain(word) || *word == "\"$@\"");
    let word = |word: &&str| word.trim_matches('"').to_owned();
    (absolute && known).then(|| words.iter().map(word).collect())
}

/// What the drop-in says; nothing where a word cannot be written.
fn drop_in(gate: &str, command: &[String], working_dir: Option<&Path>) -> Option<String> {
    let words: Option<Vec<String>> = command.iter().map(|word| quoted(word)).collect();
    let mut text = format!(
        "# Written by cbagent. `cbctl node unadopt` takes it away.\n\
         [Unit]\n\
         Wants=cbagent.service\n\
         After=cbagent.service\n\
         \n\
         [Service]\n\
         {gate}\n\
         ExecStart=\n\
         ExecStart={}\n",
        words?.join(" ")
    );
    if let Some(folder) = working_dir {
        let folder = folder.to_str()?.replace('%', "%%");
        text.push_str(&format!("WorkingDirectory={folder}\n"));
    }
    Some(text)
}

/// A word as `ExecStart=` takes it (`man 5 systemd.service`, "Command lines").
fn quoted(word: &str) -> Option<String> {
    if word.chars().any(char::is_control) {
        return None;
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' | '$' => text.extend([c, c]),
            c => text.push(c),
        }
    }
    text.push('"');
    Some(text)
}

/// The agent's own unit.
pub const OWN_UNIT: &str = "cbagent.service";

/// What of a build is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A path inside the build.
    pub path: PathBuf,
    /// It is started itself, not read by an interpreter that is.
    pub is_program: bool,
}

/// What a command runs of the build that `link` points to.
pub fn entry(command: &[String], link: &Path) -> Option<Entry> {
    let below = |(number, word): (usize, &String)| {
        let path = Path::new(word).strip_prefix(link).ok()?;
        let stays = !path.components().any(|part| part == Component::ParentDir);
        stays.then(|| Entry {
            path: path.to_owned(),
            is_program: number == 0,
        })
    };
    command.iter().enumerate().take(2).find_map(below)
}

/// Whether a command runs what `link` points to: only then a unit is the agent's to stop and start.
pub fn follows(command: &[String], link: &Path) -> bool {
    entry(command, link).is_some()
}
