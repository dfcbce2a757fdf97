//! `cbctl mesh init`.

use super::files::{
    cannot_issue, ensure_absent, now, plain, read_pem, root as open_root, write_pair,
};
use super::show::print;
use crate::cli::{CommonArgs, InitArgs};
use crate::context::{self, Context};
use crate::error::{CtlError, Exit};
use crate::passphrase;
use crate::render;
use cbddc_domain::access::Role;
use cbddc_domain::mesh::{Environment, Member, MeshFile};
use cbddc_pki::authority::{Issued, Root, is_sealed};
use cbddc_pki::recovery::RecoveryKey;
use cbddc_pki::secret::Secret;
use serde::Serialize;
use std::path::{Path, PathBuf};

const NOTHING_OVERWRITTEN: &str = "nothing is overwritten: choose another --dir";

/// What `mesh init --csr-only` prints as JSON.
#[derive(Debug, Serialize)]
struct RequestJson {
    mesh: String,
    /// The request for the root's certificate.
    request: PathBuf,
    /// The root's key.
    key: PathBuf,
}

pub(super) fn run(arguments: &InitArgs, common: &CommonArgs) -> Result<Exit, CtlError> {
    let name = plain("mesh", &arguments.name)?;
    let user = match &arguments.user {
        Some(user) => plain("user", user)?,
        None => login_name(),
    };
    if arguments.no_passphrase && arguments.environment != Environment::Local {
        return Err(CtlError::usage(
            "the root's key must have a passphrase, except with --environment local",
        )
        .hint("leave --no-passphrase away, or name a file with --passphrase-file"));
    }
    let (recovery, mesh) = mesh_file(arguments, &name)?;
    let dir = &arguments.dir;
    let mut files = vec!["ca.pem", "issuing.pem", "issuing.key", "mesh.toml"];
    files.extend(["user.pem", "user.key"]);
    if arguments.ca_cert.is_none() {
        files.extend(["ca.key", "ca.csr"]);
    }
    ensure_absent(dir, &files, NOTHING_OVERWRITTEN)?;
    if let Some(file) = &arguments.recovery_file {
        ensure_absent(
            Path::new(""),
            &[&file.to_string_lossy()],
            "name another file",
        )?;
    }
    Context::ensure_absent(&name)?;
    if arguments.csr_only {
        return request(arguments, &name, common);
    }
    let (root, new_key) = root(arguments, &name)?;
    let issuing = root.create_issuing(&name, now()).and_then(|issuing| {
        Ok((
            issuing,
            root.issue_person(&name, &user, Role::Admin, now())?,
        ))
    });
    let (issuing, person) = issuing.map_err(cannot_issue)?;

    context::make_dir(dir)?;
    if let Some(key) = new_key {
        context::write_new(&dir.join("ca.key"), key.as_bytes())?;
    }
    context::write_new(&dir.join("ca.pem"), root.certificate_pem().as_bytes())?;
    let own = Issued {
        cert: issuing.certificate_pem(),
        key: issuing.key_pem(),
    };
    write_pair(dir, "issuing", &own)?;
    if let Some(file) = &arguments.recovery_file {
        context::write_new(file, format!("{}\n", recovery.paper()).as_bytes())?;
    }
    context::write_new(
        &dir.join("mesh.toml"),
        context::mesh_text(&mesh)?.as_bytes(),
    )?;
    write_pair(dir, "user", &person)?;
    let context = Context::register(&name, dir)?;
    tell(arguments, &name, &user, &recovery);
    print(&mesh, &context.name, dir, common)
}

/// The mesh file that is going to be, and the secret half of what it names.
fn mesh_file(arguments: &InitArgs, name: &str) -> Result<(RecoveryKey, MeshFile), CtlError> {
    let recovery = RecoveryKey::generate()
        .map_err(|error| CtlError::failed("no mesh was made").because(error))?;
    let public = recovery.public_spki();
    let public: String = public.iter().map(|byte| format!("{byte:02x}")).collect();
    let member = |(name, address): &(_, String)| Member::new(Clone::clone(name), address.as_str());
    let mesh = MeshFile {
        name: name.to_owned(),
        environment: arguments.environment,
        recovery: Some(public),
        voters: None,
        members: arguments.member.iter().map(member).collect(),
    };
    // Members may come later, one by one; those that are given must make sense.
    if !mesh.members.is_empty() {
        context::checked(mesh.clone())?;
    }
    Ok((recovery, mesh))
}

/// The root, and the text of its key where it is a new one.
fn root(arguments: &InitArgs, name: &str) -> Result<(Root, Option<String>), CtlError> {
    let file = arguments.passphrase_file.as_deref();
    if let Some(path) = &arguments.ca_cert {
        let certificate = read_pem(path, "name the certificate of the root, in PEM")?;
        let key = arguments.dir.join("ca.key");
        let hint = "begin with `cbctl mesh init --csr-only`, and name the same --dir";
        if !is_sealed(&read_pem(&key, hint)?) && arguments.environment != Environment::Local {
            let why = format!("{} has no passphrase", key.display());
            return Err(CtlError::failed(why).hint("only --environment local goes without one"));
        }
        return Ok((open_root(&arguments.dir, &certificate, file)?, None));
    }
    let passphrase = new_passphrase(arguments)?;
    let root = Root::create(name, now()).map_err(cannot_issue)?;
    let key = root.seal(passphrase.as_ref()).map_err(cannot_issue)?;
    Ok((root, Some(key)))
}

fn new_passphrase(arguments: &InitArgs) -> Result<Option<Secret>, CtlError> {
    let file = arguments.passphrase_file.as_deref();
    root_passphrase(file, arguments.no_passphrase, arguments.environment)
}

/// The passphrase of a new root key, or none.
pub(super) fn root_passphrase(
    file: Option<&Path>,
    none: bool,
    environment: Environment,
) -> Result<Option<Secret>, CtlError> {
    if none && environment != Environment::Local {
        return Err(CtlError::usage(
            "the root's key must have a passphrase, except with --environment local",
        )
        .hint("leave --no-passphrase away, or name a file"));
    }
    if none {
        return Ok(None);
    }
    let what = "the mesh's root key (ca.key)";
    passphrase::choose(file, what).map(Some).map_err(|error| {
        let at_no_terminal = error.exit == Exit::Usage;
        if at_no_terminal && environment == Environment::Local {
            error.hint(
                "name a file of mode 0600 that holds it with --passphrase-file, or do without \
                     with --no-passphrase",
            )
        } else {
            error
        }
    })
}

/// Makes the key, and what another authority needs to certify it.
fn request(arguments: &InitArgs, name: &str, common: &CommonArgs) -> Result<Exit, CtlError> {
    let passphrase = new_passphrase(arguments)?;
    let root = Root::create(name, now()).map_err(cannot_issue)?;
    let key = root.seal(passphrase.as_ref()).map_err(cannot_issue)?;
    let csr = root.csr_pem(name).map_err(cannot_issue)?;
    let dir = &arguments.dir;
    context::make_dir(dir)?;
    let json = RequestJson {
        mesh: name.to_owned(),
        request: dir.join("ca.csr"),
        key: dir.join("ca.key"),
    };
    context::write_new(&json.key, key.as_bytes())?;
    context::write_new(&json.request, csr.as_bytes())?;
    eprintln!(
        "let your authority certify {} as an authority (CA) that may have one below it (path length \
         1 or more), then say the same again with --ca-cert FILE instead of --csr-only",
        json.request.display()
    );
    render::print(common.output, &json, || {
        format!("{}\n", json.request.display())
    })?;
    Ok(Exit::Done)
}

/// Says what was made. The recovery key goes to the terminal, never to stdout, which programs read.
fn tell(arguments: &InitArgs, name: &str, user: &str, recovery: &RecoveryKey) {
    let dir = arguments.dir.display();
    eprintln!("made the mesh {name} in {dir}; you are {user} in it, an admin");
    match &arguments.recovery_file {
        Some(file) => eprintln!(
            "the recovery key is in {}: bring it to paper, and remove the file",
            file.display()
        ),
        None => eprintln!(
            "the recovery key, shown only now: write it down and keep it safe\n\n    {}\n",
            recovery.paper()
        ),
    }
    eprintln!(
        "hint: keep ca.key safe and offline, it cannot be replaced; go on with `cbctl mesh issue NODE`"
    );
}

fn login_name() -> String {
    let name = std::env::var("USER").unwrap_or_default();
    if context::is_plain(&name) {
        name
    } else {
        "admin".to_owned()
    }
}
