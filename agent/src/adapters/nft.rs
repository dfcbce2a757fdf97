//! Rules for the host's packet filter, each kind in a table of its own that nobody else has.

use crate::ports::EffectError;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// How long `nft` may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Takes a table away, whether it is there or not.
pub fn without_table(table: &str) -> String {
    format!("table {table}\ndelete table {table}\n")
}

/// Ports as a set.
pub fn port_set(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("{{ {} }}", ports.join(", "))
}

/// Has `nft` take these rules, all or none; `what` is what they are for.
#[expect(
    clippy::disallowed_methods,
    reason = "this adapter runs the system's own nft"
)]
pub async fn apply(what: &str, rules: &str) -> Result<(), EffectError> {
    let failed = |why: String| {
        EffectError(format!(
            "{what} takes nftables (`apt install nftables`) and an agent that runs as root with CAP_NET_ADMIN: {why}"
        ))
    };
    let run = async {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = nft.stdin.take() {
            input.write_all(rules.as_bytes()).await?;
        }
        nft.wait_with_output().await
    };
    let ended = tokio::time::timeout(LIMIT, run).await;
    let output = ended.map_err(|_| failed("nft did not end".into()))?;
    let output = output.map_err(|error| failed(format!("nft does not start: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("nft said nothing").to_owned();
    Err(failed(line))
}
