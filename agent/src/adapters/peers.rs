//! Calls to the other agents of the mesh.

mod proposals;

use crate::adapters::builds::BuildStore;
use crate::adapters::evidence::EvidenceKeeper;
use crate::adapters::roster::RosterKeeper;
use crate::adapters::seen::Seen;
use crate::adapters::skews::Skews;
use crate::adapters::swim::{Answered, Swim};
use crate::adapters::tls::Tls;
use crate::adapters::unproven;
use crate::error_chain;
use crate::ports::{Compared, EffectError, Told};
use bytes::Bytes;
use cbddc_domain::build::BuildRef;
use cbddc_domain::id::NodeName;
use cbddc_domain::register::{Answer, Epoch, RegisterView};
use cbddc_domain::roster::Subject;
use cbddc_domain::starts::Start;
use cbddc_proto::v1::build_service_client::BuildServiceClient;
use cbddc_proto::v1::mesh_service_client::MeshServiceClient;
use cbddc_proto::{MESSAGE_BYTES_MAX, WORD_KEY, convert, v1};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tonic::transport::Channel;

/// How long a bundle may take to arrive from a peer.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// Every so many exchanges the partner may be one that does not seem to be there.
const ANY_PARTNER_EVERY: usize = 4;

/// How many datagrams an answer may bring.
const DATAGRAMS_MAX: usize = 16;

/// How many connections are kept open: those used last.
const CHANNELS_MAX: usize = 32;

/// The other agents: connected when first needed, and again when a connection breaks.
#[derive(Clone)]
pub struct Peers {
    tls: Tls,
    roster: RosterKeeper,
    evidence: EvidenceKeeper,
    seen: Seen,
    swim: Swim,
    skews: Skews,
    channels: Arc<Mutex<Channels>>,
    /// Told when a peer says that the own certificate has expired.
    expired: Arc<Notify>,
    limit: Duration,
}

/// Open connections by peer: the address they go to, and a count that tells the one used longest ago.
#[derive(Default)]
struct Channels {
    open: BTreeMap<NodeName, (String, u64, Channel)>,
    uses: u64,
}

impl Peers {
    /// The members of the roster; each call may take `limit`.
    pub fn new(
        tls: Tls,
        roster: RosterKeeper,
        evidence: EvidenceKeeper,
        seen: Seen,
        swim: Swim,
        limit: Duration,
    ) -> Self {
        Self {
            tls,
            roster,
            evidence,
            seen,
            swim,
            skews: Skews::default(),
            channels: Arc::default(),
            expired: Arc::default(),
            limit,
        }
    }

    /// How their clocks differ from this host's.
    pub fn skews(&self) -> Skews {
        self.skews.clone()
    }

    /// The other members, by name.
    pub fn others(&self) -> Vec<NodeName> {
        let mut members = self.roster.roster().members();
        members.remove(self.tls.node());
        members.into_keys().collect()
    }

    /// Some other member, drawn at random: one that is there, or now and then any, which may just
    /// have come back.
    pub fn partner(&self) -> Option<NodeName> {
        let mut others = self.others();
        let alive = self.swim.alive();
        if !alive.is_empty() && Self::draw(ANY_PARTNER_EVERY)? != 0 {
            others.retain(|name| alive.contains(name));
        }
        let index = Self::draw(others.len())?;
        Some(others.swap_remove(index))
    }

    /// A number below `bound`, drawn at random; none where there is none.
    pub fn draw(bound: usize) -> Option<usize> {
        let mut drawn = [0; 8];
        getrandom::fill(&mut drawn).ok()?;
        let bound = u64::try_from(bound).ok()?;
        let index = u64::from_ne_bytes(drawn).checked_rem(bound)?;
        usize::try_from(index).ok()
    }

    async fn channel(&self, peer: &NodeName) -> Result<Channel, EffectError> {
        let entry = self.roster.roster().member(peer);
        let address = entry
            .ok_or_else(|| EffectError(format!("{peer} is no member of the mesh")))?
            .address;
        {
            let mut channels = self.channels.lock().await;
            channels.uses += 1;
            let uses = channels.uses;
            if let Some((to, used, channel)) = channels.open.get_mut(peer)
                && *to == address
            {
                *used = uses;
                return Ok(channel.clone());
            }
        }
        let connected = self.tls.connect(&address, peer, self.limit).await;
        let channel = connected.map_err(|error| EffectError(error_chain(&error)))?;
        let mut channels = self.channels.lock().await;
        let uses = channels.uses;
        channels
            .open
            .insert(peer.clone(), (address, uses, channel.clone()));
        if channels.open.len() > CHANNELS_MAX {
            let oldest = channels.open.iter().min_by_key(|(_, (_, used, _))| *used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                channels.open.remove(&oldest);
            }
        }
        Ok(channel)
    }

    /// Runs a call within the limit; a connection that fails is forgotten.
    async fn call<T>(
        &self,
        peer: &NodeName,
        limit: Duration,
        call: impl AsyncFnOnce(Channel) -> Result<T, tonic::Status>,
    ) -> Result<T, EffectError> {
        let outcome = tokio::time::timeout(limit, async {
            let channel = self.channel(peer).await?;
            call(channel).await.map_err(|status| {
                if status.code() == tonic::Code::PermissionDenied {
                    tracing::warn!("{peer} refuses this agent: {}", status.message());
                }
                let word = status.metadata().get(WORD_KEY);
                if word.is_some_and(|word| word == "expired") {
                    self.expired.notify_one();
                }
                EffectError(format!("{peer}: {}", status.message()))
            })
        });
        let outcome = outcome.await.unwrap_or_else(|_| {
            Err(EffectError(format!(
                "{peer} did not answer within {} s",
                limit.as_secs_f32()
            )))
        });
        if outcome.is_err() {
            self.channels.lock().await.open.remove(peer);
        }
        outcome
    }

    /// Asks a voter about an epoch.
    pub async fn ask(
        &self,
        voter: &NodeName,
        epoch: Epoch,
    ) -> Result<(Answer, RegisterView), EffectError> {
        let answered = self.call(voter, self.limit, async |channel| {
            let request = v1::AskRequest {
                epoch: Some(epoch.into()),
            };
            let mut client =
                MeshServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(client.ask(request).await?.into_inner())
        });
        let answered = answered.await?;
        let malformed = |error: convert::Malformed| EffectError(format!("{voter}: {error}"));
        let answer = convert::answer(answered.answer).map_err(malformed)?;
        Ok((answer, self.view_of(voter, answered.register).await?))
    }

    /// What a peer has voted for and learnt.
    pub async fn register_of(
        &self,
        peer: &NodeName,
        starts: &[Start],
    ) -> Result<Told, EffectError> {
        let answered = self.call(peer, self.limit, async |channel| {
            let request = v1::GetRecordRequest {
                starts: convert::starts_to_proto(starts),
            };
            let mut client =
                MeshServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(client.get_record(request).await?.into_inner())
        });
        let answered = answered.await?;
        let malformed = |error: convert::Malformed| EffectError(format!("{peer}: {error}"));
        Ok(Told {
            register: self.view_of(peer, answered.register).await?,
            remembered: answered.remembered.map(Into::into),
            starts: convert::starts_from_proto(answered.starts).map_err(malformed)?,
        })
    }

    /// Asks a peer to promise a fresh epoch (rule 16); returns what it knows after that, and what it
    /// has promised instead where it is beyond that epoch.
    pub async fn fence(&self, peer: &NodeName, epoch: Epoch) -> Result<RegisterView, EffectError> {
        let answered = self.call(peer, self.limit, async |channel| {
            let request = v1::FenceRequest {
                epoch: Some(epoch.into()),
            };
            let mut client =
                MeshServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            match client.fence(request).await {
                Ok(answer) => Ok(answer.into_inner().register),
                Err(status) if is_behind(&status) => {
                    let asked = client.get_record(v1::GetRecordRequest::default());
                    Ok(asked.await?.into_inner().register)
                }
                Err(status) => Err(status),
            }
        });
        self.view_of(peer, answered.await?).await
    }

    /// What of a peer's register its evidence proves.
    async fn view_of(
        &self,
        peer: &NodeName,
        register: Option<v1::RegisterView>,
    ) -> Result<RegisterView, EffectError> {
        let malformed = |error: convert::Malformed| EffectError(format!("{peer}: {error}"));
        let mut register = convert::required("register", register).map_err(malformed)?;
        let evidence = std::mem::take(&mut register.evidence);
        let view = register.try_into().map_err(malformed)?;
        Ok(self.evidence.sift(peer, view, evidence).await)
    }

    /// Exchanges with a member what both know; takes the statements that are news here.
    pub async fn exchange(
        &self,
        peer: &NodeName,
        now_wall_ms: i64,
    ) -> Result<Compared, EffectError> {
        let request = v1::ExchangeRequest {
            roster: self.roster.roster().digest().as_bytes().to_vec().into(),
            register: self.evidence.summary().as_bytes().to_vec().into(),
        };
        let answered = self.call(peer, self.limit, async |channel| {
            let mut client =
                MeshServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(client.exchange(request).await?.into_inner())
        });
        let began = Instant::now();
        let answered = answered.await;
        if answered.is_err() {
            self.ask_trust(peer).await;
        }
        let answered = answered?;
        self.seen.note(peer, now_wall_ms);
        if answered.wall_ms != 0 {
            let took = began.elapsed();
            self.skews.note(peer, now_wall_ms, took, answered.wall_ms);
        }
        if !answered.buckets.is_empty() {
            self.take_statements(peer, &answered.buckets).await?;
        }
        Ok(Compared {
            same_register: answered.same_register,
            remembered: answered.remembered.map(Into::into),
            start: answered.start.map(Into::into),
        })
    }

    /// A member that cannot be spoken to may know newer authorities, by which it lives already: the
    /// statement about them is believed by its signatures, whoever shows it.
    async fn ask_trust(&self, peer: &NodeName) {
        let Some(entry) = self.roster.roster().member(peer) else {
            return;
        };
        let asking = unproven::trust_of(&entry.address, peer);
        let Ok(Ok(Some(statement))) = tokio::time::timeout(self.limit, asking).await else {
            return;
        };
        if self.roster.signed([&Subject::Trust]).first() == Some(&statement) {
            return;
        }
        let from = format!("whoever answers for node {peer}");
        if let Err(error) = self.roster.offer(statement, &self.tls, &from).await {
            tracing::debug!(%peer, "{}", error_chain(&error));
        }
    }

    async fn take_statements(&self, peer: &NodeName, theirs: &[u64]) -> Result<(), EffectError> {
        let roster = self.roster.roster();
        let differing = roster.differing(theirs);
        let request = v1::GetStatementsRequest {
            buckets: differing
                .iter()
                .filter_map(|bucket| u32::try_from(*bucket).ok())
                .collect(),
            held: convert::roster::listed(&roster.listing(&differing)),
        };
        if request.buckets.is_empty() {
            return Ok(());
        }
        let answered = self.call(peer, self.limit, async |channel| {
            let mut client =
                MeshServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(client.get_statements(request).await?.into_inner())
        });
        let mut statements = answered.await?.statements;
        statements.truncate(convert::roster::STATEMENTS_MAX);
        // Authorities first, then people: what they signed is believed afterwards.
        for statement in statements {
            let from = format!("node {peer}");
            if let Err(error) = self.roster.offer(statement, &self.tls, &from).await {
                tracing::debug!(%peer, "{}", error_chain(&error));
            }
        }
        Ok(())
    }

    /// Brings a member a datagram of the failure detection.
    pub async fn gossip(
        &self,
        peer: &NodeName,
        datagram: Bytes,
        limit: Duration,
    ) -> Result<Answered, EffectError> {
        let answered = self.call(peer, limit.min(self.limit), async |channel| {
            let mut client = MeshServiceClient::new(channel);
            let request = v1::GossipRequest { datagram };
            Ok(client.gossip(request).await?.into_inner())
        });
        let mut answered = answered.await?;
        answered.datagrams.truncate(DATAGRAMS_MAX);
        Ok(Answered {
            datagrams: answered.datagrams,
            start: answered.start,
        })
    }

    /// Asks an issuer for a new certificate for the own key; returns the chain in PEM.
    pub async fn renew(&self, issuer: &NodeName, csr: Vec<u8>) -> Result<String, EffectError> {
        let request = v1::RenewCertificateRequest { csr: csr.into() };
        let answered = self.call(issuer, self.limit, async |channel| {
            let mut client = MeshServiceClient::new(channel);
            Ok(client.renew(request).await?.into_inner())
        });
        Ok(answered.await?.certificate)
    }

    /// Waits until a peer refuses a call because, by its time, the own certificate has expired.
    pub async fn told_expired(&self) {
        self.expired.notified().await;
    }

    /// Forgets every connection: the next call shows the newest certificate.
    pub async fn reconnect(&self) {
        self.channels.lock().await.open.clear();
    }

    /// Gets a build from the first peer that has it; returns that peer.
    pub async fn fetch_build(
        &self,
        build: &BuildRef,
        store: &BuildStore,
    ) -> Result<NodeName, EffectError> {
        let mut reasons = Vec::new();
        for peer in &self.others() {
            match self.fetch_from(peer, build, store).await {
                Ok(()) => return Ok(peer.clone()),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let reasons = reasons.join("; ");
        Err(EffectError(format!(
            "{build} is not here, and no peer could give it ({reasons}): push it with `cbctl build push`"
        )))
    }

    async fn fetch_from(
        &self,
        peer: &NodeName,
        build: &BuildRef,
        store: &BuildStore,
    ) -> Result<(), EffectError> {
        let (wanted, store) = (build.clone(), store.clone());
        let status = |error: &dyn std::error::Error| tonic::Status::internal(error_chain(error));
        self.call(peer, FETCH_LIMIT, async |channel| {
            let request = v1::FetchBuildRequest {
                build: Some((&wanted).into()),
            };
            let mut client =
                BuildServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let mut chunks = client.fetch_build(request).await?.into_inner();
            let mut upload = store.begin_upload().map_err(|error| status(&error))?;
            while let Some(part) = chunks.message().await? {
                upload =
                    tokio::task::spawn_blocking(move || upload.write(&part.chunk).map(|()| upload))
                        .await
                        .map_err(|error| status(&error))?
                        .map_err(|error| status(&error))?;
            }
            tokio::task::spawn_blocking(move || upload.finish(Some(&wanted)))
                .await
                .map_err(|error| status(&error))?
                .map_err(|error| status(&error))?;
            Ok(())
        })
        .await
    }
}

/// Whether a peer refused because it has promised a later epoch.
fn is_behind(status: &tonic::Status) -> bool {
    let word = status.metadata().get(WORD_KEY);
    word.is_some_and(|word| word == "epoch_behind")
}
