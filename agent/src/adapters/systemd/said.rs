//! The end of what a unit has said, from systemd's journal.

use super::SystemdSupervisor;
use super::error::SystemdError;
use crate::error_chain;
use crate::ports::EffectError;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;
use zbus::zvariant::{Array, OwnedValue};

/// How long `journalctl` may take: it searches one run of one unit, from the end.
const LIMIT: Duration = Duration::from_secs(3);

/// The most bytes of its output that are read.
const BYTES_MAX: u64 = 64 * 1024;

impl SystemdSupervisor {
    /// What the unit's newest run said last; empty where there was none.
    pub(super) async fn read_log_end(&self) -> Result<String, EffectError> {
        let unit = self.properties().await;
        let (_, unit, _) = unit.map_err(|error: SystemdError| EffectError(error_chain(&error)))?;
        let Some(run) = unit.get("InvocationID").and_then(invocation) else {
            return Ok(String::new());
        };
        let failed = |why: String| EffectError(format!("journalctl: {why}"));
        let read = timeout(LIMIT, read_journal(&run)).await;
        let read = read.map_err(|_| failed(format!("nothing within {} s", LIMIT.as_secs())))?;
        read.map_err(|error| failed(error.to_string()))
    }
}

/// The number of a run, as journalctl takes it.
fn invocation(value: &OwnedValue) -> Option<String> {
    let bytes = value.downcast_ref::<Array<'_>>().ok()?;
    let bytes: Option<Vec<u8>> = bytes.iter().map(|byte| byte.downcast_ref().ok()).collect();
    let bytes = bytes.filter(|bytes| bytes.len() == 16)?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[expect(clippy::disallowed_methods, reason = "this is the systemd adapter")]
async fn read_journal(run: &str) -> std::io::Result<String> {
    let mut child = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--output=cat", "--lines=20"])
        .arg(format!("_SYSTEMD_INVOCATION_ID={run}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(BYTES_MAX).read_to_end(&mut said).await?;
    }
    // One that has more to say is killed when it is dropped.
    Ok(String::from_utf8_lossy(&said).into_owned())
}
