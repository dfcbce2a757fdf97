//! The folder that `mesh init` makes, and what the commands do with its files.
//!
//! ```text
//! ca.pem, ca.key             the root: certificate, and key (encrypted); ca.csr asks another to certify it
//! issuing.pem, issuing.key   the authority that issues agents' certificates
//! mesh.toml                  who is in the mesh, and where
//! user.pem, user.key         the first admin
//! nodes/NODE, users/NAME     what was issued
//! next/, old/                while the authorities are replaced; retired-…/ afterwards
//! ```

use crate::cli::CommonArgs;
use crate::context::{self, Context};
use crate::error::CtlError;
use crate::passphrase;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::{Member, MeshFile};
use cbddc_pki::authority::{Issued, Issuing, PkiError, Root, is_sealed};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// The largest certificate, key or request that is read, in bytes.
const PEM_BYTES_MAX: u64 = 64 * 1024;

/// This machine's time, in Unix seconds.
pub(super) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// The folder with the mesh's authorities, and the context if there is one.
pub(super) fn folder(
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

/// Reads a text in PEM; `hint` says where it should come from.
pub(super) fn read_pem(path: &Path, hint: &str) -> Result<String, CtlError> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        CtlError::failed(format!("cannot read {shown}"))
            .because(error)
            .hint(hint)
    };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(PEM_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// The root's certificate.
pub(super) fn root_certificate(dir: &Path) -> Result<String, CtlError> {
    let hint = "name the mesh's folder, as `cbctl mesh init` made it, with --dir";
    read_pem(&dir.join("ca.pem"), hint)
}

/// Opens the issuing authority.
pub(super) fn issuing(dir: &Path) -> Result<Issuing, CtlError> {
    let hint = "the issuing authority's key is where the mesh was made, and with members that were \
                issued with --issuer";
    let certificate = read_pem(&dir.join("issuing.pem"), hint)?;
    let key = read_pem(&dir.join("issuing.key"), hint)?;
    Issuing::open(&certificate, &key).map_err(cannot_issue)
}

/// Opens the root, with its passphrase where it has one.
pub(super) fn root(
    dir: &Path,
    certificate: &str,
    passphrase_file: Option<&Path>,
) -> Result<Root, CtlError> {
    root_at(&dir.join("ca.key"), certificate, passphrase_file)
}

/// The same, of a key in any file.
pub(super) fn root_at(
    path: &Path,
    certificate: &str,
    passphrase_file: Option<&Path>,
) -> Result<Root, CtlError> {
    let key = read_pem(path, "the root's key is only where the mesh was made")?;
    let passphrase = if is_sealed(&key) {
        let what = path.display().to_string();
        Some(passphrase::known(passphrase_file, &what)?)
    } else {
        None
    };
    Root::open(certificate, &key, passphrase.as_ref()).map_err(|error| {
        CtlError::failed("the mesh's root cannot be used: nothing was changed").because(error)
    })
}

/// Refuses where one of these files is there.
pub(super) fn ensure_absent(dir: &Path, files: &[&str], hint: &str) -> Result<(), CtlError> {
    for file in files {
        let path = dir.join(file);
        if path.symlink_metadata().is_ok() {
            let shown = path.display();
            return Err(CtlError::failed(format!("{shown} is there already")).hint(hint));
        }
    }
    Ok(())
}

/// Writes the mesh file where it changed; says whether it did.
pub(super) fn store(
    mesh: &MeshFile,
    known: &MeshFile,
    dir: &Path,
    context: Option<&Context>,
) -> Result<bool, CtlError> {
    let text = context::mesh_text(mesh)?;
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
pub(super) fn with_address(
    mut mesh: MeshFile,
    node: &NodeName,
    address: Option<&str>,
) -> Result<MeshFile, CtlError> {
    let member = mesh.members.iter_mut().find(|member| member.name == *node);
    match (member, address) {
        (Some(member), Some(address)) => address.clone_into(&mut member.address),
        (Some(_), None) => {}
        (None, Some(address)) => mesh.members.push(Member::new(node.clone(), address)),
        (None, None) => {
            return Err(CtlError::failed(format!("{node} is not in the mesh file"))
                .hint("add it with --address HOST:PORT"));
        }
    }
    context::checked(mesh)
}

/// The certificate first: a key without one is of no use to anybody.
pub(super) fn write_pair(dir: &Path, name: &str, issued: &Issued) -> Result<(), CtlError> {
    context::write_new(&dir.join(format!("{name}.pem")), issued.cert.as_bytes())?;
    context::write_new(&dir.join(format!("{name}.key")), issued.key.as_bytes())
}

pub(super) fn cannot_issue(error: PkiError) -> CtlError {
    CtlError::failed("no certificate was issued").because(error)
}

pub(super) fn plain(what: &str, name: &str) -> Result<String, CtlError> {
    if context::is_plain(name) {
        return Ok(name.to_owned());
    }
    Err(CtlError::usage(format!("`{name}` is no name of a {what}"))
        .hint("1 to 64 letters, digits, `.`, `_` and `-`, not beginning with a dot"))
}
