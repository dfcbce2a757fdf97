//! `[drain]`: which ports clients are kept from.

use super::{LEAST, folder, parse};

const SYNC: &str = "[cbddc]\naddress = \"127.0.0.1:4001\"\ntoken_file = \"token\"\n";

#[test]
fn the_ports_are_named_or_that_of_the_health_page_and_never_those_of_peers() {
    let folder = folder();
    let ports = |more: &str| {
        let config = parse(folder.path(), &format!("{LEAST}{SYNC}{more}"));
        config
            .map(|config| config.drain_ports)
            .map_err(|error| error.to_string())
    };
    let page = "[health]\nhttp = \"http://127.0.0.1:5000/health\"\n";
    assert_eq!(
        ports(page),
        Ok(vec![]),
        "without the section nothing is done"
    );
    assert_eq!(ports(&format!("{page}[drain]\n")), Ok(vec![5000]));
    let named = "[drain]\nby = \"nftables\"\nports = [\"80\", \"443\"]\n";
    assert_eq!(ports(&format!("{page}{named}")), Ok(vec![80, 443]));
    for (more, words) in [
        (
            "[drain]\n",
            "drain.ports: must name the ports where clients write",
        ),
        (
            "[drain]\nports = [\"4001\"]\n",
            "drain.ports: must not name a sync port",
        ),
        (
            "[drain]\nports = [\"7443\"]\n",
            "drain.ports: must not name the agent's own port",
        ),
        (
            "[drain]\nports = [\"0\"]\n",
            "drain.ports: must be ports as texts",
        ),
        (
            "[drain]\nports = []\n",
            "drain.ports: must be ports as texts",
        ),
        (
            "[drain]\nby = \"hope\"\nports = [\"80\"]\n",
            "drain.by: must be nftables",
        ),
        (
            "[drain]\nwho = \"me\"\nports = [\"80\"]\n",
            "drain.who: there is no such key",
        ),
    ] {
        let error = ports(more).expect_err(more);
        assert!(error.contains(words), "{more}: {error}");
    }
}
