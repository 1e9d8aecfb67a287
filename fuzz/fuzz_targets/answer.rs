//! The answer of a backend to a publisher's request, in each dialect: status, headers and a body of anything.
//!
//! What an answer means is compared with a table of what the status and one header leave open ([`possible_classes`]), which knows
//! nothing of bodies. The rows of `testdata/publish/answers.toml` are seeds (`scripts/fuzz`).

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tallyport::model::Timestamp;
use tallyport::publish::{ANSWER_CLASSES, Answer, AnswerDialect, HttpAnswer, judge_answer};
use tallyport_fuzz::START;
use tallyport_fuzz::allocation::{self, Counted};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const DIALECTS: [AnswerDialect; 6] = [
    AnswerDialect::Influxdb,
    AnswerDialect::RemoteWrite1,
    AnswerDialect::RemoteWrite2 { is_known: false },
    AnswerDialect::RemoteWrite2 { is_known: true },
    AnswerDialect::Otlp,
    AnswerDialect::Datadog,
];

/// Bytes of a body that are shown, and that decide where the body is text.
const SHOWN: usize = 512;
/// Bytes that a judgement may request from the allocator, for each byte of the answer and at all. A JSON document of many small
/// objects takes the most.
const TAKEN: usize = 400;
const AT_ALL: usize = 32 << 10;

// Two bytes make the status, and one says which headers there are. With `Retry-After`, a line is its value. The rest is the body.
fuzz_target!(|input: &[u8]| {
    let Some(([high, low, headers], rest)) = input.split_first_chunk() else { return };
    let status = 100 + u16::from_be_bytes([*high, *low]) % 900;
    let line = rest.iter().position(|byte| *byte == b'\n').filter(|_| headers & 1 == 1);
    let (retry_after, body) = match line.map(|end| rest.split_at(end)) {
        Some((line, body)) => (std::str::from_utf8(line).ok(), body.get(1..).unwrap_or_default()),
        None => (None, rest),
    };
    let answer = HttpAnswer { status, retry_after, counts_written: headers & 2 == 2, body };
    for dialect in DIALECTS {
        let before = allocation::total();
        let judged = judge(dialect, answer);
        let (taken, most) = (allocation::total() - before, TAKEN * rest.len() + AT_ALL);
        assert!(taken <= most, "{taken} bytes for an answer of {}", rest.len());
        check_class(dialect, answer, &judged);
        check_text(status, &judged);
        check_wait(answer, &judged);
        check_start(dialect, answer, &judged);
        assert_eq!(judged, judge(dialect, answer));
    }
});

fn judge(dialect: AnswerDialect, answer: HttpAnswer<'_>) -> Answer {
    judge_answer(dialect, answer, Timestamp::from_secs(START))
}

/// What an answer can mean, whatever its body says.
fn possible_classes(dialect: AnswerDialect, status: u16, counts_written: bool) -> &'static [&'static str] {
    let remote_write_2 = match dialect {
        AnswerDialect::RemoteWrite2 { is_known } => Some(is_known),
        _ => None,
    };
    match (status, dialect) {
        (200..300, AnswerDialect::Influxdb | AnswerDialect::Datadog) => &["ok", "reject", "gone"],
        (200..300, AnswerDialect::RemoteWrite1) => &["ok", "gone"],
        (200..300, AnswerDialect::RemoteWrite2 { .. }) if counts_written => &["ok", "gone"],
        (200..300, AnswerDialect::RemoteWrite2 { .. }) => &["unspoken", "gone"],
        (200..300, AnswerDialect::Otlp) => &["ok", "partly", "gone"],
        (300..400 | 404 | 405 | 410, _) => &["gone"],
        (401 | 403 | 407, _) => &["auth"],
        (408 | 425 | 429 | 500.., _) => &["retry"],
        (413, _) => &["too_large"],
        (400, AnswerDialect::Influxdb) => &["reject", "gone"],
        (415, _) if remote_write_2.is_some() => &["unspoken"],
        _ if remote_write_2 == Some(false) && !counts_written => &["unspoken"],
        _ => &["reject"],
    }
}

fn check_class(dialect: AnswerDialect, answer: HttpAnswer<'_>, judged: &Answer) {
    let class = judged.class_name();
    let possible = possible_classes(dialect, answer.status, answer.counts_written);
    assert!(
        ANSWER_CLASSES.contains(&class) && possible.contains(&class),
        "{dialect:?}: {class} not in {possible:?}"
    );
    match judged {
        // What is in neither of them is not known to be taken.
        Answer::Ok if dialect == AnswerDialect::Influxdb && answer.status != 204 => {
            let text = String::from_utf8_lossy(answer.body);
            assert!(
                answer.body.len() > SHOWN || ["", "{}"].contains(&text.trim_matches(is_blank)),
                "{text:?}"
            );
        }
        Answer::Partly { refused, .. } => assert!(*refused > 0),
        Answer::Retry { of_content, in_doubt, .. } => {
            assert_eq!(*of_content, answer.status == 500);
            assert_eq!(*in_doubt, answer.status >= 500 && answer.status != 503);
        }
        _ => {}
    }
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// The text is one line, begins with what happened, and is short whatever the server sends.
fn check_text(status: u16, judged: &Answer) {
    let Some(said) = judged.server_text() else { return };
    assert!(!said.contains(char::is_control) && said.trim() == said && !said.contains("  "), "{said:?}");
    // A byte that is no UTF-8 is shown as three.
    assert!(said.len() <= 3 * SHOWN + 100, "{} bytes", said.len());
    let begin = match judged {
        Answer::Partly { refused, .. } => format!("{refused} data points were refused"),
        _ => status.to_string(),
    };
    assert!(said.starts_with(&begin), "{said:?}");
}

/// A wait is what the server has asked for.
fn check_wait(answer: HttpAnswer<'_>, judged: &Answer) {
    let Answer::Retry { after, .. } = judged else { return };
    match answer.retry_after.map(|asked| asked.trim().parse::<u64>()) {
        Some(Ok(seconds)) => assert_eq!(*after, Some(Duration::from_secs(seconds))),
        None => assert_eq!(*after, None),
        // A date, or nothing that is understood.
        Some(Err(_)) => assert!(after.is_none_or(|after| after.subsec_nanos() == 0), "{after:?}"),
    }
}

/// What follows the start of a text does not change what it means: it may quote names that a container has chosen.
fn check_start(dialect: AnswerDialect, answer: HttpAnswer<'_>, judged: &Answer) {
    let is_read_whole = matches!(dialect, AnswerDialect::Otlp | AnswerDialect::Datadog);
    if is_read_whole && (200..300).contains(&answer.status) {
        return;
    }
    let start = answer.body.get(..SHOWN).unwrap_or(answer.body);
    assert_eq!(*judged, judge(dialect, HttpAnswer { body: start, ..answer }));
    if answer.status >= 300 && start.first().is_some_and(u8::is_ascii_graphic) {
        for quoted in [" database not found: x", " {\"error\":\"retention policy not found\"}", "\n<html>"] {
            let body = [answer.body, quoted.as_bytes()].concat();
            let with_more = judge(dialect, HttpAnswer { body: &body, ..answer });
            assert_eq!(
                judged.class_name(),
                with_more.class_name(),
                "{quoted:?} changes what {start:?} means"
            );
        }
    }
}
