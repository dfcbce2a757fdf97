//! The root's key and its passphrase; the recovery key; a root that another authority certified.

use super::nowhere;
use crate::fake::{Folders, expect};
use cbddc_domain::mesh::MeshFile;
use cbddc_pki::authority::{Root, is_sealed, request_from_pem};
use cbddc_pki::recovery::{RecoveryKey, verify};
use cbddc_pki::secret::Secret;
use cbddc_tests::bins::binary as bin;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Output, Stdio};

const PASSPHRASE: &str = "correct horse battery staple";

fn ctl(folders: &Folders, line: &str) -> Output {
    folders.ctl(&words(folders, line))
}

/// The words of a line, in which `@/` is the temporary folder.
fn words(folders: &Folders, line: &str) -> Vec<String> {
    let root = format!("{}/", folders.temp.path().display());
    let word = |word: &str| word.replace("@/", &root);
    line.split_whitespace().map(word).collect()
}

fn read(folders: &Folders, inside: &str) -> String {
    fs::read_to_string(folders.path(inside)).expect("a text file")
}

fn write(folders: &Folders, inside: &str, text: &str, mode: u32) {
    let path = folders.path(inside);
    fs::write(&path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own file");
}

/// Opens the root with this passphrase.
fn opens(folders: &Folders, passphrase: &str) -> bool {
    let (ca, key) = (read(folders, "mesh/ca.pem"), read(folders, "mesh/ca.key"));
    assert!(is_sealed(&key));
    Root::open(&ca, &key, Some(&Secret::new(passphrase))).is_ok()
}

/// The files of a folder, by name.
fn listed(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry.expect("an entry")))
        .collect();
    names.sort();
    names
}

const INIT: &str = "mesh init --name shop --user ana --dir @/mesh --environment production";

#[test]
fn a_root_with_a_passphrase_from_a_file() {
    let folders = nowhere();
    write(&folders, "pass", &format!("{PASSPHRASE}\nmore\n"), 0o600);
    let line = format!("{INIT} --passphrase-file @/pass --recovery-file @/recovery");
    let (stdout, stderr) = expect(&ctl(&folders, &line), 0);
    assert!(opens(&folders, PASSPHRASE));
    assert!(!opens(&folders, "correct horse battery"));
    for said in [&stdout, &stderr] {
        assert!(!said.contains(PASSPHRASE), "{said}");
    }
    // The recovery key is in its file alone, and its other half in the mesh file.
    let recovery = read(&folders, "recovery");
    let mode = fs::metadata(folders.path("recovery")).expect("a file");
    assert_eq!(mode.permissions().mode() & 0o7777, 0o600);
    assert!(!stderr.contains(recovery.trim()), "{stderr}");
    let mesh: MeshFile = toml::from_str(&read(&folders, "mesh/mesh.toml")).expect("a mesh file");
    let public = mesh.recovery.expect("a recovery key");
    let key = RecoveryKey::parse(&recovery).expect("a recovery key");
    let hex: String = key
        .public_spki()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(hex, public);
    assert!(verify(&key.public_spki(), b"m", &key.sign(b"m")));

    // Agents' certificates take no passphrase, people's do.
    expect(&ctl(&folders, "mesh issue n1 --address 127.0.0.1:7443"), 0);
    let add = "mesh user add ben --role approver";
    let (_, stderr) = expect(&ctl(&folders, add), 64);
    assert!(stderr.contains("--passphrase-file"), "{stderr}");
    write(&folders, "wrong", "correct horse batteries", 0o600);
    let (_, stderr) = expect(
        &ctl(&folders, &format!("{add} --passphrase-file @/wrong")),
        1,
    );
    assert!(stderr.contains("passphrase is wrong"), "{stderr}");
    assert!(!stderr.contains("batteries"), "{stderr}");
    assert!(!folders.path("mesh/users").exists());
    write(&folders, "open", PASSPHRASE, 0o644);
    let (_, stderr) = expect(
        &ctl(&folders, &format!("{add} --passphrase-file @/open")),
        1,
    );
    assert!(stderr.contains("chmod 600"), "{stderr}");
    expect(
        // No agent runs that could be told of him.
        &ctl(&folders, &format!("{add} --passphrase-file @/pass")),
        3,
    );
    assert!(folders.path("mesh/users/ben/user.pem").exists());
}

#[test]
fn passphrases_that_are_refused() {
    let folders = nowhere();
    for (text, why) in [
        ("short", "at least 8 characters"),
        ("", "empty"),
        ("\nsecond line", "empty"),
        (&"x".repeat(1025), "more than 1024 bytes"),
    ] {
        write(&folders, "pass", text, 0o600);
        let (_, stderr) = expect(
            &ctl(&folders, &format!("{INIT} --passphrase-file @/pass")),
            1,
        );
        assert!(stderr.contains(why), "{stderr}");
    }
    let (_, stderr) = expect(
        &ctl(&folders, &format!("{INIT} --passphrase-file @/nothing")),
        1,
    );
    assert!(stderr.contains("cannot read"), "{stderr}");
    let (_, stderr) = expect(&ctl(&folders, INIT), 64);
    assert!(stderr.contains("--passphrase-file"), "{stderr}");
    assert!(!stderr.contains("--no-passphrase"), "{stderr}");
    let local = INIT.replace("production", "local");
    let (_, stderr) = expect(&ctl(&folders, &local), 64);
    assert!(stderr.contains("--no-passphrase"), "{stderr}");
    assert!(!folders.path("mesh").exists());
}

#[test]
fn a_root_that_another_authority_certifies() {
    let folders = nowhere();
    write(&folders, "pass", PASSPHRASE, 0o600);
    let with = |more: &str| format!("{INIT} --passphrase-file @/pass {more}");
    let (stdout, stderr) = expect(&ctl(&folders, &with("--csr-only")), 0);
    assert!(stdout.trim().ends_with("mesh/ca.csr"), "{stdout}");
    assert!(stderr.contains("--ca-cert"), "{stderr}");
    assert_eq!(listed(&folders.path("mesh")), ["ca.csr", "ca.key"]);
    assert!(!folders.path("config").exists());
    let key = read(&folders, "mesh/ca.key");
    // Not twice.
    let (_, stderr) = expect(&ctl(&folders, &with("--csr-only")), 1);
    assert!(stderr.contains("ca.key is there already"), "{stderr}");

    let certified = |is_ca: IsCa| {
        let above = KeyPair::generate().expect("a key");
        let mut name = CertificateParams::default();
        name.distinguished_name
            .push(DnType::CommonName, "Example Corp Root");
        let above = Issuer::new(name, above);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Shop");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example Corp");
        params.is_ca = is_ca;
        let requested = Requested::of(&read(&folders, "mesh/ca.csr"));
        let certificate = params.signed_by(&requested, &above);
        certificate.expect("a certificate").pem()
    };
    let go_on = with("--ca-cert @/signed.pem");
    let foreign = Root::create("shop", 1_750_000_000).expect("a root");
    for (wrong, why) in [
        (certified(IsCa::NoCa), "not an authority"),
        (foreign.certificate_pem(), "not that of the authority"),
        ("nothing".to_owned(), "no certificate in PEM form"),
    ] {
        write(&folders, "signed.pem", &wrong, 0o644);
        let (_, stderr) = expect(&ctl(&folders, &go_on), 1);
        assert!(stderr.contains(why), "{stderr}");
        assert_eq!(listed(&folders.path("mesh")), ["ca.csr", "ca.key"]);
    }
    let right = certified(IsCa::Ca(BasicConstraints::Constrained(1)));
    write(&folders, "signed.pem", &right, 0o644);
    write(&folders, "wrong", "something else", 0o600);
    let wrong = go_on.replace("@/pass", "@/wrong");
    let (_, stderr) = expect(&ctl(&folders, &wrong), 1);
    assert!(stderr.contains("passphrase is wrong"), "{stderr}");
    expect(&ctl(&folders, &go_on), 0);
    assert_eq!(read(&folders, "mesh/ca.key"), key);
    assert_eq!(read(&folders, "mesh/ca.pem"), right.replace("\r\n", "\n"));
    expect(&ctl(&folders, "mesh issue n1 --address 127.0.0.1:7443"), 0);
    folders.tls("shop", "n1");
    expect(
        &ctl(
            &folders,
            "mesh user add ben --role viewer --passphrase-file @/pass",
        ),
        3,
    );
}

/// The key of a request, which is all that another authority sees of it.
struct Requested(Vec<u8>);

impl Requested {
    fn of(pem: &str) -> Self {
        let der = request_from_pem(pem.as_bytes()).expect("a request");
        // A bit string of 66 bytes without unused bits: a point of P-256, not compressed.
        let head = [0x03, 0x42, 0x00, 0x04];
        let place = der.windows(4).position(|bytes| bytes == head);
        let place = place.expect("the request has a key") + 3;
        Self(der[place..place + 65].to_vec())
    }
}

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// `cbctl` at a terminal of its own.
struct AtTerminal {
    terminal: fs::File,
    /// The other end, so that the terminal is there when `cbctl` has ended.
    _theirs: fs::File,
    child: Child,
}

impl AtTerminal {
    fn start(folders: &Folders, line: &str) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).expect("mine");
        unlockpt(&terminal).expect("usable");
        let name = ptsname(&terminal, Vec::new()).expect("a name");
        let name = std::ffi::OsStr::from_bytes(name.as_bytes()).to_owned();
        let mut open = fs::OpenOptions::new();
        open.read(true).write(true);
        open.custom_flags(OpenptFlags::NOCTTY.bits().cast_signed());
        let theirs = open.open(name).expect("the other end");
        #[expect(
            clippy::disallowed_methods,
            reason = "a test starts the program under test"
        )]
        let mut command = std::process::Command::new(bin("cbctl"));
        let child = command
            .args(words(folders, line))
            .env("CBCTL_CONFIG", folders.path("config"))
            .stdin(theirs.try_clone().expect("another handle"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cbctl can be started");
        let terminal = fs::File::from(terminal);
        Self {
            terminal,
            _theirs: theirs,
            child,
        }
    }

    /// Waits for a question, and types.
    fn answer(&mut self, question: &str, typed: &str) {
        let stderr = self.child.stderr.as_mut().expect("piped");
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !String::from_utf8_lossy(&said).contains(question) {
            assert_eq!(stderr.read(&mut byte).expect("readable"), 1, "{said:?}");
            said.push(byte[0]);
        }
        self.terminal.write_all(typed.as_bytes()).expect("typed");
    }

    /// What the terminal showed of what was typed, whether it shows again what is typed, and how it
    /// ended.
    fn end(self) -> (String, bool, Output) {
        let (child, terminal) = (self.child, self.terminal);
        let output = child.wait_with_output().expect("it ends");
        let modes = tcgetattr(&terminal).expect("modes").local_modes;
        let shows = modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        // Something at the end, so that reading does not wait.
        (&terminal).write_all(b"end\n").expect("typed");
        let (mut shown, mut byte) = (String::new(), [0]);
        while !shown.contains("end") {
            assert_eq!((&terminal).read(&mut byte).expect("readable"), 1);
            shown.push(char::from(byte[0]));
        }
        (shown, shows, output)
    }
}

#[test]
fn a_passphrase_that_is_typed_does_not_show() {
    let folders = nowhere();
    let mut at = AtTerminal::start(&folders, INIT);
    at.answer("New passphrase", &format!("{PASSPHRASE}\r"));
    at.answer("The same again", &format!("x\u{15}{PASSPHRASE}\r"));
    let (shown, shows, output) = at.end();
    expect(&output, 0);
    assert!(shows, "the terminal is not as it was");
    assert!(!shown.contains("horse"), "{shown}");
    assert!(opens(&folders, PASSPHRASE));

    let mut at = AtTerminal::start(&folders, "mesh user add ben --role viewer");
    at.answer("Passphrase of", &format!("{PASSPHRASE}\n"));
    expect(&at.end().2, 3);
    assert!(folders.path("mesh/users/ben/user.pem").exists());
}

#[test]
fn nothing_is_made_when_nobody_agrees_on_a_passphrase() {
    for (first, second, code, why) in [
        ("correct horse\r", "correct house\r", 1, "differ"),
        ("correct horse\r", "corr\u{3}", 130, "interrupted"),
    ] {
        let folders = nowhere();
        let mut at = AtTerminal::start(&folders, INIT);
        at.answer("New passphrase", first);
        at.answer("The same again", second);
        let (_, shows, output) = at.end();
        let (_, stderr) = expect(&output, code);
        assert!(stderr.contains(why), "{stderr}");
        assert!(shows, "the terminal is not as it was");
        assert!(!folders.path("mesh").exists());
    }
}
