//! Keeps writers away from the node while it is replaced: connections to the ports where they write are
//! refused with a reset, new ones and open ones. The agent goes on to ask the node, and its peers go on
//! to sync.

use crate::adapters::nft::{port_set, without_table};

/// The table; nobody else has one of this name.
const TABLE: &str = "inet cbagent_drain";

/// Lets everybody connect again.
pub fn open_rules() -> String {
    without_table(TABLE)
}

/// Refuses everybody but root on this host, as who the agent asks, at these ports.
///
/// What comes from elsewhere is refused where it arrives; what the node says on connections that are
/// open is refused where it leaves, so that both ends hear that they are over.
pub fn refusing_rules(ports: &[u16]) -> String {
    let ports = port_set(ports);
    let chain = |hook: &str, rules: [String; 2]| {
        let [first, second] = rules;
        format!(
            "\tchain {hook} {{\n\t\ttype filter hook {hook} priority -10; policy accept;\n\
             \t\t{first}\n\t\t{second}\n\t}}\n"
        )
    };
    let arrives = [
        "iifname \"lo\" accept".to_owned(),
        format!("tcp dport {ports} reject with tcp reset"),
    ];
    let leaves = [
        format!("oifname \"lo\" tcp dport {ports} meta skuid != 0 reject with tcp reset"),
        format!("oifname != \"lo\" tcp sport {ports} reject with tcp reset"),
    ];
    format!(
        "{}table {TABLE} {{\n{}{}}}\n",
        open_rules(),
        chain("input", arrives),
        chain("output", leaves)
    )
}

#[cfg(test)]
mod tests {
    use super::{open_rules, refusing_rules};

    #[test]
    fn clients_are_refused_and_the_agent_is_not() {
        let rules = refusing_rules(&[5000, 5001]);
        assert!(rules.starts_with(&open_rules()));
        for line in [
            "iifname \"lo\" accept",
            "\t\ttcp dport { 5000, 5001 } reject with tcp reset",
            "oifname \"lo\" tcp dport { 5000, 5001 } meta skuid != 0 reject with tcp reset",
            "oifname != \"lo\" tcp sport { 5000, 5001 } reject with tcp reset",
        ] {
            assert!(rules.contains(line), "{rules}");
        }
        assert_eq!(rules.matches("hook").count(), 2, "{rules}");
    }
}
