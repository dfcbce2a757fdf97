//! Takes apart what a node answers on its health address, in all the forms that CBDDC services use.

use crate::adapters::http::HttpAnswer;
use cbddc_domain::health::HealthReply;
use serde_json::{Map, Value};

/// How many entries of a report are looked at; a service has a handful.
const ENTRIES_MAX: usize = 100;

/// Reads plain text, `{"status":…,"results":…}` and `{"status":…,"entries":…}`. What is neither is
/// taken for a plain text, whose words are then unknown.
pub fn read_reply(answer: HttpAnswer) -> HealthReply {
    let HttpAnswer {
        code,
        location,
        body,
    } = answer;
    // A byte order mark is legal before JSON that .NET writes.
    let text = body.trim_start_matches('\u{feff}').trim();
    let (word, entries) = match serde_json::from_str(text) {
        Ok(Value::Object(report)) => {
            let entries = field(&report, "results").or_else(|| field(&report, "entries"));
            (
                field(&report, "status")
                    .map(status_word)
                    .unwrap_or_default(),
                entries.map(entries_of).unwrap_or_default(),
            )
        }
        // A writer of JSON that was given only the status: `"Healthy"`.
        Ok(Value::String(word)) => (word, Vec::new()),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) | Err(_) => {
            (text.to_owned(), Vec::new())
        }
    };
    HealthReply {
        code,
        word,
        entries,
        location,
    }
}

/// A field by its name, without regard to case: .NET writes both `status` and `Status`.
fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// `HealthStatus` is written as its name, or, by a serializer without a converter for names, as its
/// number (Microsoft.Extensions.Diagnostics.HealthChecks).
fn status_word(value: &Value) -> String {
    match (value.as_str(), value.as_u64()) {
        (Some(word), _) => word.to_owned(),
        (None, Some(0)) => "Unhealthy".to_owned(),
        (None, Some(1)) => "Degraded".to_owned(),
        (None, Some(2)) => "Healthy".to_owned(),
        (None, _) => value.to_string(),
    }
}

/// Entries come as an object of named reports, of plain words, or as a list of reports with names.
fn entries_of(value: &Value) -> Vec<(String, String)> {
    if let Some(reports) = value.as_object() {
        return reports
            .iter()
            .take(ENTRIES_MAX)
            .map(|(name, report)| (name.clone(), entry_word(report)))
            .collect();
    }
    let reports = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |report: &Value| {
        let name = report.as_object().and_then(|report| field(report, "name"));
        name.and_then(Value::as_str).unwrap_or("unnamed").to_owned()
    };
    reports
        .iter()
        .take(ENTRIES_MAX)
        .map(|report| (name(report), entry_word(report)))
        .collect()
}

fn entry_word(report: &Value) -> String {
    match report.as_object() {
        Some(report) => field(report, "status").map(status_word).unwrap_or_default(),
        None => status_word(report),
    }
}

#[cfg(test)]
mod tests {
    use super::read_reply;
    use crate::adapters::http::HttpAnswer;

    #[test]
    fn all_forms_of_a_health_report_are_read() {
        type Case = (
            &'static str,
            &'static str,
            &'static [(&'static str, &'static str)],
        );
        let cases: [Case; 16] = [
            ("Healthy", "Healthy", &[]),
            ("Degraded\r\n", "Degraded", &[]),
            ("\u{feff}Unhealthy", "Unhealthy", &[]),
            (r#"{"status":"Healthy","results":{}}"#, "Healthy", &[]),
            (r#"{"status":"Healthy","entries":{}}"#, "Healthy", &[]),
            (
                r#"{"status":"Degraded","results":{"db":{"status":"Degraded"}}}"#,
                "Degraded",
                &[("db", "Degraded")],
            ),
            (
                r#"{"Status":"Healthy","Entries":{"db":{"Status":"Unhealthy"}}}"#,
                "Healthy",
                &[("db", "Unhealthy")],
            ),
            (
                r#"{"status":2,"results":{"a":{"status":1},"b":{"status":0}}}"#,
                "Healthy",
                &[("a", "Degraded"), ("b", "Unhealthy")],
            ),
            (
                r#"{"status":"Healthy","entries":[{"name":"db","status":"Healthy"},{}]}"#,
                "Healthy",
                &[("db", "Healthy"), ("unnamed", "")],
            ),
            (
                r#"{"status":"Healthy","results":{"db":"Unhealthy"}}"#,
                "Healthy",
                &[("db", "Unhealthy")],
            ),
            (r#""Healthy""#, "Healthy", &[]),
            (r#"{"results":{}}"#, "", &[]),
            (r#"{"status":{"a":1}}"#, r#"{"a":1}"#, &[]),
            (r#"{"status":"Healthy""#, r#"{"status":"Healthy""#, &[]),
            ("[1]", "[1]", &[]),
            ("", "", &[]),
        ];
        for (body, word, entries) in cases {
            let reply = read_reply(HttpAnswer {
                code: 200,
                location: None,
                body: body.to_owned(),
            });
            let found: Vec<(&str, &str)> = reply
                .entries
                .iter()
                .map(|(n, w)| (n.as_str(), w.as_str()))
                .collect();
            assert_eq!(
                (reply.word.as_str(), found.as_slice()),
                (word, entries),
                "{body}"
            );
        }
    }
}
