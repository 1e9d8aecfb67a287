//! Reconciliation of the container table with running processes on demand.

use std::net::UdpSocket;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::restart::{Sleeper, shown};

fn reconciled(agent: &Agent) -> Value {
    let (status, found) = agent.admin("POST", "/v1/reconcile", &Value::Null);
    assert_eq!(status, 200, "{found}");
    found
}

#[test]
fn a_lost_container_is_back_with_the_next_request() {
    let flags = ["--window", "1s"];
    let mut agent = Agent::with(&flags);
    let process = Sleeper::start();
    let address = agent
        .reserve_with(&json!({"container_id": "lost-and-found", "task_id": "web", "pid": process.pid()}));
    agent.reserve("waiting-on", "web");
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let stranger = UdpSocket::bind(address.to).unwrap();
    let agent = Agent::in_directory(agent.into_dead_directory(), &flags);
    let found = reconciled(&agent);
    assert_eq!(
        (&found["checked"], &found["lost"], &found["back"]),
        (&json!(2), &json!(["lost-and-found"]), &json!([]))
    );
    let said = agent.cli(&["containers", "reconcile"]);
    assert!(
        said.code == 0 && said.out.contains("still lost") && said.out.contains("lost-and-found"),
        "{said:?}"
    );
    drop(stranger);
    // Without the call it would be retried only every five seconds.
    let found = reconciled(&agent);
    assert_eq!((&found["lost"], &found["back"]), (&json!([]), &json!(["lost-and-found"])), "{found}");
    assert_eq!(shown(&agent, "lost-and-found")["state"], "listening");
    address.send("a:1|c");
    agent.until("it is heard", || shown(&agent, "lost-and-found")["received"] == 1);
}

#[test]
fn ended_containers_are_known_when_the_answer_comes() {
    let agent = Agent::start();
    let processes: Vec<_> = (0..20).map(|_| Sleeper::start()).collect();
    for (n, process) in processes.iter().enumerate() {
        agent.reserve_with(
            &json!({"container_id": format!("short-lived-{n}"), "task_id": "web", "pid": process.pid()}),
        );
    }
    agent.stand_still();
    drop(processes);
    agent.signal(Signal::SIGCONT);
    let found = reconciled(&agent);
    let listed = agent.admin("GET", "/v1/containers", &Value::Null).1;
    let states: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert!(states.iter().all(|state| state == "draining" || state == "gone"), "{found}: {states:?}");
    let json: Value = serde_json::from_str(&agent.cli(&["containers", "reconcile", "--json"]).out).unwrap();
    assert_eq!(json["checked"], 0);
}

#[test]
fn notes_of_the_wrapper_are_read_at_once_or_said_not_to_be() {
    let agent = Agent::start();
    let notes = agent.admin_socket().with_added_extension("missed");
    assert_eq!(reconciled(&agent)["notes_read"], true);
    // Other users may write to it.
    std::fs::create_dir(&notes).unwrap();
    std::fs::set_permissions(&notes, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(reconciled(&agent)["notes_read"], false);
    assert!(agent.cli(&["containers", "reconcile"]).err.contains("notes could not be read"));
}
