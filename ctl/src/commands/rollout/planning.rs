//! What a rollout would do. Changes nothing.

use super::data_inside;
use crate::away::Away;
use crate::cli::{Output, PlanArgs, TimingArgs, WaveArgs};
use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client};
use crate::render::{self, Table, values};
use crate::survey::Survey;
use cbddc_domain::build::{BuildId, BuildRef};
use cbddc_domain::id::NodeName;
use cbddc_domain::plan::{Plan, Timing};
use cbddc_domain::release::Release;
use cbddc_domain::waves::{WaveSizes, waves};
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What `rollout plan -o json` prints.
#[derive(Debug, Serialize)]
struct PlanJson {
    release: values::ReleaseJson,
    waves: Vec<Vec<NodeName>>,
    whole_mesh: bool,
    nodes: Vec<ChangeJson>,
    timing: TimingJson,
    /// What is wrong with replication now and is taken as it is, in a sentence.
    accepted: Option<String>,
}

/// What would change on one node.
#[derive(Debug, Serialize)]
struct ChangeJson {
    node: NodeName,
    /// Counted from 1; `null`: it runs the release already.
    wave: Option<usize>,
    from: Option<values::ReleaseJson>,
    /// Why it does not take part now; it gets there when it is back.
    away: Option<String>,
}

#[derive(Debug, Serialize)]
struct TimingJson {
    verify_ms: u64,
    healthy_ms: u64,
    probation_ms: u64,
    renew_ms: u64,
    soak_ms: u64,
    bake_ms: u64,
}

pub(super) async fn plan(
    arguments: &PlanArgs,
    session: &Session,
    survey: &Survey,
) -> Result<Plan, CtlError> {
    if let Some(set) = arguments.config.as_ref().or(arguments.secrets.as_ref()) {
        return Err(CtlError::new(
            Exit::Refused,
            format!("{set} cannot be rolled out: this version rolls out builds only"),
        )
        .hint("leave --config and --secrets out: each node keeps its own files"));
    }
    let Some(build) = &arguments.build else {
        return Err(
            CtlError::usage("nothing to roll out").hint("name the build with --build NAME@VERSION")
        );
    };
    let timing = timing(&arguments.timing)?;
    let targets = session.selected(&arguments.targets.node, &arguments.targets.labels)?;
    let away = Away::of(session, survey, &survey.voters()?);
    away.check_rollout(&targets)?;
    let targets = away.without_optional(&targets);
    if targets.is_empty() {
        let what = "no target can be reached: nothing was changed";
        return Err(CtlError::new(Exit::Refused, what)
            .hint("they come and go; try again when one of them is there"));
    }
    let release = Release::of_build(find_build(build, &targets, session).await?);
    if let Some(reason) = survey.revoked(&release) {
        return Err(
            CtlError::new(Exit::Refused, format!("{release} is revoked: {reason}"))
                .hint("give the mended build a new version"),
        );
    }
    let changing = changing(&targets, &release, survey);
    data_inside::check(
        &changing.iter().cloned().collect(),
        &release.build.id,
        session,
    )
    .await?;
    warn(&changing, survey);
    Ok(Plan {
        id: random_id()?,
        waves: waves(
            &changing,
            &sizes(&arguments.waves, changing.len()),
            session.nodes().len(),
        ),
        release,
        whole_mesh: arguments.targets.mesh,
        timing,
        started_by: session.user()?,
        reason: if arguments.reason.is_empty() {
            "no reason given".into()
        } else {
            arguments.reason.clone()
        },
        accepted: None,
    })
}

/// The targets that do not run the release as a committed one already.
fn changing(targets: &BTreeSet<NodeName>, release: &Release, survey: &Survey) -> Vec<NodeName> {
    let runs = |node: &NodeName| {
        let shown = survey.nodes.get(node).and_then(|outcome| outcome.ok());
        shown.is_some_and(|shown| shown.view.steady && shown.view.running.as_ref() == Some(release))
    };
    targets.iter().filter(|node| !runs(node)).cloned().collect()
}

fn sizes(arguments: &WaveArgs, targets: usize) -> WaveSizes {
    match (&arguments.waves, arguments.wave_size) {
        (Some(sizes), _) => sizes.clone(),
        (None, Some(size)) => WaveSizes::of(size.into()),
        (None, None) => WaveSizes::default_for(targets),
    }
}

fn random_id() -> Result<String, CtlError> {
    let mut bytes = [0; 3];
    getrandom::fill(&mut bytes)
        .map_err(|error| CtlError::failed("the system gives no random numbers").because(error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn timing(arguments: &TimingArgs) -> Result<Timing, CtlError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let timing = Timing {
        verify_ms: ms(arguments.verify),
        healthy_ms: ms(arguments.healthy),
        probation_ms: ms(arguments.probation),
        renew_ms: ms(arguments.renew),
        soak_ms: ms(arguments.soak),
        bake_ms: ms(arguments.bake),
    };
    if timing.renew_ms == 0 || timing.renew_ms > timing.probation_ms / 2 {
        return Err(
            CtlError::usage("--renew must be above zero and at most half of --probation")
                .hint("one lost renewal must not end a probation"),
        );
    }
    if timing.verify_ms <= timing.healthy_ms {
        return Err(CtlError::usage("--verify must be longer than --healthy")
            .hint("a node has --verify to come up and to be healthy for --healthy"));
    }
    Ok(timing)
}

/// The build by that name, which must be on every target, and the same everywhere.
async fn find_build(
    id: &BuildId,
    targets: &BTreeSet<NodeName>,
    session: &Session,
) -> Result<BuildRef, CtlError> {
    let outcomes = session.fan_out(targets, |_, channel| async move {
        Ok(client::build(channel)
            .list_builds(v1::ListBuildsRequest {})
            .await?
            .into_inner()
            .builds)
    });
    let mut found: BTreeMap<BuildRef, Vec<String>> = BTreeMap::new();
    let mut without = Vec::new();
    for (node, outcome) in outcomes.await {
        let builds = outcome.ok().cloned().unwrap_or_default();
        let builds = builds
            .into_iter()
            .filter_map(|info| BuildRef::try_from(info.build?).ok());
        match builds.into_iter().find(|build| build.id == *id) {
            Some(build) => found.entry(build).or_default().push(node.to_string()),
            None if outcome.ok().is_some() => without.push(format!("{node}: does not have it")),
            None => without.push(format!("{node}: {}", outcome.why())),
        }
    }
    if found.len() > 1 {
        let mut error = CtlError::new(
            Exit::Refused,
            format!("{id} is not the same build on every node"),
        );
        for (build, nodes) in found {
            error = error.detail(format!("{}: digest {}", nodes.join(", "), build.digest));
        }
        return Err(error.hint("pack it again under a new version, and push that everywhere"));
    }
    if let (Some((build, _)), true) = (found.into_iter().next(), without.is_empty()) {
        return Ok(build);
    }
    let what = format!(
        "{id} is not on {} of {} nodes",
        without.len(),
        targets.len()
    );
    let mut error = CtlError::new(Exit::Refused, what);
    for line in without {
        error = error.detail(line);
    }
    Err(error.hint("send it there with `cbctl build push BUNDLE`"))
}

pub(super) fn text(plan: &Plan, survey: &Survey) -> String {
    let json = json(plan, survey);
    let mut table = Table::new(&["WAVE", "NODE", "FROM", "TO"]);
    for change in &json.nodes {
        table.row([
            change
                .wave
                .map_or_else(|| "-".into(), |wave| wave.to_string()),
            change.node.to_string(),
            change
                .from
                .as_ref()
                .map_or_else(|| "-".into(), values::ReleaseJson::short),
            if change.wave.is_some() {
                json.release.short()
            } else if change.away.is_some() {
                "when it is back".into()
            } else {
                "stays".into()
            },
        ]);
    }
    let mut text = table.render();
    if let Some(accepted) = json.accepted {
        text.push_str(&format!("{accepted}\n"));
    }
    text
}

fn json(plan: &Plan, survey: &Survey) -> PlanJson {
    let wave_of = |node: &NodeName| plan.waves.iter().position(|wave| wave.contains(node));
    let mut nodes: Vec<ChangeJson> = survey
        .nodes
        .iter()
        .filter(|(node, _)| plan.whole_mesh || wave_of(node).is_some())
        .map(|(node, outcome)| ChangeJson {
            node: node.clone(),
            wave: wave_of(node).map(|wave| wave + 1),
            from: outcome
                .ok()
                .and_then(|shown| shown.view.running.as_ref())
                .map(Into::into),
            away: outcome.ok().is_none().then(|| outcome.why().to_owned()),
        })
        .collect();
    nodes.sort_by_key(|change| (change.wave.unwrap_or(usize::MAX), change.node.clone()));
    let timing = plan.timing;
    PlanJson {
        release: (&plan.release).into(),
        waves: plan.waves.clone(),
        whole_mesh: plan.whole_mesh,
        nodes,
        timing: TimingJson {
            verify_ms: timing.verify_ms,
            healthy_ms: timing.healthy_ms,
            probation_ms: timing.probation_ms,
            renew_ms: timing.renew_ms,
            soak_ms: timing.soak_ms,
            bake_ms: timing.bake_ms,
        },
        accepted: plan.accepted.as_ref().map(|it| it.words(&plan.started_by)),
    }
}

pub(super) fn print(plan: &Plan, survey: &Survey, output: Output) -> Result<(), CtlError> {
    render::print(output, &json(plan, survey), || text(plan, survey))
}

/// Says what there is to know before these nodes are replaced, once for all of which the same is true.
fn warn<'a>(nodes: impl IntoIterator<Item = &'a NodeName>, survey: &Survey) {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        let shown = survey.nodes.get(node).and_then(Outcome::ok);
        for warning in shown.iter().flat_map(|shown| &shown.warnings) {
            all.entry(warning).or_default().push(node.as_str());
        }
    }
    for (warning, nodes) in all {
        eprintln!("note: {}: {warning}", nodes.join(", "));
    }
}
