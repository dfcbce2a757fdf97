//! What the admin brings beside certificates: a package, configurations, a token. All of it is read
//! and checked before anything is done anywhere.

use crate::enrol::bundle::config_of;
use crate::error::CtlError;
use cbddc_domain::id::NodeName;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The largest package, in bytes; the agent's has some 10 MB.
const PACKAGE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The largest configuration, in bytes, as the agent reads it.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// The largest token, in bytes.
const TOKEN_BYTES_MAX: u64 = 4096;
/// How every Debian package begins.
const PACKAGE_BEGINS: &[u8] = b"!<arch>\ndebian-binary";

/// What the admin brings.
#[derive(Default)]
pub struct Brought {
    /// The agent's package: its file's name, and its bytes.
    pub package: Option<(String, Vec<u8>)>,
    /// The token, for nobody to see.
    pub token: Option<Vec<u8>>,
    config: Option<Config>,
}

enum Config {
    /// One for all hosts; the path is for messages.
    Shared { path: PathBuf, text: String },
    /// A folder with one for each.
    Folder(PathBuf),
}

impl Brought {
    /// Reads all of it.
    pub fn read(
        package: Option<&Path>,
        config: Option<&Path>,
        token: Option<&Path>,
    ) -> Result<Self, CtlError> {
        let mut brought = Self::default();
        if let Some(path) = package {
            let bytes = read(path, PACKAGE_BYTES_MAX)?;
            if !bytes.starts_with(PACKAGE_BEGINS) {
                return Err(CtlError::failed(format!(
                    "{} is no Debian package",
                    path.display()
                )));
            }
            let name = path.file_name().unwrap_or(path.as_os_str());
            brought.package = Some((name.to_string_lossy().into_owned(), bytes));
        }
        brought.config = match config {
            Some(path) if path.is_dir() => Some(Config::Folder(path.to_owned())),
            Some(path) => Some(Config::Shared {
                path: path.to_owned(),
                text: text(path)?,
            }),
            None => None,
        };
        brought.token = token.map(|path| read(path, TOKEN_BYTES_MAX)).transpose()?;
        Ok(brought)
    }

    /// The configuration of one node; [`None`] where none was brought.
    pub fn config(&self, node: &NodeName) -> Result<Option<String>, CtlError> {
        let (path, text, shared) = match &self.config {
            None => return Ok(None),
            Some(Config::Shared { path, text }) => (path.clone(), text.clone(), true),
            Some(Config::Folder(folder)) => {
                let path = folder.join(format!("{node}.toml"));
                let text = text(&path)?;
                (path, text, false)
            }
        };
        let made = config_of(&text, node, shared).map_err(|fault| {
            CtlError::failed(format!(
                "{} cannot be the configuration of {node}",
                path.display()
            ))
            .because(fault)
        })?;
        Ok(Some(made))
    }
}

fn text(path: &Path) -> Result<String, CtlError> {
    String::from_utf8(read(path, CONFIG_BYTES_MAX)?)
        .map_err(|_| CtlError::failed(format!("{} is no text", path.display())))
}

/// Reads a file of a bounded size that is not empty.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, CtlError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            CtlError::failed(format!("cannot read {}", path.display())).because(error)
        })?;
    let why = match bytes.len() {
        0 => "is empty".to_owned(),
        length if length as u64 > most => format!("is larger than {most} bytes"),
        _ => return Ok(bytes),
    };
    Err(CtlError::failed(format!("{} {why}", path.display())))
}
