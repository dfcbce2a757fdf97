//! The text of the files: length, leftovers, paths of one machine.

use super::{files, none, root, sources};
use std::fs;

/// The most lines of a file, its unit tests apart.
const LINES_MAX: usize = 450;

/// Files that are longer for a reason.
const LONGER: &[(&str, usize, &str)] = &[
    ("agent/domain/src/proposer.rs", 500, "one machine"),
    (
        "tests/src/sim/mesh.rs",
        600,
        "the simulated world; owed: a split",
    ),
    ("tests/src/sim/client.rs", 550, "one machine"),
    ("tests/src/sim/checker.rs", 550, "every rule in one place"),
    ("tests/it/builds.rs", 500, "cases"),
    ("tests/it/builds/bad_bundles.rs", 500, "cases"),
    ("tests/it/snapshots.rs", 600, "cases"),
    ("tests/it/vectors.rs", 600, "cases"),
];

/// Lines before the unit tests.
fn length(text: &str) -> usize {
    let code = text.split("#[cfg(test)]\nmod tests {").next();
    code.unwrap_or(text).lines().count()
}

#[test]
fn files_stay_short() {
    let mut faults = Vec::new();
    // Unit tests in a file of their own are no more counted than those below the code.
    let all = sources().into_iter();
    for (file, text) in all.filter(|(file, _)| !file.ends_with("/tests.rs")) {
        let longer = LONGER.iter().find(|(name, _, _)| *name == file);
        let most = longer.map_or(LINES_MAX, |(_, lines, _)| *lines);
        let lines = length(&text);
        if lines > most {
            faults.push(format!(
                "{file} has {lines} lines, more than {most}: find the two ideas in it and give each a \
                 file"
            ));
        }
    }
    none(&faults);
}

#[test]
fn nothing_is_left_over() {
    // Written in two parts, so that this file does not find itself.
    let banned = [
        (
            concat!("todo", "!("),
            "do it now, or say in an issue what is owed",
        ),
        (
            concat!("unimplemented", "!("),
            "do it now, or return an error that says so",
        ),
        (concat!("dbg", "!("), "take it out"),
        (
            concat!("/ho", "me/"),
            "a path of one machine means nothing elsewhere: find it at run time",
        ),
        (
            concat!("/ro", "ot/"),
            "a path of one machine means nothing elsewhere: find it at run time",
        ),
        (
            concat!("/wo", "rk/"),
            "a path of one machine means nothing elsewhere: find it at run time",
        ),
        (
            concat!("/tmp", "/"),
            "make a temporary folder with `tempfile`",
        ),
    ];
    let mut faults = Vec::new();
    for (file, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for (word, instead) in banned {
                if line.contains(word) {
                    faults.push(format!("{file}:{}: `{word}`: {instead}", number + 1));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn every_file_begins_with_its_purpose() {
    let without = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"));
    let faults: Vec<String> = without
        .map(|(file, _)| format!("{file}: begin it with `//!` and the purpose of the module"))
        .collect();
    none(&faults);
}

/// Functions that other tests run in a process of their own, to kill it; alone they test nothing.
const CHILDREN: &[&str] = &[
    "child_that_imports_and_removes",
    "child_that_restores",
    "an_agent_to_be_killed",
    "on_purpose",
];

#[test]
fn tests_leave_nothing_out() {
    let mut faults = Vec::new();
    for (file, text) in files("tests", ".rs") {
        for (_, after) in text
            .match_indices(concat!("#[ig", "nore"))
            .map(|(at, _)| text.split_at(at))
        {
            let name = after
                .split("fn ")
                .nth(1)
                .and_then(|rest| rest.split('(').next());
            if name.is_none_or(|name| !CHILDREN.contains(&name)) {
                faults.push(format!(
                    "{file} ignores {name:?}: let it run, or take it out"
                ));
            }
        }
    }
    none(&faults);
}

/// Where a database is opened for reading only: a node's in one way, and copies that nobody writes.
const OPENS_TO_READ: &[&str] = &[
    "agent/oplog/src/reading.rs",
    "agent/src/adapters/snapshots/copy.rs",
];

#[test]
fn a_nodes_database_is_opened_in_one_way() {
    let opens = |(file, text): &(String, String)| {
        let word = concat!("SQLITE_OPEN_", "READ_ONLY");
        text.contains(word) && !OPENS_TO_READ.contains(&file.as_str())
    };
    let found = files("agent", ".rs").into_iter().filter(opens);
    let faults: Vec<String> = found
        .map(|(file, _)| {
            format!("{file}: open it with `cbddc_oplog::open_to_read`, which leaves its log alone")
        })
        .collect();
    none(&faults);
}

#[test]
fn the_commands_of_the_readme_can_be_run() {
    use std::os::unix::fs::PermissionsExt as _;
    for script in ["tests/run", "tests/demo", ".ci/run"] {
        let path = root().join(script);
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert!(mode & 0o111 != 0, "{script} is not executable: chmod +x it");
    }
}
