//! `[drain]`: who keeps writers from the node while it is replaced.

use super::clusters::Cluster;
use super::reader::Reader;
use super::sections::Health;
use std::path::Path;
use toml::Table;

/// What else the file says that this needs.
pub(super) struct Given<'a> {
    pub(super) health: &'a Health,
    pub(super) clusters: &'a [Cluster],
    /// The agent's own address.
    pub(super) listen: Option<String>,
}

/// The ports that clients are kept from; none where the section is not there.
pub(super) fn drain(
    table: Option<Table>,
    given: &Given<'_>,
    base: &Path,
    faults: &mut Vec<String>,
) -> Vec<u16> {
    let Some(table) = table else {
        return Vec::new();
    };
    let mut reader = Reader::new("drain", table, base, faults);
    if reader.string("by").is_some_and(|by| by != "nftables") {
        let text = "must be nftables; a command of your own stands under [service] as `drain`";
        reader.fault("by", text);
    }
    let ports = match reader.strings("ports") {
        Some(named) => {
            let ports: Vec<u16> = named.iter().filter_map(|port| port.parse().ok()).collect();
            if ports.is_empty() || ports.len() != named.len() || ports.contains(&0) {
                reader.fault("ports", "must be ports as texts, such as [\"5000\"]");
            }
            ports
        }
        None => {
            let page = given.health.http.as_deref().and_then(port_of_url);
            if page.is_none() {
                let text =
                    "must name the ports where clients write, as `http` under [health] does not";
                reader.fault("ports", text);
            }
            page.into_iter().collect()
        }
    };
    let port_of = |address: &str| address.rsplit_once(':')?.1.parse::<u16>().ok();
    let mut sync = given
        .clusters
        .iter()
        .filter_map(|one| port_of(&one.address));
    if sync.any(|port| ports.contains(&port)) {
        reader.fault(
            "ports",
            "must not name a sync port: peers would be kept away, too",
        );
    }
    let own = given.listen.as_deref().and_then(port_of);
    if own.is_some_and(|port| ports.contains(&port)) {
        reader.fault(
            "ports",
            "must not name the agent's own port: nobody would reach it",
        );
    }
    reader.finish();
    ports
}

/// The port of `http://HOST:PORT/PATH`, 80 where none is named.
fn port_of_url(url: &str) -> Option<u16> {
    let rest = url.strip_prefix("http://")?;
    let host = rest.split('/').next().unwrap_or(rest);
    match host.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse().ok(),
        Some(_) | None => Some(80),
    }
}

#[cfg(test)]
mod tests {
    use super::port_of_url;

    #[test]
    fn ports_of_pages() {
        for (url, port) in [
            ("http://127.0.0.1:5000/health", Some(5000)),
            ("http://shop/health", Some(80)),
            ("http://[::1]/health", Some(80)),
            ("http://[::1]:8080/health", Some(8080)),
            ("https://shop/health", None),
        ] {
            assert_eq!(port_of_url(url), port, "{url}");
        }
    }
}
