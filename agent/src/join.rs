//! `cbagent join`: a host without a certificate becomes a member, with a token.
//!
//! The token pins the mesh's root authority, so that the host speaks to nobody else. The host's key
//! is made here and never leaves it. What was there before stays until the new certificate is here;
//! the certificate is written last: until then the host has not joined, and the same command may be
//! run again with the same token.

use crate::adapters::identity_files::{IdentityError, check_own};
use crate::adapters::pinned::{PinnedError, connect};
use crate::adapters::{disk, pinned};
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::MeshFile;
use cbddc_pki::authority::{PkiError, make_csr, make_key};
use cbddc_pki::certificate::{self, CertificateFault};
use cbddc_pki::signature::Roots;
use cbddc_pki::token::{Token, TokenFault};
use cbddc_proto::v1;
use cbddc_proto::v1::mesh_service_client::MeshServiceClient;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The longest token that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 4096;

/// What a host brings.
#[derive(Debug)]
pub struct Joiner {
    /// Where the token's issuer listens, `HOST:PORT`.
    pub issuer: String,
    /// The token.
    pub token: Token,
    /// The name that the host wants.
    pub name: NodeName,
    /// Where its own agent is going to listen, `HOST:PORT`, as others reach it.
    pub address: String,
    /// The folder for certificate, key and mesh file.
    pub dir: PathBuf,
    /// Whether an identity that is there is replaced.
    pub replace: bool,
}

/// Why a host did not join. Never contains the token or a key.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token cannot be read.
    #[error("cannot read the token")]
    ReadToken(#[source] io::Error),
    /// The token is none.
    #[error("the token cannot be used")]
    Token(#[from] TokenFault),
    /// The host is a member already.
    #[error(
        "{0} is there already: this host has an identity. Join anew with --replace, which needs a token from `cbctl mesh replace`"
    )]
    Joined(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No key or request could be made.
    #[error("cannot make a key or a request for a certificate")]
    Make(#[from] PkiError),
    /// The issuer cannot be reached, or is not the token's.
    #[error("cannot reach the issuer {issuer} at {address}")]
    Reach {
        /// Its name.
        issuer: NodeName,
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: PinnedError,
    },
    /// The issuer refused.
    #[error("{issuer} refused: {why}")]
    Refused {
        /// Its name.
        issuer: NodeName,
        /// In its words.
        why: String,
    },
    /// The answer cannot be used.
    #[error("what the issuer answered cannot be used")]
    Answer(#[from] IdentityError),
    /// The authorities in the answer are not the token's.
    #[error("what the issuer answered cannot be used")]
    Authority(#[from] CertificateFault),
    /// The authorities in the answer are not the token's.
    #[error("the issuer answered with other authorities than the token names")]
    OtherAuthority,
    /// The mesh file in the answer cannot be used.
    #[error("the issuer answered with a mesh file that cannot be used: {0}")]
    MeshFile(String),
}

/// Reads a token: the text itself, or `-` for standard input, where no other user sees it.
pub fn read_token(given: &str) -> Result<Token, JoinError> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        let read = io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text);
        read.map_err(JoinError::ReadToken)?;
    }
    Ok(text.trim().parse()?)
}

/// Joins; returns the mesh file.
pub async fn join(joiner: &Joiner) -> Result<MeshFile, JoinError> {
    let file = |name: &str| joiner.dir.join(name);
    let cert = file("node.pem");
    if cert.exists() && !joiner.replace {
        return Err(JoinError::Joined(cert));
    }
    fs::create_dir_all(&joiner.dir).map_err(|source| failed(&joiner.dir, source))?;
    let key = key(&file("node.key.new"))?;
    let request = v1::JoinRequest {
        mesh: joiner.token.mesh.clone(),
        secret: joiner.token.secret.to_vec().into(),
        name: joiner.name.to_string(),
        address: joiner.address.clone(),
        csr: make_csr(&key, &joiner.name)?.into(),
    };
    let token = &joiner.token;
    let reach = |source| JoinError::Reach {
        issuer: token.issuer.clone(),
        address: joiner.issuer.clone(),
        source,
    };
    let channel = connect(&joiner.issuer, token).await.map_err(reach)?;
    let mut client =
        MeshServiceClient::new(channel).max_decoding_message_size(cbddc_proto::MESSAGE_BYTES_MAX);
    let call = client.join(request);
    let answered = tokio::time::timeout(pinned::LIMIT, call).await;
    let answered = answered.map_err(|_| reach(PinnedError::NoAnswer))?;
    let answer = answered.map_err(|status| JoinError::Refused {
        issuer: token.issuer.clone(),
        why: status.message().to_owned(),
    })?;
    let answer = answer.into_inner();
    let mesh = check(joiner, &answer, &key)?;
    for (name, text) in [
        ("ca.pem", &answer.authority),
        ("mesh.toml", &answer.mesh_file),
    ] {
        put(&file(name), text)?;
    }
    // A cut between the two leaves a key without its certificate: the agent says so, and joining
    // again with --replace mends it.
    fs::rename(file("node.key.new"), file("node.key"))
        .map_err(|source| failed(&file("node.key"), source))?;
    put(&cert, &answer.certificate)?;
    Ok(mesh)
}

/// The key of an attempt that was interrupted, or a new one. The same key comes back with the same
/// token, so that a lost answer costs no second use.
fn key(path: &Path) -> Result<String, JoinError> {
    match fs::read_to_string(path) {
        Ok(key) if make_csr(&key, &"probe".parse().expect("a name")).is_ok() => return Ok(key),
        Ok(_) => fs::remove_file(path).map_err(|source| failed(path, source))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed(path, source)),
    }
    let key = make_key()?;
    disk::write_private(path, key.as_bytes()).map_err(|source| failed(path, source))?;
    Ok(key)
}

fn check(joiner: &Joiner, answer: &v1::JoinResponse, key: &str) -> Result<MeshFile, JoinError> {
    let token = &joiner.token;
    let authorities = certificate::from_pem(answer.authority.as_bytes())?;
    let pinned = |der: &Vec<u8>| certificate::fingerprint(der) == token.root;
    if !authorities.iter().any(pinned) {
        return Err(JoinError::OtherAuthority);
    }
    let roots = Roots::from_der(authorities)?;
    let public = cbddc_pki::authority::key_id(key)?;
    let chain = answer.certificate.as_bytes();
    check_own(chain, &roots, &token.mesh, &joiner.name, public)?;
    let mesh: MeshFile = toml::from_str(&answer.mesh_file)
        .map_err(|error| JoinError::MeshFile(error.to_string()))?;
    let faults: Vec<String> = mesh.faults().iter().map(ToString::to_string).collect();
    if mesh.name != token.mesh || !faults.is_empty() {
        return Err(JoinError::MeshFile(faults.join("; ")));
    }
    Ok(mesh)
}

fn put(path: &Path, text: &str) -> Result<(), JoinError> {
    disk::replace(path, text.as_bytes()).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> JoinError {
    JoinError::File {
        path: path.to_owned(),
        source,
    }
}
