//! Data in the folder of a build: shown, and a reason to refuse a rollout, which would leave it behind.

use super::builds::{blocking, info};
use super::{Services, refuse};
use crate::adapters::adoption::open_files;
use crate::adapters::builds::{BuildError, BuildStore, Grown, NAMES_TOLD_MAX};
use crate::adapters::databases::holds_database;
use cbddc_domain::build::{BuildId, BuildRef};
use cbddc_proto::v1;
use std::path::{Path, PathBuf};
use tonic::{Code, Status};

/// How many files that a node has open are told.
const WRITTEN_TOLD_MAX: usize = 20;

impl Services {
    /// A build by NAME@VERSION, or the one that `current` points to.
    pub(super) async fn show(&self, given: &str) -> Result<v1::ShowBuildResponse, Status> {
        let id: Option<BuildId> = match given {
            "" => None,
            given => Some(given.parse().map_err(|error| {
                refuse(
                    Code::InvalidArgument,
                    "malformed",
                    format!("build: {error}"),
                )
            })?),
        };
        let unknown = || match given {
            "" => "`current` points to no build".to_owned(),
            given => format!("{given} is not in the build store"),
        };
        let unknown = refuse(Code::NotFound, "build_unknown", unknown());
        let builds = self.builds.clone();
        let found = blocking(move || {
            let current = builds.current()?;
            let stored = match (&id, &current) {
                (Some(id), _) => builds.find(id)?,
                (None, Some(current)) => builds.get(current)?,
                (None, None) => None,
            };
            let Some(stored) = stored else {
                return Ok(None);
            };
            let (grown, tree) = (builds.grown(&stored.build)?, builds.tree(&stored.build));
            Ok(Some((stored, current, grown, tree)))
        });
        let (stored, current, grown, tree) = found.await?.ok_or(unknown)?;
        let mut answer = v1::ShowBuildResponse {
            info: Some(info(&stored, current, &self.engine.node())),
            grown: Some(message(&grown, &tree)),
            written: Vec::new(),
            written_unknown: String::new(),
            logs_written: Vec::new(),
        };
        let pid = self.health.borrow().pid;
        if let Some(pid) = pid.filter(|_| current == Some(stored.build.digest)) {
            let written = tokio::task::spawn_blocking(move || written_below(pid, &tree));
            match written.await {
                Ok(Ok(written)) => {
                    (answer.logs_written, answer.written) =
                        written.into_iter().partition(|path| is_log(path));
                }
                Ok(Err(error)) => {
                    answer.written_unknown =
                        format!("what process {pid} has open cannot be told: {error}");
                }
                Err(_) => return Err(Status::internal("a fault in the agent; see its log")),
            }
        }
        Ok(answer)
    }

    /// What a node's status says of its build's folder, by the newest look.
    pub(super) fn grown_note(&self, build: &BuildRef) -> Option<String> {
        let grown = self.builds.remembered(build)?;
        // Of more files than are told, this many are named.
        let (names, at_least) = (grown.names.join(", "), grown.names.len() >= NAMES_TOLD_MAX);
        let at_least = if at_least { "at least " } else { "" };
        match (grown.holds_data(), grown.databases.is_empty()) {
            (false, _) if grown.files == 0 => None,
            (false, _) => Some(format!(
                "in the folder of {build} lies what is not part of it: {at_least}{names}"
            )),
            (true, false) => Some(format!(
                "databases lie in the folder of {build}, so that no rollout can begin: {}",
                grown.databases.join(", ")
            )),
            (true, true) => Some(format!(
                "the folder of {build} holds more files than are looked through, so that no rollout can begin"
            )),
        }
    }

    /// Refuses what would leave data behind in a build's folder, or find it there. A rollout asks; a way
    /// back never does.
    pub(super) async fn refuse_data_inside(&self, next: &BuildRef) -> Result<(), Status> {
        let (builds, next) = (self.builds.clone(), next.clone());
        let pid = self.health.borrow().pid;
        match blocking(move || why_not(&builds, &next, pid)).await? {
            Some(why) => Err(refuse(Code::FailedPrecondition, "data_inside", why)),
            None => Ok(()),
        }
    }
}

/// Why this build must not follow the one that `current` points to, in a sentence.
fn why_not(
    builds: &BuildStore,
    next: &BuildRef,
    pid: Option<u32>,
) -> Result<Option<String>, BuildError> {
    let current = builds.current()?.map(|current| builds.get(&current));
    let current = current.transpose()?.flatten().map(|stored| stored.build);
    // What follows itself finds its data.
    if current.as_ref() == Some(next) {
        return Ok(None);
    }
    if let (Some(build), Some(pid)) = (&current, pid) {
        // What cannot be told, as of another user's process, is not held against it.
        let mut written = written_below(pid, &builds.tree(build)).unwrap_or_default();
        written.retain(|path| !is_log(path));
        if !written.is_empty() {
            return Ok(Some(format!(
                "the node has files open for writing in the folder of {build}, where the next build would not find \
                 them: {}: move them elsewhere, for example to /var/lib, set the application's path to them, and \
                 restart the node",
                written.join(", ")
            )));
        }
    }
    for (build, what) in current
        .iter()
        .map(|build| (build, "would not be found by the next build"))
        .chain([(next, "would be what the node goes on from")])
    {
        let grown = match builds.grown(build) {
            Err(BuildError::NotFound { .. }) => continue,
            other => other?,
        };
        let tree = builds.tree(build);
        if !grown.databases.is_empty() {
            let paths = message(&grown, &tree).databases.join(", ");
            return Ok(Some(format!(
                "databases lie in the folder of {build}, and {what}: {paths}: move them elsewhere, for example to \
                 /var/lib, set the application's path to them, and restart the node"
            )));
        }
        if grown.more {
            return Ok(Some(format!(
                "the folder of {build} holds more files than are looked through, so that databases may be among \
                 them: {}: let the application write elsewhere, and move away what it has written",
                tree.display()
            )));
        }
    }
    Ok(None)
}

/// Whether a file is what nobody misses after a rollout: a log, or the metrics that every node writes
/// once a minute (`NODE.md`, section 8).
fn is_log(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_log = name
        .rsplit_once('.')
        .is_some_and(|(_, ending)| ending == "log");
    is_log || name.starts_with("entgldb_metrics.bin")
}

fn message(grown: &Grown, tree: &Path) -> v1::Grown {
    let full = |path: &String| tree.join(path).display().to_string();
    v1::Grown {
        files: grown.files,
        bytes: grown.bytes,
        names: grown.names.clone(),
        databases: grown.databases.iter().map(full).collect(),
        more: grown.more,
    }
}

/// What a process may write to below a folder, except for databases: those are found by their bytes.
fn written_below(pid: u32, tree: &Path) -> std::io::Result<Vec<String>> {
    let tree = tree.canonicalize()?;
    let written = open_files(pid)?.written.into_iter();
    let below = written.filter(|path: &PathBuf| path.starts_with(&tree) && !holds_database(path));
    let below = below.take(WRITTEN_TOLD_MAX);
    Ok(below.map(|path| path.display().to_string()).collect())
}
