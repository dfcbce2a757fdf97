//! Who really said a statement: the client's side of `agent/src/adapters/roster/author.rs`, with
//! which it shares no code, because the client never depends on the agent.

use cbddc_domain::build::Digest;
use cbddc_domain::roster::{Author, Grant, Said, Statement};
use cbddc_pki::name::Holder;
use cbddc_pki::recovery;
use cbddc_pki::signature::Roots;
use cbddc_proto::convert::{self, roster as wire};
use cbddc_proto::v1;

/// What signatures are checked against.
pub(super) struct Judge<'a> {
    pub(super) roots: &'a Roots,
    pub(super) mesh: &'a str,
    /// The public half of the recovery key, in hexadecimal digits.
    pub(super) recovery: Option<&'a str>,
}

impl Judge<'_> {
    /// A statement with its author, or why there is no good signature.
    pub(super) fn said(
        &self,
        message: &v1::SignedStatement,
        statement: Statement,
    ) -> Result<Said, String> {
        let signed = wire::statement_message(&message.statement);
        let author = match self.author(message.signature.as_ref(), &signed) {
            Err(fault) if message.second.is_some() => {
                let second = self.author(message.second.as_ref(), &signed);
                second.map_err(|_| fault)?
            }
            first => first?,
        };
        let grant = match &message.grant {
            None => None,
            // A grant by somebody unknown here stands in nobody's way.
            Some(grant) => self.grant(grant).ok(),
        };
        Ok(Said {
            statement,
            author,
            grant,
            digest: Digest::of(&message.statement),
        })
    }

    fn grant(&self, message: &v1::SignedGrant) -> Result<(Grant, Author), String> {
        let grant = wire::grant(&message.grant).map_err(|fault| fault.to_string())?;
        let signed = wire::grant_message(&message.grant);
        Ok((grant, self.author(message.signature.as_ref(), &signed)?))
    }

    fn author(&self, message: Option<&v1::Signature>, signed: &[u8]) -> Result<Author, String> {
        let message = message.ok_or("it is not signed")?;
        let signature = super::signature_of(message);
        if signature.chain.is_empty() {
            let spki = self.recovery.and_then(convert::unhex);
            let good = spki.is_some_and(|spki| recovery::verify(&spki, signed, &signature.bytes));
            let wrong = || "the mesh's recovery key did not sign it".to_owned();
            return good.then_some(Author::Recovery).ok_or_else(wrong);
        }
        if self.roots.is_root(&signature) {
            let checked = self.roots.verify_root(&signature, signed);
            return checked
                .map(|()| Author::Root)
                .map_err(|fault| crate::error::chain(&fault));
        }
        let facts = self.roots.verify(&signature, signed, self.mesh);
        let facts = facts.map_err(|fault| crate::error::chain(&fault))?;
        let key = facts.key;
        Ok(match facts.mesh_holder {
            Holder::Node(name) => Author::Agent { name, key },
            Holder::Person { name, role } => Author::Person { name, role, key },
        })
    }
}
