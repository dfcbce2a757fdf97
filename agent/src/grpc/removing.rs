//! Builds that nothing here needs any more: told, and removed.

use super::builds::{blocking, build_error, info};
use super::{Services, malformed, refuse};
use crate::adapters::builds::{BuildError, StoredBuild};
use crate::error_chain;
use cbddc_domain::build::{BuildId, BuildRef};
use cbddc_domain::retention::{build_needed, surplus_builds};
use cbddc_proto::convert::text;
use cbddc_proto::v1;
use cbddc_proto::v1::remove_builds_request::What;
use tonic::{Code, Status};

/// The most builds that may be asked to stay.
const NEWEST_MAX: u32 = 1_000;

/// A stored build, and why it stays; unset: it may go.
type Decided = (StoredBuild, Option<String>);

impl Services {
    /// Removes what was asked for and is not needed. Each removal is written down before it.
    pub(super) async fn remove_builds_here(
        &self,
        asked: v1::RemoveBuildsRequest,
        actor: &str,
    ) -> Result<v1::RemoveBuildsResponse, Status> {
        let decided = match asked.what {
            Some(What::Build(given)) => {
                self.decide_one(&text("build", given).map_err(malformed)?)
                    .await?
            }
            Some(What::AllButNewest(newest)) if newest <= NEWEST_MAX => {
                self.decide_all(newest as usize).await?
            }
            Some(What::AllButNewest(_)) => {
                let text = format!("all_but_newest: at most {NEWEST_MAX} can stay");
                return Err(refuse(Code::InvalidArgument, "malformed", text));
            }
            None => {
                let text = "neither a build was named nor how many may stay";
                return Err(refuse(Code::InvalidArgument, "malformed", text));
            }
        };
        let builds = self.builds.clone();
        let current = blocking(move || builds.current()).await?;
        let node = self.engine.node();
        let mut answer = v1::RemoveBuildsResponse::default();
        for (stored, stays) in decided {
            let told = info(&stored, current, &node);
            let stays = match stays {
                None if !asked.dry_run => self.remove_one(&stored.build, actor).await?,
                stays => stays,
            };
            match stays {
                None => answer.removed.push(told),
                Some(why) => answer.kept.push(v1::BuildKept {
                    info: Some(told),
                    why,
                }),
            }
        }
        Ok(answer)
    }

    async fn decide_one(&self, given: &str) -> Result<Vec<Decided>, Status> {
        let id: BuildId = given.parse().map_err(|error| {
            let text = format!("build: {error}");
            refuse(Code::InvalidArgument, "malformed", text)
        })?;
        let builds = self.builds.clone();
        let Some(stored) = blocking(move || builds.find(&id)).await? else {
            let text = format!("{given} is not in the build store");
            return Err(refuse(Code::NotFound, "build_unknown", text));
        };
        let needed = build_needed(&self.engine.node(), &stored.build.digest);
        let decided = vec![(stored, needed.map(|why| why.to_string()))];
        self.keep_those_with_data(decided).await
    }

    async fn decide_all(&self, newest: usize) -> Result<Vec<Decided>, Status> {
        let builds = self.builds.clone();
        let list = blocking(move || builds.list()).await?;
        let refs: Vec<BuildRef> = list.iter().map(|stored| stored.build.clone()).collect();
        let stays = surplus_builds(&self.engine.node(), &refs, newest).into_iter();
        let stays = stays.map(|(_, stays)| stays.map(|why| why.to_string()));
        let decided = list.into_iter().zip(stays).collect();
        self.keep_those_with_data(decided).await
    }

    /// Looks into the folders of those that may go: what holds databases stays.
    async fn keep_those_with_data(&self, decided: Vec<Decided>) -> Result<Vec<Decided>, Status> {
        let builds = self.builds.clone();
        let look = move |(stored, stays): Decided| {
            let stays = match stays {
                Some(why) => Some(why),
                None => builds.refuse_data(&stored.build)?,
            };
            Ok((stored, stays))
        };
        blocking(move || decided.into_iter().map(look).collect()).await
    }

    /// Removes a build; answers why it stays after all.
    async fn remove_one(&self, build: &BuildRef, actor: &str) -> Result<Option<String>, Status> {
        let text = format!("removing {build}: nothing here needs it");
        self.note("build_removed", actor, text).await?;
        let (builds, engine, going) = (self.builds.clone(), self.engine.clone(), build.clone());
        let removed = tokio::task::spawn_blocking(move || {
            builds.remove(&going, || {
                build_needed(&engine.node(), &going.digest).is_some()
            })
        });
        let removed = removed
            .await
            .map_err(|_| Status::internal("a fault in the agent; see its log"))?;
        let Err(error) = removed else {
            return Ok(None);
        };
        let why = error_chain(&error);
        let text = format!("{build} was not removed: {why}");
        self.note("build_not_removed", actor, text).await?;
        match matches!(error, BuildError::InUse(_) | BuildError::HoldsData { .. }) {
            true => Ok(Some(why)),
            false => Err(build_error(&error)),
        }
    }
}
