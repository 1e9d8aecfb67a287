//! What is written into `config.json`: the address into the environment, the hooks that tell of a life's turns.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::bundle::environment;
use super::document::{Object, json};

/// The variables that are always written, as a pair.
const PAIR: [&str; 2] = ["STATSD_UDP_HOST", "STATSD_UDP_PORT"];
/// The first argument of our hooks, by which they are known again.
const NAME: &str = "tallyport-oci";

/// A hook, as the runtime reads it.
#[derive(Debug, Serialize)]
pub(crate) struct Hook {
    /// This program.
    pub(crate) path: String,
    args: Vec<String>,
    /// Seconds after which the runtime ends it.
    timeout: u64,
}

/// Hooks, each with the stage at which it is called.
pub(crate) type Staged = Vec<(&'static str, Hook)>;

impl Hook {
    pub(crate) fn new(path: &str, stage: &str, arguments: &[String], timeout: u64) -> Self {
        let mut args = vec![NAME.to_owned(), "hook".to_owned(), stage.to_owned()];
        args.extend_from_slice(arguments);
        Self { path: path.to_owned(), args, timeout }
    }
}

/// Puts an environment and hooks into a configuration, in place of those that an earlier life of it was given.
pub(crate) fn edit(
    text: &str,
    variables: &BTreeMap<String, String>,
    hooks: &dyn Fn(&[String]) -> Staged,
) -> serde_json::Result<String> {
    let mut config = Object::read(text)?;
    let ours_before = aliases_of_hooks(&config)?;
    // `crun create` takes a configuration without a process, and gets none from us.
    let mut aliases = Vec::new();
    if config.get("process").is_some() {
        let mut process = config.object("process")?;
        let (environment, added) = merged(environment(&process)?, variables, &ours_before);
        process.set("env", json(&environment));
        aliases = added;
        let process = process.text();
        config.set("process", process);
    }
    let mut all = config.object("hooks")?;
    for stage in ["createRuntime", "poststop"] {
        let before: Vec<&RawValue> = all.value(stage)?;
        let others = before.iter().filter(|hook| !is_ours(hook)).map(|hook| hook.get().to_owned());
        let new = hooks(&aliases).into_iter().filter(|(of, _)| *of == stage).map(|(_, hook)| json(&hook));
        // Ours come first: whatever a later hook starts may send already.
        let list: Vec<String> = new.chain(others).collect();
        if !list.is_empty() || !before.is_empty() {
            let list = format!("[{}]", list.join(","));
            all.set(stage, list);
        }
    }
    let all = all.text();
    config.set("hooks", all);
    Ok(config.text())
}

/// Puts the container's address into the document of a process that joins it. None where it has none.
pub(super) fn edit_process(process: &str, config: &str) -> serde_json::Result<Option<String>> {
    let config = Object::read(config)?;
    let names: Vec<String> =
        PAIR.iter().map(|name| (*name).to_owned()).chain(aliases_of_hooks(&config)?).collect();
    let of_container = environment(&config.object("process")?)?;
    let split = of_container.iter().filter_map(|variable| variable.split_once('='));
    let known: BTreeMap<String, String> = split
        .filter(|(name, _)| names.iter().any(|ours| ours == name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if PAIR.iter().any(|name| !known.contains_key(*name)) {
        return Ok(None);
    }
    let mut document = Object::read(process)?;
    let (environment, _) = merged(environment(&document)?, &known, &[]);
    document.set("env", json(&environment));
    Ok(Some(document.text()))
}

/// An environment with our variables, and the names of the aliases among them. An alias never goes over what the
/// application has set; those of an earlier life go first, as nobody but us has set them.
fn merged(
    before: Vec<String>,
    variables: &BTreeMap<String, String>,
    ours_before: &[String],
) -> (Vec<String>, Vec<String>) {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut environment: Vec<String> = before
        .into_iter()
        .filter(|variable| {
            let name = name(variable);
            !PAIR.contains(&name.as_str()) && !ours_before.contains(&name)
        })
        .collect();
    let mut aliases = Vec::new();
    for (key, value) in variables {
        let pair = PAIR.contains(&key.as_str());
        if pair || !environment.iter().any(|variable| name(variable) == *key) {
            environment.push(format!("{key}={value}"));
            if !pair {
                aliases.push(key.clone());
            }
        }
    }
    (environment, aliases)
}

fn arguments(hook: &RawValue) -> Vec<String> {
    Object::read(hook.get()).and_then(|hook| hook.value("args")).unwrap_or_default()
}

fn is_ours(hook: &RawValue) -> bool {
    matches!(arguments(hook).as_slice(), [name, verb, ..] if name == NAME && verb == "hook")
}

/// The aliases that our hooks remember having been written.
fn aliases_of_hooks(config: &Object<'_>) -> serde_json::Result<Vec<String>> {
    let hooks = config.object("hooks")?;
    let hooks: Vec<&RawValue> = hooks.value("createRuntime")?;
    let ours = hooks.into_iter().filter(|hook| is_ours(hook)).map(arguments);
    let named = ours.flat_map(|arguments| {
        let at = arguments.iter().position(|argument| argument == "--aliases");
        let names = at.and_then(|at| arguments.get(at + 1)).cloned().unwrap_or_default();
        names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn edited(text: &str, port: &str, stages: &[&'static str]) -> String {
        let variables = variables(&[
            ("STATSD_UDP_HOST", "127.0.0.1"),
            ("STATSD_UDP_PORT", port),
            ("STATSD_HOST", "127.0.0.1"),
            ("DD_DOGSTATSD_URL", "udp://127.0.0.1"),
        ]);
        let hooks = |aliases: &[String]| {
            let arguments = ["--aliases".to_owned(), aliases.join(",")];
            stages.iter().map(|stage| (*stage, Hook::new("/x", stage, &arguments, 2))).collect()
        };
        edit(text, &variables, &hooks).unwrap()
    }

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    const CONFIG: &str = r#"{"ociVersion":"1.0.2","process":{"rlimits":[{"hard":18446744073709551615}],"env":["PATH=/bin","STATSD_HOST=mine","STATSD_UDP_PORT=1"],"cwd":"/"},
        "x-unknown":{"big":123456789012345678901234567890,"b":1,"a":2},"hooks":{"poststop":[{"path":"/other","args":["other"]}],"prestart":[]}}"#;

    #[test]
    fn the_pair_is_always_written_and_an_alias_never_over_the_applications_own() {
        let edited = edited(CONFIG, "18125", &["createRuntime", "poststop"]);
        assert!(edited.contains(r#"{"big":123456789012345678901234567890,"b":1,"a":2}"#), "{edited}");
        assert!(edited.contains("18446744073709551615"));
        let edited = value(&edited);
        let expected = [
            "PATH=/bin",
            "STATSD_HOST=mine",
            "DD_DOGSTATSD_URL=udp://127.0.0.1",
            "STATSD_UDP_HOST=127.0.0.1",
            "STATSD_UDP_PORT=18125",
        ];
        assert_eq!(edited["process"]["env"], json!(expected));
        assert_eq!(edited["process"]["cwd"], "/");
        let hook = json!({"path": "/x", "args": ["tallyport-oci", "hook", "createRuntime", "--aliases", "DD_DOGSTATSD_URL"], "timeout": 2});
        assert_eq!(edited["hooks"]["createRuntime"], json!([hook]));
        assert_eq!(edited["hooks"]["poststop"][1], json!({"path": "/other", "args": ["other"]}));
        let keys: Vec<&String> = edited.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["ociVersion", "process", "x-unknown", "hooks"]);
    }

    #[test]
    fn a_bundle_that_is_used_again_is_as_if_it_were_new() {
        let first = edited(CONFIG, "18125", &["createRuntime", "poststop"]);
        let again = edited(&first, "18126", &["createRuntime"]);
        let fresh = edited(CONFIG, "18126", &["createRuntime"]);
        assert_eq!(value(&again), value(&fresh));
    }

    #[test]
    fn what_is_missing_or_null_is_made() {
        for text in ["{}", r#"{"process":null,"hooks":null}"#] {
            let edited = value(&edited(text, "1", &["createRuntime"]));
            assert!(edited["process"].is_null(), "a process is not made up");
            assert_eq!(edited["hooks"]["createRuntime"][0]["path"], "/x");
        }
        let edited = value(&edited(r#"{"process":{"env":null}}"#, "1", &[]));
        assert_eq!(edited["process"]["env"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_configuration_that_makes_no_sense_is_refused() {
        let none = |_: &[String]| Vec::new();
        for text in [
            "",
            "[]",
            r#"{"process":[]}"#,
            r#"{"process":{"env":"A=B"}}"#,
            r#"{"hooks":7}"#,
            r#"{"hooks":{"createRuntime":{}}}"#,
        ] {
            assert!(edit(text, &BTreeMap::new(), &none).is_err(), "{text}");
        }
    }

    #[test]
    fn a_process_that_joins_gets_what_its_container_has() {
        let config = edited(CONFIG, "18125", &["createRuntime"]);
        let joined =
            edit_process(r#"{"args":["sh"],"env":["STATSD_UDP_PORT=9","TERM=x"],"n":1e400}"#, &config);
        let joined = joined.unwrap().unwrap();
        assert!(joined.contains("\"n\":1e400"), "{joined}");
        let start = r#"{"args":["sh"],"env":["TERM=x","DD_DOGSTATSD_URL=udp://127.0.0.1","STATSD_UDP_HOST=127.0.0.1","STATSD_UDP_PORT=18125"]"#;
        assert!(joined.starts_with(start), "the application's own alias is the engine's to give: {joined}");
        assert_eq!(edit_process("{}", r#"{"process":{"env":["A=B"]}}"#).unwrap(), None);
    }
}
