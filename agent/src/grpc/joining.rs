//! Hosts that join with a token, and members that renew their certificate: the work of an issuer.

use super::{Services, refuse};
use crate::adapters::roster::{OfferError, signature_message};
use crate::adapters::sqlite::{SqliteError, TokenUse};
use crate::adapters::tls::Caller;
use crate::ports::JournalLine;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::roster::rules::may_take;
use cbddc_domain::roster::{Grant, MemberEntry, Merge, Says, Statement, Subject};
use cbddc_pki::authority::Issuing;
use cbddc_pki::certificate;
use cbddc_proto::convert::{Malformed, roster as wire, text};
use cbddc_proto::v1;
use prost::Message as _;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::time::Instant;
use tonic::{Code, Status};

/// The most tokens that an issuer keeps.
const GRANTS_MAX: u64 = 1000;
/// The largest request for a certificate, in bytes.
const CSR_BYTES_MAX: usize = 8 * 1024;
/// How many attempts to join one address may make at once, before it has to wait.
const JOINS_BURST: f64 = 5.0;
/// How many more it may make each second.
const JOINS_PER_S: f64 = 0.5;
/// From how many addresses attempts are counted; the longest ago are forgotten.
const ADDRESSES_MAX: usize = 1024;

/// What an issuer needs: the issuing authority, and a count of who tries to join.
#[derive(Clone)]
pub struct Joining {
    /// Unset: this member is no issuer.
    issuing: Arc<RwLock<Option<Arc<Issuing>>>>,
    attempts: Arc<Mutex<BTreeMap<IpAddr, (f64, Instant)>>>,
}

impl Joining {
    /// For a member that is an issuer where it has the authority.
    pub fn new(issuing: Option<Issuing>) -> Self {
        Self {
            issuing: Arc::new(RwLock::new(issuing.map(Arc::new))),
            attempts: Arc::default(),
        }
    }

    /// The issuing authority that counts now.
    pub(super) fn issuing(&self) -> Option<Arc<Issuing>> {
        let held = self.issuing.read();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another one counts from now on, or none.
    pub(super) fn set_issuing(&self, issuing: Option<Issuing>) {
        let mut held = self.issuing.write().unwrap_or_else(PoisonError::into_inner);
        *held = issuing.map(Arc::new);
    }

    /// Counts an attempt from an address; false: it has to wait.
    fn admit(&self, from: IpAddr) -> bool {
        let now = Instant::now();
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() >= ADDRESSES_MAX && !attempts.contains_key(&from) {
            let oldest = attempts.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                attempts.remove(&oldest);
            }
        }
        let (left, at) = attempts.entry(from).or_insert((JOINS_BURST, now));
        *left = (*left + at.elapsed().as_secs_f64() * JOINS_PER_S).min(JOINS_BURST);
        *at = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

impl Services {
    fn issuing(&self) -> Result<Arc<Issuing>, Status> {
        self.joining.issuing().ok_or_else(|| {
            let issuers = self.roster.roster().issuers();
            let issuers: Vec<&str> = issuers.iter().map(NodeName::as_str).collect();
            let known = match issuers.as_slice() {
                [] => "the mesh has none: `cbctl mesh issuer add NODE` makes one".to_owned(),
                names => format!("ask one of {}", names.join(", ")),
            };
            let text = format!("this member does not issue certificates; {known}");
            refuse(Code::FailedPrecondition, "not_issuer", text)
        })
    }

    /// Takes the grant of a new token from an admin.
    pub(super) async fn take_grant(
        &self,
        message: v1::SignedGrant,
        by: &str,
    ) -> Result<(), Status> {
        self.issuing()?;
        let (grant, author) = self.signed().grant(&message).map_err(|fault| {
            refuse(
                Code::PermissionDenied,
                "distrusted",
                crate::error_chain(&fault),
            )
        })?;
        // As if a host came with it at once: every rule about grants is in one place.
        let name = grant
            .host
            .clone()
            .unwrap_or_else(|| self.tls.node().clone());
        grant
            .fits(self.tls.mesh(), self.tls.node(), &name)
            .map_err(|why| refuse(Code::InvalidArgument, "distrusted", why))?;
        let is_admin = matches!(
            &author,
            cbddc_domain::roster::Author::Person {
                role: cbddc_domain::access::Role::Admin,
                ..
            }
        );
        if !is_admin {
            let text = format!("{author} signed the grant, and only admins may");
            return Err(refuse(Code::PermissionDenied, "not_allowed", text));
        }
        if self.store.count_grants().await.map_err(database)? >= GRANTS_MAX {
            let text = format!(
                "this issuer keeps {GRANTS_MAX} tokens already: wait until some have expired"
            );
            return Err(refuse(Code::ResourceExhausted, "too_many", text));
        }
        let host = grant
            .host
            .as_ref()
            .map_or_else(|| "any new host".to_owned(), NodeName::to_string);
        let words = format!("a token for {host}, {} use(s)", grant.uses);
        let line = self.line("token_made", by, words);
        let saved = self
            .store
            .put_grant(
                grant.secret,
                message.encode_to_vec(),
                grant.until_wall_ms,
                line,
            )
            .await;
        saved.map_err(database)
    }

    /// Lets a host in.
    pub(super) async fn join(
        &self,
        request: v1::JoinRequest,
        from: Option<SocketAddr>,
    ) -> Result<v1::JoinResponse, Status> {
        let shown = from.map_or_else(|| "this host".to_owned(), |from| from.ip().to_string());
        if let Some(from) = from
            && !self.joining.admit(from.ip())
        {
            let text = "too many attempts from this address: wait some seconds and try again";
            return Err(refuse(Code::ResourceExhausted, "too_many", text));
        }
        let joined = self.join_checked(request).await;
        if let Err(status) = &joined {
            self.roster
                .refused("join_refused", &shown, status.message())
                .await;
        }
        joined
    }

    async fn join_checked(&self, request: v1::JoinRequest) -> Result<v1::JoinResponse, Status> {
        let issuing = self.issuing()?;
        if request.mesh != self.tls.mesh() {
            let text = format!(
                "the token is of another mesh; this one is {}",
                self.tls.mesh()
            );
            return Err(refuse(Code::InvalidArgument, "other_mesh", text));
        }
        let malformed = |fault: Malformed| super::malformed(fault);
        let name: NodeName = request
            .name
            .parse()
            .map_err(|fault| malformed(Malformed::Name(fault)))?;
        let address = text("address", request.address).map_err(malformed)?;
        if request.csr.len() > CSR_BYTES_MAX {
            let bound = CSR_BYTES_MAX as u64;
            return Err(malformed(Malformed::TooLarge {
                field: "csr",
                bound,
            }));
        }
        // A mesh file with one address twice is none, and nobody could join with it any more.
        let members = self.roster.roster().members();
        let holder = members
            .iter()
            .find(|(other, entry)| **other != name && entry.address == address);
        if let Some((holder, _)) = holder {
            let text = format!(
                "{holder} has the address {address} already: join with the one of this host"
            );
            return Err(refuse(Code::FailedPrecondition, "address_taken", text));
        }
        let secret = Digest::of(&request.secret);
        let (grant, message, used) = self.grant_of(secret).await?;
        grant
            .fits(self.tls.mesh(), self.tls.node(), &name)
            .map_err(|why| refuse(Code::PermissionDenied, "other_host", why))?;
        let certificate = issuing
            .sign_node(
                self.tls.mesh(),
                &name,
                &request.csr,
                self.tls.time().now_s(),
            )
            .map_err(|fault| {
                refuse(
                    Code::InvalidArgument,
                    "malformed",
                    crate::error_chain(&fault),
                )
            })?;
        let key = key_of(&certificate, self.tls.mesh())?;
        let roster = self.roster.roster();
        may_take(&roster, &grant, &name, key)
            .map_err(|why| refuse(Code::FailedPrecondition, "distrusted", why))?;
        // A host whose answer got lost comes again with its key, and is no second use.
        let again = roster
            .member(&name)
            .is_some_and(|entry| entry.key == Some(key));
        if !again {
            if used >= grant.uses {
                return Err(used_up());
            }
            let words = format!(
                "{name} joins with a token, use {} of {}",
                used + 1,
                grant.uses
            );
            let token = TokenUse {
                secret,
                uses: grant.uses,
                line: self.line("token_used", &format!("node {name}"), words),
            };
            self.admit_member(&name, address, key, &grant, message, token)
                .await?;
        }
        Ok(v1::JoinResponse {
            certificate,
            authority: self.authorities_pem(),
            mesh_file: self.mesh_file()?,
        })
    }

    async fn grant_of(&self, secret: Digest) -> Result<(Grant, v1::SignedGrant, u32), Status> {
        let held = self.store.grant(secret).await.map_err(database)?;
        let (bytes, used) = held.ok_or_else(|| {
            let text =
                "this issuer knows no such token: it was altered, or made for another issuer";
            refuse(Code::PermissionDenied, "unknown_token", text)
        })?;
        let fault = || refuse(Code::Internal, "grant", "the saved grant cannot be read");
        let message = v1::SignedGrant::decode(bytes.as_slice()).map_err(|_| fault())?;
        let grant = wire::grant(&message.grant).map_err(|_| fault())?;
        if grant.until_wall_ms < self.tls.time().now_s().saturating_mul(1000) {
            let text = "the token has expired: ask an admin for a new one";
            return Err(refuse(Code::PermissionDenied, "token_expired", text));
        }
        Ok((grant, message, used))
    }

    async fn admit_member(
        &self,
        name: &NodeName,
        address: String,
        key: Digest,
        grant: &Grant,
        message: v1::SignedGrant,
        token: TokenUse,
    ) -> Result<(), Status> {
        let subject = Subject::Member(name.clone());
        let statement = Statement {
            mesh: self.tls.mesh().to_owned(),
            version: self.roster.roster().next_version(&subject),
            subject,
            says: Says::Member(MemberEntry {
                address,
                labels: grant.labels.clone(),
                required: grant.required,
                key: Some(key),
            }),
            reason: String::new(),
        };
        let bytes = wire::statement_bytes(&statement);
        let signature = self.tls.sign(&wire::statement_message(&bytes));
        let signed = v1::SignedStatement {
            statement: bytes.into(),
            signature: Some(signature_message(signature)),
            grant: Some(message),
            second: None,
        };
        match self.roster.admit(signed, &self.tls, token).await {
            Ok(Merge::News | Merge::Known) => Ok(()),
            Err(OfferError::NotSaved(SqliteError::UsedUp)) => Err(used_up()),
            Err(OfferError::NotSaved(error)) => Err(database(error)),
            Err(fault @ OfferError::Refused(_)) => {
                let text = crate::error_chain(&fault);
                Err(refuse(Code::FailedPrecondition, "distrusted", text))
            }
        }
    }

    /// Gives a member a new certificate for its key.
    pub(super) async fn renew_certificate(
        &self,
        csr: &[u8],
        caller: &Caller,
    ) -> Result<String, Status> {
        let issuing = self.issuing()?;
        let Caller::Agent { name, key, .. } = caller else {
            let text = "only agents renew; a person asks an admin for a new certificate";
            return Err(refuse(Code::PermissionDenied, "not_allowed", text));
        };
        let certificate = issuing
            .sign_node(self.tls.mesh(), name, csr, self.tls.time().now_s())
            .map_err(|fault| {
                refuse(
                    Code::InvalidArgument,
                    "malformed",
                    crate::error_chain(&fault),
                )
            })?;
        if key_of(&certificate, self.tls.mesh())? != *key {
            let text = "the request is for another key than the member has; a new disk comes with `cbctl mesh replace`";
            return Err(refuse(Code::PermissionDenied, "other_key", text));
        }
        let words = format!("{name} has a new certificate for its key");
        let line = self.line("certificate_renewed", &format!("node {name}"), words);
        self.store.note(line).await.map_err(database)?;
        Ok(certificate)
    }

    fn authorities_pem(&self) -> String {
        certificate::to_pem(&self.tls.roots_der())
    }

    /// The mesh file for a host that joins: the members that there are now as its first contacts.
    fn mesh_file(&self) -> Result<String, Status> {
        let roster = self.roster.roster();
        let mut file = roster.genesis().clone();
        file.voters = Some(
            self.engine
                .node()
                .register
                .voters(&self.engine.context().voters)
                .clone(),
        );
        file.members = roster
            .members()
            .into_iter()
            .map(|(name, entry)| cbddc_domain::mesh::Member {
                name,
                key: entry.key,
                address: entry.address,
                labels: entry.labels,
                required: entry.required,
            })
            .collect();
        toml::to_string(&file).map_err(|_| Status::internal("the mesh file cannot be written"))
    }

    pub(super) fn line(&self, kind: &str, actor: &str, text: String) -> JournalLine {
        JournalLine {
            wall_ms: self.world.now().wall_ms,
            kind: kind.to_owned(),
            epoch: None,
            generation: None,
            actor: actor.to_owned(),
            text,
        }
    }
}

fn used_up() -> Status {
    let text = "the token was used already: ask an admin for a new one";
    refuse(Code::PermissionDenied, "token_used_up", text)
}

fn key_of(chain_pem: &str, mesh: &str) -> Result<Digest, Status> {
    let chain = certificate::from_pem(chain_pem.as_bytes());
    let facts = chain.and_then(|chain| certificate::facts(&chain[0], mesh));
    let facts = facts
        .map_err(|_| Status::internal("the issuing authority made no certificate of this mesh"))?;
    Ok(facts.key)
}

fn database(error: SqliteError) -> Status {
    refuse(Code::Unavailable, "not_saved", crate::error_chain(&error))
}
