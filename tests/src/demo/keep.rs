//! A mesh that stays up after the demonstration, and its end.

use crate::mesh::TestMesh;
use crate::mesh::processes::Process;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The file that tells what belongs to the mesh.
const FILE: &str = "kept.json";

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    agents: Vec<(u32, u64)>,
    locks: Vec<PathBuf>,
}

/// Leaves the mesh up; returns its folder.
///
/// # Errors
/// When the file that [`end`] needs cannot be written; the mesh is ended then.
pub fn keep(mesh: TestMesh) -> Result<PathBuf> {
    let agents = mesh.nodes().iter().filter_map(|node| node.agent_process());
    let locks = mesh
        .nodes()
        .iter()
        .map(|node| node.folder.join("state/run/node.lock"));
    let kept = Kept {
        agents: agents.map(|process| (process.pid, process.start)).collect(),
        locks: locks.collect(),
    };
    fs::write(mesh.root().join(FILE), serde_json::to_string(&kept)?)
        .context("cannot note what belongs to the mesh")?;
    Ok(mesh.keep())
}

/// Ends a mesh that was kept, and removes its folder.
///
/// # Errors
/// When the folder is not that of a kept mesh.
pub fn end(folder: &Path) -> Result<()> {
    let none = || format!("{} holds no mesh that was kept", folder.display());
    let folder = &folder.canonicalize().with_context(none)?;
    let text = fs::read_to_string(folder.join(FILE)).with_context(none)?;
    let kept: Kept = serde_json::from_str(&text)
        .with_context(|| format!("{FILE} is damaged; end the processes by hand"))?;
    // Agents first, so that none starts its node again.
    for (pid, start) in kept.agents {
        Process { pid, start }.kill();
    }
    for lock in kept.locks {
        if !lock.starts_with(folder) {
            bail!("{} is not in the mesh's folder", lock.display());
        }
        if let Some(node) = Process::of_lock(&lock) {
            node.kill();
        }
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}
