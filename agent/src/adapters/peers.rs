//! Calls to the other agents of the mesh file.

use crate::adapters::builds::BuildStore;
use crate::adapters::tls::Tls;
use crate::error_chain;
use crate::ports::EffectError;
use cbddc_domain::build::BuildRef;
use cbddc_domain::id::NodeName;
use cbddc_domain::register::{Answer, Epoch, RegisterView};
use cbddc_proto::v1::build_service_client::BuildServiceClient;
use cbddc_proto::v1::mesh_service_client::MeshServiceClient;
use cbddc_proto::{MESSAGE_BYTES_MAX, convert, v1};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tonic::transport::Channel;

/// How long a bundle may take to arrive from a peer.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// The other agents: connected when first needed, and again when a connection breaks.
#[derive(Clone)]
pub struct Peers {
    tls: Tls,
    addresses: Arc<BTreeMap<NodeName, String>>,
    channels: Arc<Mutex<BTreeMap<NodeName, Channel>>>,
    limit: Duration,
}

impl Peers {
    /// The agents at `addresses`; each call may take `limit`.
    pub fn new(tls: Tls, addresses: BTreeMap<NodeName, String>, limit: Duration) -> Self {
        Self {
            tls,
            addresses: Arc::new(addresses),
            channels: Arc::default(),
            limit,
        }
    }

    async fn channel(&self, peer: &NodeName) -> Result<Channel, EffectError> {
        if let Some(channel) = self.channels.lock().await.get(peer) {
            return Ok(channel.clone());
        }
        let address = self.addresses.get(peer);
        let address =
            address.ok_or_else(|| EffectError(format!("{peer} is not in the mesh file")))?;
        let connected = self.tls.connect(address, peer, self.limit).await;
        let channel = connected.map_err(|error| EffectError(error_chain(&error)))?;
        self.channels
            .lock()
            .await
            .insert(peer.clone(), channel.clone());
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
            call(channel)
                .await
                .map_err(|status| EffectError(format!("{peer}: {}", status.message())))
        });
        let outcome = outcome.await.unwrap_or_else(|_| {
            Err(EffectError(format!(
                "{peer} did not answer within {} s",
                limit.as_secs_f32()
            )))
        });
        if outcome.is_err() {
            self.channels.lock().await.remove(peer);
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
        Ok((answer, view_of(answered.register).map_err(malformed)?))
    }

    /// What a peer has voted for and learnt.
    pub async fn register_of(&self, peer: &NodeName) -> Result<RegisterView, EffectError> {
        let answered = self.call(peer, self.limit, async |channel| {
            let mut client =
                MeshServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(client
                .get_record(v1::GetRecordRequest {})
                .await?
                .into_inner())
        });
        view_of(answered.await?.register).map_err(|error| EffectError(format!("{peer}: {error}")))
    }

    /// Gets a build from the first peer that has it; returns that peer.
    pub async fn fetch_build(
        &self,
        build: &BuildRef,
        store: &BuildStore,
    ) -> Result<NodeName, EffectError> {
        let mut reasons = Vec::new();
        for peer in self.addresses.keys() {
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

fn view_of(view: Option<v1::RegisterView>) -> Result<RegisterView, convert::Malformed> {
    convert::required("register", view)?.try_into()
}
