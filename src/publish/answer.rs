//! What an answer means for the request that it answers. Dialects differ in nothing else about failure.
//!
//! `testdata/publish/answers.toml` is the table; the tests read it.

use std::time::Duration;

use crate::model::Timestamp;

/// The longest text that is kept of an answer, in bytes.
pub(super) const LONGEST_TEXT: usize = 512;

/// The names of what answers mean.
pub const ANSWER_CLASSES: [&str; 6] = ["ok", "retry", "reject", "auth", "gone", "too_large"];

/// What an answer means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Everything was taken.
    Ok,
    /// The server or the way to it fails: the same request is sent again.
    Retry {
        /// How long the server asked to wait.
        after: Option<Duration>,
        /// What it said.
        why: String,
        /// Whether a record may be the cause: a server's own error, not its absence or a limit.
        of_content: bool,
    },
    /// The server refuses what the request says, or a part of it.
    Reject {
        /// What it said.
        why: String,
    },
    /// The server does not know or not admit this client. Nothing is wrong with the data, so it is held.
    Auth {
        /// What it said.
        why: String,
    },
    /// What the data is for does not exist there: the database, the bucket, the path. The data is held.
    Gone {
        /// What it said.
        why: String,
    },
    /// The request is larger than the server accepts.
    TooLarge {
        /// What it said.
        why: String,
    },
}

impl Answer {
    /// The name of what it means, in documents and as a label.
    #[must_use]
    pub(super) const fn class_name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Auth { .. } => "auth",
            Self::Gone { .. } => "gone",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

/// The part of an HTTP answer that decides.
#[derive(Copy, Clone, Debug)]
pub(super) struct HttpAnswer<'a> {
    /// The status, 100 to 999.
    pub status: u16,
    /// The `Retry-After` header.
    pub retry_after: Option<&'a str>,
    /// The start of the body.
    pub body: &'a [u8],
}

/// Judges an answer to line protocol, of `InfluxDB` 1, 2 and 3, and of what speaks like them.
#[must_use]
pub(super) fn judge_influxdb(answer: HttpAnswer<'_>, now: Timestamp) -> Answer {
    let text = shown_text(answer.body);
    let why = describe_status(answer.status, &text);
    match answer.status {
        204 => Answer::Ok,
        // InfluxDB 1 answers 200 with an error to a write that it understood and could not complete.
        200..=299 if text.is_empty() || text == "{}" => Answer::Ok,
        200..=299 if text.starts_with('{') => Answer::Reject { why },
        // A page for people: this is no database.
        200..=399 | 404 | 405 | 410 => Answer::Gone { why },
        400 if names_missing_place(&text) => Answer::Gone { why },
        401 | 403 | 407 => Answer::Auth { why },
        408 | 425 | 429 | 500.. => {
            let after = parse_retry_after(answer.retry_after, now);
            Answer::Retry { after, why, of_content: answer.status == 500 }
        }
        413 => Answer::TooLarge { why },
        _ => Answer::Reject { why },
    }
}

/// Whether an error of `InfluxDB` 1 says that the database or the retention policy is missing. Only the start is compared: the rest
/// may quote names that a container chose.
fn names_missing_place(text: &str) -> bool {
    let error = text.strip_prefix("{\"error\":\"").unwrap_or(text);
    error.starts_with("database not found") || error.starts_with("retention policy not found")
}

/// `Retry-After`: seconds, or a date.
fn parse_retry_after(header: Option<&str>, now: Timestamp) -> Option<Duration> {
    let header = header?.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(header).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_secs(i64::try_from(at.as_secs()).ok()?).duration_since(now))
}

/// The status, and what the server said beside it.
fn describe_status(status: u16, text: &str) -> String {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let reason = reason.map_or(String::new(), |reason| format!(" {reason}"));
    if text.is_empty() { format!("{status}{reason}") } else { format!("{status}{reason}: {text}") }
}

/// The start of a body as one line of text: no control characters, no bytes that are not UTF-8.
fn shown_text(body: &[u8]) -> String {
    let start = body.get(..LONGEST_TEXT).unwrap_or(body);
    let text = String::from_utf8_lossy(start);
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Table {
        answer: Vec<Row>,
    }

    #[derive(Debug, Deserialize)]
    struct Row {
        dialect: String,
        status: u16,
        retry_after: Option<String>,
        #[serde(default)]
        body: String,
        means: String,
        after: Option<u64>,
        why: Option<String>,
    }

    #[test]
    fn every_row_of_the_table_holds() {
        let table: Table = toml::from_str(include_str!("../../testdata/publish/answers.toml")).unwrap();
        let now = Timestamp::from_secs(1_767_225_600);
        for row in &table.answer {
            assert_eq!(row.dialect, "influxdb");
            let (retry_after, body) = (row.retry_after.as_deref(), row.body.as_bytes());
            let answer = judge_influxdb(HttpAnswer { status: row.status, retry_after, body }, now);
            assert_eq!(answer.class_name(), row.means, "{row:?}");
            let why = match &answer {
                Answer::Ok => None,
                Answer::Retry { why, .. }
                | Answer::Reject { why }
                | Answer::Auth { why }
                | Answer::Gone { why }
                | Answer::TooLarge { why } => Some(why),
            };
            if let Answer::Retry { after, .. } = answer {
                assert_eq!(after.map(|after| after.as_secs()), row.after, "{row:?}");
            }
            if let Some(expected) = &row.why {
                assert_eq!(why, Some(expected), "{row:?}");
            }
        }
        assert!(table.answer.len() > 20, "the table is read");
    }

    #[test]
    fn every_status_and_any_body_has_a_meaning_and_a_short_text() {
        let body = [b"\x1b[31m\xff\0\n".as_slice(), &vec![b'x'; 1 << 16]].concat();
        for status in 100..=999 {
            let answer = HttpAnswer { status, retry_after: Some("soon"), body: &body };
            match judge_influxdb(answer, Timestamp::default()) {
                Answer::Ok => assert_eq!(status, 204),
                Answer::Retry { why, after, .. } => assert!(why.len() < 1024 && after.is_none()),
                Answer::Reject { why }
                | Answer::Auth { why }
                | Answer::Gone { why }
                | Answer::TooLarge { why } => {
                    assert!(why.len() < 1024 && !why.contains(['\x1b', '\n']), "{why}");
                }
            }
        }
    }
}
