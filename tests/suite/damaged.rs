//! Files of the state directory that are damaged when the agent starts.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::Agent;

/// Kills an agent, changes one of its state files, and starts another agent in the same directory.
fn restarted(mut agent: Agent, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> Agent {
    agent.signal(Signal::SIGKILL);
    assert!(!agent.wait().success());
    let directory = agent.into_dead_directory();
    let path: PathBuf = directory.path().join("state").join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
    Agent::in_directory(directory, &["--window", "1s"])
}

/// Changes the last byte of every occurrence of a text.
fn garble(bytes: &mut [u8], what: &str) {
    let found: Vec<_> = bytes
        .windows(what.len())
        .enumerate()
        .filter(|(_, it)| *it == what.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!found.is_empty(), "{what} is not in the file");
    found.into_iter().for_each(|at| bytes[at + what.len() - 1] ^= 1);
}

#[test]
fn a_damaged_journal_is_reported_with_the_containers_that_are_missing_and_the_others_are_back() {
    let agent = Agent::start();
    for n in 0..3 {
        agent.reserve(&format!("damaged-{n}"), &format!("task.{n}")).send("a:1|c");
        agent.until("a window closes", || !agent.metrics(&format!("task.{n}"), "?window=all").is_empty());
    }
    agent.until("all windows are written", || agent.own_metric("tallyport_window_log_windows_total") >= 3.0);
    let agent = restarted(agent, "containers.journal", |bytes| {
        garble(bytes, "damaged-0");
        garble(bytes, "damaged-2");
    });
    assert_eq!(agent.get("/v1/tasks/task.1").1["containers"][0]["state"], "listening");
    assert!(agent.own_metric("tallyport_state_damaged{file=\"journal\"}") >= 1.0);
    assert_eq!(agent.own_metric("tallyport_state_damaged{file=\"epoch\"}"), 0.0);
    let damage = agent.get("/v1/node").1["state_damage"].clone();
    let doctor = agent.cli(&["doctor"]).out;
    for said in [damage[0]["found"].as_str().unwrap(), &doctor, &agent.log()] {
        assert!(said.contains("damaged-0 of task task.0"), "{said}");
        assert!(said.contains("damaged-2 of task task.2") && !said.contains("damaged-1 of task"), "{said}");
    }
    assert!(doctor.contains("restart the containers that have no socket any more"), "{doctor}");
    // Restored containers are written again completely.
    let agent = restarted(agent, "containers.journal", |_| {});
    assert_eq!(agent.get("/v1/node").1["state_damage"], json!([]));
    assert_eq!(agent.get("/v1/tasks/task.1").1["containers"][0]["state"], "listening");
}

#[test]
fn a_damaged_epoch_is_reported_and_replaced_by_a_greater_one() {
    let agent = Agent::start();
    let epoch = |agent: &Agent| agent.get("/v1/node").1["epoch"].as_u64().unwrap();
    let first = epoch(&agent);
    // An epoch that only the window log will still have.
    let agent = restarted(agent, "epoch", |bytes| *bytes = (first + 1_000_000).to_string().into_bytes());
    let second = epoch(&agent);
    assert_eq!(second, first + 1_000_001);
    agent.reserve("damaged-3", "task.3").send("a:1|c");
    agent.until("a window is written", || agent.own_metric("tallyport_window_log_windows_total") >= 1.0);
    let agent = restarted(agent, "epoch", |bytes| *bytes = vec![0xff, 0xfe, 0, 7]);
    assert!(epoch(&agent) > second, "{} after {second}", epoch(&agent));
    assert_eq!(agent.own_metric("tallyport_state_damaged{file=\"epoch\"}"), 1.0);
    let doctor = agent.cli(&["doctor"]).out;
    assert!(doctor.contains("epoch was damaged at the start: its 4 bytes are no number"), "{doctor}");
    assert!(agent.log().contains("the epoch file is damaged"), "{}", agent.log());
}
