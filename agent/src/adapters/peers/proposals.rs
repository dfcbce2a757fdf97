//! What an agent asks of the others for a rollback that it proposes itself.

use super::Peers;
use cbddc_domain::id::NodeName;
use cbddc_domain::proposer::Failure;
use cbddc_domain::register::{Epoch, RegisterView};
use cbddc_domain::release::Release;
use cbddc_domain::rollback::Known;
use cbddc_proto::v1::release_service_client::ReleaseServiceClient;
use cbddc_proto::v1::rollout_service_client::RolloutServiceClient;
use cbddc_proto::{MESSAGE_BYTES_MAX, WORD_KEY, v1};
use tonic::Status;
use tonic::transport::Channel;

/// A client for the steps of a proposer.
fn rollouts(channel: Channel) -> RolloutServiceClient<Channel> {
    RolloutServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

impl Peers {
    /// Asks a peer for its promise; returns what it can prove.
    pub async fn prepare(
        &self,
        peer: &NodeName,
        request: v1::PrepareRequest,
    ) -> Result<RegisterView, Failure> {
        let answered = self.step(peer, async |channel| {
            Ok(rollouts(channel).prepare(request).await?.into_inner())
        });
        let view = self.view_of(peer, answered.await?.register).await;
        view.map_err(|error| Failure::Unreachable(error.to_string()))
    }

    /// Asks a peer for its vote; returns its signature.
    pub async fn vote(
        &self,
        peer: &NodeName,
        request: v1::VoteRequest,
    ) -> Result<Option<v1::Signature>, Failure> {
        let answered = self.step(peer, async |channel| {
            Ok(rollouts(channel).vote(request).await?.into_inner())
        });
        Ok(answered.await?.vote)
    }

    /// Tells a peer that a record is decided.
    pub async fn confirm(
        &self,
        peer: &NodeName,
        request: v1::ConfirmRequest,
    ) -> Result<(), Failure> {
        let answered = self.step(peer, async |channel| {
            rollouts(channel).confirm(request).await.map(drop)
        });
        answered.await
    }

    /// The releases that a peer knows.
    pub async fn releases(&self, peer: &NodeName) -> Result<Vec<Known>, Failure> {
        let answered = self.step(peer, async |channel| {
            let mut client =
                ReleaseServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let request = v1::ListReleasesRequest {};
            Ok(client.list_releases(request).await?.into_inner().releases)
        });
        let known = |info: v1::ReleaseInfo| {
            let release = Release::try_from(info.release?).ok()?;
            Some(Known {
                release,
                committed: info.committed.map(Epoch::from),
                known_good: info.known_good,
            })
        };
        Ok(answered.await?.into_iter().filter_map(known).collect())
    }

    /// Runs a call within the limit, and tells a refusal from silence.
    async fn step<T>(
        &self,
        peer: &NodeName,
        call: impl AsyncFnOnce(Channel) -> Result<T, Status>,
    ) -> Result<T, Failure> {
        let mut refused = None;
        let answered = self.call(peer, self.limit, async |channel| {
            let answer = call(channel).await;
            if let Err(status) = &answer
                && let Some(word) = status.metadata().get(WORD_KEY)
            {
                refused = Some(Failure::Refused {
                    word: word.to_str().unwrap_or_default().to_owned(),
                    text: status.message().to_owned(),
                });
            }
            answer
        });
        let answered = answered.await;
        answered.map_err(|error| refused.unwrap_or(Failure::Unreachable(error.to_string())))
    }
}
