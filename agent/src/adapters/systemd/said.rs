//! The end of what a unit has said, from systemd's journal.

use super::SystemdSupervisor;
use crate::ports::EffectError;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

/// How long `journalctl` may take: it searches one unit, from the end.
const LIMIT: Duration = Duration::from_secs(3);

/// How many lines are looked at: those of the run that ended, and of one that began since.
const LINES: &str = "--lines=60";

/// The most bytes of its output that are read.
const BYTES_MAX: u64 = 512 * 1024;

/// How long before the newest line an end is at most that was just seen, in microseconds.
const RECENT_US: u64 = 10_000_000;

/// systemd's word that a unit's process exited, with its code (`sd-messages.h`).
const EXITED: &str = "98e322203f7a4ed290d09fe03c09fe15";

impl SystemdSupervisor {
    /// What the unit's last run that ended said last, and how systemd says that it ended; empty where
    /// there was none.
    pub(super) async fn read_log_end(&self) -> Result<String, EffectError> {
        let failed = |why: String| EffectError(format!("journalctl: {why}"));
        let mut told = String::new();
        // What systemd says of the end may take a moment to be in the journal.
        for pause_ms in [0, 100, 300] {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let read = timeout(LIMIT, read_journal(&self.settings.unit)).await;
            let read = read.map_err(|_| failed(format!("nothing within {} s", LIMIT.as_secs())))?;
            let said = read.map_err(|error| failed(error.to_string()))?;
            let (text, has_ended) = last_ended(&said);
            told = text;
            if has_ended {
                break;
            }
        }
        Ok(told)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the systemd adapter")]
async fn read_journal(unit: &str) -> std::io::Result<String> {
    let fields = "MESSAGE,MESSAGE_ID,INVOCATION_ID,_SYSTEMD_INVOCATION_ID";
    let mut child = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--output=json", LINES])
        .arg(format!("--output-fields={fields}"))
        .arg(format!("_SYSTEMD_UNIT={unit}"))
        .arg("+")
        .args([format!("UNIT={unit}"), "_PID=1".to_owned()])
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

/// A line of a run of the unit.
struct Line {
    run: String,
    text: String,
    of_process: bool,
    /// Whether it says that the run's process ended.
    exited: bool,
    /// When it was said, Unix time in microseconds.
    at_us: u64,
}

/// The lines of the newest run that has ended just now, and that it has; where none has, of the newest
/// that said something. The service manager may have started the unit again before anybody looked.
fn last_ended(said: &str) -> (String, bool) {
    let lines: Vec<Line> = said.lines().filter_map(line).collect();
    let newest_us = lines
        .iter()
        .map(|line| line.at_us)
        .max()
        .unwrap_or_default();
    let is_new = |line: &Line| newest_us.saturating_sub(line.at_us) <= RECENT_US;
    let has_ended = |line: &&Line| line.exited && is_new(line);
    let ended = lines.iter().rfind(has_ended);
    let spoke = || lines.iter().rfind(|line| line.of_process);
    let Some(run) = ended.or_else(spoke).map(|line| &line.run) else {
        return (String::new(), false);
    };
    let lines = lines.iter().filter(|line| line.run == *run);
    let told = lines.filter(|line| line.of_process || line.exited);
    let texts: Vec<&str> = told.map(|line| line.text.as_str()).collect();
    (texts.join("\n"), ended.is_some())
}

fn line(json: &str) -> Option<Line> {
    let fields: Value = serde_json::from_str(json).ok()?;
    let text = match fields.get("MESSAGE")? {
        Value::String(text) => text.clone(),
        // What is not UTF-8 comes as bytes.
        Value::Array(bytes) => {
            let bytes = bytes.iter().filter_map(Value::as_u64);
            let bytes: Vec<u8> = bytes.filter_map(|byte| byte.try_into().ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    let field = |name: &str| fields.get(name).and_then(Value::as_str);
    // What systemd says of a unit names the unit's run beside its own.
    let of_unit = field("INVOCATION_ID");
    Some(Line {
        run: of_unit.or(field("_SYSTEMD_INVOCATION_ID"))?.to_owned(),
        text,
        of_process: of_unit.is_none(),
        exited: field("MESSAGE_ID") == Some(EXITED),
        at_us: field("__REALTIME_TIMESTAMP")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::last_ended;
    use serde_json::json;

    fn said(lines: &[serde_json::Value]) -> String {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        last_ended(&lines.join("\n")).0
    }

    #[test]
    fn the_run_that_ended_is_told_not_the_one_that_began_since() {
        let at = |run: &str| match run {
            "a" => "1000",
            _ => "20000000",
        };
        let process = |run: &str, text: &str| json!({ "MESSAGE": text, "_SYSTEMD_INVOCATION_ID": run, "__REALTIME_TIMESTAMP": at(run) });
        let systemd = |run: &str, text: &str, id: &str| {
            json!({
                "MESSAGE": text, "MESSAGE_ID": id, "__REALTIME_TIMESTAMP": at(run),
                "INVOCATION_ID": run, "_SYSTEMD_INVOCATION_ID": "pid1",
            })
        };
        let exited = systemd("b", "Main process exited, status=3", super::EXITED);
        let lines = [
            process("a", "before"),
            systemd("a", "Main process exited, status=0", super::EXITED),
            systemd("b", "Started", "39f5"),
            process("b", "cannot open the database"),
            json!({ "MESSAGE": [104, 105, 255], "_SYSTEMD_INVOCATION_ID": "b", "__REALTIME_TIMESTAMP": "20000000" }),
            exited,
            systemd("c", "Started", "39f5"),
            process("c", "begins"),
        ];
        let told = "cannot open the database\nhi\u{fffd}\nMain process exited, status=3";
        assert_eq!(said(&lines), told);
        // As long as it runs, what it says is told.
        assert_eq!(said(&[process("c", "begins")]), "begins");
        assert_eq!(said(&[]), "");
        let nothing = last_ended("not JSON\n{}\n{\"MESSAGE\": 7}");
        assert_eq!(nothing, (String::new(), false));
        // An earlier end is not the one that was just seen.
        let earlier = systemd("a", "Main process exited, status=1", super::EXITED);
        let lines = [process("a", "failed"), earlier, process("b", "begins")];
        assert_eq!(said(&lines), "begins");
    }
}
