//! The wire contract is its own manual: every service, call, message field and value has a comment.

use super::{files, none};

/// What a line declares, if it needs a comment.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim();
    let starts = |word: &str| line.starts_with(&format!("{word} "));
    if starts("rpc") || starts("service") || starts("reserved") {
        return Some(line);
    }
    let (before, after) = line.split_once(" = ")?;
    let number = after.split([';', ' ']).next()?;
    let is_field = number.parse::<u32>().is_ok() && !before.is_empty();
    // The zero of an enumeration only says that nothing was said.
    let unset = before.ends_with("_UNSPECIFIED");
    (is_field && !unset).then_some(line)
}

/// A comment covers the declarations that follow it without an empty line or a bracket in between,
/// so that a pair such as `wall` and `logic` may share one.
fn faults_of(file: &str, text: &str) -> Vec<String> {
    let mut commented = false;
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let plain = line.trim();
        if plain.starts_with("//") {
            commented = true;
        } else if let Some(what) = declared(line) {
            if !commented && !plain.contains("//") {
                faults.push(format!(
                    "{file}:{}: `{what}` has no comment: say what it means, its unit, and what unset \
                     means",
                    number + 1
                ));
            }
            commented &= !plain.ends_with('{');
        } else {
            commented = false;
        }
    }
    faults
}

#[test]
fn every_call_and_field_has_a_comment() {
    let protos = files("proto/cbddc", ".proto");
    let faults: Vec<String> = protos
        .iter()
        .flat_map(|(file, text)| faults_of(file, text))
        .collect();
    none(&faults);
}

#[test]
fn one_service_a_file_in_the_right_package() {
    let mut faults = Vec::new();
    for (file, text) in files("proto/cbddc", ".proto") {
        if !text.contains("\npackage cbddc.agent.v1;\n") {
            faults.push(format!("{file}: put it into the package cbddc.agent.v1"));
        }
        let services = text.lines().filter(|line| line.starts_with("service "));
        let shared = ["/types.proto", "/roster.proto"];
        let most = usize::from(!shared.iter().any(|name| file.ends_with(name)));
        if services.count() != most {
            faults.push(format!(
                "{file}: a file has one service, types and roster none"
            ));
        }
    }
    none(&faults);
}

#[test]
fn missing_comments_are_seen() {
    let text = "// S.\nservice S {\n  rpc A(B) returns (C);\n}\nmessage B {\n  // x.\n  int32 x = 1;\n  int32 y = 2;\n\n  int32 z = 3;\n}";
    let faults = faults_of("f", text);
    assert_eq!(faults.len(), 2, "{faults:?}");
}
