//! Supervises the node as a unit of systemd, over D-Bus.
//!
//! `bus` is the connection, `status` what the unit's properties mean. Before each start the agent writes
//! the gate a permit for the build that `current` points to; before each stop it takes it back, so that
//! nobody else starts the node in the middle of a switch (see [`crate::gate`]).
//!
//! Deliberately absent: `systemctl`, whose exit code tells less than the unit's properties, and setting
//! anything of the unit. The unit belongs to whoever runs this host.

mod bus;
mod error;
mod facts;
mod said;
mod status;

pub use error::{SystemdError, VERSION_MIN};

use crate::adapters::builds::BuildStore;
use crate::adapters::gate_files::write_permit;
use crate::ports::{Care, EffectError, Stop, Supervisor, UnitState};
use async_trait::async_trait;
use bus::{Bus, JobEnd};
use rustix::process::Signal;
use status::Status;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

/// The longest that a unit may take to start, whatever it says of itself.
const START_MAX: Duration = Duration::from_secs(600);

/// What is added to the unit's own limits before its job is called slow.
const MARGIN: Duration = Duration::from_secs(5);

/// How long killed processes may take to go, and how often they are killed and looked for.
const KILL_LIMIT: Duration = Duration::from_secs(15);
const KILL_AGAIN: Duration = Duration::from_secs(1);
const LEFTOVER_LOOK: Duration = Duration::from_millis(50);

/// What to supervise.
#[derive(Debug, Clone)]
pub struct SystemdSettings {
    /// The unit, such as `cbddc.service`.
    pub unit: String,
    /// Where the permit for the gate is written.
    pub run_dir: PathBuf,
    /// Tells which build is to start.
    pub builds: BuildStore,
}

/// Properties of one interface of an object.
type Properties = HashMap<String, OwnedValue>;

/// The node as a unit. See the module's doc.
#[derive(Debug)]
pub struct SystemdSupervisor {
    settings: SystemdSettings,
    bus: Bus,
}

impl SystemdSupervisor {
    /// Supervises that unit; connects when first needed.
    pub fn new(settings: SystemdSettings) -> Self {
        let bus = Bus::default();
        Self { settings, bus }
    }

    /// Asks systemd for its version, so that an unsuitable host is told at once.
    ///
    /// # Errors
    /// [`SystemdError::TooOld`]; [`SystemdError::Bus`] if it cannot be reached, which may pass.
    pub async fn check(&self) -> Result<(), SystemdError> {
        self.bus.check().await
    }

    async fn status(&self) -> Result<(OwnedObjectPath, Status), SystemdError> {
        let (path, unit, service) = self.properties().await?;
        Ok((path, Status::read(&unit, &service)))
    }

    /// The unit's object, and its properties as a unit and as a service.
    async fn properties(&self) -> Result<(OwnedObjectPath, Properties, Properties), SystemdError> {
        let path = self.bus.unit(&self.settings.unit).await?;
        let unit = self.bus.properties(&path, "org.freedesktop.systemd1.Unit");
        let service = self
            .bus
            .properties(&path, "org.freedesktop.systemd1.Service");
        let (unit, service) = tokio::try_join!(unit, service)?;
        Ok((path, unit, service))
    }

    /// The same, for a unit that is the agent's to stop and start.
    async fn own_status(&self) -> Result<(OwnedObjectPath, Status), SystemdError> {
        let path = self.bus.unit(&self.settings.unit).await?;
        let service = self
            .bus
            .properties(&path, "org.freedesktop.systemd1.Service");
        self.refuse_strange(&service.await?)?;
        self.status().await
    }

    /// Tells the gate that what `current` points to may start, or that nothing may.
    async fn permit(&self, may_start: bool) -> Result<(), SystemdError> {
        let settings = self.settings.clone();
        let written = tokio::task::spawn_blocking(move || {
            let build = match may_start {
                true => settings.builds.current().map_err(SystemdError::Current)?,
                false => None,
            };
            // Without any build the gate lets the unit start as it was before the agent came.
            if may_start && build.is_none() {
                return Ok(());
            }
            Ok(write_permit(&settings.run_dir, build)?)
        });
        written.await.map_err(|_| SystemdError::ShuttingDown)?
    }

    async fn start_unit(&self) -> Result<u32, SystemdError> {
        let unit = &self.settings.unit;
        let (path, before) = self.own_status().await?;
        self.permit(true).await?;
        if before.is_up() {
            return Ok(before.main_pid);
        }
        if let Some(unfit) = before.unfit(unit) {
            return Err(unfit);
        }
        if before.waits_to_restart() {
            let mut job = self.bus.begin("StopUnit", unit).await?;
            self.bus.wait(&mut job, &path, MARGIN).await?;
        }
        // A unit that never failed, or is not loaded, has nothing to forget.
        let forgotten: Result<(), _> = self.bus.manage("ResetFailedUnit", &(unit,)).await;
        match forgotten {
            Ok(()) | Err(SystemdError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut job = self.bus.begin("StartUnit", unit).await?;
        // The condition and the start each have the unit's whole time.
        let limit = before.start_timeout.min(START_MAX) * 2 + MARGIN;
        let end = self.bus.wait(&mut job, &path, limit).await?;
        let (_, after) = self.status().await?;
        if end == JobEnd::Slow && !after.is_up() {
            return Err(self.slow("start", limit));
        }
        after.started(unit, &end)
    }

    async fn stop_unit(&self, limit: Duration) -> Result<Stop, SystemdError> {
        let unit = &self.settings.unit;
        let (path, before) = self.own_status().await?;
        self.permit(false).await?;
        if before.load == "not-found" && before.is_down() {
            return Ok(Stop::WasStopped);
        }
        // Also where nothing runs: a start that waits in the gate, or for its turn, is cancelled.
        let mut job = self.bus.begin("StopUnit", unit).await?;
        let mut killed = false;
        if self.bus.wait(&mut job, &path, limit).await? == JobEnd::Slow {
            killed = true;
            self.kill_until_over(&mut job, &path).await?;
        }
        killed |= self.clear_leftovers().await?;
        let (_, after) = self.status().await?;
        // Somebody else may ask for a start meanwhile; the gate keeps it waiting, unless it is not there.
        if after.main_pid != 0 {
            return Err(self.slow("stay stopped", limit));
        }
        Ok(after.stopped(&before, killed))
    }

    /// Kills all of the unit, its stop commands included, until its job is over.
    async fn kill_until_over(
        &self,
        job: &mut bus::Job,
        path: &OwnedObjectPath,
    ) -> Result<(), SystemdError> {
        let end = Instant::now() + KILL_LIMIT;
        loop {
            self.kill().await?;
            if self.bus.wait(job, path, KILL_AGAIN).await? != JobEnd::Slow {
                return Ok(());
            }
            if Instant::now() >= end {
                let processes = words(&self.group().await?);
                let unit = self.settings.unit.clone();
                return Err(SystemdError::Unkillable { unit, processes });
            }
        }
    }

    /// Kills what a stop left behind, as it does with `KillMode=process` or `none`; tells whether there
    /// was anything.
    async fn clear_leftovers(&self) -> Result<bool, SystemdError> {
        let end = Instant::now() + KILL_LIMIT;
        let mut found = false;
        loop {
            let processes = self.group().await?;
            if processes.is_empty() {
                return Ok(found);
            }
            if Instant::now() >= end {
                let (unit, processes) = (self.settings.unit.clone(), words(&processes));
                return Err(SystemdError::Unkillable { unit, processes });
            }
            found = true;
            self.kill().await?;
            sleep(LEFTOVER_LOOK).await;
        }
    }

    async fn kill(&self) -> Result<(), SystemdError> {
        let arguments = (&self.settings.unit, "all", Signal::KILL.as_raw());
        match self.bus.manage("KillUnit", &arguments).await {
            // Nothing is left to kill.
            Err(SystemdError::Refused { .. }) => Ok(()),
            other => other,
        }
    }

    /// The processes in the unit's control group.
    async fn group(&self) -> Result<Vec<Process>, SystemdError> {
        let unit = &self.settings.unit;
        match self.bus.manage("GetUnitProcesses", &(unit,)).await {
            // A unit that is not loaded has none.
            Err(SystemdError::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    fn slow(&self, what: &'static str, limit: Duration) -> SystemdError {
        SystemdError::Slow {
            unit: self.settings.unit.clone(),
            what,
            seconds: limit.as_secs(),
        }
    }
}

/// Control group, process id, command line; the last may hold what nobody is to see.
type Process = (String, u32, String);

fn words(processes: &[Process]) -> String {
    let pids: Vec<String> = processes
        .iter()
        .map(|(_, pid, _)| pid.to_string())
        .collect();
    format!("process {}", pids.join(", "))
}

/// The first words of commands, for a sentence.
fn words_of(commands: &[Vec<String>]) -> String {
    let firsts = commands.iter().filter_map(|command| command.first());
    firsts.cloned().collect::<Vec<_>>().join(", ")
}

#[async_trait]
impl Supervisor for SystemdSupervisor {
    async fn start(&self) -> Result<u32, EffectError> {
        Ok(self.start_unit().await?)
    }

    async fn stop(&self, limit: Duration) -> Result<Stop, EffectError> {
        Ok(self.stop_unit(limit).await?)
    }

    async fn commands(&self) -> Result<Vec<Vec<String>>, EffectError> {
        Ok(self.read_commands().await?)
    }

    async fn state(&self) -> Result<UnitState, EffectError> {
        Ok(self.status().await?.1.state())
    }

    async fn processes(&self) -> Result<Vec<u32>, EffectError> {
        let main = self.status().await?.1.main_pid;
        if main == 0 {
            return Ok(Vec::new());
        }
        let group = self.group().await?.into_iter().map(|(_, pid, _)| pid);
        let others = group.filter(|pid| *pid != main);
        Ok([main].into_iter().chain(others).collect())
    }

    async fn log_end(&self) -> Result<String, EffectError> {
        self.read_log_end().await
    }

    async fn care(&self) -> Result<Option<Care>, EffectError> {
        Ok(Some(self.status().await?.1.care()))
    }
}
