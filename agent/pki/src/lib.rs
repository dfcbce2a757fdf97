//! Certificates, signatures and tokens of a mesh, as agent and client share them.
//!
//! In reading order: [`name`] is who a certificate is for; [`certificate`] reads one; [`authority`]
//! issues them; [`signature`] signs, and says whether certificates and signatures come from a mesh's
//! root; [`token`] admits a new host; [`recovery`] is the key on paper; [`secret`] hides passphrases.
//! Nothing here reads a clock or a file: the time, in Unix seconds, and the contents are arguments.
//!
//! A root authority issues the certificates of people, directly, and one issuing authority, which
//! issues those of agents and nothing else. All keys are ECDSA P-256.

pub mod authority;
pub mod certificate;
pub mod name;
pub mod recovery;
pub mod secret;
pub mod signature;
pub mod token;

#[cfg(test)]
mod tests;
