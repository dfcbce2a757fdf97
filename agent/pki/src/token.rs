//! Tokens that admit one host each.
//!
//! ```text
//! cbddc1:MESH:ISSUER:ROOT:SECRET:CHECK
//! ```
//!
//! ROOT is the SHA-256 of the root's certificate: a host that joins knows by it that it speaks to its
//! mesh. CHECK is the beginning of the SHA-256 of all that stands before it, and finds typing errors.

use crate::name::is_plain;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use std::fmt;
use std::str::FromStr;

/// What a token begins with.
const PREFIX: &str = "cbddc1";
/// The longest text that is read as a token, in bytes. The longest token has 275.
const TOKEN_BYTES_MAX: usize = 512;
/// How many digits the check has.
const CHECK_DIGITS: usize = 8;

/// What a new host shows to be admitted. Its text is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The mesh.
    pub mesh: String,
    /// The member that issued it and admits the host.
    pub issuer: NodeName,
    /// The fingerprint of the mesh's root certificate.
    pub root: Digest,
    /// What nobody can guess. The issuer keeps only its hash.
    pub secret: [u8; 32],
}

/// Why a text is not a token. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It does not look like one at all.
    #[error("this is no token of a mesh: one begins with `cbddc1:`")]
    NotAToken,
    /// A part is missing, or a letter is wrong.
    #[error("the token has a typing error, or a part of it is missing: copy it again")]
    Typo,
}

impl Token {
    /// Makes one with a new secret.
    pub fn generate(mesh: &str, issuer: NodeName, root: Digest) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self {
            mesh: mesh.to_owned(),
            issuer,
            root,
            secret,
        })
    }

    /// The token's text, for whoever carries it to the host.
    pub fn reveal(&self) -> String {
        let secret = Digest::from_bytes(self.secret);
        let body = format!(
            "{PREFIX}:{}:{}:{}:{secret}",
            self.mesh, self.issuer, self.root
        );
        let check = check(&body);
        format!("{body}:{check}")
    }

    /// The SHA-256 of the secret: what an issuer keeps.
    pub fn secret_hash(&self) -> Digest {
        Digest::of(&self.secret)
    }
}

impl FromStr for Token {
    type Err = TokenFault;

    fn from_str(text: &str) -> Result<Self, TokenFault> {
        let text = text.trim();
        if !text.starts_with("cbddc1:") || text.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::NotAToken);
        }
        let (body, shown) = text.rsplit_once(':').ok_or(TokenFault::Typo)?;
        if shown != check(body) {
            return Err(TokenFault::Typo);
        }
        let parts: Vec<&str> = body.split(':').collect();
        // With a right check these faults are not of typing: somebody made it up.
        let [PREFIX, mesh, issuer, root, secret] = parts[..] else {
            return Err(TokenFault::NotAToken);
        };
        let secret: Digest = secret.parse().map_err(|_| TokenFault::NotAToken)?;
        Ok(Self {
            mesh: Some(mesh.to_owned())
                .filter(|mesh| is_plain(mesh))
                .ok_or(TokenFault::NotAToken)?,
            issuer: issuer.parse().map_err(|_| TokenFault::NotAToken)?,
            root: root.parse().map_err(|_| TokenFault::NotAToken)?,
            secret: *secret.as_bytes(),
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("mesh", &self.mesh)
            .field("issuer", &self.issuer)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

fn check(body: &str) -> String {
    Digest::of(body.as_bytes()).to_string()[..CHECK_DIGITS].to_owned()
}
