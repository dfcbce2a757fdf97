//! Cuts the node off from its peers without stopping it: a table of nftables of our own drops what
//! comes to and goes from the sync ports, the host's own connections aside. The checks of this agent
//! go on, and no data is lost.

use crate::adapters::nft::{port_set, without_table};

/// The table; nobody else has one of this name.
const TABLE: &str = "inet cbagent_quarantine";

/// Takes the table away, whether it is there or not.
pub fn release_rules() -> String {
    without_table(TABLE)
}

/// Blocks these ports in both directions, instead of whatever was blocked before.
pub fn quarantine_rules(ports: &[u16]) -> String {
    let ports = port_set(ports);
    let chain = |hook: &str, direction: &str| {
        format!(
            "\tchain {hook} {{\n\t\ttype filter hook {hook} priority -10; policy accept;\n\
             \t\t{direction} \"lo\" accept\n\
             \t\ttcp dport {ports} drop\n\t\ttcp sport {ports} drop\n\t}}\n"
        )
    };
    format!(
        "{}table {TABLE} {{\n{}{}}}\n",
        release_rules(),
        chain("input", "iifname"),
        chain("output", "oifname")
    )
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
