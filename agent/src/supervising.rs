//! Which supervisor this host has: systemd, or the agent itself.

use anyhow::Context as _;
use cbagent::adapters::builds::BuildStore;
use cbagent::adapters::process::{ProcessSettings, ProcessSupervisor, own_binary};
use cbagent::adapters::systemd::{SystemdError, SystemdSettings, SystemdSupervisor};
use cbagent::config::Config;
use cbagent::error_chain;
use cbagent::ports::{Supervisor, Units};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

/// Who starts the node, and where it is a unit, how that is read.
pub(crate) async fn pick(
    config: &Config,
    builds: &BuildStore,
) -> anyhow::Result<(Arc<dyn Supervisor>, Option<Arc<dyn Units>>)> {
    let service = &config.service;
    if let Some(unit) = service.unit.clone() {
        let supervisor = SystemdSupervisor::new(SystemdSettings {
            unit,
            run_dir: config.run_dir.clone(),
            builds: builds.clone(),
        });
        match supervisor.check().await {
            Ok(()) => {}
            Err(error @ SystemdError::TooOld(_)) => return Err(error.into()),
            // The agent answers its peers also while the bus is away.
            Err(error) => tracing::error!("{}", error_chain(&error)),
        }
        let supervisor = Arc::new(supervisor);
        return Ok((supervisor.clone(), Some(supervisor)));
    }
    let supervisor = ProcessSupervisor::new(ProcessSettings {
        run_dir: config.run_dir.clone(),
        log_file: config.state_dir.join("node.log"),
        program: builds.current_link().join(&service.program),
        args: service.args.clone(),
        env: own_folders(&config.state_dir)?
            .into_iter()
            .chain(service.env.clone())
            .collect(),
        // .NET reads `appsettings.json` from the folder that a program runs in, not from its own.
        working_dir: service
            .working_dir
            .clone()
            .unwrap_or_else(|| builds.current_link()),
        launcher: own_binary(),
    })?;
    Ok((Arc::new(supervisor), None))
}

/// Folders of the node's own below the state folder, as variables: a home, room for temporary files, and
/// where a single-file program of .NET unpacks itself. What the configuration says of them comes later
/// and holds.
fn own_folders(state_dir: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let folders = [
        ("HOME", "node-home"),
        ("TMPDIR", "node-tmp"),
        ("DOTNET_BUNDLE_EXTRACT_BASE_DIR", "node-home/unpacked"),
    ];
    let make = |(variable, name): (&str, &str)| {
        let folder = state_dir.join(name);
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        made.with_context(|| format!("cannot create {}", folder.display()))?;
        Ok((variable.to_owned(), folder.to_string_lossy().into_owned()))
    };
    folders.into_iter().map(make).collect()
}
