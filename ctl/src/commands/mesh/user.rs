//! `cbctl mesh user`.

use super::files::{
    cannot_issue, ensure_absent, folder, now, plain, read_pem, root, root_certificate, write_pair,
};
use super::people::entry;
use crate::cli::{CommonArgs, UserAddArgs};
use crate::commands::until_interrupted;
use crate::context::{self, Context};
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::render::{self, Table};
use crate::roster::{self, Book};
use cbddc_domain::access::Role;
use cbddc_domain::roster::{Says, Subject, UserEntry};
use cbddc_pki::authority::{Issued, request_from_pem};
use cbddc_pki::signature::Signer;
use serde::Serialize;
use std::path::PathBuf;

/// What `mesh user add` prints as JSON.
#[derive(Debug, Serialize)]
struct UserJson {
    mesh: String,
    user: String,
    role: Role,
    /// The folder that was written.
    folder: PathBuf,
}

pub(super) fn add(arguments: &UserAddArgs, common: &CommonArgs) -> Result<Exit, CtlError> {
    let name = plain("user", &arguments.name)?;
    let role = arguments.role;
    let (dir, context) = folder(arguments.dir.as_deref(), common)?;
    let mesh = context::read_mesh(&dir.join("mesh.toml"))?;
    let certificate = root_certificate(&dir)?;
    let out = arguments.out.clone();
    let out = out.unwrap_or_else(|| dir.join("users").join(&name));
    let mut files = vec!["user.pem", "ca.pem", "mesh.toml"];
    if arguments.csr.is_none() {
        files.push("user.key");
    }
    let hint = "nothing is overwritten: choose another --out, or move the old folder away";
    ensure_absent(&out, &files, hint)?;
    let request = match &arguments.csr {
        Some(file) => Some(read_pem(file, "name a request for a certificate, in PEM")?),
        None => None,
    };
    let root = root(&dir, &certificate, arguments.passphrase_file.as_deref())?;
    let issued = match request {
        Some(request) => request_from_pem(request.as_bytes())
            .and_then(|request| root.sign_person(&mesh.name, &name, role, &request, now()))
            .map(|cert| (cert, None)),
        None => root
            .issue_person(&mesh.name, &name, role, now())
            .map(|Issued { cert, key }| (cert, Some(key))),
    };
    let (cert, key) = issued.map_err(cannot_issue)?;

    context::make_dir(&out)?;
    context::write_new(&out.join("ca.pem"), certificate.as_bytes())?;
    context::write_new(
        &out.join("mesh.toml"),
        context::mesh_text(&mesh)?.as_bytes(),
    )?;
    match key {
        Some(key) => write_pair(
            &out,
            "user",
            &Issued {
                cert: cert.clone(),
                key,
            },
        )?,
        None => context::write_new(&out.join("user.pem"), cert.as_bytes())?,
    }
    let shown = out.display();
    let also = if arguments.csr.is_some() {
        ", with the key as user.key (mode 0600) beside it,"
    } else {
        ""
    };
    eprintln!("wrote what {name} needs to {shown}");
    eprintln!(
        "hint: bring the folder to {name}{also} as ~/.config/cbctl/contexts/{}",
        mesh.name
    );
    let json = UserJson {
        mesh: mesh.name.clone(),
        user: name.clone(),
        role,
        folder: out.clone(),
    };
    render::print(common.output, &json, || {
        let mut table = Table::new(&["USER", "ROLE", "FOLDER"]);
        table.row([json.user.clone(), role.to_string(), shown.to_string()]);
        table.render()
    })?;
    let context = context.filter(|context| context.mesh().is_ok_and(|its| its.name == mesh.name));
    let signer = root
        .signer()
        .map_err(|fault| CtlError::failed("the root authority cannot sign").because(fault))?;
    let told = tell(
        context,
        common,
        &signer,
        &entry(&cert, &mesh.name, &name)?,
        &name,
    );
    Ok(told.unwrap_or_else(|error| {
        eprintln!(
            "no member knows of {name} yet: {}",
            crate::error::chain(&error)
        );
        eprintln!("hint: tell them with `cbctl mesh user push {name}` once they can be reached");
        Exit::Partial
    }))
}

/// Tells the members, signed by the root authority: it stays whoever leaves.
fn tell(
    context: Option<Context>,
    common: &CommonArgs,
    signer: &Signer,
    entry: &UserEntry,
    name: &str,
) -> Result<Exit, CtlError> {
    let context = context.ok_or_else(|| CtlError::failed("no context of this mesh is here"))?;
    let session = Session::open(context, common.jobs, common.timeout)?;
    let telling = async {
        let session = session.learn().await;
        let book = Book::open(&session).await?;
        let (subject, says) = (Subject::User(name.to_owned()), Says::User(entry.clone()));
        let statement = book.sign_as(signer, subject, says, "");
        let rows = roster::put(&session, &session.nodes(), vec![statement]).await;
        Ok(roster::ended(&rows))
    };
    until_interrupted(&session, telling)
}
