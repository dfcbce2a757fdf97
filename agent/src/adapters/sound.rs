//! Builds are put right before they are pointed to or started, and what was found is told.

use crate::adapters::builds::{BuildError, BuildStore};
use crate::error_chain;
use crate::ports::EffectError;
use cbddc_domain::build::BuildRef;

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
    let Ok(Some(digest)) = builds.current() else {
        return Ok(notes);
    };
    let build = match builds.get(&digest) {
        Ok(Some(stored)) => stored.build,
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
    let surplus = builds.surplus(&build).unwrap_or_default();
    if !surplus.is_empty() {
        notes.push(format!(
            "in the folder of {build} lies what is not part of it: {}",
            surplus.join(", ")
        ));
    }
    Ok(notes)
}
