//! Builds: received, listed, handed to other agents.

use super::{Services, caller, malformed, person, refuse};
use crate::adapters::builds::{BuildError, StoredBuild, Upload};
use crate::engine::ACTOR_AGENT;
use crate::error_chain;
use crate::ports::JournalLine;
use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::node::Node;
use cbddc_proto::convert::{required, text};
use cbddc_proto::v1::build_service_server::BuildService;
use cbddc_proto::{CHUNK_BYTES, v1};
use std::io::Read;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

/// Chunks on their way between disk and network, per call.
const CHUNKS_IN_FLIGHT: usize = 4;

#[tonic::async_trait]
impl BuildService for Services {
    async fn push_build(
        &self,
        request: Request<Streaming<v1::PushBuildRequest>>,
    ) -> Result<Response<v1::PushBuildResponse>, Status> {
        let actor = person(&request)?;
        let Ok(_room) = self.uploads.try_acquire() else {
            let text = "too many bundles arrive at once: try again when the others are done";
            return Err(refuse(Code::ResourceExhausted, "busy", text));
        };
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|message| message.part);
        let Some(v1::push_build_request::Part::Build(build)) = first else {
            return Err(refuse(
                Code::InvalidArgument,
                "malformed",
                "the first message must name the build",
            ));
        };
        let build: BuildRef = build.try_into().map_err(malformed)?;
        let mut upload = self
            .builds
            .begin_upload()
            .map_err(|error| build_error(&error))?;
        while let Some(message) = parts.message().await? {
            let Some(v1::push_build_request::Part::Chunk(chunk)) = message.part else {
                return Err(refuse(
                    Code::InvalidArgument,
                    "malformed",
                    "only the first message may name the build",
                ));
            };
            upload = blocking(move || write(upload, &chunk)).await?;
        }
        let expected = build.clone();
        let imported = blocking(move || upload.finish(Some(&expected))).await?;
        if !imported.already_present {
            let text = format!(
                "{} was stored, digest {}",
                imported.build, imported.build.digest
            );
            self.note("build_stored", &actor, text).await?;
        }
        Ok(Response::new(v1::PushBuildResponse {
            build: Some((&imported.build).into()),
            already_present: imported.already_present,
            size: imported.manifest.total_size(),
        }))
    }

    async fn list_builds(
        &self,
        _: Request<v1::ListBuildsRequest>,
    ) -> Result<Response<v1::ListBuildsResponse>, Status> {
        let builds = self.builds.clone();
        let (list, current, free_bytes) =
            blocking(move || Ok((builds.list()?, builds.current()?, builds.free_bytes()?))).await?;
        let node = self.engine.node();
        let builds = list.iter().map(|stored| info(stored, current, &node));
        Ok(Response::new(v1::ListBuildsResponse {
            builds: builds.collect(),
            free_bytes,
        }))
    }

    async fn show_build(
        &self,
        request: Request<v1::ShowBuildRequest>,
    ) -> Result<Response<v1::ShowBuildResponse>, Status> {
        let given = text("build", request.into_inner().build).map_err(malformed)?;
        self.show(&given).await.map(Response::new)
    }

    async fn remove_builds(
        &self,
        request: Request<v1::RemoveBuildsRequest>,
    ) -> Result<Response<v1::RemoveBuildsResponse>, Status> {
        let actor = person(&request)?;
        let asked = request.into_inner();
        self.remove_builds_here(asked, &actor)
            .await
            .map(Response::new)
    }

    type FetchBuildStream =
        Pin<Box<dyn Stream<Item = Result<v1::FetchBuildResponse, Status>> + Send>>;

    async fn fetch_build(
        &self,
        request: Request<v1::FetchBuildRequest>,
    ) -> Result<Response<Self::FetchBuildStream>, Status> {
        caller(&request)?;
        let build = required("build", request.into_inner().build).map_err(malformed)?;
        let build: BuildRef = build.try_into().map_err(malformed)?;
        let builds = self.builds.clone();
        let (path, _) = blocking(move || builds.bundle_file(&build)).await?;
        let (chunks, stream) = mpsc::channel(CHUNKS_IN_FLIGHT);
        tokio::task::spawn_blocking(move || {
            let failed =
                |error: std::io::Error| Status::internal(format!("reading the bundle: {error}"));
            let mut file = match std::fs::File::open(path) {
                Ok(file) => file,
                Err(error) => return drop(chunks.blocking_send(Err(failed(error)))),
            };
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let message = match file.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(length) => {
                        chunk.truncate(length);
                        Ok(v1::FetchBuildResponse {
                            chunk: chunk.into(),
                        })
                    }
                    Err(error) => Err(failed(error)),
                };
                // The receiver is gone when the caller has hung up.
                if chunks.blocking_send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn write(mut upload: Upload, chunk: &[u8]) -> Result<Upload, BuildError> {
    upload.write(chunk)?;
    Ok(upload)
}

/// What there is to say of a stored build at once.
pub(super) fn info(stored: &StoredBuild, current: Option<Digest>, node: &Node) -> v1::BuildInfo {
    let revoked = node.register.revoked(&stored.build.digest);
    v1::BuildInfo {
        build: Some((&stored.build).into()),
        size: stored.manifest.total_size(),
        files: stored.manifest.files().len() as u64,
        current: current == Some(stored.build.digest),
        revoked: revoked
            .map(|found| found.reason.clone())
            .unwrap_or_default(),
        changes_persistence: stored.manifest.changes_persistence(),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::internal("a fault in the agent; see its log"))?
        .map_err(|error| build_error(&error))
}

/// The one mapping from the build store's errors to gRPC codes.
pub(super) fn build_error(error: &BuildError) -> Status {
    let (code, word) = match error {
        BuildError::NoSpace { .. } => (Code::ResourceExhausted, "no_space"),
        BuildError::WrongBuild { .. } => (Code::InvalidArgument, "digest_mismatch"),
        BuildError::NameTaken { .. } => (Code::AlreadyExists, "build_exists"),
        BuildError::NotFound { .. } => (Code::NotFound, "build_unknown"),
        BuildError::InUse { .. } => (Code::FailedPrecondition, "build_in_use"),
        BuildError::HoldsData { .. } => (Code::FailedPrecondition, "data_inside"),
        BuildError::Io { .. }
        | BuildError::StoredManifest { .. }
        | BuildError::StrangeCurrent(_)
        | BuildError::DamagedTree { .. }
        | BuildError::BeyondRepair { .. } => (Code::Internal, "build_store"),
        BuildError::Pack(_) => (Code::FailedPrecondition, "folder_unfit"),
        BuildError::BundleTooLarge { .. }
        | BuildError::Truncated
        | BuildError::Damaged(_)
        | BuildError::NoManifest
        | BuildError::ManifestTooLarge { .. }
        | BuildError::ManifestJson(_)
        | BuildError::Manifest(_)
        | BuildError::UnexpectedEntry { .. }
        | BuildError::WrongContent(_)
        | BuildError::Padding
        | BuildError::Surplus(_)
        | BuildError::PathTooLong(_) => (Code::InvalidArgument, "bundle_invalid"),
    };
    refuse(code, word, error_chain(error))
}

impl Services {
    /// Writes a line that no change of state goes with.
    pub(super) async fn note(&self, kind: &str, actor: &str, text: String) -> Result<(), Status> {
        tracing::info!(kind, actor, "{text}");
        let line = JournalLine {
            wall_ms: self.world.now().wall_ms,
            kind: kind.to_owned(),
            epoch: None,
            generation: None,
            actor: if actor.is_empty() { ACTOR_AGENT } else { actor }.to_owned(),
            text,
        };
        let noted = self.store.note(line).await;
        noted.map_err(|error| refuse(Code::Unavailable, "not_saved", error_chain(&error)))
    }
}
