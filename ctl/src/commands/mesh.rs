//! `cbctl mesh`: makes and shows the mesh itself. Only `enrol` speaks to hosts.

mod enrol;

use crate::cli::{CommonArgs, InitArgs, IssueArgs, MeshCommand};
use crate::context::{self, Context};
use crate::error::{CtlError, Exit};
use crate::pki::{Authority, Holder, Issued, PkiError};
use crate::render::{self, Table};
use cbddc_domain::id::NodeName;
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

pub(super) fn run(command: MeshCommand, common: &CommonArgs) -> Result<Exit, CtlError> {
    match command {
        MeshCommand::Init(arguments) => init(&arguments, common),
        MeshCommand::Issue(arguments) => issue(&arguments, common),
        MeshCommand::Enrol(arguments) => enrol::run(&arguments, common),
        MeshCommand::Show => show(common),
    }
}

fn init(arguments: &InitArgs, common: &CommonArgs) -> Result<Exit, CtlError> {
    let name = plain("mesh", &arguments.name)?;
    let user = match &arguments.user {
        Some(user) => plain("user", user)?,
        None => login_name(),
    };
    let members = arguments.member.iter().map(|(name, address)| Member {
        name: name.clone(),
        address: address.clone(),
    });
    let mesh = MeshFile {
        name: name.clone(),
        environment: arguments.environment,
        members: members.collect(),
    };
    // Members may come later, one by one; those that are given must make sense.
    if !mesh.members.is_empty() {
        context::checked(mesh.clone())?;
    }
    let dir = &arguments.dir;
    for file in ["ca.key", "ca.pem", "mesh.toml", "user.pem", "user.key"] {
        let path = dir.join(file);
        if path.exists() {
            return Err(
                CtlError::failed(format!("{} is there already", path.display()))
                    .hint("nothing is overwritten: choose another --dir"),
            );
        }
    }
    Context::ensure_absent(&name)?;
    context::make_dir(dir)?;
    let (authority, own) = Authority::create(&name).map_err(cannot_issue)?;
    let person = authority
        .issue(&Holder::Person(user.clone()))
        .map_err(cannot_issue)?;
    context::write_new(&dir.join("ca.key"), own.key.as_bytes())?;
    context::write_new(&dir.join("ca.pem"), own.cert.as_bytes())?;
    context::write_new(&dir.join("mesh.toml"), mesh_text(&mesh)?.as_bytes())?;
    write_pair(dir, "user", &person)?;
    let context = Context::register(&name, dir)?;
    eprintln!(
        "made the mesh {name} in {}; you are {user} in it",
        dir.display()
    );
    eprintln!("hint: keep ca.key safe, it cannot be replaced; go on with `cbctl mesh issue NODE`");
    print(&mesh, &context.name, dir, common)
}

fn issue(arguments: &IssueArgs, common: &CommonArgs) -> Result<Exit, CtlError> {
    let (dir, context) = folder(arguments.dir.as_deref(), common)?;
    let known = context::read_mesh(&dir.join("mesh.toml"))?;
    let mesh = with_address(known.clone(), &arguments.node, arguments.address.as_deref())?;
    let authority = Authority::open(&mesh.name, &dir.join("ca.key")).map_err(cannot_issue)?;
    let issued = authority
        .issue(&Holder::Node(arguments.node.clone()))
        .map_err(cannot_issue)?;

    let out = arguments.out.clone();
    let out = out.unwrap_or_else(|| dir.join("nodes").join(arguments.node.as_str()));
    for file in ["node.pem", "node.key"] {
        if out.join(file).exists() {
            return Err(
                CtlError::failed(format!("{} is there already", out.join(file).display())).hint(
                    "nothing is overwritten: choose another --out, or move the old folder away",
                ),
            );
        }
    }
    context::make_dir(&out)?;
    let text = mesh_text(&mesh)?;
    if store(&mesh, &known, &dir, context.as_ref())? {
        eprintln!("hint: the mesh file changed: copy it to agents that were issued before");
    }
    context::replace(&out.join("ca.pem"), &authority_certificate(&dir)?)?;
    context::replace(&out.join("mesh.toml"), text.as_bytes())?;
    write_pair(&out, "node", &issued)?;
    eprintln!(
        "wrote what the agent of {} needs to {}",
        arguments.node,
        out.display()
    );
    let context = context.map_or_else(String::new, |context| context.name);
    print(&mesh, &context, &out, common)
}

/// The folder with the mesh's authority, and the context if there is one.
fn folder(
    named: Option<&Path>,
    common: &CommonArgs,
) -> Result<(PathBuf, Option<Context>), CtlError> {
    let context = Context::find(common.context.as_deref());
    if let Some(dir) = named {
        return Ok((dir.to_owned(), context.ok()));
    }
    let context = context?;
    let dir = context.authority().ok_or_else(|| {
        CtlError::failed(format!("the context `{}` has no authority", context.name))
            .hint("name the mesh's folder with --dir")
    })?;
    Ok((dir, Some(context)))
}

fn authority_certificate(dir: &Path) -> Result<Vec<u8>, CtlError> {
    std::fs::read(dir.join("ca.pem"))
        .map_err(|error| CtlError::failed("cannot read the authority's ca.pem").because(error))
}

/// Writes the mesh file where it changed; says whether it did.
fn store(
    mesh: &MeshFile,
    known: &MeshFile,
    dir: &Path,
    context: Option<&Context>,
) -> Result<bool, CtlError> {
    let text = mesh_text(mesh)?;
    let changed = mesh != known;
    if changed {
        context::replace(&dir.join("mesh.toml"), text.as_bytes())?;
    }
    // Whoever names the folder may have no context, or one of another mesh.
    if let Some(context) = context
        && context
            .mesh()
            .is_ok_and(|its| its.name == mesh.name && its != *mesh)
    {
        context::replace(&context.dir.join("mesh.toml"), text.as_bytes())?;
    }
    Ok(changed)
}

/// The mesh with the node in it, at the given address if there is one.
fn with_address(
    mut mesh: MeshFile,
    node: &NodeName,
    address: Option<&str>,
) -> Result<MeshFile, CtlError> {
    let member = mesh.members.iter_mut().find(|member| member.name == *node);
    match (member, address) {
        (Some(member), Some(address)) => address.clone_into(&mut member.address),
        (Some(_), None) => {}
        (None, Some(address)) => mesh.members.push(Member {
            name: node.clone(),
            address: address.to_owned(),
        }),
        (None, None) => {
            return Err(CtlError::failed(format!("{node} is not in the mesh file"))
                .hint("add it with --address HOST:PORT"));
        }
    }
    context::checked(mesh)
}

fn show(common: &CommonArgs) -> Result<Exit, CtlError> {
    let context = Context::find(common.context.as_deref())?;
    print(&context.mesh()?, &context.name, &context.dir, common)
}

fn print(
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

fn mesh_text(mesh: &MeshFile) -> Result<String, CtlError> {
    let text = toml::to_string(mesh)
        .map_err(|error| CtlError::failed("cannot write the mesh file").because(error))?;
    Ok(format!(
        "# The mesh {}. Client and agents hold the same file.\n{text}",
        mesh.name
    ))
}

/// The certificate first: a key without one is of no use to anybody.
fn write_pair(dir: &Path, name: &str, issued: &Issued) -> Result<(), CtlError> {
    context::write_new(&dir.join(format!("{name}.pem")), issued.cert.as_bytes())?;
    context::write_new(&dir.join(format!("{name}.key")), issued.key.as_bytes())
}

fn cannot_issue(error: PkiError) -> CtlError {
    CtlError::failed("no certificate was issued").because(error)
}

fn plain(what: &str, name: &str) -> Result<String, CtlError> {
    if context::is_plain(name) {
        return Ok(name.to_owned());
    }
    Err(CtlError::usage(format!("`{name}` is no name of a {what}"))
        .hint("1 to 64 letters, digits, `.`, `_` and `-`, not beginning with a dot"))
}

fn login_name() -> String {
    let name = std::env::var("USER").unwrap_or_default();
    if context::is_plain(&name) {
        name
    } else {
        "admin".to_owned()
    }
}
