//! What a node said last, made fit to be shown: bounded, plain, and without secrets. Pure.

/// How many lines are kept, and how many bytes of them.
const LINES_MAX: usize = 20;
const BYTES_MAX: usize = 4_096;

/// The most bytes of one line; a message of .NET with its class has some hundred.
const LINE_BYTES_MAX: usize = 400;

/// What stands in the place of a secret.
const MASK: &str = "…";

/// Words that name a secret when `=` or `:` and its value follow, in small letters.
const NAMES: [&str; 7] = [
    "password", "passwd", "pwd", "secret", "token", "apikey", "api_key",
];

/// Of a log's end the last lines, oldest first, in which none of the `secrets` and nothing that is given
/// as a password can be read.
pub(crate) fn last_lines(text: &str, secrets: &[String]) -> Vec<String> {
    let lines = text.lines().map(str::trim_end);
    let lines = lines.filter(|line| !line.is_empty());
    let (mut kept, mut bytes) = (Vec::new(), 0);
    for line in lines.rev().take(LINES_MAX) {
        let line = plain(&masked(line, secrets));
        bytes += line.len();
        if bytes > BYTES_MAX {
            break;
        }
        kept.push(line);
    }
    kept.reverse();
    kept
}

/// Secrets first: a line that is cut could leave a part of one.
fn masked(line: &str, secrets: &[String]) -> String {
    let mut line = line.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        line = line.replace(secret.as_str(), MASK);
    }
    mask_values(&line)
}

/// Masks what follows `password=`, `"AuthToken": ` and their like, up to the end of the value.
fn mask_values(line: &str) -> String {
    // The letters are the same bytes in both.
    let small = line.to_ascii_lowercase();
    let mut masked = String::new();
    let mut at = 0;
    while let Some(value) = next_value(&small, at) {
        masked.push_str(&line[at..value.start]);
        masked.push_str(MASK);
        at = value.end;
    }
    masked + &line[at..]
}

/// Where the next value of a secret stands.
fn next_value(small: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let found = NAMES.iter().filter_map(|name| {
        let mut rest = from;
        loop {
            let end = rest + small[rest..].find(name)? + name.len();
            if let Some(value) = value_after(small, end) {
                return Some(value);
            }
            rest = end;
        }
    });
    found.min_by_key(|value| value.start)
}

fn value_after(small: &str, name_end: usize) -> Option<std::ops::Range<usize>> {
    let after = small[name_end..].trim_start_matches(['"', '\'', ' ']);
    let after = after.strip_prefix(['=', ':'])?.trim_start_matches(' ');
    let (value, is_end): (&str, fn(char) -> bool) = match after.strip_prefix(['"', '\'']) {
        Some(quoted) => (quoted, |c| matches!(c, '"' | '\'')),
        None => (after, |c| {
            c.is_whitespace() || matches!(c, ';' | ',' | '}' | ')' | '&')
        }),
    };
    let start = small.len() - value.len();
    let end = start + value.find(is_end).unwrap_or(value.len());
    (end > start).then_some(start..end)
}

/// One line without control characters, and cut.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    for c in line.chars() {
        if plain.len() >= LINE_BYTES_MAX {
            plain.push('…');
            break;
        }
        plain.push(if c.is_control() { ' ' } else { c });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, LINES_MAX, last_lines};

    #[test]
    fn the_end_is_kept_within_bounds() {
        let text: String = (0..100)
            .map(|number| format!("line {number}\n\n"))
            .collect();
        let lines = last_lines(&text, &[]);
        assert_eq!((lines.len(), lines[0].as_str()), (LINES_MAX, "line 80"));
        let long = format!("{}\n", "é".repeat(5_000)).repeat(30);
        let lines = last_lines(&long, &[]);
        assert!(lines.iter().map(String::len).sum::<usize>() <= BYTES_MAX);
        assert!(lines[0].ends_with("é…"), "{}", lines[0]);
        assert_eq!(last_lines("a\u{1b}[31mb\tc\r\n", &[]), ["a [31mb c"]);
        assert!(last_lines("", &[]).is_empty());
    }

    #[test]
    fn secrets_are_masked() {
        let cases = [
            ("the key is hunter22, says é", "the key is …, says é"),
            (
                "Server=db;Password=p w;User=a",
                "Server=db;Password=… w;User=a",
            ),
            ("Pwd='p w';User=a", "Pwd='…';User=a"),
            (
                r#"{"AuthToken": "abc", "Port": 1}"#,
                r#"{"AuthToken": "…", "Port": 1}"#,
            ),
            ("token:abc token=def", "token:… token=…"),
            (
                "the token was refused; password =",
                "the token was refused; password =",
            ),
            ("passwords: 3", "passwords: 3"),
            ("SECRET=É", "SECRET=…"),
        ];
        for (line, shown) in cases {
            assert_eq!(
                last_lines(line, &["hunter22".into(), String::new()]),
                [shown]
            );
        }
    }
}
