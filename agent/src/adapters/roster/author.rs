//! Signatures to authors: who really said a statement.

use crate::adapters::tls::Tls;
use cbddc_domain::access::Role;
use cbddc_domain::build::Digest;
use cbddc_domain::roster::{Author, Distrust, Roster, Said};
use cbddc_pki::certificate::Facts;
use cbddc_pki::name::Holder;
use cbddc_pki::recovery;
use cbddc_pki::signature::{Roots, Signature, SignatureFault};
use cbddc_proto::convert::{self, Malformed, roster as wire};
use cbddc_proto::v1;
use std::sync::Arc;

/// Why something signed is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It cannot be read.
    #[error("it cannot be read")]
    Malformed(#[from] Malformed),
    /// The signature is not one of this mesh over these bytes.
    #[error("its signature is not good")]
    Signature(#[from] SignatureFault),
    /// The mesh has no recovery key, or it did not sign this.
    #[error("the mesh's recovery key did not sign it")]
    Recovery,
    /// Its author may not say it.
    #[error(transparent)]
    Distrust(#[from] Distrust),
}

/// What signatures are checked against.
pub struct Signed {
    /// The mesh's authorities.
    pub roots: Arc<Roots>,
    /// The mesh's name.
    pub mesh: String,
    /// The authorities that were replaced. What was signed under them counts where the roster names the
    /// signer's very key: nobody who stole such an authority has that.
    pub former: Option<Arc<Roots>>,
    /// Who is in the mesh.
    pub roster: Arc<Roster>,
}

impl Signed {
    /// Against what this host knows now.
    pub fn new(tls: &Tls, roster: Arc<Roster>) -> Self {
        Self {
            roots: tls.roots(),
            mesh: tls.mesh().to_owned(),
            former: tls.former(),
            roster,
        }
    }

    /// A statement with the author that its signature proves.
    pub fn said(&self, message: &v1::SignedStatement) -> Result<Said, Untrusted> {
        let statement = wire::statement(&message.statement)?;
        let signed = wire::statement_message(&message.statement);
        let author = match self.author(message.signature.as_ref(), &signed) {
            // Whoever knows only the authority before hears of the newest by that one's signature.
            Err(fault) if message.second.is_some() => {
                let second = self.author(message.second.as_ref(), &signed);
                second.map_err(|_| fault)?
            }
            first => first?,
        };
        let grant = match &message.grant {
            None => None,
            Some(grant) => Some(self.grant(grant)?),
        };
        Ok(Said {
            digest: digest_of(&message.statement, &author),
            statement,
            author,
            grant,
        })
    }

    /// A grant with the author that its signature proves.
    pub fn grant(
        &self,
        message: &v1::SignedGrant,
    ) -> Result<(cbddc_domain::roster::Grant, Author), Untrusted> {
        let grant = wire::grant(&message.grant)?;
        let signed = wire::grant_message(&message.grant);
        let author = self.author(message.signature.as_ref(), &signed)?;
        Ok((grant, author))
    }

    /// Who signed these bytes.
    pub fn author(
        &self,
        signature: Option<&v1::Signature>,
        message: &[u8],
    ) -> Result<Author, Untrusted> {
        let signature = signature.ok_or(Malformed::Missing("signature"))?;
        let signature = signature_of(signature);
        if signature.chain.is_empty() {
            let spki = self.roster.genesis().recovery.as_deref().and_then(unhex);
            let good = spki.is_some_and(|spki| recovery::verify(&spki, message, &signature.bytes));
            return if good {
                Ok(Author::Recovery)
            } else {
                Err(Untrusted::Recovery)
            };
        }
        if self.roots.is_root(&signature) {
            self.roots.verify_root(&signature, message)?;
            return Ok(Author::Root);
        }
        match self.roots.verify(&signature, message, &self.mesh) {
            Ok(facts) => Ok(author_of(&facts)),
            Err(fault) => {
                let former = self.former(&signature, message);
                former
                    .filter(|author| self.roster.names(author))
                    .ok_or(fault.into())
            }
        }
    }

    /// Who signed these bytes, where nothing hangs on it yet: also under an authority that was replaced,
    /// with a key that nobody named.
    pub fn claimed(
        &self,
        signature: Option<&v1::Signature>,
        message: &[u8],
    ) -> Result<Author, Untrusted> {
        self.author(signature, message).or_else(|fault| {
            let former = signature.and_then(|one| self.former(&signature_of(one), message));
            former.ok_or(fault)
        })
    }

    fn former(&self, signature: &Signature, message: &[u8]) -> Option<Author> {
        let facts = self.former.as_ref()?.verify(signature, message, &self.mesh);
        facts.ok().map(|facts| author_of(&facts))
    }
}

/// The author that a certificate stands for.
pub fn author_of(facts: &Facts) -> Author {
    match &facts.mesh_holder {
        Holder::Node(name) => Author::Agent {
            name: name.clone(),
            key: facts.key,
        },
        Holder::Person { name, role } => Author::Person {
            name: name.clone(),
            role: *role,
            key: facts.key,
        },
    }
}

/// A signature from its message.
pub fn signature_of(message: &v1::Signature) -> Signature {
    Signature {
        chain: message.chain.iter().map(|one| one.to_vec()).collect(),
        bytes: message.bytes.to_vec(),
    }
}

/// A signature as a message.
pub fn signature_message(signature: Signature) -> v1::Signature {
    v1::Signature {
        chain: signature.chain.into_iter().map(Into::into).collect(),
        bytes: signature.bytes.into(),
    }
}

fn digest_of(statement: &[u8], author: &Author) -> Digest {
    Digest::of(&[statement, words(author).as_bytes()].concat())
}

/// An author as the database keeps it.
pub(super) fn words(author: &Author) -> String {
    match author {
        Author::Person { name, role, key } => format!("person {name} {role} {key}"),
        Author::Agent { name, key } => format!("agent {name} {key}"),
        Author::Root => "root".to_owned(),
        Author::Recovery => "recovery".to_owned(),
    }
}

fn author_from(words: &str) -> Option<Author> {
    let words: Vec<&str> = words.split(' ').collect();
    match words.as_slice() {
        ["person", name, role, key] => Some(Author::Person {
            name: (*name).to_owned(),
            role: role.parse::<Role>().ok()?,
            key: key.parse().ok()?,
        }),
        ["agent", name, key] => Some(Author::Agent {
            name: name.parse().ok()?,
            key: key.parse().ok()?,
        }),
        ["root"] => Some(Author::Root),
        ["recovery"] => Some(Author::Recovery),
        _ => None,
    }
}

/// A statement that this host took before; its signature was checked then.
pub(super) fn read_back(message: &v1::SignedStatement, author: &str) -> Option<Said> {
    let author = author_from(author)?;
    Some(Said {
        statement: wire::statement(&message.statement).ok()?,
        digest: digest_of(&message.statement, &author),
        author,
        grant: None,
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    convert::unhex(text)
}
