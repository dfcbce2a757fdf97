//! The roster on this host: statements and their signatures in the state database, and the parsed
//! roster for whoever asks who is in the mesh.
//!
//! A statement is on disk, and in the journal, before anybody goes by it.

mod author;

pub use author::{Signed, Untrusted, author_of, signature_message, signature_of};

use crate::adapters::clock::TrustedTime;
use crate::adapters::sqlite::{SqliteError, SqliteStore, TokenUse};
use crate::adapters::tls::{Caller, Tls};
use crate::ports::JournalLine;
use cbddc_domain::mesh::MeshFile;
use cbddc_domain::roster::{Author, Merge, Roster, Said, Says, Standing, Subject};
use cbddc_pki::signature::{Roots, SignatureFault};
use cbddc_proto::v1;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// At most one line about refused statements in this time: whoever sends them must not fill the
/// journal.
const REFUSALS_EVERY: Duration = Duration::from_secs(10);

/// Why a statement was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// It is not believed.
    #[error("a statement was refused")]
    Refused(#[from] Untrusted),
    /// It could not be written down, so nothing has changed.
    #[error("the statement could not be written down, so nothing has changed")]
    NotSaved(#[from] SqliteError),
}

/// Who is in the mesh, as this host knows it. Cheap to clone.
#[derive(Clone)]
pub struct RosterKeeper {
    inner: Arc<Inner>,
}

struct Inner {
    store: SqliteStore,
    time: TrustedTime,
    shown: watch::Sender<Arc<Roster>>,
    /// The signed statements as they came, by subject.
    signed: Mutex<BTreeMap<Subject, v1::SignedStatement>>,
    /// One statement at a time is checked and saved.
    writing: tokio::sync::Mutex<()>,
    /// When something was last refused, by kind.
    refused_at: Mutex<BTreeMap<String, Instant>>,
}

impl RosterKeeper {
    /// Reads what this host knew before.
    ///
    /// # Errors
    /// The database cannot be read, or holds something that is no statement.
    pub async fn open(
        store: SqliteStore,
        genesis: MeshFile,
        time: TrustedTime,
    ) -> Result<Self, SqliteError> {
        let mut roster = Roster::new(genesis);
        let mut signed = BTreeMap::new();
        for (bytes, author) in store.statements().await? {
            let read = v1::SignedStatement::decode(bytes.as_slice()).ok();
            let read =
                read.and_then(|message| Some((author::read_back(&message, &author)?, message)));
            let (said, message) = read.ok_or(SqliteError::Statement)?;
            signed.insert(said.statement.subject.clone(), message);
            roster.put_back(said);
        }
        let inner = Inner {
            store,
            time,
            shown: watch::channel(Arc::new(roster)).0,
            signed: Mutex::new(signed),
            writing: tokio::sync::Mutex::new(()),
            refused_at: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The roster now.
    pub fn roster(&self) -> Arc<Roster> {
        self.inner.shown.borrow().clone()
    }

    /// Tells when the roster changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Roster>> {
        self.inner.shown.subscribe()
    }

    /// This host's idea of time, Unix seconds.
    pub fn now_s(&self) -> i64 {
        self.inner.time.now_s()
    }

    /// How a caller with a good certificate stands.
    pub fn standing(&self, caller: &Caller) -> Standing {
        let roster = self.inner.shown.borrow();
        match caller {
            Caller::Stranger => Standing::Unknown,
            Caller::Person { key: None, .. } => Standing::Good,
            Caller::Person {
                name,
                key: Some(key),
                ..
            } => roster.standing_of_person(name, *key),
            Caller::Agent { name, key, .. } => roster.standing_of_agent(name, *key),
        }
    }

    /// The signed statements about these subjects.
    pub fn signed<'a>(
        &self,
        subjects: impl IntoIterator<Item = &'a Subject>,
    ) -> Vec<v1::SignedStatement> {
        let signed = self.inner.signed.lock();
        let signed = signed.unwrap_or_else(PoisonError::into_inner);
        let found = subjects
            .into_iter()
            .filter_map(|subject| signed.get(subject));
        found.cloned().collect()
    }

    /// Takes a statement if its signature is good, its author may say it, and it is news.
    pub async fn offer(
        &self,
        message: v1::SignedStatement,
        tls: &Tls,
        from: &str,
    ) -> Result<Merge, OfferError> {
        self.offer_with(message, tls, from, None).await
    }

    /// The same for a host that joins: its token is used and it is a member at one stroke.
    pub async fn admit(
        &self,
        message: v1::SignedStatement,
        tls: &Tls,
        token: TokenUse,
    ) -> Result<Merge, OfferError> {
        let from = "a host that joins";
        self.offer_with(message, tls, from, Some(token)).await
    }

    async fn offer_with(
        &self,
        message: v1::SignedStatement,
        tls: &Tls,
        from: &str,
        token: Option<TokenUse>,
    ) -> Result<Merge, OfferError> {
        let writing = self.inner.writing.lock().await;
        match self.check(&message, tls) {
            Ok(Some((said, roster))) => {
                let names_authorities = said.statement.subject == Subject::Trust;
                self.save(&message, said, roster, token).await?;
                if names_authorities {
                    // At once: what comes next may be signed by somebody whom the newest one vouches for.
                    match tls.reload(self.roster().trust()) {
                        Ok(()) => tracing::info!("the mesh's newest authorities are trusted now"),
                        Err(error) => tracing::error!("{}", crate::error_chain(&error)),
                    }
                }
                Ok(Merge::News)
            }
            Ok(None) => Ok(Merge::Known),
            Err(refused) => {
                drop(writing);
                let why = crate::error_chain(&refused);
                tracing::warn!(from, "a statement was refused: {why}");
                self.refused("statement_refused", from, &why).await;
                Err(refused.into())
            }
        }
    }

    /// Writes into the journal that something was refused, now and then.
    pub async fn refused(&self, kind: &str, from: &str, why: &str) {
        {
            let refused_at = self.inner.refused_at.lock();
            let mut refused_at = refused_at.unwrap_or_else(PoisonError::into_inner);
            if refused_at
                .get(kind)
                .is_some_and(|at| at.elapsed() < REFUSALS_EVERY)
            {
                return;
            }
            refused_at.insert(kind.to_owned(), Instant::now());
        }
        let text = format!("refused what {from} brought: {why}");
        if let Err(error) = self.inner.store.note(self.line(kind, from, text)).await {
            tracing::warn!(%error, "a refusal could not be written down");
        }
    }

    fn check(
        &self,
        message: &v1::SignedStatement,
        tls: &Tls,
    ) -> Result<Option<(Said, Roster)>, Untrusted> {
        let signed = Signed::new(tls, self.roster());
        let said = signed.said(message)?;
        if let Says::Trust(entry) = &said.statement.says {
            for some in [&entry.roots, &entry.former] {
                if !some.is_empty() {
                    Roots::from_der(some.clone()).map_err(SignatureFault::from)?;
                }
            }
        }
        let mut roster = Roster::clone(&self.inner.shown.borrow());
        match roster.offer(said.clone())? {
            Merge::News => Ok(Some((said, roster))),
            Merge::Known => Ok(None),
        }
    }

    async fn save(
        &self,
        message: &v1::SignedStatement,
        said: Said,
        roster: Roster,
        token: Option<TokenUse>,
    ) -> Result<(), SqliteError> {
        let actor = said.author.to_string();
        let line = self.line("roster_changed", &actor, words(&said));
        let text = line.text.clone();
        let subject = said.statement.subject.clone();
        let author = author::words(&said.author);
        let bytes = message.encode_to_vec();
        self.inner
            .store
            .put_statement(subject.to_string(), bytes, author, line, token)
            .await?;
        tracing::info!(actor, "{text}");
        let mut signed = self
            .inner
            .signed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        signed.insert(subject, message.clone());
        drop(signed);
        self.inner.shown.send_replace(Arc::new(roster));
        Ok(())
    }

    fn line(&self, kind: &str, actor: &str, text: String) -> JournalLine {
        JournalLine {
            wall_ms: self.inner.time.now_s().saturating_mul(1000),
            kind: kind.to_owned(),
            epoch: None,
            generation: None,
            actor: actor.to_owned(),
            text,
        }
    }
}

/// What a statement says, for the journal.
fn words(said: &Said) -> String {
    let subject = &said.statement.subject;
    let what = match &said.statement.says {
        Says::Member(entry) => {
            let kind = if entry.required {
                "required"
            } else {
                "optional"
            };
            format!("{subject} is a {kind} member at {}", entry.address)
        }
        Says::User(entry) => format!("{subject} is known as {}", entry.role),
        Says::Trust(entry) => format!("{subject} are {} now", entry.roots.len()),
        Says::Removed => format!("{subject} was taken out of the mesh"),
    };
    let by = match (&said.author, &said.grant) {
        (Author::Agent { .. }, Some((_, admin))) => format!(", as {admin} had granted"),
        _ => String::new(),
    };
    match said.statement.reason.as_str() {
        "" => format!("{what}{by}"),
        reason => format!("{what}{by}: {reason}"),
    }
}
