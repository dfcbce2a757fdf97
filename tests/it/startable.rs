//! Builds that this host could not start, and stores in places of their own.

use cbagent::adapters::builds::{PlaceError, lead};
use cbagent::adapters::startable::{Selinux, why_not_mounted_for_it, why_not_startable};
use cbagent::adoption::{Entry, entry};
use cbddc_tests::SmallDisk;
use rustix::fs::{XattrFlags, setxattr};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const LABEL: &str = "system_u:object_r:var_lib_t:s0";
const INIT: &str = "system_u:system_r:init_t:s0";

fn program() -> Entry {
    Entry {
        path: "bin/node".into(),
        is_program: true,
    }
}

fn tree(mode: u32) -> TempDir {
    let tree = tempfile::tempdir().expect("a temporary folder");
    let file = tree.path().join("bin/node");
    fs::create_dir(tree.path().join("bin")).expect("a new folder");
    fs::write(&file, "#!/bin/sh\n").expect("a file can be written");
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("a mode can be set");
    tree
}

/// A kernel's selinuxfs as files: what it answers stands behind the question that it will be asked.
fn selinux(folder: &Path, enforce: &str, allowed: &str) -> Selinux {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a new folder");
        fs::write(path, text).expect("a file can be written");
    };
    write("enforce", enforce);
    write("class/file/index", "6");
    write("class/file/perms/execute", "15");
    write("current", &format!("{INIT}\0"));
    let question = format!("{INIT} {LABEL} 6");
    let answer = format!("{allowed} ffffffff 0 ffffffff 17 0");
    write("access", &format!("{}{answer}", " ".repeat(question.len())));
    Selinux {
        folder: folder.to_owned(),
        starter: folder.join("current"),
        attribute: "user.cbddc-label".into(),
    }
}

fn reason(tree: &Path, entry: &Entry, selinux: &Selinux) -> Option<String> {
    why_not_startable(tree, entry, selinux).expect("it can be told")
}

#[test]
fn what_a_command_runs_of_a_build() {
    let of = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        entry(&words, Path::new("/store/current"))
    };
    assert_eq!(of(&["/store/current/bin/node", "--x"]), Some(program()));
    let read = of(&["/usr/bin/dotnet", "/store/current/Node.dll"]).expect("an entry");
    assert_eq!(
        (read.path.as_path(), read.is_program),
        (Path::new("Node.dll"), false)
    );
    assert_eq!(
        of(&["/usr/bin/dotnet", "run", "/store/current/Node.dll"]),
        None
    );
    assert_eq!(of(&["/store/current/../node"]), None);
    assert_eq!(of(&["/opt/cbddc/node"]), None);
}

#[test]
fn a_build_without_what_is_started_is_told() {
    let off = Selinux {
        folder: "/no/such/folder".into(),
        ..Selinux::default()
    };
    assert_eq!(reason(tree(0o555).path(), &program(), &off), None);
    let why = reason(tree(0o444).path(), &program(), &off).expect("a reason");
    assert!(why.contains("may not be executed"), "{why}");
    let other = |path: &str, is_program| Entry {
        path: path.into(),
        is_program,
    };
    let why = reason(tree(0o555).path(), &other("node", true), &off).expect("a reason");
    assert!(why.contains("has no file node"), "{why}");
    let why = reason(tree(0o555).path(), &other("bin", true), &off).expect("a reason");
    assert!(why.contains("is no file"), "{why}");
    // An interpreter reads it.
    assert_eq!(
        reason(tree(0o444).path(), &other("bin/node", false), &off),
        None
    );
}

#[test]
fn a_label_that_selinux_would_not_start_is_told() {
    let (tree, kernel) = (
        tree(0o555),
        tempfile::tempdir().expect("a temporary folder"),
    );
    let file = tree.path().join("bin/node");
    // Permission 15 is bit 14.
    let deny = selinux(kernel.path(), "1", "ffffbfff");
    assert_eq!(
        reason(tree.path(), &program(), &deny),
        None,
        "it has no label"
    );
    setxattr(
        &file,
        "user.cbddc-label",
        LABEL.as_bytes(),
        XattrFlags::empty(),
    )
    .expect("the disk of temporary files takes attributes");
    let why = reason(tree.path(), &program(), &deny).expect("a reason");
    for words in [LABEL, INIT, "restorecon", "store_dir"] {
        assert!(why.contains(words), "{why}");
    }
    let allow = selinux(kernel.path(), "1", "00004000");
    assert_eq!(reason(tree.path(), &program(), &allow), None);
    let permissive = selinux(kernel.path(), "0", "0");
    assert_eq!(reason(tree.path(), &program(), &permissive), None);
    let odd = selinux(kernel.path(), "1", "zz");
    why_not_startable(tree.path(), &program(), &odd).expect_err("no answer");
}

#[test]
fn a_file_system_without_programs_is_told() {
    let ground = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(why_not_mounted_for_it(ground.path()).expect("a look"), None);
    let Some(disk) = SmallDisk::without_programs() else {
        return;
    };
    let why = why_not_mounted_for_it(disk.path()).expect("a look");
    assert!(why.is_some_and(|why| why.contains("noexec")));
}

fn shown(error: Result<(), PlaceError>) -> String {
    error.expect_err("it cannot be there").to_string()
}

#[test]
fn a_store_leads_to_its_place_and_never_leaves_builds_behind() {
    let ground = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| -> PathBuf { ground.path().join(name) };
    let link = at("store");
    lead(&link, None).expect("a folder of its own, later");
    assert!(!link.exists());

    // Twice is the same as once; what holds no build is no store yet.
    for folder in ["builds", "incoming/begun"] {
        fs::create_dir_all(link.join(folder)).expect("a new folder");
    }
    for _ in 0..2 {
        lead(&link, Some(&at("releases"))).expect("a place of its own");
        assert_eq!(fs::read_link(&link).expect("a link"), at("releases"));
    }
    assert!(at("releases").is_dir());

    // Another setting, or none, while builds are there.
    let text = shown(lead(&link, Some(&at("other"))));
    assert!(
        text.contains("stop cbagent, move everything from"),
        "{text}"
    );
    let text = shown(lead(&link, None));
    assert!(
        text.contains(&at("releases").display().to_string()),
        "{text}"
    );
    assert!(!at("other").exists());

    fs::remove_file(&link).expect("a link can be removed");
    fs::create_dir_all(link.join("builds/one")).expect("a new folder");
    let text = shown(lead(&link, Some(&at("releases"))));
    assert!(text.contains("but are in"), "{text}");
    assert!(link.join("builds/one").is_dir());

    // What is above must be there: a disk that is not mounted is not a folder to fill.
    let text = shown(lead(&at("new"), Some(&at("no/such"))));
    assert!(text.contains("ReadWritePaths"), "{text}");
    symlink("/nowhere", at("strange")).expect("a new link");
    shown(lead(&at("strange"), Some(&at("releases"))));
}
