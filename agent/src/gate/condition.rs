//! The line of the unit's drop-in that asks the gate.

use std::path::Path;

/// How long the shell waits for the gate, in seconds: longer than [`super::command::WAIT`], shorter
/// than the default of `TimeoutStartSec`, at which systemd would fail the unit.
const PATIENCE_S: u32 = 80;

/// The script that asks the gate at `program`. A program that is gone lets the node start. One that
/// crashes, hangs, or does not know the word `gate` does so too, unless the build that would start stands
/// among the revoked ones; only what the gate itself says with 0 or 1 is final.
pub fn script(program: &str, state_dir: &Path) -> String {
    let state = state_dir.display();
    format!(
        "test -x {program} || exit 0; timeout -k 1 {PATIENCE_S} {program} gate; \
         case $? in 0) exit 0;; 1) exit 1;; esac; \
         b=$(readlink {state}/store/current); b=${{b#builds/}}; \
         grep -qsxF \"${{b%/tree}}\" {state}/revoked && exit 1; exit 0"
    )
}

/// The same as a line of a unit, run as root whatever user the node has.
///
/// # Errors
/// A sentence, if a path has a character that a shell or systemd would take for something else.
pub fn line(program: &str, state_dir: &Path) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    for path in [Some(program), state_dir.to_str()] {
        if !path.is_some_and(|path| path.starts_with('/') && path.bytes().all(plain)) {
            return Err(format!(
                "the gate needs absolute paths of A-Z, a-z, 0-9, `/`, `.`, `_` and `-`; {} is none",
                path.unwrap_or("the state folder")
            ));
        }
    }
    let script = script(program, state_dir)
        .replace('%', "%%")
        .replace('$', "$$");
    Ok(format!("ExecCondition=+/bin/sh -c '{script}'"))
}
