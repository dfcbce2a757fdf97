//! What a monitoring plugin says, by the guidelines of monitoring-plugins.org: the exit code is the
//! status, the first line is for people, and figures follow a `|`.

use super::{Status, quoted};

/// The most figures that are kept of one run.
const FIGURES_MAX: usize = 32;

/// The longest label of a figure, in characters.
const LABEL_CHARS_MAX: usize = 64;

/// A figure, as in `'/var'=2643MB;5948;5958;0;5968`.
#[derive(Debug, Clone, PartialEq)]
pub struct Perf {
    /// What it is of.
    pub label: String,
    /// The value.
    pub value: f64,
    /// Its unit: `s`, `%`, `B`, `c` or empty, among others.
    pub unit: String,
}

/// A run, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginReport {
    /// What the exit code means.
    pub status: Status,
    /// The first line without its figures, cut and clean.
    pub text: String,
    /// The figures of all lines.
    pub figures: Vec<Perf>,
}

/// Reads what a plugin has written and how it ended: 0 is healthy, 1 degraded, 2 unhealthy. Anything
/// else says nothing, as does `None`, the end by a signal.
pub fn read_plugin(code: Option<i32>, output: &str) -> PluginReport {
    let status = match code {
        Some(0) => Status::Healthy,
        Some(1) => Status::Degraded,
        Some(2) => Status::Unhealthy,
        Some(_) | None => Status::Unknown,
    };
    let mut lines = output.lines();
    let first = lines.next().unwrap_or_default();
    let (text, mut perfdata) = match first.split_once('|') {
        Some((text, perfdata)) => (text, perfdata.to_owned()),
        None => (first, String::new()),
    };
    // Longer text may follow, and more figures after another bar up to the end.
    let rest: Vec<&str> = lines.collect();
    if let Some((_, more)) = rest.join("\n").split_once('|') {
        perfdata.push(' ');
        perfdata.push_str(more);
    }
    let said = match text.trim() {
        "" => "it wrote nothing".to_owned(),
        text => clean(text),
    };
    let text = match code {
        Some(0..=2) => said,
        Some(3) => said,
        Some(code) => format!("ended with exit code {code}, which is none of 0 to 3: {said}"),
        None => format!("was ended by a signal: {said}"),
    };
    PluginReport {
        status,
        text,
        figures: figures(&perfdata),
    }
}

/// The longest line that is shown, in characters; a plugin's words are meant for people.
const TEXT_CHARS_MAX: usize = 200;

fn clean(text: &str) -> String {
    if text.chars().count() > TEXT_CHARS_MAX {
        return quoted(text);
    }
    text.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Reads figures separated by spaces; what is none is passed over.
fn figures(text: &str) -> Vec<Perf> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && found.len() < FIGURES_MAX {
        let (label, after) = label(rest);
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (value, next) = after.split_at(end);
        if let Some(value) = value.strip_prefix('=') {
            found.extend(figure(label, value));
        }
        rest = next.trim_start();
    }
    found
}

/// Splits off a label, which may stand in single quotes, doubled inside.
fn label(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('\'') else {
        let end = text.find(['=', ' ', '\n', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut label = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if c != '\'' {
            label.push(c);
        } else if characters.peek().is_some_and(|(_, next)| *next == '\'') {
            characters.next();
            label.push('\'');
        } else {
            return (label, &quoted[at + 1..]);
        }
    }
    (label, "")
}

fn figure(label: String, text: &str) -> Option<Perf> {
    let value = text.split(';').next()?;
    let is_digit = |c: char| c.is_ascii_digit() || ".-+".contains(c);
    let end = value.find(|c| !is_digit(c)).unwrap_or(value.len());
    let number: f64 = value[..end]
        .parse()
        .ok()
        .filter(|it: &f64| it.is_finite())?;
    let label: String = label.chars().filter(|c| !c.is_control()).collect();
    let label: String = label.chars().take(LABEL_CHARS_MAX).collect();
    let unit: String = value[end..].chars().take(8).collect();
    (!label.is_empty()).then_some(Perf {
        label,
        value: number,
        unit,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Status::{self, Degraded, Healthy, Unhealthy, Unknown};
    use super::read_plugin;

    /// Label, value and unit.
    type Figure = (&'static str, f64, &'static str);

    #[track_caller]
    fn check(code: Option<i32>, output: &str, status: Status, text: &str, figures: &[Figure]) {
        let report = read_plugin(code, output);
        assert_eq!(
            (report.status, report.text.as_str()),
            (status, text),
            "{output:?}"
        );
        let found = report.figures.iter();
        let found: Vec<(&str, f64, &str)> = found
            .map(|figure| (figure.label.as_str(), figure.value, figure.unit.as_str()))
            .collect();
        assert_eq!(found, figures, "{output:?}");
    }

    #[test]
    fn plugins_by_the_guidelines_are_read() {
        check(Some(0), "LOAD OK - 0.1\n", Healthy, "LOAD OK - 0.1", &[]);
        check(Some(1), "W | a=1", Degraded, "W", &[("a", 1.0, "")]);
        check(Some(2), "C", Unhealthy, "C", &[]);
        check(Some(3), "U", Unknown, "U", &[]);
        let odd = "ended with exit code 127, which is none of 0 to 3: it wrote nothing";
        check(Some(127), "", Unknown, odd, &[]);
        check(None, "x", Unknown, "was ended by a signal: x", &[]);
        check(
            Some(0),
            "DISK OK | /=2643MB;5948;5958;0;5968 '/a b''c'=-1.5%;;;0\nlong\ntext | /home=3B\n/usr=4c\n",
            Healthy,
            "DISK OK",
            &[
                ("/", 2643.0, "MB"),
                ("/a b'c", -1.5, "%"),
                ("/home", 3.0, "B"),
                ("/usr", 4.0, "c"),
            ],
        );
        check(Some(0), "X | a=U b c=1", Healthy, "X", &[("c", 1.0, "")]);
        check(Some(0), "X | 'open=1", Healthy, "X", &[]);
    }

    #[test]
    fn foreign_words_and_figures_are_bounded() {
        let many: String = (0..1_000).map(|n| format!("f{n}=1 ")).collect();
        let report = read_plugin(Some(0), &format!("\u{1b}[31m{}|{many}", "x".repeat(9_000)));
        assert!(report.text.len() < 300 && !report.text.contains('\u{1b}'));
        assert_eq!(report.figures.len(), super::FIGURES_MAX);
    }
}
