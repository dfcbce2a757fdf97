//! What systemd says of the unit, and what it means. Pure: everything is read before.
//!
//! A job's own result says little: it is `done` for a start that a condition skipped, and for a program
//! that ended at once.

use super::bus::JobEnd;
use super::error::SystemdError;
use crate::ports::{Care, Stop, UnitState};
use std::collections::HashMap;
use std::time::Duration;
use zbus::zvariant::OwnedValue;

/// How a process ended, as `waitid` numbers it.
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;
const SIGKILL: i32 = 9;

/// The properties that are looked at; their meaning is in `org.freedesktop.systemd1(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) load: String,
    pub(super) active: String,
    pub(super) sub: String,
    pub(super) conditions_hold: bool,
    pub(super) main_pid: u32,
    pub(super) result: String,
    pub(super) exit_code: i32,
    pub(super) exit_status: i32,
    pub(super) started_us: u64,
    pub(super) start_timeout: Duration,
    pub(super) restarts: u32,
    pub(super) watchdog: Duration,
}

impl Status {
    /// From the properties of the interfaces `Unit` and `Service`. What is missing is as at a unit
    /// that was never started.
    pub(super) fn read(
        unit: &HashMap<String, OwnedValue>,
        service: &HashMap<String, OwnedValue>,
    ) -> Self {
        let text = |of: &HashMap<String, OwnedValue>, key: &str| {
            let value = of
                .get(key)
                .and_then(|value| value.downcast_ref::<&str>().ok());
            value.unwrap_or_default().to_owned()
        };
        let number = |key: &str| {
            let value = service.get(key);
            value.and_then(|value| value.downcast_ref::<i32>().ok())
        };
        let time = |key: &str| {
            let value = service.get(key);
            value.and_then(|value| value.downcast_ref::<u64>().ok())
        };
        let pid = service.get("MainPID");
        let holds = unit.get("ConditionResult");
        Self {
            load: text(unit, "LoadState"),
            active: text(unit, "ActiveState"),
            sub: text(unit, "SubState"),
            conditions_hold: holds
                .and_then(|value| value.downcast_ref::<bool>().ok())
                .unwrap_or(true),
            main_pid: pid
                .and_then(|value| value.downcast_ref::<u32>().ok())
                .unwrap_or(0),
            result: text(service, "Result"),
            exit_code: number("ExecMainCode").unwrap_or(0),
            exit_status: number("ExecMainStatus").unwrap_or(0),
            started_us: time("ExecMainStartTimestampMonotonic").unwrap_or(0),
            restarts: service
                .get("NRestarts")
                .and_then(|value| value.downcast_ref::<u32>().ok())
                .unwrap_or(0),
            watchdog: Duration::from_micros(time("WatchdogUSec").unwrap_or(0)),
            start_timeout: Duration::from_micros(time("TimeoutStartUSec").unwrap_or(u64::MAX)),
        }
    }

    /// True while the unit is up with a process: nothing is left to start.
    pub(super) fn is_up(&self) -> bool {
        self.main_pid != 0 && ["active", "reloading", "refreshing"].contains(&self.active.as_str())
    }

    /// True while systemd neither runs nor plans anything of the unit.
    pub(super) fn is_down(&self) -> bool {
        self.main_pid == 0 && ["inactive", "failed"].contains(&self.active.as_str())
    }

    /// True where systemd waits before it starts the unit again; a start job would wait as well.
    pub(super) fn waits_to_restart(&self) -> bool {
        self.active == "activating" && self.sub.starts_with("auto-restart")
    }

    /// What the engine wants to know. The start is counted by the monotonic clock, which stands still
    /// while the host sleeps; it is for telling one process from the next.
    pub(super) fn state(&self) -> UnitState {
        match self.main_pid {
            0 => UnitState::Stopped {
                last_exit: self.last_exit(),
            },
            pid => UnitState::Running {
                pid,
                started_ms: self.started_us / 1_000,
            },
        }
    }

    /// What systemd does for the unit by itself. A watchdog that is off is zero, or endless.
    pub(super) fn care(&self) -> Care {
        let is_on = !self.watchdog.is_zero() && self.watchdog != Duration::from_micros(u64::MAX);
        Care {
            restarts: self.restarts,
            watchdog: is_on.then_some(self.watchdog),
        }
    }

    /// How the last process ended, in words.
    pub(super) fn last_exit(&self) -> Option<String> {
        let exit = match self.exit_code {
            CLD_EXITED => Some(format!("exit code {}", self.exit_status)),
            CLD_KILLED => Some(format!("killed by signal {}", self.exit_status)),
            CLD_DUMPED => Some(format!(
                "killed by signal {}, core dumped",
                self.exit_status
            )),
            _ => None,
        };
        let why = match self.result.as_str() {
            "timeout" => Some("it took longer than its unit allows"),
            "watchdog" => Some("it did not feed its watchdog"),
            "oom-kill" => Some("the host ran out of memory"),
            "start-limit-hit" => Some("it was started too often"),
            "resources" => Some("the host lacks a resource that its unit asks for"),
            "protocol" => Some("it did not start as its unit's Type says"),
            "exec-condition" => Some("its start was skipped by ExecCondition"),
            _ => None,
        };
        match (exit, why) {
            (Some(exit), Some(why)) => Some(format!("{exit}: {why}")),
            (exit, why) => exit.or(why.map(str::to_owned)),
        }
    }

    /// Why this unit cannot be started at all, if so.
    pub(super) fn unfit(&self, unit: &str) -> Option<SystemdError> {
        let unit = unit.to_owned();
        match self.load.as_str() {
            "not-found" => Some(SystemdError::NotFound(unit)),
            "masked" => Some(SystemdError::Masked(unit)),
            "bad-setting" | "error" => Some(SystemdError::BadUnit(unit)),
            _ => None,
        }
    }

    /// What came of a start, once its job is over.
    pub(super) fn started(&self, unit: &str, job: &JobEnd) -> Result<u32, SystemdError> {
        if self.is_up() {
            return Ok(self.main_pid);
        }
        if let Some(unfit) = self.unfit(unit) {
            return Err(unfit);
        }
        let unit = unit.to_owned();
        let result = match job {
            JobEnd::Told(result) => result.as_str(),
            JobEnd::Gone | JobEnd::Slow => "",
        };
        Err(match (result, self.result.as_str()) {
            ("canceled", _) => SystemdError::Cancelled(unit),
            ("dependency", _) => SystemdError::Dependency(unit),
            (_, "exec-condition") => SystemdError::Skipped(unit),
            _ if !self.conditions_hold => SystemdError::Condition(unit),
            _ if self.active == "active" => SystemdError::NoMainProcess(unit),
            _ => {
                let how = self
                    .last_exit()
                    .unwrap_or_else(|| match self.result.as_str() {
                        "" | "success" => format!("it is {}", self.active),
                        result => result.to_owned(),
                    });
                SystemdError::Failed { unit, how }
            }
        })
    }

    /// What came of a stop: `self` after it, `before` before it.
    pub(super) fn stopped(&self, before: &Self, killed: bool) -> Stop {
        let by_systemd = ["timeout", "watchdog"].contains(&self.result.as_str())
            || (self.exit_code == CLD_KILLED && self.exit_status == SIGKILL);
        match before.main_pid {
            0 => Stop::WasStopped,
            _ if killed || by_systemd => Stop::Killed,
            _ => Stop::Asked,
        }
    }
}

#[cfg(test)]
mod tests;
