//! The passphrase of the root's key, and the recovery key: from a file, or from somebody at the
//! terminal. Never from an argument, which others on the machine could see.

use crate::error::{CtlError, Exit};
use cbddc_pki::secret::Secret;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use std::fs;
use std::io::{IsTerminal as _, Read, Stdin, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The shortest passphrase for a new key, in characters.
const LENGTH_MIN: usize = 8;
/// The longest, in bytes.
const LENGTH_MAX: usize = 1024;

/// A passphrase for a new key: from the file, or asked for twice.
pub fn choose(file: Option<&Path>, what: &str) -> Result<Secret, CtlError> {
    let chosen = match file {
        Some(file) => from_file(file)?,
        None => {
            let first = ask(&format!("New passphrase for {what}: "))?;
            long_enough(&first)?;
            if ask("The same again: ")? != first {
                return Err(CtlError::failed(
                    "the two passphrases differ: nothing was changed",
                ));
            }
            first
        }
    };
    long_enough(&chosen)?;
    Ok(chosen)
}

/// The passphrase of a key that is there: from the file, or asked for once.
pub fn known(file: Option<&Path>, what: &str) -> Result<Secret, CtlError> {
    match file {
        Some(file) => from_file(file),
        None => ask(&format!("Passphrase of {what}: ")),
    }
}

/// The text of the recovery key: from the file, or asked for without showing it.
pub fn recovery(file: Option<&Path>) -> Result<Secret, CtlError> {
    match file {
        Some(file) => from_file(file),
        None => ask("The recovery key, as on paper: ").map_err(|error| {
            if error.exit == Exit::Usage {
                let why = "not at a terminal, so nobody can be asked for the recovery key";
                return CtlError::usage(why)
                    .hint("name a file of mode 0600 that holds it with --recovery-file");
            }
            error
        }),
    }
}

fn long_enough(passphrase: &Secret) -> Result<(), CtlError> {
    if passphrase.reveal().chars().count() >= LENGTH_MIN {
        return Ok(());
    }
    let why = format!("a passphrase must have at least {LENGTH_MIN} characters");
    Err(CtlError::failed(why).hint("several words that nobody would guess are best"))
}

/// The first line of a file that only its owner may read.
fn from_file(path: &Path) -> Result<Secret, CtlError> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        CtlError::failed(format!("cannot read the secret in {shown}")).because(error)
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        let why = format!(
            "others may read the secret in {shown} (mode {:04o})",
            mode & 0o7777
        );
        return Err(CtlError::failed(why).hint(format!("run `chmod 600 {shown}`")));
    }
    let mut bytes = Vec::new();
    // One more than there may be, and a line's end.
    let most = u64::try_from(LENGTH_MAX + 3).unwrap_or(u64::MAX);
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    text(line.to_vec())
}

/// Asks at the terminal, without showing what is typed.
fn ask(prompt: &str) -> Result<Secret, CtlError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(
            CtlError::usage("not at a terminal, so nobody can be asked for a passphrase")
                .hint("name a file of mode 0600 that holds it with --passphrase-file"),
        );
    }
    // Hidden before it is asked for: somebody may type fast.
    let hidden = Hidden::begin(&stdin)
        .map_err(|error| CtlError::failed("cannot hide what is typed").because(error))?;
    eprint!("{prompt}");
    drop(std::io::stderr().flush());
    let typed = read_line(stdin.lock());
    drop(hidden);
    eprintln!();
    text(typed?)
}

/// A terminal that neither shows what is typed nor makes signals of it. It is as it was when this is
/// dropped; and because Ctrl-C is a letter meanwhile, that is always.
struct Hidden<'a> {
    stdin: &'a Stdin,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn begin(stdin: &'a Stdin) -> rustix::io::Result<Self> {
        let before = tcgetattr(stdin)?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        // Each letter as it comes.
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(stdin, OptionalActions::Now, &modes)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(self.stdin, OptionalActions::Now, &self.before);
    }
}

/// Reads letters until Enter, as a terminal's line does it.
fn read_line(mut input: impl Read) -> Result<Vec<u8>, CtlError> {
    let interrupted = || CtlError::new(Exit::Interrupted, "interrupted: nothing was changed");
    let mut typed = Vec::new();
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(0) => return Err(interrupted()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(CtlError::failed("cannot read what is typed").because(error));
            }
        }
        match byte[0] {
            b'\r' | b'\n' => return Ok(typed),
            // Ctrl-C, Ctrl-D, Ctrl-\.
            0x03 | 0x04 | 0x1c => return Err(interrupted()),
            // Backspace takes a whole character, also one of several bytes.
            0x08 | 0x7f => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U.
            0x15 => typed.clear(),
            other if typed.len() <= LENGTH_MAX && other >= b' ' => typed.push(other),
            _ => {}
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<Secret, CtlError> {
    if bytes.is_empty() {
        return Err(CtlError::failed("what was given is empty"));
    }
    if bytes.len() > LENGTH_MAX {
        let why = format!("what was given has more than {LENGTH_MAX} bytes");
        return Err(CtlError::failed(why));
    }
    // Which bytes are wrong is nobody's business.
    String::from_utf8(bytes)
        .map(Secret::new)
        .map_err(|_| CtlError::failed("what was given is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::read_line;
    use crate::error::Exit;

    #[test]
    fn typing_as_terminals_do_it() {
        for (typed, read) in [
            ("hello\n", "hello"),
            ("hello\r", "hello"),
            ("helpx\u{7f}\u{8}lo\n", "hello"),
            ("\u{7f}ä\u{7f}hello\nmore", "hello"),
            ("wrong\u{15}hello\n", "hello"),
            ("hel\u{1a}\tlo\n", "hello"),
        ] {
            let bytes = read_line(typed.as_bytes()).expect("a line");
            assert_eq!(String::from_utf8(bytes).as_deref(), Ok(read), "{typed:?}");
        }
        for typed in ["", "hello", "hello\u{3}\n", "\u{4}", "\u{1c}"] {
            let error = read_line(typed.as_bytes()).expect_err("no line");
            assert_eq!(error.exit, Exit::Interrupted, "{typed:?}");
        }
    }
}
