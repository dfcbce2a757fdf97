//! Builds are put right before they are pointed to or started, and what was found is told.

use crate::adapters::builds::{BuildError, BuildStore, Grown};
use crate::error_chain;
use crate::ports::EffectError;
use cbddc_domain::build::BuildRef;
use cbddc_domain::units::show_size_bytes;

/// Verifies a build and puts it right from its kept bundle; returns what the journal is to say of that.
///
/// # Errors
/// It cannot be put right.
pub(super) fn make_sound(
    builds: &BuildStore,
    build: &BuildRef,
) -> Result<Option<String>, EffectError> {
    let (_, damage) = builds
        .make_sound(build)
        .map_err(|error| EffectError(error_chain(&error)))?;
    Ok(damage.map(|damage| put_right(&damage)))
}

/// What the journal says of damage that is no more.
pub(super) fn put_right(damage: &BuildError) -> String {
    format!(
        "{}; it was put right from its kept bundle",
        error_chain(damage)
    )
}

/// Looks at the build that `current` points to right before it is started. `verified`: it was verified
/// since the node stopped, and need not be read again. A build that cannot be put right is started
/// all the same, and told: it was whole when it was pointed to, and a node that is down is worse.
pub(super) fn look_before_start(
    builds: &BuildStore,
    verified: Option<BuildRef>,
) -> Result<Vec<String>, EffectError> {
    let mut notes = Vec::new();
    let build = match current_build(builds) {
        Ok(Some(build)) => build,
        Ok(None) => return Ok(notes),
        Err(error) => {
            notes.push(error_chain(&error));
            return Ok(notes);
        }
    };
    if verified.as_ref() != Some(&build) {
        match builds.make_sound(&build) {
            Ok((_, damage)) => notes.extend(damage.map(|damage| put_right(&damage))),
            Err(error) => notes.push(format!(
                "{}; it could not be put right, and is started as it is: push the build again",
                error_chain(&error)
            )),
        }
    }
    notes.extend(match builds.grown(&build) {
        Ok(grown) => grown_note(&build, &grown),
        Err(error) => Some(error_chain(&error)),
    });
    Ok(notes)
}

/// Clears what an earlier run left in a build's folder before the build is activated; returns what the
/// journal is to say of that. What cannot be cleared is told, and stops nobody: least of all a way back.
pub(super) fn clear_for_activation(builds: &BuildStore, build: &BuildRef) -> Vec<String> {
    let cleared = match builds.clear(build) {
        Ok(cleared) => cleared,
        Err(error) => {
            return vec![format!(
                "what an earlier run left in the folder of {build} stays there: {}",
                error_chain(&error)
            )];
        }
    };
    let mut notes = Vec::new();
    if let Some(to) = cleared.moved_to {
        notes.push(format!(
            "what an earlier run left in the folder of {build} is now in {}: {}",
            to.display(),
            names(&cleared.grown)
        ));
    }
    notes.extend(data_note(builds, build, &cleared.grown));
    notes
}

/// What the journal says of data in the folder of the build that is left, where there is any: the next
/// one does not find it.
pub(super) fn data_left_behind(
    builds: &BuildStore,
    next: Option<&BuildRef>,
) -> Result<Option<String>, BuildError> {
    let Some(left) = current_build(builds)?.filter(|left| Some(left) != next) else {
        return Ok(None);
    };
    let grown = builds.grown(&left)?;
    Ok(data_note(builds, &left, &grown))
}

/// The build that `current` points to.
pub(super) fn current_build(builds: &BuildStore) -> Result<Option<BuildRef>, BuildError> {
    let stored = builds.current()?.map(|digest| builds.get(&digest));
    Ok(stored.transpose()?.flatten().map(|stored| stored.build))
}

/// What there is to say of a build's folder that has grown.
pub(super) fn grown_note(build: &BuildRef, grown: &Grown) -> Option<String> {
    let names = names(grown);
    (grown.files > 0)
        .then(|| format!("in the folder of {build} lies what is not part of it: {names}"))
}

fn data_note(builds: &BuildStore, build: &BuildRef, grown: &Grown) -> Option<String> {
    let tree = builds.tree(build);
    let paths: Vec<String> = grown
        .databases
        .iter()
        .map(|path| tree.join(path).display().to_string())
        .collect();
    match (paths.is_empty(), grown.more) {
        (false, _) => Some(format!(
            "these databases stay in the folder of {build}, which is not deleted: {}",
            paths.join(", ")
        )),
        (true, true) => Some(format!(
            "the folder of {build} holds more files than are looked through, and is not deleted: {}",
            tree.display()
        )),
        (true, false) => None,
    }
}

/// The first names, and how many files there are where those are not all.
fn names(grown: &Grown) -> String {
    let names = grown.names.join(", ");
    let (files, size) = (grown.files, show_size_bytes(grown.bytes));
    match grown.more {
        true => format!("{names} (more than {files} files)"),
        false if files == 1 => format!("{names} ({size})"),
        false => format!("{names} ({files} files, {size})"),
    }
}
