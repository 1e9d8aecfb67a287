//! The parser agrees with every required case of the conformance corpus (`testdata/README.md`).

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::{Map, Value};
use tallyport::render::parsed::parsed;
use tallyport::statsd::TagStyles;

struct Case {
    id: String,
    dialect: String,
    input: Vec<u8>,
    samples: Vec<Value>,
    rejected: bool,
    required: bool,
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/statsd.jsonl");
    let text = std::fs::read_to_string(path).expect("the corpus is part of the repository");
    text.lines().map(|line| case(&serde_json::from_str(line).expect("each line is a case"))).collect()
}

fn case(case: &Value) -> Case {
    let text = |key: &str| case[key].as_str().expect("a string").to_owned();
    Case {
        id: text("id"),
        dialect: text("dialect"),
        input: base64::prelude::BASE64_STANDARD.decode(text("input_b64")).expect("base64"),
        samples: case["samples"].as_array().expect("a list").clone(),
        rejected: !case["rejected"].as_array().expect("a list").is_empty(),
        required: case["required"].as_bool().expect("yes or no"),
    }
}

/// Numbers as numbers, tags as a set without empty ones; a key that the case does not name is free.
fn agrees(wanted: &Map<String, Value>, found: &Map<String, Value>) -> bool {
    let tags = |value: &Value| -> BTreeSet<String> {
        let tags = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
    };
    let number = |a: &Value, b: &Value| a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b);
    wanted.iter().all(|(key, value)| match (key.as_str(), found.get(key)) {
        (_, None) => false,
        ("tags", Some(found)) => tags(value) == tags(found),
        ("values", Some(found)) => {
            let (wanted, found) = (value.as_array().expect("a list"), found.as_array().expect("a list"));
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(a, b)| a == b || number(a, b))
        }
        (_, Some(found)) => value == found || number(value, found),
    })
}

fn disagreement(case: &Case) -> Option<String> {
    let styled = matches!(case.dialect.as_str(), "influx" | "librato" | "signalfx");
    let styles = if styled { TagStyles::ALL } else { TagStyles::NONE };
    let found = serde_json::to_value(parsed(&case.input, styles)).expect("it is JSON");
    let samples = found["samples"].as_array().expect("a list");
    let rejected = found["rejected"].as_array().expect("a list");
    let same = case.samples.len() == samples.len()
        && case.samples.iter().zip(samples).all(|(wanted, found)| match (wanted, found) {
            (Value::Object(wanted), Value::Object(found)) => agrees(wanted, found),
            _ => false,
        })
        && (!case.rejected || !rejected.is_empty());
    let shown = String::from_utf8_lossy(&case.input);
    (!same).then(|| format!("{} {shown:?}\n  wanted {:?}\n  found  {found}", case.id, case.samples))
}

#[test]
fn every_required_case_is_read_as_the_corpus_says() {
    let required: Vec<_> = cases().into_iter().filter(|case| case.required).collect();
    assert!(required.len() >= 675, "the corpus has shrunk to {} cases", required.len());
    let wrong: Vec<_> = required.iter().filter_map(disagreement).collect();
    assert!(wrong.is_empty(), "{} of {} disagree:\n{}", wrong.len(), required.len(), wrong.join("\n"));
}

#[test]
fn a_case_that_is_not_required_is_read_without_harm() {
    for case in cases().iter().filter(|case| !case.required) {
        let _either_way = disagreement(case);
    }
}
