//! Bundles: the wrapper's edits of a configuration from an engine or a user, and of a process that joins the container.
//!
//! ```text
//! input = how text               ; a configuration
//!       | how text NUL text      ; the document of a process, and the configuration of its container
//! ```
//!
//! Bit 0 of `how`: a Unix socket is mounted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use tallyport::oci::fuzzing::{edit_config, edit_joining_process};

const PAIR: [&str; 2] = ["STATSD_UDP_HOST=127.0.0.1", "STATSD_UDP_PORT=18125"];
const DIRECTORY: &str = "/var/run/datadog";

fuzz_target!(|input: &[u8]| {
    let [how, text @ ..] = input else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match text.split_once('\0') {
        Some((process, config)) => join(process, config),
        None => edit(text, (how & 1 == 1).then_some(DIRECTORY)),
    }
});

fn edit(config: &str, directory: Option<&str>) {
    let once = match edit_config(config, directory) {
        Ok(once) => once,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let read = |text: &str| serde_json::from_str::<Map<String, Value>>(text);
    let before = read(config);
    // A number out of range for this parser is copied unchanged.
    let (Ok(before), Ok(after)) = (before, read(&once)) else { return };
    // A second start of the bundle finds the edits of the first, and gives the same result.
    assert_eq!(edit_config(&once, directory).expect("it was just written"), once, "edited twice");
    // A start without a socket removes the mount completely.
    let without = edit_config(&once, None).expect("it was just written");
    assert_eq!(edit_config(&without, None).expect("it was just written"), without, "edited twice");
    if before.contains_key("process") {
        for variable in PAIR {
            let is_there = env(&after).iter().filter(|set| **set == variable).count();
            assert_eq!(is_there, 1, "{variable} in {once}");
        }
    } else {
        assert!(!after.contains_key("process"));
    }
    // Everything else is unchanged.
    for (key, value) in &before {
        if !["process", "hooks", "mounts"].contains(&key.as_str()) {
            assert_eq!(after.get(key), Some(value), "{key} of {once}");
        }
    }
    let (process, changed) = (object(&before, "process"), object(&after, "process"));
    for (key, value) in process.into_iter().flatten().filter(|(key, _)| *key != "env") {
        assert_eq!(changed.and_then(|changed| changed.get(key)), Some(value), "{key} of the process");
    }
    // Hooks of a previous start may be removed.
    let former = before.get("hooks").map(Value::to_string).unwrap_or_default();
    for name in env(&before).iter().filter_map(|set| set.split_once('=')).map(|(name, _)| name) {
        let is_there = env(&after).iter().any(|set| set.split_once('=').is_some_and(|(set, _)| set == name));
        assert!(
            is_there || name == "STATSD_HOST" || name == "DD_DOGSTATSD_URL" || former.contains(name),
            "{name} is gone from {once}"
        );
    }
}

fn join(process: &str, config: &str) {
    let Ok(Some(once)) = edit_joining_process(process, config) else { return };
    assert_eq!(
        edit_joining_process(&once, config).expect("it was just written").as_ref(),
        Some(&once),
        "joined twice"
    );
}

fn object<'a>(of: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    of.get(key).and_then(Value::as_object)
}

fn env(config: &Map<String, Value>) -> Vec<&str> {
    let env = object(config, "process").and_then(|process| process.get("env")).and_then(Value::as_array);
    env.into_iter().flatten().filter_map(Value::as_str).collect()
}
