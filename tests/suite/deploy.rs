//! Checks the systemd units against the program: commands, flags, directories. `kubernetes` checks manifests with these
//! helpers.

use std::path::Path;
use std::process::Command;

use serde::Deserialize as _;
use serde_json::Value;

use crate::agent::{BINARY, ran};
use crate::cli::tallyport;
use crate::tools;

pub(crate) const UNITS: [&str; 2] =
    ["deploy/systemd/tallyport.service", "deploy/systemd/example-app.service"];

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(tools::root().join(path)).unwrap()
}

pub(crate) fn manifests(path: &str) -> Vec<Value> {
    let text = read(path);
    serde_norway::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

pub(crate) fn kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap()
}

pub(crate) fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
}

/// Checks the words after `tallyport`: an existing command with existing flags.
pub(crate) fn takes(words: &[&str]) {
    let flags = words.iter().position(|word| word.starts_with('-')).unwrap_or(words.len());
    let lower = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase());
    let command: Vec<&str> = words[..flags].iter().take_while(lower).copied().collect();
    let help = tallyport(&[&["help"], &command[..]].concat());
    assert_eq!(help.code, 0, "tallyport {command:?}: {}", help.err);
    for flag in words[flags..].iter().filter(|word| word.starts_with('-')) {
        assert!(help.out.contains(&format!("{flag} ")), "tallyport {command:?} has no {flag}");
    }
}

/// The words of every command line of ours in a unit.
fn commands(unit: &str) -> Vec<Vec<&str>> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
    let ours =
        lines.filter_map(|(_, line)| line.trim_start_matches(['+', '-']).strip_prefix("/usr/bin/tallyport "));
    ours.map(|words| words.split_whitespace().collect()).collect()
}

#[test]
fn every_command_of_a_unit_is_one_that_the_program_takes() {
    for unit in UNITS {
        let text = read(unit);
        let commands = commands(&text);
        assert!(!commands.is_empty(), "{unit}");
        commands.iter().for_each(|words| takes(words));
    }
    let agent = read(UNITS[0]);
    assert!(!agent.contains("Type=notify"), "the agent does not notify");
    assert!(agent.contains("RuntimeDirectory=tallyport\n"), "the admin socket is in /run/tallyport");
}

#[test]
fn systemd_takes_the_units() {
    let Some(analyze) = tools::program("systemd-analyze", "scripts/setup containers") else { return };
    let directory = tempfile::tempdir().unwrap();
    let copy = |unit: &str| directory.path().join(Path::new(unit).file_name().unwrap());
    for unit in UNITS {
        // systemd-analyze also looks for the programs.
        std::fs::write(copy(unit), read(unit).replace("/usr/bin/tallyport", BINARY)).unwrap();
    }
    let path = format!("{}:", directory.path().display());
    for unit in UNITS {
        let mut command = Command::new(&analyze);
        let verified = ran(command.arg("verify").arg(copy(unit)).env("SYSTEMD_UNIT_PATH", &path));
        let name = copy(unit).file_name().unwrap().to_string_lossy().into_owned();
        // It also reports problems of other units.
        let said: Vec<&str> = verified.err.lines().filter(|line| line.contains(&name)).collect();
        assert!(verified.code == 0 && said.is_empty(), "{unit}: {}", verified.err);
    }
}

#[test]
fn the_unit_has_systemd_keep_what_the_agent_has() {
    let unit = read(UNITS[0]);
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    assert_eq!(value("NotifyAccess="), "main");
    let room = value("FileDescriptorStoreMax=");
    assert_eq!(value("Environment=FDSTORE="), room);
    // To pass descriptors, the agent needs as many of its own.
    let limit = value("LimitNOFILE=").parse::<usize>().unwrap();
    assert!(limit > 2 * room.parse::<usize>().unwrap(), "{room} of {limit}");
}
