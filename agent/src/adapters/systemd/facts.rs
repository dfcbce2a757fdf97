//! What a unit is made of, for the one who takes it over.

use super::error::SystemdError;
use super::status::Status;
use super::{SystemdSupervisor, words_of};
use crate::adoption::{OWN_UNIT, UnitFacts, follows};
use crate::ports::{EffectError, Units};
use async_trait::async_trait;
use std::collections::HashMap;
use zbus::zvariant::{Array, OwnedObjectPath, OwnedValue, Str, Structure, Value};

/// A unit as `ListUnitsByPatterns` shows it: name, description, load, active and sub state, whom it
/// follows, its object, and its job's number, type and object.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

impl SystemdSupervisor {
    async fn read_facts(&self) -> Result<UnitFacts, SystemdError> {
        let name = self.settings.unit.clone();
        let (_, unit, service) = self.properties().await?;
        let siblings = self.siblings(&name).await?;
        let root = ["RootDirectory", "RootImage"].map(|key| text(&service, key));
        Ok(UnitFacts {
            load_state: text(&unit, "LoadState"),
            commands: commands(&service),
            working_dir: text(&service, "WorkingDirectory"),
            user: text(&service, "User"),
            root: root.concat(),
            start_limit_ms: number(&service, "TimeoutStartUSec")
                .filter(|limit| *limit != u64::MAX)
                .map(|limit| limit / 1_000),
            main_pid: pid(&service),
            siblings,
            name,
        })
    }

    /// The commands of a unit that is the agent's to start, and that can be.
    pub(super) async fn read_commands(&self) -> Result<Vec<Vec<String>>, SystemdError> {
        let (_, unit, service) = self.properties().await?;
        if let Some(unfit) = Status::read(&unit, &service).unfit(&self.settings.unit) {
            return Err(unfit);
        }
        self.refuse_strange(&service)?;
        Ok(commands(&service))
    }

    /// Further loaded instances of the unit's template.
    async fn siblings(&self, name: &str) -> Result<Vec<String>, SystemdError> {
        let Some((template, _)) = name.split_once('@') else {
            return Ok(Vec::new());
        };
        let states: [&str; 0] = [];
        let patterns = [format!("{template}@*.service")];
        let listed: Vec<Listed> = self
            .bus
            .manage("ListUnitsByPatterns", &(&states[..], &patterns[..]))
            .await?;
        let names = listed.into_iter().map(|unit| unit.0);
        Ok(names.filter(|found| found != name).collect())
    }

    /// Refuses a unit that runs something else than what `current` points to: it is not the agent's
    /// to stop or start.
    pub(super) fn refuse_strange(
        &self,
        service: &HashMap<String, OwnedValue>,
    ) -> Result<(), SystemdError> {
        let link = self.settings.builds.current_link();
        let commands = commands(service);
        if commands.is_empty() || commands.iter().any(|command| follows(command, &link)) {
            return Ok(());
        }
        let begins = words_of(&commands);
        Err(SystemdError::NotAdopted {
            unit: self.settings.unit.clone(),
            begins,
        })
    }
}

#[async_trait]
impl Units for SystemdSupervisor {
    async fn facts(&self) -> Result<UnitFacts, EffectError> {
        Ok(self.read_facts().await?)
    }

    async fn reload(&self) -> Result<(), EffectError> {
        let reloaded: Result<(), SystemdError> = self.bus.manage("Reload", &()).await;
        Ok(reloaded?)
    }

    async fn restart_agent(&self) -> Result<(), EffectError> {
        // `try`: an agent that was started by hand is not started a second time.
        let job: Result<OwnedObjectPath, SystemdError> = self
            .bus
            .manage("TryRestartUnit", &(OWN_UNIT, "replace"))
            .await;
        job.map(drop).map_err(Into::into)
    }
}

/// The words of each `ExecStart=`: an array of (path, arguments, ignore failure, times, ids).
fn commands(service: &HashMap<String, OwnedValue>) -> Vec<Vec<String>> {
    let Some(list) = service.get("ExecStart") else {
        return Vec::new();
    };
    let Ok(list) = list.downcast_ref::<Array<'_>>() else {
        return Vec::new();
    };
    list.iter().filter_map(command).collect()
}

fn command(value: &Value<'_>) -> Option<Vec<String>> {
    let fields = value.downcast_ref::<Structure<'_>>().ok()?;
    let [path, arguments, ..] = fields.fields() else {
        return None;
    };
    let path = path.downcast_ref::<Str<'_>>().ok()?.to_string();
    let arguments = arguments.downcast_ref::<Array<'_>>().ok()?;
    let words = arguments
        .iter()
        .skip(1)
        .filter_map(|word| Some(word.downcast_ref::<Str<'_>>().ok()?.to_string()));
    Some([path].into_iter().chain(words).collect())
}

fn text(of: &HashMap<String, OwnedValue>, key: &str) -> String {
    let value = of.get(key);
    let value = value.and_then(|value| value.downcast_ref::<&str>().ok());
    value.unwrap_or_default().to_owned()
}

fn number(of: &HashMap<String, OwnedValue>, key: &str) -> Option<u64> {
    of.get(key)?.downcast_ref::<u64>().ok()
}

fn pid(of: &HashMap<String, OwnedValue>) -> u32 {
    let value = of.get("MainPID");
    let value = value.and_then(|value| value.downcast_ref::<u32>().ok());
    value.unwrap_or(0)
}
