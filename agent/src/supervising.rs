//! Which supervisor this host has: systemd, or the agent itself.

use cbagent::adapters::builds::BuildStore;
use cbagent::adapters::process::{ProcessSettings, ProcessSupervisor, own_binary};
use cbagent::adapters::systemd::{SystemdError, SystemdSettings, SystemdSupervisor};
use cbagent::config::Config;
use cbagent::error_chain;
use cbagent::ports::{Supervisor, Units};
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
        env: service.env.clone().into_iter().collect(),
        working_dir: service
            .working_dir
            .clone()
            .unwrap_or_else(|| config.state_dir.clone()),
        launcher: own_binary(),
    })?;
    Ok((Arc::new(supervisor), None))
}
