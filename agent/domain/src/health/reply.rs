//! What an answer on a health address is worth.

use super::{Status, quoted};

/// What a node answered on its health address, taken apart by the adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReply {
    /// The HTTP status code.
    pub code: u16,
    /// The status word: the whole of a plain text, or the `status` of a JSON object.
    pub word: String,
    /// The `results` or `entries` of a JSON object: name and status word.
    pub entries: Vec<(String, String)>,
    /// Where a redirect points to.
    pub location: Option<String>,
}

/// Judges a reply: status code, status word and entries together; the worst wins.
///
/// ASP.NET answers `Healthy` and `Degraded` with 200 and `Unhealthy` with 503, in plain text unless
/// the service writes JSON (`EntglDb.AspNet/HealthChecks`).
pub fn judge_reply(reply: &HealthReply) -> (Status, String) {
    if (300..400).contains(&reply.code) {
        return (Status::Unknown, redirect_sentence(reply));
    }
    let by_code = status_of_code(reply.code);
    let by_word = Status::from_word(&reply.word).unwrap_or(Status::Unknown);
    let by_entries = reply
        .entries
        .iter()
        .map(|(_, word)| entry_status(word))
        .max()
        .unwrap_or(Status::Healthy);
    let status = by_code.max(by_word).max(by_entries);
    (status, reply_sentence(reply, status))
}

fn status_of_code(code: u16) -> Status {
    match code {
        200..=299 => Status::Healthy,
        // A wrong address or missing rights: it tells nothing about the node's health.
        400..=499 => Status::Unknown,
        500..=599 => Status::Unhealthy,
        _ => Status::Unknown,
    }
}

fn entry_status(word: &str) -> Status {
    Status::from_word(word).unwrap_or(Status::Unknown)
}

fn redirect_sentence(reply: &HealthReply) -> String {
    let target = reply
        .location
        .as_deref()
        .map_or("nowhere".to_owned(), quoted);
    format!(
        "answered {} and points to {target}; it is not followed, configure the final address",
        reply.code
    )
}

fn reply_sentence(reply: &HealthReply, status: Status) -> String {
    let word = match Status::from_word(&reply.word) {
        Some(known) => known.as_str().to_owned(),
        None if reply.word.trim().is_empty() => "nothing".to_owned(),
        None => quoted(&reply.word),
    };
    let mut sentence = format!("answered {} with {word}", reply.code);
    let bad: Vec<String> = reply
        .entries
        .iter()
        .filter(|(_, word)| entry_status(word) != Status::Healthy)
        .take(ENTRIES_NAMED_MAX)
        .map(|(name, word)| format!("{} is {}", quoted(name), quoted(word)))
        .collect();
    if !bad.is_empty() {
        sentence.push_str(": ");
        sentence.push_str(&bad.join(", "));
    }
    if status_of_code(reply.code) != status && Status::from_word(&reply.word) != Some(status) {
        sentence.push_str(&format!(", which counts as {status}"));
    }
    sentence
}

/// How many failing entries a sentence names.
const ENTRIES_NAMED_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::super::Status::{self, Degraded, Healthy, Unhealthy, Unknown};
    use super::{HealthReply, judge_reply};

    #[test]
    fn code_word_and_entries_together_and_the_worst_wins() {
        type Case = (
            u16,
            &'static str,
            &'static [(&'static str, &'static str)],
            Status,
            &'static str,
        );
        let cases: [Case; 15] = [
            (200, "Healthy", &[], Healthy, "answered 200 with Healthy"),
            (
                200,
                " healthy\r\n",
                &[],
                Healthy,
                "answered 200 with Healthy",
            ),
            (200, "Degraded", &[], Degraded, "answered 200 with Degraded"),
            (
                503,
                "Unhealthy",
                &[],
                Unhealthy,
                "answered 503 with Unhealthy",
            ),
            (503, "Healthy", &[], Unhealthy, "answered 503 with Healthy"),
            (
                200,
                "Unhealthy",
                &[],
                Unhealthy,
                "answered 200 with Unhealthy",
            ),
            (
                200,
                "Healthy",
                &[("db", "Healthy")],
                Healthy,
                "answered 200 with Healthy",
            ),
            (
                200,
                "Healthy",
                &[("db", "Unhealthy"), ("a", "Healthy")],
                Unhealthy,
                "answered 200 with Healthy: \"db\" is \"Unhealthy\", which counts as Unhealthy",
            ),
            (
                200,
                "Healthy",
                &[("db", "so so")],
                Unknown,
                "answered 200 with Healthy: \"db\" is \"so so\", which counts as Unknown",
            ),
            (
                200,
                "fine, thanks",
                &[],
                Unknown,
                "answered 200 with \"fine, thanks\", which counts as Unknown",
            ),
            (
                200,
                "",
                &[],
                Unknown,
                "answered 200 with nothing, which counts as Unknown",
            ),
            (503, "oh no", &[], Unhealthy, "answered 503 with \"oh no\""),
            (404, "Healthy", &[], Unknown, "answered 404 with Healthy"),
            (500, "", &[], Unhealthy, "answered 500 with nothing"),
            (101, "Healthy", &[], Unknown, "answered 101 with Healthy"),
        ];
        for (code, word, entries, status, sentence) in cases {
            let entries = entries
                .iter()
                .map(|(name, word)| (name.to_string(), word.to_string()))
                .collect();
            let reply = HealthReply {
                code,
                word: word.to_owned(),
                entries,
                location: None,
            };
            assert_eq!(
                judge_reply(&reply),
                (status, sentence.to_owned()),
                "{reply:?}"
            );
        }
    }

    #[test]
    fn a_redirect_is_reported_whatever_its_body_says() {
        let location = Some("https://elsewhere/health".to_owned());
        let reply = HealthReply {
            code: 307,
            word: "Healthy".into(),
            entries: Vec::new(),
            location,
        };
        let (status, sentence) = judge_reply(&reply);
        assert_eq!(status, Unknown);
        assert!(
            sentence.contains("307 and points to \"https://elsewhere/health\""),
            "{sentence}"
        );
    }

    #[test]
    fn foreign_words_are_cut_and_cannot_break_a_line() {
        let word = format!("bad\n\u{1b}[31m{}", "é".repeat(300));
        let reply = HealthReply {
            code: 200,
            word,
            entries: Vec::new(),
            location: None,
        };
        let (_, sentence) = judge_reply(&reply);
        assert!(!sentence.contains(char::is_control), "{sentence:?}");
        assert!(
            sentence.chars().count() < 140 && sentence.contains('…'),
            "{sentence}"
        );
    }
}
