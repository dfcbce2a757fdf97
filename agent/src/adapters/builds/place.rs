//! Where builds are kept, if not in the state folder.
//!
//! `store` in the state folder always leads there: the node's unit and the gate know only that path,
//! and the gate must find the current build also where the configuration cannot be read.

use super::store::{BUILDS, INCOMING};
use crate::adapters::disk;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A store that cannot be where it is to be.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It is still somewhere else.
    #[error(
        "builds are to be kept in {wanted}, but are in {found}: stop cbagent, move everything from \
         {found} to {wanted} (`cp -a` keeps what must be kept), let {link} be a link to it, and start \
         cbagent again; the node goes on meanwhile"
    )]
    Elsewhere {
        /// What the agent follows.
        link: PathBuf,
        /// What the configuration says.
        wanted: PathBuf,
        /// Where they are.
        found: PathBuf,
    },
    /// The folder or the link cannot be made.
    #[error(
        "cannot keep builds in {wanted}: where it is read-only for cbagent, name it in a drop-in of \
         cbagent.service (`systemctl edit cbagent`) with `ReadWritePaths=`"
    )]
    Make {
        /// What the configuration says.
        wanted: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Lets `link` lead to `wanted`, or be a folder of its own where nothing else is wanted.
///
/// # Errors
/// [`PlaceError`]; nothing that is there is moved or removed.
pub fn lead(link: &Path, wanted: Option<&Path>) -> Result<(), PlaceError> {
    let made = |source| PlaceError::Make {
        wanted: wanted.unwrap_or(link).to_owned(),
        source,
    };
    let elsewhere = |found: PathBuf| PlaceError::Elsewhere {
        link: link.to_owned(),
        wanted: wanted.unwrap_or(link).to_owned(),
        found,
    };
    match (fs::read_link(link), wanted) {
        (Ok(found), Some(wanted)) if found == wanted => {}
        (Ok(found), _) => return Err(elsewhere(found)),
        // No link: a folder, or nothing yet.
        (Err(_), None) => return Ok(()),
        (Err(_), Some(_)) if holds_something(link).map_err(made)? => {
            return Err(elsewhere(link.to_owned()));
        }
        (Err(_), Some(_)) => {}
    }
    let Some(wanted) = wanted else { return Ok(()) };
    // As with the other folders, what is above must be there already.
    match fs::create_dir(wanted) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(made)?,
    }
    if fs::read_link(link).is_err() {
        clear(link).map_err(made)?;
        symlink(wanted, link).map_err(made)?;
        disk::sync_folder(link.parent().unwrap_or(Path::new("/"))).map_err(made)?;
    }
    Ok(())
}

/// Whether there is any build, or anything that no store has made.
fn holds_something(store: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let is_empty = match name.to_str() {
            Some(INCOMING) => true,
            Some(BUILDS) => fs::read_dir(store.join(BUILDS))?.next().is_none(),
            Some(_) | None => false,
        };
        if !is_empty {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes a store away that holds nothing.
fn clear(store: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(fs::remove_dir_all(store.join(INCOMING)))?;
    gone(fs::remove_dir(store.join(BUILDS)))?;
    gone(fs::remove_dir(store))
}
