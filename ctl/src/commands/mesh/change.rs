//! What the commands have in common that change who is in the mesh.

use crate::cli::Output;
use crate::context::Context;
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::render::{self, NodeRow, Table};
use crate::roster::{self, ended, mesh_context};
use cbddc_domain::access::Role;
use cbddc_domain::id::NodeName;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeSet;

/// What a change of the roster prints as JSON.
#[derive(Debug, Serialize)]
struct ChangeJson {
    mesh: String,
    /// What was said.
    changed: String,
    /// How many statements were new, by member.
    nodes: Vec<NodeRow<u32>>,
}

/// The context of somebody who may say who is in the mesh.
pub(super) fn admin(session: &Session) -> Result<&Context, CtlError> {
    let context = mesh_context(session)?;
    let (name, role) = context.person()?;
    if role == Role::Admin {
        return Ok(context);
    }
    let why = format!("{name} is no admin of the mesh, but {role}");
    Err(CtlError::new(Exit::NotAllowed, why).hint("ask an admin; agents would refuse it"))
}

/// Puts statements on all members but those, prints one outcome for each, and says how it ended.
pub(super) async fn tell(
    session: &Session,
    but: &[&NodeName],
    statements: Vec<v1::SignedStatement>,
    changed: String,
    output: Output,
) -> Result<Exit, CtlError> {
    let mut nodes: BTreeSet<NodeName> = session.nodes();
    nodes.retain(|node| !but.contains(&node));
    if nodes.is_empty() {
        return Err(CtlError::failed("nobody would be left in the mesh"));
    }
    let rows = roster::put(session, &nodes, statements).await;
    let json = ChangeJson {
        mesh: session.mesh().name.clone(),
        changed,
        nodes: rows,
    };
    render::print(output, &json, || {
        let mut table = Table::new(&["NODE", "OUTCOME"]);
        for row in &json.nodes {
            let outcome = match row.result {
                Some(0) => "knew it".to_owned(),
                Some(_) => "knows it".to_owned(),
                None => row.outcome.to_owned(),
            };
            table.row([row.node.to_string(), outcome]);
        }
        table.render()
    })?;
    eprintln!("{}", json.changed);
    Ok(ended(&json.nodes))
}
