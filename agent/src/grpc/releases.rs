//! Releases that this node knows: those it ran, and those its builds could make.

use super::{Services, builds::build_error, refuse};
use cbddc_domain::node::Node;
use cbddc_domain::release::Release;
use cbddc_proto::v1;
use cbddc_proto::v1::release_service_server::ReleaseService;
use std::collections::BTreeSet;
use tonic::{Code, Request, Response, Status};

#[tonic::async_trait]
impl ReleaseService for Services {
    async fn list_releases(
        &self,
        _: Request<v1::ListReleasesRequest>,
    ) -> Result<Response<v1::ListReleasesResponse>, Status> {
        let releases = self.releases().await?;
        Ok(Response::new(v1::ListReleasesResponse { releases }))
    }

    async fn get_release(
        &self,
        request: Request<v1::GetReleaseRequest>,
    ) -> Result<Response<v1::GetReleaseResponse>, Status> {
        let id = request.into_inner().id;
        let found = self
            .releases()
            .await?
            .into_iter()
            .find(|release| release.id == id);
        let release = found.ok_or_else(|| {
            let id: String = id.chars().take(80).collect();
            let text = format!("no release `{id}` is known here: `cbctl release list` shows them");
            refuse(Code::NotFound, "release_unknown", text)
        })?;
        Ok(Response::new(v1::GetReleaseResponse {
            release: Some(release),
        }))
    }
}

impl Services {
    async fn releases(&self) -> Result<Vec<v1::ReleaseInfo>, Status> {
        let builds = self.builds.clone();
        let stored = tokio::task::spawn_blocking(move || builds.list()).await;
        let stored = stored.map_err(|_| Status::internal("a fault in the agent; see its log"))?;
        let stored = stored.map_err(|error| build_error(&error))?;
        let node = self.engine.node();
        let present: BTreeSet<_> = stored.iter().map(|build| build.build.digest).collect();
        let mut releases: Vec<Release> = Vec::new();
        let ran = node
            .history
            .iter()
            .rev()
            .map(|generation| generation.release.clone());
        let possible = stored
            .iter()
            .map(|build| Release::of_build(build.build.clone()));
        for release in ran.chain(possible) {
            if !releases.contains(&release) {
                releases.push(release);
            }
        }
        Ok(releases
            .iter()
            .map(|release| info(&node, release, present.contains(&release.build.digest)))
            .collect())
    }
}

fn info(node: &Node, release: &Release, present: bool) -> v1::ReleaseInfo {
    let generations = || {
        node.history
            .iter()
            .filter(|generation| generation.release == *release)
    };
    let running = node.phase.running();
    v1::ReleaseInfo {
        id: release.id().to_string(),
        release: Some(release.into()),
        generations: generations().map(|generation| generation.number).collect(),
        committed: generations()
            .filter_map(|generation| generation.committed)
            .max()
            .map(Into::into),
        known_good: generations().any(|generation| generation.known_good),
        running: generations().any(|generation| Some(generation.number) == running),
        revoked: node
            .register
            .revoked(&release.build.digest)
            .map(|r| r.reason.clone())
            .unwrap_or_default(),
        present,
    }
}
