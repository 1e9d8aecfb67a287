//! What an answer means for the request that it answers. Dialects differ in nothing else about failure.
//!
//! `testdata/publish/answers.toml` is the table; the tests read it.

use std::time::Duration;

use crate::model::Timestamp;
use crate::render::publish::{OtlpAnswer, decode_answer};

/// The longest text that is kept of an answer, in bytes.
pub(super) const LONGEST_TEXT: usize = 512;

/// The names of what answers mean.
pub const ANSWER_CLASSES: [&str; 8] =
    ["ok", "partly", "retry", "reject", "auth", "gone", "too_large", "unspoken"];

/// What an answer means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Everything was taken.
    Ok,
    /// Some of the records were refused, and the server does not say which. The request must not be repeated.
    Partly {
        /// How many.
        refused: u64,
        /// What it said.
        why: String,
    },
    /// The server or the way to it fails: the same request is sent again.
    Retry {
        /// How long the server asked to wait.
        after: Option<Duration>,
        /// What it said.
        why: String,
        /// Whether a record may be the cause: a server's own error, not its absence or a limit.
        of_content: bool,
        /// Whether the request may have been taken all the same.
        in_doubt: bool,
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
    /// The server does not understand this version of the protocol, and has taken nothing: the records are sent again in
    /// another.
    Unspoken {
        /// What it said.
        why: String,
    },
}

impl Answer {
    /// The name of what it means, in documents and as a label.
    #[must_use]
    pub const fn class_name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partly { .. } => "partly",
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Auth { .. } => "auth",
            Self::Gone { .. } => "gone",
            Self::TooLarge { .. } => "too_large",
            Self::Unspoken { .. } => "unspoken",
        }
    }

    /// What the server said, unless it has taken everything.
    #[must_use]
    pub fn server_text(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Partly { why, .. }
            | Self::Retry { why, .. }
            | Self::Reject { why }
            | Self::Auth { why }
            | Self::Gone { why }
            | Self::TooLarge { why }
            | Self::Unspoken { why } => Some(why),
        }
    }

    /// Whether the server may have taken some of the request, so that sending it again with other values is not safe.
    #[must_use]
    pub(super) const fn may_have_arrived(&self) -> bool {
        match self {
            Self::Ok | Self::Partly { .. } | Self::Reject { .. } => true,
            Self::Retry { in_doubt, .. } => *in_doubt,
            Self::Auth { .. } | Self::Gone { .. } | Self::TooLarge { .. } | Self::Unspoken { .. } => false,
        }
    }
}

/// What a request was written in.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum AnswerDialect {
    /// Line protocol, of `InfluxDB` 1, 2 and 3, and of what speaks like them.
    Influxdb,
    /// Prometheus remote write 1.0.
    RemoteWrite1,
    /// Prometheus remote write 2.0.
    RemoteWrite2 {
        /// Whether the server has shown that it understands it.
        is_known: bool,
    },
    /// OTLP over HTTP.
    Otlp,
    /// The routes of Datadog's intake.
    Datadog,
}

/// The part of an HTTP answer that decides.
#[derive(Copy, Clone, Debug)]
pub struct HttpAnswer<'a> {
    /// The status, 100 to 999.
    pub status: u16,
    /// The `Retry-After` header.
    pub retry_after: Option<&'a str>,
    /// Whether one of the headers `X-Prometheus-Remote-Write-…-Written` is there. What they count is not believed: Mimir's
    /// contain samples that it has refused.
    pub counts_written: bool,
    /// The start of the body.
    pub body: &'a [u8],
}

/// Judges an answer.
#[must_use]
pub fn judge_answer(dialect: AnswerDialect, answer: HttpAnswer<'_>, now: Timestamp) -> Answer {
    let text = shown_text(answer.body);
    let why = describe_status(answer.status, &text);
    if (200..300).contains(&answer.status) {
        return judge_success(dialect, answer, &text, why);
    }
    match answer.status {
        300..=399 | 404 | 405 | 410 => Answer::Gone { why },
        400 if dialect == AnswerDialect::Influxdb && names_missing_place(&text) => Answer::Gone { why },
        401 | 403 | 407 => Answer::Auth { why },
        408 | 425 | 429 | 500.. => Answer::Retry {
            after: parse_retry_after(answer.retry_after, now),
            why,
            of_content: answer.status == 500,
            in_doubt: answer.status >= 500 && answer.status != 503,
        },
        413 => Answer::TooLarge { why },
        status => match dialect {
            // A receiver of 1.0 alone may take a request of 2.0 for a damaged one.
            AnswerDialect::RemoteWrite2 { is_known }
                if status == 415 || !is_known && !answer.counts_written =>
            {
                Answer::Unspoken { why }
            }
            _ => Answer::Reject { why },
        },
    }
}

/// Judges an answer with a status of success.
fn judge_success(dialect: AnswerDialect, answer: HttpAnswer<'_>, text: &str, why: String) -> Answer {
    if text.starts_with('<') {
        // A page for people: this is no such server.
        return Answer::Gone { why };
    }
    match dialect {
        AnswerDialect::Influxdb if answer.status == 204 => Answer::Ok,
        // InfluxDB 1 answers 200 with an error to a write that it understood and could not complete.
        AnswerDialect::Influxdb if text.is_empty() || text == "{}" => Answer::Ok,
        AnswerDialect::Influxdb if text.starts_with('{') => Answer::Reject { why },
        AnswerDialect::Influxdb => Answer::Gone { why },
        AnswerDialect::RemoteWrite1 => Answer::Ok,
        AnswerDialect::RemoteWrite2 { .. } if answer.counts_written => Answer::Ok,
        // A receiver of 1.0 finds no field that it knows in a request of 2.0, and answers that all is well.
        AnswerDialect::RemoteWrite2 { .. } => Answer::Unspoken { why },
        AnswerDialect::Otlp => judge_otlp_success(answer.body, why),
        AnswerDialect::Datadog => match lists_errors(answer.body) {
            true => Answer::Reject { why },
            false => Answer::Ok,
        },
    }
}

fn judge_otlp_success(body: &[u8], why: String) -> Answer {
    let decoded = match body.first() {
        Some(b'{') => decode_json_answer(body),
        _ => decode_answer(body).ok(),
    };
    match decoded {
        Some(OtlpAnswer { rejected: 0, .. }) => Answer::Ok,
        Some(OtlpAnswer { rejected, message }) => {
            let message = shown_text(message.as_bytes());
            let refused = format!("{rejected} data points were refused");
            let why = if message.is_empty() { refused } else { format!("{refused}: {message}") };
            Answer::Partly { refused: rejected, why }
        }
        None => Answer::Gone { why },
    }
}

/// Some receivers answer in JSON whatever they were sent.
fn decode_json_answer(body: &[u8]) -> Option<OtlpAnswer> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let partial = document.get("partialSuccess");
    let field = |name: &str| partial.and_then(|partial| partial.get(name));
    // 64-bit numbers are text in the JSON of protobuf.
    let rejected =
        field("rejectedDataPoints").map_or(Some(0), |n| n.as_u64().or_else(|| n.as_str()?.parse().ok()))?;
    let message = field("errorMessage").and_then(|text| text.as_str()).unwrap_or_default().to_owned();
    Some(OtlpAnswer { rejected, message })
}

/// Whether Datadog accepted a request and found errors in it.
fn lists_errors(body: &[u8]) -> bool {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let errors = document.as_ref().and_then(|document| document.get("errors"));
    errors.and_then(|errors| errors.as_array()).is_some_and(|errors| !errors.is_empty())
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
mod tests;
