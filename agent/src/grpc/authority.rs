//! The issuing authority of this member: an admin brings it and takes it away, while the agent runs.

use super::{Services, refuse};
use crate::adapters::identity_files::{self, IdentityError};
use cbddc_pki::authority::{Issuing, PkiError};
use cbddc_proto::convert::Malformed;
use cbddc_proto::v1;
use tonic::{Code, Status};

/// The longest certificate or key, in bytes of PEM.
const PEM_BYTES_MAX: usize = 16 * 1024;

impl Services {
    /// Takes an issuing authority, once it is checked and on disk; says whether it is another one.
    pub(super) async fn take_issuing(
        &self,
        request: v1::PutIssuingRequest,
        by: &str,
    ) -> Result<bool, Status> {
        for (field, text) in [("certificate", &request.certificate), ("key", &request.key)] {
            if text.len() > PEM_BYTES_MAX {
                let bound = PEM_BYTES_MAX as u64;
                return Err(super::malformed(Malformed::TooLarge { field, bound }));
            }
        }
        let issuing = Issuing::open(&request.certificate, &request.key);
        let issuing = issuing.map_err(|fault| unfit("malformed", &fault))?;
        let (roots, now_s) = (self.tls.roots(), self.tls.time().now_s());
        issuing
            .check(&roots, self.tls.mesh(), now_s)
            .map_err(|fault| unfit("distrusted", &fault))?;
        let held = self.joining.issuing();
        if held.is_some_and(|held| held.certificate_pem() == issuing.certificate_pem()) {
            return Ok(false);
        }
        let text =
            "this member holds the issuing authority: it admits hosts and renews certificates";
        self.note("issuing_taken", by, text.to_owned()).await?;
        identity_files::keep_issuing(self.tls.files(), &issuing)
            .map_err(|error| not_saved(&error))?;
        self.joining.set_issuing(Some(issuing));
        Ok(true)
    }

    /// Gives the issuing authority up.
    pub(super) async fn leave_issuing(&self, by: &str) -> Result<v1::DropIssuingResponse, Status> {
        let changed = self.joining.issuing().is_some();
        if changed {
            let text = "this member holds the issuing authority no more";
            self.note("issuing_dropped", by, text.to_owned()).await?;
        }
        // Also where there is none: a file may be left of an attempt that was interrupted.
        let left = identity_files::drop_issuing(self.tls.files());
        let left = left.map_err(|error| not_saved(&error))?;
        self.joining.set_issuing(None);
        let left = left.map_or_else(String::new, |path| path.display().to_string());
        Ok(v1::DropIssuingResponse { changed, left })
    }
}

fn unfit(word: &str, fault: &PkiError) -> Status {
    let why = crate::error_chain(fault);
    let text = format!("this issuing authority is refused: {why}");
    refuse(Code::InvalidArgument, word, text)
}

fn not_saved(error: &IdentityError) -> Status {
    refuse(Code::Unavailable, "not_saved", crate::error_chain(error))
}
