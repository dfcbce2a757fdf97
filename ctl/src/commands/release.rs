//! `cbctl release`.

use crate::cli::{ConfirmArgs, Output, ReleaseCommand};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::values::{self, ReleaseJson};
use crate::render::{self, NodeRow, Table};
use crate::survey::Survey;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::release::Release;
use cbddc_proto::convert::{Malformed, required};
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What `release list` and `release show` print as JSON.
#[derive(Debug, Serialize)]
struct ReleasesJson {
    nodes: Vec<NodeRow<Vec<ReleaseOnNode>>>,
}

/// A release on one node.
#[derive(Debug, Clone, Serialize)]
struct ReleaseOnNode {
    release: ReleaseJson,
    generations: Vec<u64>,
    committed_by: Option<String>,
    known_good: bool,
    running: bool,
    revoked: Option<String>,
    present: bool,
}

pub(super) async fn run(
    command: ReleaseCommand,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    match command {
        ReleaseCommand::List(nodes) => {
            let targets = session.selected(&nodes.node, &nodes.labels)?;
            let json = ask_all(&targets, session).await;
            print(&json, output, || list_table(&json.nodes))
        }
        ReleaseCommand::Trust {
            build,
            reason,
            confirm,
        } => trust(&build, &reason, confirm, session).await,
        ReleaseCommand::Show { release, nodes } => {
            let targets = session.selected(&nodes.node, &nodes.labels)?;
            let json = ask_one(&targets, release, session).await;
            print(&json, output, || show_table(&json.nodes))
        }
    }
}

/// Lifts the standing revocation of a build (rule 14).
async fn trust(
    build: &str,
    reason: &str,
    confirm: ConfirmArgs,
    session: &Session,
) -> Result<Exit, CtlError> {
    if reason.trim().is_empty() {
        return Err(CtlError::usage(
            "say why the build may run again: --reason TEXT",
        ));
    }
    let survey = Survey::take(session).await?;
    let standing: BTreeMap<Digest, String> = survey
        .reached()
        .flat_map(|(_, shown)| &shown.register.revocations)
        .filter(|(_, revocation)| !revocation.lifted)
        .map(|(digest, revocation)| (*digest, revocation.reason.clone()))
        .collect();
    // A revocation knows the digest alone; the releases that the nodes know have the names.
    let all = ask_all(&session.nodes(), session).await;
    let known = all.nodes.iter().filter_map(|row| row.result.as_ref());
    let named = known.flatten().map(|found| &found.release);
    let named = named.filter(|release| release.build == build);
    let mut digests: BTreeSet<Digest> = named.filter_map(|r| r.build_digest.parse().ok()).collect();
    digests.extend(build.parse::<Digest>());
    let lifts: BTreeMap<Digest, String> = digests
        .into_iter()
        .filter(|digest| standing.contains_key(digest))
        .map(|digest| (digest, reason.to_owned()))
        .collect();
    if lifts.is_empty() {
        return Err(
            CtlError::failed(format!("no node knows a revocation of {build}"))
                .hint("`cbctl release list` shows what is revoked"),
        );
    }
    for digest in lifts.keys() {
        eprintln!("{build} ({digest}) was revoked: {}", standing[digest]);
    }
    if let Some(exit) = super::confirm("Let it run again?", confirm)? {
        return Ok(exit);
    }
    crate::rollout::lift(session, lifts, reason).await
}

async fn ask_all(targets: &BTreeSet<NodeName>, session: &Session) -> ReleasesJson {
    let outcomes = session
        .fan_out(targets, |_, channel| async move {
            let mut client = client::release(channel);
            let answer = client.list_releases(v1::ListReleasesRequest {}).await?;
            Ok(answer.into_inner().releases)
        })
        .await;
    let convert = |found: Vec<v1::ReleaseInfo>| found.into_iter().map(release).collect();
    ReleasesJson {
        nodes: render::rows(outcomes, convert),
    }
}

async fn ask_one(targets: &BTreeSet<NodeName>, id: String, session: &Session) -> ReleasesJson {
    let outcomes = session
        .fan_out(targets, move |_, channel| {
            let request = v1::GetReleaseRequest { id: id.clone() };
            async move {
                let answer = client::release(channel).get_release(request).await?;
                Ok(answer.into_inner().release)
            }
        })
        .await;
    ReleasesJson {
        nodes: render::rows(outcomes, |found| {
            Ok(vec![release(required("release", found)?)?])
        }),
    }
}

fn release(given: v1::ReleaseInfo) -> Result<ReleaseOnNode, Malformed> {
    let release = Release::try_from(required("release.release", given.release)?)?;
    let epoch = |given: v1::Epoch| values::epoch(given.into());
    Ok(ReleaseOnNode {
        release: (&release).into(),
        generations: given.generations,
        committed_by: given.committed.map(epoch),
        known_good: given.known_good,
        running: given.running,
        revoked: Some(given.revoked).filter(|why| !why.is_empty()),
        present: given.present,
    })
}

/// One row per release: where it runs, and where it could.
fn list_table(nodes: &[NodeRow<Vec<ReleaseOnNode>>]) -> String {
    #[derive(Default)]
    struct Sums<'a> {
        name: String,
        running: Vec<&'a str>,
        present: usize,
        committed: usize,
        known_good: usize,
        revoked: String,
    }
    let mut releases: BTreeMap<&str, Sums<'_>> = BTreeMap::new();
    for row in nodes {
        for found in row.result.iter().flatten() {
            let sums = releases.entry(&found.release.id).or_default();
            sums.name.clone_from(&found.release.build);
            sums.present += usize::from(found.present);
            sums.committed += usize::from(found.committed_by.is_some());
            sums.known_good += usize::from(found.known_good);
            if found.running {
                sums.running.push(row.node.as_str());
            }
            if let Some(why) = &found.revoked {
                sums.revoked.clone_from(why);
            }
        }
    }
    let mut sorted: Vec<_> = releases.into_iter().collect();
    sorted.sort_by(|(_, a), (_, b)| (b.running.len(), &b.name).cmp(&(a.running.len(), &a.name)));
    let mut table = Table::new(&[
        "RELEASE",
        "BUILD",
        "RUNS ON",
        "PRESENT",
        "COMMITTED",
        "KNOWN-GOOD",
        "REVOKED",
    ]);
    for (id, sums) in sorted {
        table.row([
            id.to_owned(),
            sums.name,
            sums.running.join(","),
            sums.present.to_string(),
            sums.committed.to_string(),
            sums.known_good.to_string(),
            sums.revoked,
        ]);
    }
    table.render()
}

fn show_table(nodes: &[NodeRow<Vec<ReleaseOnNode>>]) -> String {
    let mut table = Table::new(&[
        "NODE",
        "RELEASE",
        "GENERATIONS",
        "RUNS",
        "PRESENT",
        "COMMITTED BY",
        "KNOWN-GOOD",
        "REVOKED",
    ]);
    let yes_or_no = |truth: bool| if truth { "yes" } else { "no" }.to_owned();
    for row in nodes {
        for found in row.result.iter().flatten() {
            let generations: Vec<String> = found.generations.iter().map(u64::to_string).collect();
            table.row([
                row.node.to_string(),
                found.release.short(),
                generations.join(","),
                yes_or_no(found.running),
                yes_or_no(found.present),
                found.committed_by.clone().unwrap_or_default(),
                yes_or_no(found.known_good),
                found.revoked.clone().unwrap_or_default(),
            ]);
        }
    }
    table.render()
}

fn print(
    json: &ReleasesJson,
    output: Output,
    table: impl FnOnce() -> String,
) -> Result<Exit, CtlError> {
    render::print(output, json, table)?;
    render::complain(&json.nodes);
    Ok(render::exit_of(&json.nodes))
}
