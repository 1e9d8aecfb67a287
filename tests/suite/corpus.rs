//! Tests the parser with every required case of the conformance corpus (`testdata/README.md`).

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::{Map, Value};
use tallyport::render::parsed::describe_datagram;
use tallyport::statsd::TagStyles;

/// One case of the corpus.
pub(crate) struct Case {
    id: String,
    dialect: String,
    base64: String,
    input: Vec<u8>,
    samples: Vec<Value>,
    rejected: bool,
    required: bool,
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/statsd.jsonl");
    cases_of(&std::fs::read_to_string(path).expect("the corpus is part of the repository"))
}

pub(crate) fn cases_of(text: &str) -> Vec<Case> {
    text.lines().map(|line| Case::read(&serde_json::from_str(line).expect("each line is a case"))).collect()
}

impl Case {
    fn read(case: &Value) -> Self {
        let text = |key: &str| case[key].as_str().expect("a string").to_owned();
        Self {
            id: text("id"),
            dialect: text("dialect"),
            input: base64::prelude::BASE64_STANDARD.decode(text("input_b64")).expect("base64"),
            base64: text("input_b64"),
            samples: case["samples"].as_array().expect("a list").clone(),
            rejected: !case["rejected"].as_array().expect("a list").is_empty(),
            required: case["required"].as_bool().expect("yes or no"),
        }
    }

    /// Whether it is parsed with tag styles enabled.
    pub(crate) fn is_styled(&self) -> bool {
        matches!(self.dialect.as_str(), "influx" | "librato" | "signalfx")
    }

    pub(crate) fn base64(&self) -> &str {
        &self.base64
    }

    pub(crate) fn required(&self) -> bool {
        self.required
    }

    /// Compares a parsed result with the expected one. Returns the difference, if any.
    pub(crate) fn disagreement(&self, found: &Value) -> Option<String> {
        let samples = found["samples"].as_array().expect("a list");
        let rejected = found["rejected"].as_array().expect("a list");
        let same = self.samples.len() == samples.len()
            && self.samples.iter().zip(samples).all(|(wanted, found)| match (wanted, found) {
                (Value::Object(wanted), Value::Object(found)) => agrees(wanted, found),
                _ => false,
            })
            && (!self.rejected || !rejected.is_empty());
        let shown = String::from_utf8_lossy(&self.input);
        (!same).then(|| format!("{} {shown:?}\n  wanted {:?}\n  found  {found}", self.id, self.samples))
    }

    fn reading(&self) -> Value {
        let styles = if self.is_styled() { TagStyles::ALL } else { TagStyles::NONE };
        serde_json::to_value(describe_datagram(&self.input, styles)).expect("it is JSON")
    }
}

/// Compares numbers by value and tags as a set without empty ones; keys that the case does not have are ignored.
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

#[test]
fn every_required_case_is_read_as_the_corpus_says() {
    let required: Vec<_> = cases().into_iter().filter(|case| case.required).collect();
    assert!(required.len() >= 675, "the corpus has shrunk to {} cases", required.len());
    let wrong: Vec<_> = required.iter().filter_map(|case| case.disagreement(&case.reading())).collect();
    assert!(wrong.is_empty(), "{} of {} disagree:\n{}", wrong.len(), required.len(), wrong.join("\n"));
}

#[test]
fn a_case_that_is_not_required_is_read_without_harm() {
    for case in cases().iter().filter(|case| !case.required) {
        assert!(case.reading()["samples"].is_array(), "{}", case.id);
    }
}
