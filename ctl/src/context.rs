//! Which mesh is meant, and who asks: contexts below `~/.config/cbctl`.
//!
//! ```text
//! current                    the name of the context that is used unless --context names another
//! contexts/NAME/mesh.toml    who is in the mesh, and where
//! contexts/NAME/ca.pem       its authority
//! contexts/NAME/user.pem     who asks
//! contexts/NAME/user.key     the proof of it
//! contexts/NAME/authority    the folder with the authority's key, where this machine has it
//! ```
//!
//! `CBCTL_CONFIG` names another folder; `XDG_CONFIG_HOME` is respected.

use crate::error::CtlError;
use cbddc_domain::access::Role;
use cbddc_domain::mesh::MeshFile;
use cbddc_pki::certificate;
use cbddc_pki::name::Holder;
use cbddc_pki::signature::{Roots, Signer};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

pub use cbddc_pki::name::is_plain;

/// The largest mesh file that is read, in bytes.
const MESH_BYTES_MAX: u64 = 1024 * 1024;

/// One mesh, and who asks.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
}

impl Context {
    /// The context that `--context` names, or the current one.
    pub fn find(wanted: Option<&str>) -> Result<Self, CtlError> {
        let root = config_dir()?;
        let name = match wanted {
            Some(name) => name.to_owned(),
            None => fs::read_to_string(root.join("current"))
                .map(|text| text.trim().to_owned())
                .map_err(|_| {
                    CtlError::failed("no mesh is known here")
                        .hint("make one with `cbctl mesh init`, or name one with --context")
                })?,
        };
        if !is_plain(&name) {
            return Err(CtlError::usage(format!("`{name}` is no name of a context")));
        }
        let dir = root.join("contexts").join(&name);
        if !dir.is_dir() {
            let known = known(&root).join(", ");
            return Err(
                CtlError::failed(format!("there is no context `{name}`")).hint(format!(
                    "known here: {}",
                    if known.is_empty() { "none" } else { &known }
                )),
            );
        }
        Ok(Self { name, dir })
    }

    /// The name of the person who asks, as the certificate says.
    pub fn user(&self) -> Result<String, CtlError> {
        let (name, _) = self.person()?;
        Ok(name)
    }

    /// Who asks, and in which role, as the certificate says.
    pub fn person(&self) -> Result<(String, Role), CtlError> {
        let path = self.dir.join("user.pem");
        let mesh = self.mesh()?.name;
        let nobody = || {
            let shown = path.display();
            CtlError::failed(format!("{shown} does not name a person of the mesh {mesh}")).hint(
                "ask whoever holds the mesh's root key for a certificate: `cbctl mesh user add`",
            )
        };
        let certificate = CertificateDer::from_pem_file(&path).map_err(|_| nobody())?;
        let facts = certificate::facts(&certificate, &mesh);
        match facts.map_err(|fault| nobody().because(fault))?.mesh_holder {
            Holder::Person { name, role } => Ok((name, role)),
            Holder::Node(_) => Err(nobody()),
        }
    }

    /// Signs as the person who asks.
    pub fn signer(&self) -> Result<Signer, CtlError> {
        let read = |name: &str| {
            let path = self.dir.join(name);
            fs::read(&path).map_err(|error| {
                CtlError::failed(format!("cannot read {}", path.display())).because(error)
            })
        };
        Signer::from_pem(&read("user.pem")?, &read("user.key")?).map_err(|error| {
            CtlError::failed(format!("the context `{}` cannot sign", self.name)).because(error)
        })
    }

    /// The certificates of the mesh's root authorities.
    pub fn roots(&self) -> Result<Roots, CtlError> {
        let path = self.dir.join("ca.pem");
        let unusable = || CtlError::failed(format!("{} cannot be used", path.display()));
        let pem = fs::read(&path).map_err(|error| unusable().because(error))?;
        Roots::from_pem(&pem).map_err(|fault| unusable().because(fault))
    }

    /// The mesh file, checked.
    pub fn mesh(&self) -> Result<MeshFile, CtlError> {
        read_mesh(&self.dir.join("mesh.toml"))
    }

    /// The folder with the authority's key.
    pub fn authority(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.dir.join("authority")).ok()?;
        Some(PathBuf::from(text.trim()))
    }

    /// Refuses when there is a context of this name already.
    pub fn ensure_absent(name: &str) -> Result<(), CtlError> {
        let dir = config_dir()?.join("contexts").join(name);
        if !dir.exists() {
            return Ok(());
        }
        let shown = dir.display();
        Err(
            CtlError::failed(format!("there is a context `{name}` already, at {shown}"))
                .hint("choose another --name, or remove that folder if the mesh is gone"),
        )
    }

    /// Makes a context of files, and the current one where there is none. Refuses to overwrite.
    pub fn register(name: &str, authority: &Path) -> Result<Self, CtlError> {
        Self::ensure_absent(name)?;
        let root = config_dir()?;
        let dir = root.join("contexts").join(name);
        make_dir(&dir)?;
        for file in ["mesh.toml", "ca.pem", "user.pem", "user.key"] {
            let from = authority.join(file);
            let bytes = fs::read(&from).map_err(|error| {
                CtlError::failed(format!("cannot read {}", from.display())).because(error)
            })?;
            write_new(&dir.join(file), &bytes)?;
        }
        let absolute = authority
            .canonicalize()
            .map_err(|error| CtlError::failed("cannot find the mesh's folder").because(error))?;
        write_new(
            &dir.join("authority"),
            absolute.to_string_lossy().as_bytes(),
        )?;
        let current = root.join("current");
        if !current.exists() {
            write_new(&current, format!("{name}\n").as_bytes())?;
        }
        Ok(Self {
            name: name.to_owned(),
            dir,
        })
    }
}

/// Reads and checks a mesh file.
pub fn read_mesh(path: &Path) -> Result<MeshFile, CtlError> {
    let unreadable = |error: std::io::Error| {
        CtlError::failed(format!("cannot read {}", path.display())).because(error)
    };
    if fs::metadata(path).map_err(unreadable)?.len() > MESH_BYTES_MAX {
        return Err(CtlError::failed(format!(
            "{} is larger than {MESH_BYTES_MAX} bytes",
            path.display()
        )));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| {
        CtlError::failed(format!("{} is no mesh file", path.display())).because(error)
    })
}

/// The text of a mesh file.
pub fn mesh_text(mesh: &MeshFile) -> Result<String, CtlError> {
    let text = toml::to_string(mesh)
        .map_err(|error| CtlError::failed("cannot write the mesh file").because(error))?;
    Ok(format!(
        "# The mesh {}. Client and agents hold the same file.\n{text}",
        mesh.name
    ))
}

/// A mesh file that a command is about to use: with members, and without faults.
pub fn checked(mesh: MeshFile) -> Result<MeshFile, CtlError> {
    let faults = mesh.faults();
    if faults.is_empty() {
        return Ok(mesh);
    }
    let mut error = CtlError::failed("the mesh file cannot be used");
    error.details = faults.iter().map(ToString::to_string).collect();
    Err(error)
}

/// Makes a folder, and those above it, for the owner alone.
pub fn make_dir(dir: &Path) -> Result<(), CtlError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| CtlError::failed(format!("cannot make {}", dir.display())).because(error))
}

/// Writes a file of mode 0600 that does not exist yet.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), CtlError> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| {
        CtlError::failed(format!("cannot write {}", path.display())).because(error)
    })
}

/// Replaces a file at once: readers see the old or the new one, never a part.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), CtlError> {
    let beside = path.with_extension("new");
    // Left over from a run that was interrupted.
    drop(fs::remove_file(&beside));
    write_new(&beside, bytes)?;
    fs::rename(&beside, path).map_err(|error| {
        CtlError::failed(format!("cannot replace {}", path.display())).because(error)
    })
}

fn config_dir() -> Result<PathBuf, CtlError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = set("CBCTL_CONFIG") {
        return Ok(dir.into());
    }
    if let Some(dir) = set("XDG_CONFIG_HOME") {
        return Ok(PathBuf::from(dir).join("cbctl"));
    }
    let home = set("HOME").ok_or_else(|| {
        CtlError::failed("neither HOME nor CBCTL_CONFIG is set")
            .hint("set CBCTL_CONFIG to the folder with the contexts")
    })?;
    Ok(PathBuf::from(home).join(".config/cbctl"))
}

fn known(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join("contexts")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}
