//! `cbctl mesh members`.

use crate::cli::Output;
use crate::error::{CtlError, Exit};
use crate::learn::Known;
use crate::mesh::Session;
use crate::render::{self, Table, values};
use crate::roster::heard;
use cbddc_domain::id::NodeName;
use serde::Serialize;
use std::collections::BTreeMap;

/// What `mesh members -o json` prints.
#[derive(Debug, Serialize)]
struct MembersJson {
    mesh: String,
    /// Who said it.
    from: NodeName,
    members: Vec<MemberJson>,
}

/// One member.
#[derive(Debug, Serialize)]
struct MemberJson {
    name: NodeName,
    address: String,
    labels: BTreeMap<String, String>,
    required: bool,
    votes: bool,
    alive: bool,
    /// SHA-256 of the one key that it may have.
    key: Option<String>,
    last_seen: Option<String>,
}

pub(super) async fn run(session: &Session, output: Output) -> Result<Exit, CtlError> {
    let members = heard(session)?;
    let from = session.heard().map(|heard| heard.from.clone());
    let Some(from) = from else {
        return Err(CtlError::failed("no member of the mesh could be reached"));
    };
    let json = MembersJson {
        mesh: session.mesh().name.clone(),
        from,
        members: members.iter().map(row).collect(),
    };
    render::print(output, &json, || table(&json.members))?;
    eprintln!("as {} knows it", json.from);
    let away: Vec<&MemberJson> = json.members.iter().filter(|one| !one.alive).collect();
    for member in &away {
        eprintln!("{} is away, last seen {}", member.name, seen(member));
    }
    Ok(if away.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
    })
}

fn row(known: &Known) -> MemberJson {
    MemberJson {
        name: known.name.clone(),
        address: known.entry.address.clone(),
        labels: known.entry.labels.clone(),
        required: known.entry.required,
        votes: known.votes,
        alive: known.alive,
        key: known.entry.key.map(|key| key.to_string()),
        last_seen: known.last_seen_wall_ms.map(values::moment),
    }
}

fn seen(member: &MemberJson) -> &str {
    let nothing = "not since that agent started";
    member.last_seen.as_deref().unwrap_or(nothing)
}

fn table(members: &[MemberJson]) -> String {
    let header = ["NAME", "ADDRESS", "LABELS", "KIND", "VOTES", "SEEN"];
    let mut table = Table::new(&header);
    for member in members {
        let labels: Vec<String> = member
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        table.row([
            member.name.to_string(),
            member.address.clone(),
            labels.join(","),
            if member.required {
                "required"
            } else {
                "optional"
            }
            .to_owned(),
            if member.votes { "votes" } else { "-" }.to_owned(),
            if member.alive { "now" } else { seen(member) }.to_owned(),
        ]);
    }
    table.render()
}
