//! Looks after this agent's identity: renews its certificate at two thirds of its life, and at once
//! where another authority replaces the one that it comes from; writes down how late it is.
//!
//! A certificate is renewed for the same key, by any issuer that can be reached, without a restart:
//! calls that are under way go on over the connections they have.

use crate::adapters::evidence::EvidenceKeeper;
use crate::adapters::peers::Peers;
use crate::adapters::roster::RosterKeeper;
use crate::adapters::sqlite::SqliteStore;
use crate::adapters::tls::Tls;
use crate::adapters::{disk, identity_files};
use crate::engine::EngineHandle;
use crate::error_chain;
use crate::ports::JournalLine;
use cbddc_domain::identity::{Renewal, improves, renewal};
use cbddc_pki::certificate;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the certificate's age is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How soon an attempt to renew is made again after one that failed.
const AGAIN: Duration = Duration::from_secs(15);
/// The same while authorities are replaced: issuers are about to get the newest.
const AGAIN_SOON: Duration = Duration::from_secs(2);
/// How often the time is written down, in seconds.
const WRITE_TIME_S: i64 = 3600;

/// What looking after the identity needs.
pub struct Caretaker {
    /// The identity.
    pub tls: Tls,
    /// Who is in the mesh.
    pub roster: RosterKeeper,
    /// Signatures, of which some become useless.
    pub evidence: EvidenceKeeper,
    /// The other members.
    pub peers: Peers,
    /// Time and journal.
    pub store: SqliteStore,
    /// The state.
    pub engine: EngineHandle,
}

impl Caretaker {
    /// Looks after it until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut roster = self.roster.watch();
        let mut node = self.engine.watch();
        let mut trust = self.roster.roster().trust().cloned();
        let mut decided = node.borrow().register.decided_epoch();
        let mut written_s = 0;
        let mut pause = Duration::ZERO;
        let mut told = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {
                    written_s = self.write_time(written_s).await;
                    pause = self.renew_if_due().await;
                }
                // This host's clock may be behind: the others' time counts.
                () = self.told_expired(&mut told) => {
                    pause = self.renew_now(Renewal::Expired, AGAIN).await;
                }
                changed = roster.changed() => {
                    if changed.is_err() { return }
                    let newest = self.roster.roster();
                    if newest.trust() != trust.as_ref() {
                        trust = newest.trust().cloned();
                        self.peers.reconnect().await;
                        pause = self.renew_if_due().await;
                    }
                }
                changed = node.changed() => {
                    if changed.is_err() { return }
                    let newest = node.borrow_and_update().clone();
                    if newest.register.decided_epoch() != decided {
                        decided = newest.register.decided_epoch();
                        self.evidence.forget(&newest).await;
                    }
                }
            }
        }
    }

    /// Writes down the time now and then; never later than the own certificate's end, so that a
    /// clock that once leapt ahead does not lock this host out for long.
    async fn write_time(&self, written_s: i64) -> i64 {
        let now_s = self.tls.time().now_s();
        if now_s < written_s.saturating_add(WRITE_TIME_S) {
            return written_s;
        }
        let kept = now_s.min(self.tls.facts().not_after);
        match self.store.put_time_s(kept).await {
            Ok(()) => now_s,
            Err(error) => {
                tracing::warn!(%error, "the time could not be written down");
                written_s
            }
        }
    }

    /// Waits until a peer says that the certificate has expired; not again soon after the last time,
    /// whoever says it how often.
    async fn told_expired(&self, last: &mut Option<Instant>) {
        if let Some(last) = last {
            tokio::time::sleep_until(*last + AGAIN).await;
        }
        self.peers.told_expired().await;
        *last = Some(Instant::now());
    }

    /// Renews the certificate where it is time; says when to look again.
    async fn renew_if_due(&self) -> Duration {
        let facts = self.tls.facts();
        let now_s = self.tls.time().now_s();
        let newest = self.tls.is_newest();
        let why = renewal(facts.not_before, facts.not_after, now_s, newest);
        match why {
            Renewal::NotYet => LOOK,
            Renewal::Superseded => self.renew_now(why, AGAIN_SOON).await,
            Renewal::Due | Renewal::Expired => self.renew_now(why, AGAIN).await,
        }
    }

    /// Renews the certificate; says when to look again, `again` where it could not be renewed.
    async fn renew_now(&self, why: Renewal, again: Duration) -> Duration {
        match self.renew(why).await {
            Ok(issuer) => {
                let text = format!("the certificate was renewed by {issuer}");
                tracing::info!("{text}");
                let line = JournalLine {
                    wall_ms: self.tls.time().now_s().saturating_mul(1000),
                    kind: "certificate_renewed".to_owned(),
                    epoch: None,
                    generation: None,
                    actor: crate::engine::ACTOR_AGENT.to_owned(),
                    text,
                };
                if let Err(error) = self.store.note(line).await {
                    tracing::warn!(%error, "the renewal could not be written down");
                }
                LOOK
            }
            Err(why) => {
                tracing::warn!("the certificate could not be renewed: {why}");
                again
            }
        }
    }

    /// Asks one issuer after another; returns the one that did it.
    async fn renew(&self, why: Renewal) -> Result<String, String> {
        let issuers = self.roster.roster().issuers();
        if issuers.is_empty() {
            return Err(
                "the mesh has no issuer: an admin makes one with `cbctl mesh issuer add NODE`"
                    .to_owned(),
            );
        }
        let csr = identity_files::csr(self.tls.files(), self.tls.node());
        let csr = csr.map_err(|error| error_chain(&error))?;
        let mut reasons = Vec::new();
        for issuer in issuers {
            let renewed = match self.own_issuing(&issuer) {
                Some(issuing) => issuing
                    .sign_node(
                        self.tls.mesh(),
                        self.tls.node(),
                        &csr,
                        self.tls.time().now_s(),
                    )
                    .map_err(|error| error_chain(&error)),
                None => {
                    let renewed = self.peers.renew(&issuer, csr.clone()).await;
                    renewed.map_err(|error| error.to_string())
                }
            };
            match renewed.and_then(|chain| self.take(&chain, why)) {
                Ok(()) => {
                    self.peers.reconnect().await;
                    return Ok(issuer.to_string());
                }
                Err(why) => reasons.push(format!("{issuer}: {why}")),
            }
        }
        Err(reasons.join("; "))
    }

    /// This member's own issuing authority, where it is the issuer.
    fn own_issuing(
        &self,
        issuer: &cbddc_domain::id::NodeName,
    ) -> Option<cbddc_pki::authority::Issuing> {
        if issuer != self.tls.node() {
            return None;
        }
        identity_files::issuing(self.tls.files()).ok().flatten()
    }

    /// Takes a new certificate, once it is checked and on disk.
    fn take(&self, chain: &str, why: Renewal) -> Result<(), String> {
        let newest = self.tls.roots().newest();
        let der = certificate::from_pem(chain.as_bytes()).map_err(|fault| error_chain(&fault))?;
        if !improves(why, newest.vouch_for(&der, self.tls.mesh())) {
            return Err("it has not got the mesh's newest issuing authority yet".to_owned());
        }
        let checked = identity_files::check_own(
            chain.as_bytes(),
            &self.tls.roots(),
            self.tls.mesh(),
            self.tls.node(),
            self.tls.facts().key,
        );
        checked.map_err(|error| error_chain(&error))?;
        let path = &self.tls.files().renewed;
        disk::replace(path, chain.as_bytes())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let roster = self.roster.roster();
        self.tls
            .reload(roster.trust())
            .map_err(|error| error_chain(&error))
    }
}
