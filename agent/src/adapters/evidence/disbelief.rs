//! Why a record is not believed.

use crate::adapters::roster::Untrusted;
use crate::adapters::sqlite::SqliteError;
use cbddc_proto::convert::Malformed;

/// Why a record is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Disbelief {
    /// It cannot be read.
    #[error("it cannot be read")]
    Malformed(#[from] Malformed),
    /// Nobody signed it.
    #[error("nobody signed it")]
    Unsigned,
    /// A signature is not good.
    #[error("the signature of its {of} is not good")]
    Signature {
        /// Of whom.
        of: &'static str,
        /// Why.
        #[source]
        source: Untrusted,
    },
    /// Its author may not decide such a thing.
    #[error("its author is {author}, who may not decide it: it takes {needed}")]
    Role {
        /// Who.
        author: String,
        /// Who may.
        needed: &'static str,
    },
    /// Its author is out.
    #[error("its author {0} was taken out of the mesh")]
    Removed(String),
    /// It names someone else than who signed it.
    #[error("it says that {said} proposed it, and was signed by {signed}")]
    Name {
        /// Whom it names.
        said: String,
        /// Who signed it.
        signed: String,
    },
    /// It could not be written down, so nothing has changed.
    #[error("its signatures could not be written down, so nothing has changed")]
    NotSaved(#[from] SqliteError),
}
