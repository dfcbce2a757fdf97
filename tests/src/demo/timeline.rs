//! The journals of all nodes as one story: when, where, who, what and why.

use super::stage::Stage;
use crate::mesh::TestMesh;
use serde_json::Value;

/// More than a demonstration writes.
const LIMIT: &str = "1000";

/// What each step of a switch writes down; left out here, because the story is told without it.
const STEPS: &[&str] = &[
    "build_stored",
    "committed",
    "drain",
    "known_good",
    "note",
    "point",
    "probation_clean",
    "snapshot",
    "start",
    "stop",
    "voted",
];

/// One line of the story: the same entry on one or several nodes.
struct Line {
    at: String,
    nodes: Vec<String>,
    who: String,
    what: String,
    text: String,
}

/// Shows it; panics when the journals do not tell what was played.
#[track_caller]
pub fn show(stage: &Stage, mesh: &TestMesh) {
    stage.act("the timeline, from `cbctl journal list`, without the steps of each switch");
    let list = ["journal", "list", "-o", "json", "--limit", LIMIT];
    let entries = mesh.cbctl(&list).expect(0).json()["entries"].clone();
    let entries = entries.as_array().cloned().unwrap_or_default();
    let lines = lines(&entries);
    for line in &lines {
        let time = line.at.split(['T', ' ']).nth(1).unwrap_or(&line.at);
        println!(
            "  {time:13} {:9} {:6} {:16} {}",
            line.nodes.join(","),
            line.who,
            line.what,
            line.text
        );
    }
    let steps = entries.len();
    stage.say(&format!(
        "{} of {steps} entries; all of them: `cbctl journal list`",
        lines.len()
    ));
    for (what, word) in [
        ("decided", "cbddc@1.0"),
        ("decided", "cbddc@1.1"),
        ("switch_began", "cbddc@1.2"),
        ("revert_began", ""),
    ] {
        let told = |line: &Line| line.what == what && line.text.contains(word);
        assert!(
            lines.iter().any(told),
            "the timeline does not tell {what} {word}"
        );
    }
}

/// The entries that tell the story, equal ones of several nodes in one line.
fn lines(entries: &[Value]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for entry in entries {
        let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let (what, text, node) = (field("kind"), field("text"), field("node"));
        if STEPS.contains(&what.as_str()) {
            continue;
        }
        let same = lines
            .iter_mut()
            .rev()
            .take(5)
            .find(|line| line.what == what && line.text == text && !line.nodes.contains(&node));
        match same {
            Some(line) => line.nodes.push(node),
            None => lines.push(Line {
                at: field("at"),
                nodes: vec![node],
                who: field("actor"),
                what,
                text,
            }),
        }
    }
    lines
}
