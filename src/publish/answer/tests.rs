use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
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
    counts_written: bool,
    #[serde(default)]
    body: String,
    /// A body that is no text.
    #[serde(default)]
    body_base64: String,
    means: String,
    after: Option<u64>,
    in_doubt: Option<bool>,
    refused: Option<u64>,
    why: Option<String>,
}

const DIALECTS: [(&str, AnswerDialect); 6] = [
    ("influxdb", AnswerDialect::Influxdb),
    ("remote_write 1.0", AnswerDialect::RemoteWrite1),
    ("remote_write 2.0, untried", AnswerDialect::RemoteWrite2 { is_known: false }),
    ("remote_write 2.0", AnswerDialect::RemoteWrite2 { is_known: true }),
    ("otlp", AnswerDialect::Otlp),
    ("datadog", AnswerDialect::Datadog),
];

#[test]
fn every_row_of_the_table_holds() {
    let table: Table = toml::from_str(include_str!("../../../testdata/publish/answers.toml")).unwrap();
    let now = Timestamp::from_secs(1_767_225_600);
    let mut seen = BTreeSet::new();
    for row in &table.answer {
        let (name, dialect) = DIALECTS.into_iter().find(|(name, _)| *name == row.dialect).unwrap();
        let body = match row.body_base64.is_empty() {
            true => row.body.clone().into_bytes(),
            false => BASE64_STANDARD.decode(&row.body_base64).unwrap(),
        };
        let (status, counts_written) = (row.status, row.counts_written);
        let retry_after = row.retry_after.as_deref();
        let answer =
            judge_answer(dialect, HttpAnswer { status, retry_after, counts_written, body: &body }, now);
        assert_eq!(answer.class_name(), row.means, "{row:?}");
        if let Answer::Retry { after, in_doubt, .. } = &answer {
            assert_eq!(after.map(|after| after.as_secs()), row.after, "{row:?}");
            assert!(row.in_doubt.is_none_or(|expected| expected == *in_doubt), "{row:?}");
        }
        if let Answer::Partly { refused, .. } = &answer {
            assert_eq!(Some(*refused), row.refused, "{row:?}");
        }
        if let Some(expected) = &row.why {
            assert_eq!(answer.server_text(), Some(expected.as_str()), "{row:?}");
        }
        seen.insert((name, answer.class_name()));
    }
    let classes: BTreeSet<_> = seen.iter().map(|(_, class)| *class).collect();
    assert_eq!(classes, BTreeSet::from(ANSWER_CLASSES), "the table has an answer of each class");
    for (name, _) in DIALECTS {
        assert!(seen.iter().filter(|(dialect, _)| *dialect == name).count() >= 4, "{name}");
    }
}

#[test]
fn every_status_and_any_body_has_a_meaning_and_a_short_text() {
    let body = [b"\x1b[31m\xff\0\n".as_slice(), &vec![b'x'; 1 << 16]].concat();
    for (name, dialect) in DIALECTS {
        for status in 100..=999 {
            let answer = HttpAnswer { status, retry_after: Some("soon"), counts_written: false, body: &body };
            let answer = judge_answer(dialect, answer, Timestamp::default());
            let why = answer.server_text().unwrap_or_default();
            assert!(why.len() < 1024 && !why.contains(['\x1b', '\n']), "{name} {status}: {why}");
            if answer == Answer::Ok {
                let accepts = (200..300).contains(&status);
                assert!(accepts && (name != "influxdb" || status == 204), "{name} {status}");
            }
        }
    }
}

#[test]
fn what_may_have_arrived_is_not_sent_again_with_other_values() {
    let after = |status| {
        let answer = HttpAnswer { status, retry_after: None, counts_written: true, body: b"" };
        judge_answer(AnswerDialect::RemoteWrite2 { is_known: true }, answer, Timestamp::default())
            .may_have_arrived()
    };
    for status in [204, 400, 500, 502, 504] {
        assert!(after(status), "{status}");
    }
    for status in [301, 401, 404, 408, 413, 415, 429, 503] {
        assert!(!after(status), "{status}");
    }
}
