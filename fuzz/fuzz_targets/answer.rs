//! The answer of a backend to a publisher's request, in each dialect: status, headers and a body of anything.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tallyport::model::Timestamp;
use tallyport::publish::{ANSWER_CLASSES, Answer, AnswerDialect, HttpAnswer, judge_answer};
use tallyport_fuzz::START;

const DIALECTS: [AnswerDialect; 6] = [
    AnswerDialect::Influxdb,
    AnswerDialect::RemoteWrite1,
    AnswerDialect::RemoteWrite2 { is_known: false },
    AnswerDialect::RemoteWrite2 { is_known: true },
    AnswerDialect::Otlp,
    AnswerDialect::Datadog,
];

// Two bytes make the status, one says which headers there are, and a line is the value of `Retry-After`.
fuzz_target!(|input: &[u8]| {
    let Some(([high, low, headers], rest)) = input.split_first_chunk() else { return };
    let status = 100 + u16::from_be_bytes([*high, *low]) % 900;
    let line = rest.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (retry_after, body) = rest.split_at(line);
    let retry_after = std::str::from_utf8(retry_after).ok().filter(|_| headers & 1 == 1);
    let answer = HttpAnswer { status, retry_after, counts_written: headers & 2 == 2, body };
    for dialect in DIALECTS {
        let judged = judge_answer(dialect, answer, Timestamp::from_secs(START));
        judge(dialect, status, &judged);
        assert_eq!(judged, judge_answer(dialect, answer, Timestamp::from_secs(START)));
    }
});

fn judge(dialect: AnswerDialect, status: u16, answer: &Answer) {
    assert!(ANSWER_CLASSES.contains(&answer.class_name()));
    let said = answer.server_text().unwrap_or_default();
    assert!(said.len() < 4096 && !said.chars().any(char::is_control), "{said:?}");
    let accepts = (200..300).contains(&status);
    match answer {
        Answer::Ok => assert!(accepts, "{status}"),
        Answer::Partly { refused, .. } => {
            assert!(accepts && dialect == AnswerDialect::Otlp && *refused > 0, "{status} {dialect:?}");
        }
        Answer::Unspoken { .. } => assert!(matches!(dialect, AnswerDialect::RemoteWrite2 { .. })),
        Answer::Retry { of_content, in_doubt, .. } => {
            assert!(!accepts && (!of_content || *in_doubt), "{status}")
        }
        Answer::Auth { .. } | Answer::TooLarge { .. } => assert!(!accepts, "{status}"),
        Answer::Reject { .. } | Answer::Gone { .. } => {}
    }
}
