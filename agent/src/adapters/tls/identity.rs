//! Who a certificate belongs to.

use cbddc_domain::id::NodeName;
use rustls_pki_types::CertificateDer;
use std::fmt;

/// Who is at the other end of a connection, as the mesh's authority says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A person, through `cbctl`.
    Person(String),
    /// Another host's agent.
    Node(NodeName),
}

impl PeerIdentity {
    /// Reads the holder of a certificate of `mesh`; the error says in words what it names instead.
    ///
    /// Exactly one URI may stand in it: nobody is two at once.
    pub fn of(certificate: &CertificateDer<'_>, mesh: &str) -> Result<Self, String> {
        let parsed = webpki::EndEntityCert::try_from(certificate)
            .map_err(|fault| format!("a certificate that cannot be read: {fault}"))?;
        let names: Vec<&str> = parsed.valid_uri_names().take(2).collect();
        match names.as_slice() {
            [] => Err("no name of the form cbddc://MESH/…".to_owned()),
            [name] => Self::parse(name, mesh)
                .ok_or_else(|| format!("`{}`", name.chars().take(200).collect::<String>())),
            _ => Err("more than one name".to_owned()),
        }
    }

    fn parse(uri: &str, mesh: &str) -> Option<Self> {
        let (their_mesh, holder) = uri.strip_prefix("cbddc://")?.split_once('/')?;
        if their_mesh != mesh {
            return None;
        }
        match holder.split_once('/')? {
            ("node", name) => Some(Self::Node(name.parse().ok()?)),
            ("user", name) if is_person(name) => Some(Self::Person(name.to_owned())),
            _ => None,
        }
    }
}

/// Names of people end up in journals and tables: short and printable.
fn is_person(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => f.write_str(name),
            Self::Node(name) => write!(f, "node {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PeerIdentity;

    #[test]
    fn names_in_certificates() {
        let parse = |uri| PeerIdentity::parse(uri, "shop").map(|identity| identity.to_string());
        assert_eq!(parse("cbddc://shop/user/ana").as_deref(), Some("ana"));
        assert_eq!(
            parse("cbddc://shop/node/till-3").as_deref(),
            Some("node till-3")
        );
        for bad in [
            "cbddc://other/user/ana",
            "cbddc://shop/user/",
            "cbddc://shop/user/a/b",
            "cbddc://shop/user/a b",
            "cbddc://shop/node/UPPER",
            "cbddc://shop/robot/x",
            "cbddc://shop",
            "http://shop/user/ana",
        ] {
            assert_eq!(parse(bad), None, "{bad} was taken");
        }
    }
}
