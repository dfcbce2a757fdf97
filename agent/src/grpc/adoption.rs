//! Taking the node's service over, and letting it go.

use super::builds::build_error;
use super::{Services, engine_error, malformed, refuse};
use crate::adapters::adoption::{
    HostFiles, closed_folders, open_files, remove_drop_in, write_drop_in,
};
use crate::adapters::builds::{BuildError, BuildStore};
use crate::adapters::clock::own_pid;
use crate::adapters::startable::why_not_mounted_for_it;
use crate::adoption::{OWN_UNIT, Plan, UnitFacts, drop_in_of, follows, own_drop_in, plan};
use crate::error_chain;
use crate::gate::condition::line;
use crate::ports::{EffectError, Units};
use cbddc_domain::build::BuildId;
use cbddc_domain::node::Event;
use cbddc_domain::release::Release;
use cbddc_proto::convert::text;
use cbddc_proto::v1;
use std::path::Path;
use std::time::Duration;
use tonic::{Code, Status};

/// Where the package puts the agent; the gate is asked there.
const AGENT: &str = "/usr/bin/cbagent";

/// An answer is on its way to the client for no longer.
const ANSWER_TIME: Duration = Duration::from_millis(300);

impl Services {
    pub(super) async fn adopt_unit(
        &self,
        request: v1::AdoptRequest,
        by: &str,
    ) -> Result<v1::AdoptResponse, Status> {
        let wanted = text("unit", request.unit).map_err(malformed)?;
        let build: BuildId = text("build", request.build)
            .map_err(malformed)?
            .parse()
            .map_err(|error| {
                refuse(
                    Code::InvalidArgument,
                    "malformed",
                    format!("build: {error}"),
                )
            })?;
        let units = self.units()?;
        let facts = units.facts().await.map_err(host_error)?;
        if !wanted.is_empty() && wanted != facts.name {
            let text = format!(
                "this agent is configured for the unit {}: let `unit` under [service] in its \
                 configuration name {wanted}, and restart the agent",
                facts.name
            );
            return Err(refuse(Code::FailedPrecondition, "other_unit", text));
        }
        if self.is_followed(&facts) {
            let text = format!(
                "{} is taken over already: see `cbctl node history`",
                facts.name
            );
            return Err(refuse(Code::FailedPrecondition, "adopted", text));
        }
        let plan = self.plan(&facts).await?;
        let mut answer = answer(&plan);
        let node = self.engine.node();
        let ordered = node.register.decided.as_ref();
        let ordered = ordered.and_then(|record| record.release_for(&self.engine.context().name));
        answer.ordered = ordered.map(|release| (&release.build).into());
        if request.dry_run {
            return Ok(answer);
        }
        if !plan.undeclared.is_empty() {
            let text = format!(
                "{} has databases open that the agent would not take snapshots of: name them with \
                 `databases = [{}]` under [service] in the agent's configuration, and restart the agent",
                plan.unit,
                plan.undeclared
                    .iter()
                    .map(|path| format!("{path:?}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            return Err(refuse(
                Code::FailedPrecondition,
                "undeclared_database",
                text,
            ));
        }
        let folder = plan.folder.clone();
        let import = move |builds: &BuildStore| builds.import_folder(&folder, build);
        let build = self.in_store(import).await?.build;
        let release = Box::new(Release::of_build(build.clone()));
        let event = Event::Adopt {
            release,
            by: by.to_owned(),
            may_switch: request.may_switch,
        };
        self.engine.tell(event, by).await.map_err(engine_error)?;
        // Only now: where the engine says no, what `current` points to stays.
        let pointed = build.clone();
        self.in_store(move |builds| builds.point_current(Some(&pointed)))
            .await?;
        let (path, text) = (plan.drop_in.clone(), plan.text.clone());
        let closed = closed_folders(&plan.databases);
        let own = own_drop_in(&closed);
        let begins_anew = own.is_some();
        on_disk(move || {
            if let Some(own) = own {
                write_drop_in(&drop_in_of(OWN_UNIT), &own)?;
            }
            write_drop_in(&path, &text)
        })
        .await?;
        units.reload().await.map_err(host_error)?;
        let after = units.facts().await.map_err(host_error)?;
        if !self.is_followed(&after) {
            let text = format!(
                "{} does not follow {}: another drop-in sets ExecStart= after it",
                plan.unit,
                plan.drop_in.display()
            );
            return Err(refuse(Code::Internal, "drop_in", text));
        }
        answer.node_pid = after.main_pid;
        answer.build = Some((&build).into());
        if begins_anew {
            answer.agent_restarts = own_pid();
            self.begin_anew();
        }
        Ok(answer)
    }

    /// Starts the agent anew, so that it may write where its unit lets it from now on; the answer is
    /// given its time first.
    fn begin_anew(&self) {
        let Some(units) = self.unit.clone() else {
            return;
        };
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_TIME).await;
            if let Err(error) = units.restart_agent().await {
                tracing::error!(%error, "cannot start anew: run `systemctl restart cbagent`");
            }
        });
    }

    pub(super) async fn unadopt_unit(
        &self,
        request: v1::UnadoptRequest,
        by: &str,
    ) -> Result<v1::UnadoptResponse, Status> {
        let units = self.units()?;
        let facts = units.facts().await.map_err(host_error)?;
        let drop_in = drop_in_of(&facts.name);
        let node = self.engine.node();
        let running = node.phase.running();
        let running = running.and_then(|number| node.history.get(number));
        let mut answer = v1::UnadoptResponse {
            unit: facts.name.clone(),
            drop_in: drop_in.display().to_string(),
            command: Vec::new(),
            running: running.map(|generation| (&generation.release).into()),
            node_pid: facts.main_pid,
            agent_restarts: 0,
        };
        if request.dry_run {
            return Ok(answer);
        }
        if running.is_none() && !drop_in.exists() {
            let text = format!("{} is not taken over: nothing to undo", facts.name);
            return Err(refuse(Code::FailedPrecondition, "not_adopted", text));
        }
        let event = Event::Unadopt { by: by.to_owned() };
        self.engine.tell(event, by).await.map_err(engine_error)?;
        let own = drop_in_of(OWN_UNIT);
        let begins_anew = own.exists();
        on_disk(move || {
            remove_drop_in(&own)?;
            remove_drop_in(&drop_in)
        })
        .await?;
        units.reload().await.map_err(host_error)?;
        let after = units.facts().await.map_err(host_error)?;
        answer.command = after.commands.into_iter().next().unwrap_or_default();
        answer.node_pid = after.main_pid;
        if begins_anew {
            answer.agent_restarts = own_pid();
            self.begin_anew();
        }
        Ok(answer)
    }

    fn units(&self) -> Result<&dyn Units, Status> {
        self.unit.as_deref().ok_or_else(|| {
            let text = "this agent starts the node's process itself: to take a systemd service over, \
                        name it with `unit` under [service] in the agent's configuration";
            refuse(Code::FailedPrecondition, "no_unit", text)
        })
    }

    fn is_followed(&self, facts: &UnitFacts) -> bool {
        let link = self.builds.current_link();
        facts.commands.iter().any(|command| follows(command, &link))
    }

    async fn plan(&self, facts: &UnitFacts) -> Result<Plan, Status> {
        let (facts, databases) = (facts.clone(), self.databases.clone());
        let (link, state_dir) = (self.builds.current_link(), self.state_dir.clone());
        let planned = tokio::task::spawn_blocking(move || {
            let open = match facts.main_pid {
                0 => Ok(crate::adoption::OpenFiles::default()),
                pid => open_files(pid),
            };
            let open = open.map_err(|error| {
                let text = format!(
                    "cannot tell what process {} has open: {error}",
                    facts.main_pid
                );
                refuse(Code::Internal, "open_files", text)
            })?;
            let store = link.parent().unwrap_or(Path::new("/"));
            if let Some(why) = why_not_mounted_for_it(store).map_err(|error| disk_error(&error))? {
                return Err(refuse(Code::FailedPrecondition, "not_executable", why));
            }
            let gate = line(AGENT, &state_dir)
                .map_err(|why| refuse(Code::FailedPrecondition, "odd_path", why))?;
            plan(&facts, &open, &databases, &link, &gate, &HostFiles).map_err(|error| {
                refuse(Code::FailedPrecondition, "unit_unfit", error_chain(&error))
            })
        });
        planned
            .await
            .map_err(|_| Status::internal("a fault in the agent; see its log"))?
    }

    /// Works in the store where blocking is allowed.
    async fn in_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BuildStore) -> Result<T, BuildError> + Send + 'static,
    ) -> Result<T, Status> {
        let builds = self.builds.clone();
        tokio::task::spawn_blocking(move || work(&builds))
            .await
            .map_err(|_| Status::internal("a fault in the agent; see its log"))?
            .map_err(|error| build_error(&error))
    }
}

fn answer(plan: &Plan) -> v1::AdoptResponse {
    let shown = |path: &Path| path.display().to_string();
    v1::AdoptResponse {
        unit: plan.unit.clone(),
        program: shown(&plan.program),
        folder: shown(&plan.folder),
        command: plan.command.clone(),
        working_dir: plan.working_dir.as_deref().map(shown).unwrap_or_default(),
        user: plan.user.clone(),
        databases: plan.databases.iter().map(|path| shown(path)).collect(),
        undeclared: plan.undeclared.iter().map(|path| shown(path)).collect(),
        drop_in: shown(&plan.drop_in),
        drop_in_text: plan.text.clone(),
        node_pid: plan.main_pid,
        build: None,
        ordered: None,
        agent_restarts: 0,
    }
}

async fn on_disk(
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Result<(), Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Status::internal("a fault in the agent; see its log"))?
        .map_err(|error| disk_error(&error))
}

fn disk_error(error: &std::io::Error) -> Status {
    let text =
        format!("cannot write the drop-in: {error}; put that right and run the command again");
    refuse(Code::Internal, "drop_in", text)
}

fn host_error(error: EffectError) -> Status {
    refuse(Code::Unavailable, "service_manager", error.0)
}
