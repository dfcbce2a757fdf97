//! The mesh's folder while its authorities are replaced: which files are old and which are new, also
//! after an interruption anywhere.
//!
//! ```text
//! next/          the new authorities, until the members trust them
//! old/           the old ones, once the new have taken their place, until the rotation is finished
//! retired-…/     the old ones, afterwards
//! ```

use crate::commands::mesh::files::{cannot_issue, write_pair};
use crate::context;
use crate::error::CtlError;
use cbddc_pki::authority::{Issued, Issuing, Root};
use cbddc_pki::secret::Secret;
use std::fs;
use std::path::{Path, PathBuf};

/// In the order in which they are written and moved: the last one says that all are there.
const FILES: [&str; 4] = ["ca.key", "ca.pem", "issuing.pem", "issuing.key"];

/// Whether a rotation was begun and not finished.
pub(super) fn under_way(dir: &Path) -> bool {
    dir.join("next/issuing.key").exists() || old_is_aside(dir)
}

/// Whether the new authorities have taken, or begin to take, the place of the old ones.
fn old_is_aside(dir: &Path) -> bool {
    ["ca.key", "ca.pem"]
        .iter()
        .any(|file| dir.join("old").join(file).exists())
}

/// A file of the old authorities.
pub(super) fn old(dir: &Path, file: &str) -> PathBuf {
    let aside = dir.join("old").join(file);
    if old_is_aside(dir) && (aside.exists() || !dir.join("next").join(file).exists()) {
        aside
    } else {
        dir.join(file)
    }
}

/// A file of the new ones.
pub(super) fn new(dir: &Path, file: &str) -> PathBuf {
    let next = dir.join("next").join(file);
    if next.exists() { next } else { dir.join(file) }
}

/// Writes new authorities beside the old ones.
pub(super) fn prepare(
    dir: &Path,
    root: &Root,
    issuing: &Issuing,
    passphrase: Option<&Secret>,
) -> Result<(), CtlError> {
    let next = dir.join("next");
    // Left over from a run that was interrupted before anybody was told.
    if next.exists() {
        fs::remove_dir_all(&next).map_err(|error| moved(&next, error))?;
    }
    context::make_dir(&next)?;
    let key = root.seal(passphrase).map_err(cannot_issue)?;
    context::write_new(&next.join("ca.key"), key.as_bytes())?;
    context::write_new(&next.join("ca.pem"), root.certificate_pem().as_bytes())?;
    let pair = Issued {
        cert: issuing.certificate_pem(),
        key: issuing.key_pem(),
    };
    write_pair(&next, "issuing", &pair)
}

/// Lets the new ones take the place of the old ones.
pub(super) fn swap(dir: &Path) -> Result<(), CtlError> {
    let (next, aside) = (dir.join("next"), dir.join("old"));
    if !next.exists() {
        return Ok(());
    }
    context::make_dir(&aside)?;
    for file in FILES {
        let (old, new, place) = (aside.join(file), next.join(file), dir.join(file));
        if !new.exists() {
            continue;
        }
        if place.exists() && !old.exists() {
            fs::rename(&place, &old).map_err(|error| moved(&place, error))?;
        }
        fs::rename(&new, &place).map_err(|error| moved(&new, error))?;
    }
    fs::remove_dir(&next).map_err(|error| moved(&next, error))
}

/// Puts the old ones away for good; returns where they are.
pub(super) fn retire(dir: &Path, name: &str) -> Result<PathBuf, CtlError> {
    let (aside, retired) = (dir.join("old"), dir.join(format!("retired-{name}")));
    fs::rename(&aside, &retired).map_err(|error| moved(&aside, error))?;
    Ok(retired)
}

fn moved(path: &Path, error: std::io::Error) -> CtlError {
    CtlError::failed(format!("cannot move {}", path.display()))
        .because(error)
        .hint("run the same command again")
}

#[cfg(test)]
mod tests {
    use super::{FILES, new, old, prepare, swap, under_way};
    use cbddc_pki::authority::Root;
    use std::fs;
    use std::path::Path;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("a file")
    }

    /// Wherever the moving stops, each file of either kind is found, and moving goes on to the end.
    #[test]
    fn files_are_found_wherever_it_was_interrupted() {
        for stop in 0..=2 * FILES.len() {
            let temp = tempfile::tempdir().expect("a folder");
            let dir = temp.path();
            for file in FILES {
                fs::write(dir.join(file), format!("old {file}")).expect("written");
            }
            assert!(!under_way(dir));
            let root = Root::create("shop", 1_750_000_000).expect("a root");
            let issuing = root
                .create_issuing("shop", 1_750_000_000)
                .expect("an issuer");
            prepare(dir, &root, &issuing, None).expect("prepared");
            // As `swap` does it, one file after the other.
            fs::create_dir(dir.join("old")).expect("a folder");
            let moves = FILES.iter().flat_map(|file| {
                let (place, aside) = (dir.join(file), dir.join("old").join(file));
                [(place.clone(), aside), (dir.join("next").join(file), place)]
            });
            for (from, to) in moves.take(stop) {
                fs::rename(from, to).expect("moved");
            }
            let check = || {
                assert!(under_way(dir), "{stop}");
                for file in FILES {
                    assert_eq!(text(&old(dir, file)), format!("old {file}"), "{stop}");
                    assert!(!text(&new(dir, file)).starts_with("old"), "{stop} {file}");
                }
                assert_eq!(text(&new(dir, "ca.pem")), root.certificate_pem(), "{stop}");
            };
            check();
            swap(dir).expect("moved");
            check();
            swap(dir).expect("nothing to move");
            assert!(!dir.join("next").exists());
        }
    }
}
