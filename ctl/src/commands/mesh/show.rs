//! `cbctl mesh show`, and what `init` and `issue` print.

use crate::cli::CommonArgs;
use crate::context::Context;
use crate::error::{CtlError, Exit};
use crate::render::{self, Table};
use cbddc_domain::mesh::{Environment, Member, MeshFile};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What `mesh show`, `mesh init` and `mesh issue` print as JSON.
#[derive(Debug, Serialize)]
struct MeshJson {
    mesh: String,
    environment: Environment,
    context: String,
    /// The folder that was written, or the context's.
    folder: PathBuf,
    members: Vec<Member>,
}

pub(super) fn run(common: &CommonArgs) -> Result<Exit, CtlError> {
    let context = Context::find(common.context.as_deref())?;
    print(&context.mesh()?, &context.name, &context.dir, common)
}

pub(super) fn print(
    mesh: &MeshFile,
    context: &str,
    folder: &Path,
    common: &CommonArgs,
) -> Result<Exit, CtlError> {
    let mut members = mesh.members.clone();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let json = MeshJson {
        mesh: mesh.name.clone(),
        environment: mesh.environment,
        context: context.to_owned(),
        folder: folder.to_owned(),
        members,
    };
    render::print(common.output, &json, || {
        let mut table = Table::new(&["NODE", "ADDRESS"]);
        for member in &json.members {
            table.row([member.name.to_string(), member.address.clone()]);
        }
        table.render()
    })?;
    Ok(Exit::Done)
}
