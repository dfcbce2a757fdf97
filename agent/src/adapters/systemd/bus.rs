//! The connection to systemd: opened when needed, opened again when it went away, every call bounded.

use super::error::{SystemdError, VERSION_MIN};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::StreamExt as _;
use zbus::proxy::{CacheProperties, SignalStream};
use zbus::zvariant::{DynamicDeserialize, DynamicType, OwnedObjectPath, OwnedValue};
use zbus::{Connection, Error, Message, Proxy};

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// How long systemd may take to answer; while it reloads its units it answers nobody.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How often a call is tried on a new connection before it fails, and the pause before each time.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(300);

/// How often a wait for a job looks for itself: a signal may be lost together with a connection.
const LOOK: Duration = Duration::from_secs(1);

/// Errors that the bus itself returns for a peer that is not there.
const GONE: &[&str] = &[
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
];

/// A job's end, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// systemd told its result: `done`, `canceled`, `timeout`, `failed`, `dependency`, `skipped` …
    Told(String),
    /// It is gone; the word was missed.
    Gone,
    /// It is not over.
    Slow,
}

/// A job that was asked for, and the signals since before it was.
pub(super) struct Job {
    path: OwnedObjectPath,
    signals: SignalStream<'static>,
}

/// The way to systemd.
#[derive(Debug, Default)]
pub(super) struct Bus(Mutex<Option<Connection>>);

impl Bus {
    /// The connection, opened if there is none.
    async fn connection(&self) -> Result<Connection, SystemdError> {
        let mut held = self.0.lock().await;
        if let Some(connection) = held.as_ref() {
            return Ok(connection.clone());
        }
        let open = async {
            let builder = zbus::connection::Builder::system()?;
            let connection = builder.method_timeout(ANSWER_LIMIT).build().await?;
            let manager = manager(&connection).await?;
            let version: String = manager.get_property("Version").await?;
            // Without it, systemd sends no signals about jobs.
            let () = manager.call("Subscribe", &()).await?;
            Ok((connection, version))
        };
        let opened = timeout(CONNECT_LIMIT, open).await;
        let late = || Error::Failure(format!("no answer in {} s", CONNECT_LIMIT.as_secs()));
        let (connection, version) = opened
            .unwrap_or_else(|_| Err(late()))
            .map_err(|error| SystemdError::Bus(Box::new(error)))?;
        if major(&version).is_none_or(|major| major < VERSION_MIN) {
            return Err(SystemdError::TooOld(version));
        }
        Ok(held.insert(connection).clone())
    }

    async fn forget(&self) {
        *self.0.lock().await = None;
    }

    /// Opens the connection, so that what is wrong with it is told now.
    pub(super) async fn check(&self) -> Result<(), SystemdError> {
        self.connection().await.map(drop)
    }

    /// Calls systemd; again on a new connection where the old one went away. All that is called here
    /// may happen twice.
    pub(super) async fn call<A, R>(
        &self,
        path: &str,
        interface: &'static str,
        call: &'static str,
        arguments: &A,
    ) -> Result<R, SystemdError>
    where
        A: Serialize + DynamicType + Sync,
        R: for<'d> DynamicDeserialize<'d>,
    {
        let mut tried = 0;
        let reply = loop {
            tried += 1;
            let failed = match self.connection().await {
                Ok(connection) => {
                    let reply = connection
                        .call_method(Some(SERVICE), path, Some(interface), call, arguments)
                        .await;
                    match reply {
                        Ok(reply) => break reply,
                        Err(error) => failure(call, error),
                    }
                }
                Err(error) => error,
            };
            if !matches!(failed, SystemdError::Bus(_)) || tried >= TRIES {
                return Err(failed);
            }
            tracing::debug!(call, tried, "the bus went away; connecting again");
            self.forget().await;
            sleep(PAUSE).await;
        };
        let answer = reply.body().deserialize();
        answer.map_err(|source| SystemdError::Answer {
            call,
            source: Box::new(source),
        })
    }

    /// All properties of one interface of an object, read in one moment.
    pub(super) async fn properties(
        &self,
        path: &str,
        interface: &str,
    ) -> Result<HashMap<String, OwnedValue>, SystemdError> {
        let properties = "org.freedesktop.DBus.Properties";
        self.call(path, properties, "GetAll", &(interface,)).await
    }

    /// The object of a unit, which is loaded if it is not. There is one even for a unit without file.
    pub(super) async fn unit(&self, name: &str) -> Result<OwnedObjectPath, SystemdError> {
        self.call(PATH, MANAGER, "LoadUnit", &(name,)).await
    }

    /// Calls the manager.
    pub(super) async fn manage<A, R>(
        &self,
        call: &'static str,
        arguments: &A,
    ) -> Result<R, SystemdError>
    where
        A: Serialize + DynamicType + Sync,
        R: for<'d> DynamicDeserialize<'d>,
    {
        self.call(PATH, MANAGER, call, arguments).await
    }

    /// Asks for a job (`StartUnit`, `StopUnit`); listens for its end first.
    pub(super) async fn begin(&self, call: &'static str, unit: &str) -> Result<Job, SystemdError> {
        let mut tried = 0;
        loop {
            tried += 1;
            let connection = self.connection().await;
            let begun = async {
                let connection = connection?;
                let manager = manager(&connection)
                    .await
                    .map_err(|error| SystemdError::Bus(Box::new(error)))?;
                let signals = manager.receive_signal("JobRemoved").await;
                let signals = signals.map_err(|error| SystemdError::Bus(Box::new(error)))?;
                let path = manager.call(call, &(unit, "replace")).await;
                let path = path.map_err(|error| failure(call, error))?;
                Ok(Job { path, signals })
            };
            match begun.await {
                Err(SystemdError::Bus(_)) if tried < TRIES => {
                    self.forget().await;
                    sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Waits for a job's end.
    pub(super) async fn wait(
        &self,
        job: &mut Job,
        unit: &OwnedObjectPath,
        limit: Duration,
    ) -> Result<JobEnd, SystemdError> {
        let end = Instant::now() + limit;
        loop {
            let look = end.min(Instant::now() + LOOK);
            match timeout_at(look, job.signals.next()).await {
                Ok(Some(signal)) => match result_of(&signal, &job.path) {
                    Some(result) => return Ok(JobEnd::Told(result)),
                    None => continue,
                },
                // The connection is gone, and with it the signal.
                Ok(None) => tokio::time::sleep_until(look).await,
                Err(_) => {}
            }
            let over = Instant::now() >= end;
            match self.job_of(unit).await {
                Ok(path) if path != job.path => return Ok(JobEnd::Gone),
                Err(error) if over => return Err(error),
                Ok(_) if over => return Ok(JobEnd::Slow),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// The job that a unit has; `/` if it has none.
    async fn job_of(&self, unit: &OwnedObjectPath) -> Result<OwnedObjectPath, SystemdError> {
        let properties = "org.freedesktop.DBus.Properties";
        let arguments = ("org.freedesktop.systemd1.Unit", "Job");
        let value: OwnedValue = self
            .call(unit.as_str(), properties, "Get", &arguments)
            .await?;
        let job = <(u32, OwnedObjectPath)>::try_from(value);
        let wrong = |source: zbus::zvariant::Error| SystemdError::Answer {
            call: "Get",
            source: Box::new(source.into()),
        };
        job.map(|(_, path)| path).map_err(wrong)
    }
}

async fn manager(connection: &Connection) -> zbus::Result<Proxy<'static>> {
    zbus::proxy::Builder::new(connection)
        .destination(SERVICE)?
        .path(PATH)?
        .interface(MANAGER)?
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// An answer that says no is told from a connection that went away.
fn failure(call: &'static str, error: Error) -> SystemdError {
    match error {
        Error::MethodError(name, text, _) if !GONE.contains(&name.as_str()) => {
            SystemdError::Refused {
                call,
                name: name.to_string(),
                text: text.unwrap_or_default(),
            }
        }
        error => SystemdError::Bus(Box::new(error)),
    }
}

/// The result in a signal, if it is about this job.
fn result_of(signal: &Message, job: &OwnedObjectPath) -> Option<String> {
    let body = signal.body();
    let (_, path, _, result): (u32, OwnedObjectPath, String, String) = body.deserialize().ok()?;
    (path == *job).then_some(result)
}

/// The number in `252.39-1~deb12u1`.
fn major(version: &str) -> Option<u32> {
    let version = version.trim_start_matches('v');
    let end = version.find(|c: char| !c.is_ascii_digit());
    version[..end.unwrap_or(version.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn versions_as_distributions_write_them() {
        for (text, number) in [
            ("252.39-1~deb12u1", Some(252)),
            ("247.3-7+deb11u5", Some(247)),
            ("v255", Some(255)),
            ("256~rc1", Some(256)),
            ("", None),
            ("unknown", None),
        ] {
            assert_eq!(major(text), number, "{text}");
        }
    }
}
