//! Names and data of containers, shown on terminals.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::agent::{Address, Agent};

/// Sets the title, sets the clipboard, rings the bell, clears the screen with a C1 control, and reverses the line.
const HOSTILE: &str = "a\u{1b}]0;t\u{7}\u{1b}]52;c;aGk=\u{7}\u{9b}2J\u{7f}\0\u{202e}b";
const SHOWN: &str = r"\x1b]52;c;aGk=\x07\x9b2J\x7f\x00\u{202e}b";

/// Whether the text contains characters that control a terminal, except the line ends that the commands write.
fn is_obeyed(text: &str) -> bool {
    text.chars().any(|c| (c.is_control() && c != '\n') || ('\u{2028}'..='\u{202e}').contains(&c))
}

fn agent_with_hostile_names() -> Agent {
    let agent = Agent::with(&["--window", "10s"]);
    let body = json!({"container_id": "c1", "task_id": "web.1", "labels": {"note": HOSTILE}, "ttl": null});
    let address = agent.reserve_with(&body);
    address.send(format!("hits:3|c|#tag:{HOSTILE},route:/pay\nbad{HOSTILE}"));
    agent.finish("c1");
    agent
}

#[test]
fn no_command_passes_control_characters_of_containers_to_a_terminal() {
    let agent = agent_with_hostile_names();
    for (args, names_it) in [
        (vec!["metrics", "details", "web.1"], true),
        (vec!["metrics", "summary", "web.1"], true),
        (vec!["explain", "web.1"], true),
        (vec!["explain", "web.1", "hits"], true),
        (vec!["tasks"], false),
        (vec!["containers", "list"], false),
        (vec!["containers", "show", "c1"], true),
        (vec!["doctor"], false),
    ] {
        let ran = agent.cli(&args);
        assert!(!is_obeyed(&ran.out) && !is_obeyed(&ran.err), "{args:?}: {:?} {:?}", ran.out, ran.err);
        assert_eq!(ran.out.contains(SHOWN), names_it, "{args:?}: {}", ran.out);
    }
}

#[test]
fn json_of_hostile_names_is_exact_and_safe_to_print() {
    let agent = agent_with_hostile_names();
    for format in ["json", "ndjson"] {
        let out = agent.cli(&["metrics", "details", "web.1", "-o", format]).out;
        assert!(!is_obeyed(&out), "{out:?}");
        let records: Value = serde_json::from_str(&out).unwrap();
        let record = records.get(0).unwrap_or(&records);
        assert_eq!(record["tags"]["tag"], HOSTILE, "{format}");
        assert_eq!(record["origin"]["labels"]["note"], HOSTILE, "{format}");
    }
}

#[test]
fn a_pipe_that_is_closed_ends_every_command_quietly() {
    let agent = Agent::with(&["--window", "1s"]);
    let address = agent.reserve("c1", "web.1");
    address.send("hits:3|c\nbad");
    agent.until("the window has closed", || !agent.metrics("web.1", "?window=all").is_empty());
    for args in [
        &["tasks"][..],
        &["containers", "list", "-o", "csv"],
        &["metrics", "summary", "web.1"],
        &["metrics", "plot", "web.1", "hits"],
        &["metrics", "watch", "web.1"],
        &["metrics", "watch", "web.1", "-o", "ndjson"],
        &["explain", "web.1"],
        &["tail", "web.1"],
        &["tail", "web.1", "-o", "ndjson"],
        &["config", "show", "--running"],
        &["doctor"],
        &["--help"],
    ] {
        let mut child = agent.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        agent.until("the command has ended", || {
            address.send("hits:3|c");
            child.try_wait().unwrap().is_some()
        });
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !err.contains("pipe") && !err.contains("panic"),
            "{args:?}: {output:?}"
        );
    }
}

/// The first line that `tail` prints while a line is sent repeatedly.
fn tailed(agent: &Agent, address: &Address, flags: &[&str]) -> String {
    let mut tail = agent.command(&[&["tail", "tail.1", "--lines", "1"], flags].concat());
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    agent.until("tail has shown a line", || {
        address.send(format!("hits:1|c|#tag:{HOSTILE}"));
        tail.try_wait().unwrap().is_some()
    });
    String::from_utf8(tail.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn tail_escapes_lines_for_people_and_leaves_them_raw_in_a_pipe_that_asks_for_it() {
    let agent = Agent::start();
    let address = agent.reserve("t1", "tail.1");
    let shown = tailed(&agent, &address, &[]);
    assert!(!is_obeyed(&shown) && shown.contains(SHOWN), "{shown:?}");
    assert_eq!(tailed(&agent, &address, &["--raw"]), format!("hits:1|c|#tag:{HOSTILE}\n"));
    let json = tailed(&agent, &address, &["-o", "ndjson"]);
    assert!(!is_obeyed(&json), "{json:?}");
    let line: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(line["line"], format!("hits:1|c|#tag:{HOSTILE}"));
}
