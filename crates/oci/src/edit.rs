//! Edits `config.json`: adds the address to the environment, and hooks for the stages of the container's life.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tallyport_linux::unixgram;
use tallyport_linux::variables::other_of_pair;

use super::bundle::read_environment;
use super::document::{Object, to_json};

/// The variables that are always written, as a pair.
const PAIR: [&str; 2] = ["STATSD_UDP_HOST", "STATSD_UDP_PORT"];
/// The first argument of our hooks, by which they are recognised.
const NAME: &str = "tallyport-oci";

/// A hook, as the runtime reads it.
#[derive(Debug, Serialize)]
pub struct Hook {
    /// This program.
    pub path: String,
    args: Vec<String>,
    /// Seconds after which the runtime kills it.
    timeout: u64,
}

/// What the agent gives a container.
#[derive(Debug, Default)]
pub struct Gift {
    /// Environment variables to add, by name.
    pub variables: BTreeMap<String, String>,
    /// A directory to be mounted.
    pub mount: Option<Mount>,
}

/// A directory to be mounted, and variables that are only valid with it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mount {
    /// Its path on the host.
    pub(super) source: String,
    /// Its path in the container.
    pub(super) destination: String,
    /// Variables that take precedence over the others.
    pub(super) variables: BTreeMap<String, String>,
}

/// A mount, as the runtime reads it. It is read-only, because senders do not need to write, and not executable.
#[derive(Debug, Serialize)]
struct Bind<'a> {
    destination: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    source: &'a str,
    options: [&'static str; 5],
}

/// An existing mount of a configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExistingMount {
    destination: String,
}

/// Our edits to the bundle, as recorded in the arguments of our hooks.
#[derive(Debug, Default)]
pub struct HookRecord {
    /// The aliases that were written.
    pub(super) aliases: Vec<String>,
    /// Where the directory was mounted.
    pub(super) mount: Option<String>,
}

/// An edited configuration.
#[derive(Debug)]
pub struct EditedConfig {
    /// The text of the configuration.
    pub text: String,
    /// The application's mount that occupies the place of ours, so that ours was not added.
    pub(super) in_the_way: Option<String>,
}

/// Hooks, each with the stage at which it is called.
pub type StagedHooks = Vec<(&'static str, Hook)>;

impl Hook {
    /// A hook that runs the program at `path` as `tallyport-oci hook STAGE ARGUMENTS`, for at most `timeout` seconds.
    #[must_use]
    pub fn new(path: &str, stage: &str, arguments: &[String], timeout: u64) -> Self {
        let mut args = vec![NAME.to_owned(), "hook".to_owned(), stage.to_owned()];
        args.extend_from_slice(arguments);
        Self { path: path.to_owned(), args, timeout }
    }
}

/// Adds environment variables and hooks to a configuration, in place of those that we added to it earlier.
///
/// # Errors
/// If the text, or an edited part of it, does not conform to the OCI runtime specification.
pub fn edit_config(
    text: &str,
    gift: &Gift,
    hooks: &dyn Fn(&HookRecord) -> StagedHooks,
) -> serde_json::Result<EditedConfig> {
    let mut config = Object::read(text)?;
    let before = read_hook_record(&config)?;
    let mut variables = gift.variables.clone();
    let mut ours = HookRecord::default();
    let mut in_the_way = None;
    let (mounts, taken) = mounts_without_ours(&config, before.mount.as_deref(), gift.mount.as_ref())?;
    match &gift.mount {
        Some(mount) if taken.is_none() => {
            let options = ["bind", "ro", "nosuid", "nodev", "noexec"];
            let Mount { source, destination, .. } = mount;
            let bind = to_json(&Bind { destination, kind: "bind", source, options });
            let list: Vec<String> = mounts.iter().cloned().chain([bind]).collect();
            config.set_value("mounts", format!("[{}]", list.join(",")));
            variables.extend(mount.variables.clone());
            ours.mount = Some(destination.clone());
        }
        Some(_) => in_the_way = taken,
        None => {}
    }
    if ours.mount.is_none() && before.mount.is_some() {
        config.set_value("mounts", format!("[{}]", mounts.join(",")));
    }
    // `crun create` takes a configuration without a process, and gets none from us.
    if config.get("process").is_some() {
        let mut process = config.nested_object("process")?;
        let (environment, added) =
            merge_environment(read_environment(&process)?, &variables, &before.aliases);
        process.set_value("env", to_json(&environment));
        ours.aliases = added;
        let process = process.to_text();
        config.set_value("process", process);
    }
    let mut all = config.nested_object("hooks")?;
    for stage in ["createRuntime", "poststop"] {
        let before: Vec<&RawValue> = all.value(stage)?;
        let others = before.iter().filter(|hook| !is_ours(hook)).map(|hook| hook.get().to_owned());
        let new = hooks(&ours).into_iter().filter(|(of, _)| *of == stage).map(|(_, hook)| to_json(&hook));
        // Ours come first: processes that later hooks start may already send.
        let list: Vec<String> = new.chain(others).collect();
        if !list.is_empty() || !before.is_empty() {
            let list = format!("[{}]", list.join(","));
            all.set_value(stage, list);
        }
    }
    let all = all.to_text();
    config.set_value("hooks", all);
    Ok(EditedConfig { text: config.to_text(), in_the_way })
}

/// The existing mounts without those that we added earlier, and the one that is at or below the place of ours.
fn mounts_without_ours(
    config: &Object<'_>,
    ours_before: Option<&str>,
    wanted: Option<&Mount>,
) -> serde_json::Result<(Vec<String>, Option<String>)> {
    let all: Vec<&RawValue> = config.value("mounts")?;
    let (mut others, mut taken) = (Vec::new(), None);
    for mount in all {
        let ExistingMount { destination } = serde_json::from_str(mount.get())?;
        if ours_before == Some(destination.as_str()) {
            continue;
        }
        others.push(mount.get().to_owned());
        if wanted.is_some_and(|wanted| unixgram::would_hide(&destination, &wanted.destination)) {
            taken = Some(destination);
        }
    }
    Ok((others, taken))
}

/// Adds the container's address to the document of a joining process. `None` if the container has none.
pub(super) fn edit_process(process: &str, config: &str) -> serde_json::Result<Option<String>> {
    let config = Object::read(config)?;
    let HookRecord { aliases, .. } = read_hook_record(&config)?;
    let of_container = read_environment(&config.nested_object("process")?)?;
    let has =
        |name: &str| of_container.iter().any(|set| set.split_once('=').is_some_and(|(set, _)| set == name));
    // A container with only a Unix socket has no pair, and one without a socket may have set one of the two itself.
    let pair = PAIR.iter().filter(|_| PAIR.iter().all(|name| has(name))).map(|name| (*name).to_owned());
    let names: Vec<String> = pair.chain(aliases).collect();
    let split = of_container.iter().filter_map(|variable| variable.split_once('='));
    let known: BTreeMap<String, String> = split
        .filter(|(name, _)| names.iter().any(|ours| ours == name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if known.is_empty() {
        return Ok(None);
    }
    let mut document = Object::read(process)?;
    let (environment, _) = merge_environment(read_environment(&document)?, &known, &[]);
    document.set_value("env", to_json(&environment));
    Ok(Some(document.to_text()))
}

/// An environment with our variables, and the names of the aliases among them. An alias never overrides a variable of
/// the application, nor is it added if the application has set the other one of its pair; aliases that we added earlier
/// are removed first.
fn merge_environment(
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
    let set: Vec<String> = environment.iter().map(|variable| name(variable)).collect();
    let is_set = |name: &str| set.iter().any(|set| set == name);
    for (key, value) in variables {
        let pair = PAIR.contains(&key.as_str());
        if pair || !(is_set(key) || other_of_pair(key).is_some_and(is_set)) {
            environment.push(format!("{key}={value}"));
            if !pair {
                aliases.push(key.clone());
            }
        }
    }
    (environment, aliases)
}

fn hook_arguments(hook: &RawValue) -> Vec<String> {
    Object::read(hook.get()).and_then(|hook| hook.value("args")).unwrap_or_default()
}

fn is_ours(hook: &RawValue) -> bool {
    matches!(hook_arguments(hook).as_slice(), [name, verb, ..] if name == NAME && verb == "hook")
}

/// Reads our earlier edits from the arguments of our hooks.
fn read_hook_record(config: &Object<'_>) -> serde_json::Result<HookRecord> {
    let hooks = config.nested_object("hooks")?;
    let hooks: Vec<&RawValue> = hooks.value("createRuntime")?;
    let mut remembered = HookRecord::default();
    for arguments in hooks.into_iter().filter(|hook| is_ours(hook)).map(hook_arguments) {
        let behind = |word: &str| {
            let at = arguments.iter().position(|argument| argument == word);
            at.and_then(|at| arguments.get(at + 1)).cloned()
        };
        let names = behind("--aliases").unwrap_or_default();
        remembered.aliases.extend(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
        remembered.mount = behind("--mount").or(remembered.mount);
    }
    Ok(remembered)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn edited(text: &str, port: &str, stages: &[&'static str]) -> String {
        let gift = Gift { variables: given(port), mount: None };
        edit_config(text, &gift, &remembering(stages)).unwrap().text
    }

    fn given(port: &str) -> BTreeMap<String, String> {
        variables(&[
            ("STATSD_UDP_HOST", "127.0.0.1"),
            ("STATSD_UDP_PORT", port),
            ("STATSD_HOST", "127.0.0.1"),
            ("DD_DOGSTATSD_URL", "udp://127.0.0.1"),
        ])
    }

    fn remembering(stages: &[&'static str]) -> impl Fn(&HookRecord) -> StagedHooks {
        move |ours: &HookRecord| {
            let mut arguments = vec!["--aliases".to_owned(), ours.aliases.join(",")];
            arguments.extend(ours.mount.iter().flat_map(|at| ["--mount".to_owned(), at.clone()]));
            stages.iter().map(|stage| (*stage, Hook::new("/x", stage, &arguments, 2))).collect()
        }
    }

    /// Edits with a directory to be mounted, and with these variables, which may be empty.
    fn mounted(text: &str, variables: BTreeMap<String, String>) -> EditedConfig {
        let mount = Mount {
            source: "/run/tallyport/state/sockets/0a".to_owned(),
            destination: "/var/run/datadog".to_owned(),
            variables: [("DD_DOGSTATSD_URL".to_owned(), "unix:///var/run/datadog/dsd.socket".to_owned())]
                .into(),
        };
        let gift = Gift { variables, mount: Some(mount) };
        edit_config(text, &gift, &remembering(&["createRuntime"])).unwrap()
    }

    #[test]
    fn a_directory_is_mounted_behind_all_others_and_its_variables_go_first() {
        let text = r#"{"process":{"env":[]},"mounts":[{"destination":"/proc","type":"proc","x":1e400}]}"#;
        let edited = mounted(text, given("18125"));
        assert!(
            edited.text.contains(r#"{"destination":"/proc","type":"proc","x":1e400}"#),
            "{}",
            edited.text
        );
        let config: Value = serde_json::from_str(&edited.text.replace("1e400", "1")).unwrap();
        let ours = json!({"destination": "/var/run/datadog", "type": "bind",
            "source": "/run/tallyport/state/sockets/0a", "options": ["bind", "ro", "nosuid", "nodev", "noexec"]});
        assert_eq!((&config["mounts"][1], edited.in_the_way), (&ours, None));
        let env = config["process"]["env"].to_string();
        assert!(env.contains("DD_DOGSTATSD_URL=unix:///var/run/datadog/dsd.socket"), "{env}");
        assert!(env.contains("STATSD_UDP_PORT=18125"), "{env}");
        let again = mounted(&edited.text, given("18125"));
        assert_eq!(again.text, edited.text, "and once, however often the bundle is used");
        let without = edit_config(&edited.text, &Gift::default(), &remembering(&[])).unwrap().text;
        let without: Value = serde_json::from_str(&without.replace("1e400", "1")).unwrap();
        assert_eq!(without["mounts"].as_array().unwrap().len(), 1);
        assert_eq!(without["process"]["env"], json!([]));
    }

    #[test]
    fn what_the_application_has_mounted_is_never_hidden() {
        for (theirs, hidden) in [
            ("/var/run/datadog", true),
            ("/run/datadog/", true),
            ("/var/run/datadog/apm", true),
            ("/var/run", false),
            ("/var/run/datadog2", false),
        ] {
            let text = format!(r#"{{"process":{{"env":[]}},"mounts":[{{"destination":"{theirs}"}}]}}"#);
            let edited = mounted(&text, given("18125"));
            assert_eq!(edited.in_the_way.as_deref(), hidden.then_some(theirs));
            let expected = if hidden { "udp://127.0.0.1" } else { "unix:///var/run/datadog/dsd.socket" };
            assert!(edited.text.contains(&format!("DD_DOGSTATSD_URL={expected}")), "{}", edited.text);
        }
    }

    #[test]
    fn a_process_that_joins_a_container_without_an_address_finds_its_socket() {
        let config = mounted(CONFIG, BTreeMap::new()).text;
        assert!(!config.contains("STATSD_UDP"), "{config}");
        let joined = edit_process(r#"{"env":["TERM=x"]}"#, &config).unwrap().unwrap();
        assert_eq!(joined, r#"{"env":["TERM=x","DD_DOGSTATSD_URL=unix:///var/run/datadog/dsd.socket"]}"#);
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
        let none = |_: &HookRecord| Vec::new();
        for text in [
            "",
            "[]",
            r#"{"process":[]}"#,
            r#"{"process":{"env":"A=B"}}"#,
            r#"{"hooks":7}"#,
            r#"{"mounts":7}"#,
            r#"{"hooks":{"createRuntime":{}}}"#,
        ] {
            assert!(edit_config(text, &Gift::default(), &none).is_err(), "{text}");
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
