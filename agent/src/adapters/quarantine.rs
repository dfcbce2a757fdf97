//! Cuts the node off from its peers without stopping it: a table of nftables of our own drops what
//! comes to and goes from the sync ports, the host's own connections aside. The checks of this agent
//! go on, and no data is lost.

use crate::ports::EffectError;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The table; nobody else has one of this name.
const TABLE: &str = "inet cbagent_quarantine";

/// How long `nft` may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Takes the table away, whether it is there or not.
pub fn release_rules() -> String {
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

/// Blocks these ports in both directions, instead of whatever was blocked before.
pub fn quarantine_rules(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    let chain = |hook: &str, direction: &str| {
        format!(
            "\tchain {hook} {{\n\t\ttype filter hook {hook} priority -10; policy accept;\n\
             \t\t{direction} \"lo\" accept\n\
             \t\ttcp dport {{ {ports} }} drop\n\t\ttcp sport {{ {ports} }} drop\n\t}}\n"
        )
    };
    format!(
        "{}table {TABLE} {{\n{}{}}}\n",
        release_rules(),
        chain("input", "iifname"),
        chain("output", "oifname")
    )
}

/// Has `nft` take these rules, all or none.
#[expect(
    clippy::disallowed_methods,
    reason = "this adapter runs the system's own nft"
)]
pub async fn apply(rules: &str) -> Result<(), EffectError> {
    let failed = |what: String| {
        EffectError(format!(
            "quarantine takes nftables (`apt install nftables`) and an agent that runs as root with CAP_NET_ADMIN: {what}"
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

#[cfg(test)]
mod tests {
    use super::{quarantine_rules, release_rules};

    #[test]
    fn both_directions_and_not_the_host_itself() {
        let rules = quarantine_rules(&[4001, 4002]);
        assert!(rules.starts_with(&release_rules()));
        for line in [
            "iifname \"lo\" accept",
            "oifname \"lo\" accept",
            "tcp dport { 4001, 4002 } drop",
            "tcp sport { 4001, 4002 } drop",
        ] {
            assert!(rules.contains(line), "{rules}");
        }
        assert_eq!(rules.matches("hook").count(), 2, "{rules}");
    }
}
