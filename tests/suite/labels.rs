//! Labels of the node, from a file.

use std::path::Path;

use serde_json::{Value, json};

use crate::agent::Agent;

/// An agent that reads its node's labels from a file, and the path of the file.
fn agent(text: &str) -> (Agent, std::path::PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("labels");
    std::fs::write(&file, text).unwrap();
    let agent = Agent::with(&["--window", "1s", "--set", &format!("node_labels={}", file.display())]);
    (agent, file, directory)
}

fn labels(agent: &Agent, container: &str) -> Value {
    agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null).1["labels"].clone()
}

#[test]
fn every_record_of_the_node_has_its_labels_and_no_container_can_change_them() {
    let (agent, ..) =
        agent("# as the downward API writes them\ntopology.kubernetes.io/zone=\"eu-1a\"\nrack=r7\n");
    let body = json!({"container_id": "c1", "task_id": "t", "ttl": null, "labels": {"rack": "mine", "team": "shop"}});
    agent.reserve_with(&body).send("a:1|c");
    agent.finish("c1");
    let expected = json!({"rack": "r7", "team": "shop", "topology.kubernetes.io/zone": "eu-1a"});
    assert_eq!(agent.metrics("t", "?window=all")[0]["origin"]["labels"], expected);
    assert_eq!(labels(&agent, "c1"), expected);
    let by_label = agent.get("/v1/tasks?label=rack:r7").1;
    assert_eq!(by_label.as_array().unwrap().len(), 1);
}

#[test]
fn a_reload_reads_the_file_again_for_those_that_come_after() {
    let (agent, file, _directory) = agent("rack=r7\n");
    agent.reserve("before", "t");
    std::fs::write(&file, "rack=r8\n").unwrap();
    assert_eq!(agent.admin("POST", "/v1/config/reload", &Value::Null).0, 200);
    agent.reserve("after", "t");
    assert_eq!(
        (labels(&agent, "before"), labels(&agent, "after")),
        (json!({"rack": "r7"}), json!({"rack": "r8"}))
    );
    std::fs::write(&file, "rack=r9\nnamespace=bank\n").unwrap();
    let (status, refused) = agent.admin("POST", "/v1/config/reload", &Value::Null);
    let message = refused["message"].as_str().unwrap();
    assert_eq!(status, 400, "{refused}");
    assert!(
        message.contains(&format!("{}:2: namespace identifies a container", file.display())),
        "{message}"
    );
    agent.reserve("later", "t");
    assert_eq!(labels(&agent, "later"), json!({"rack": "r8"}), "a file with a mistake changes nothing");
}

#[test]
fn an_agent_does_not_start_with_labels_that_it_cannot_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("labels");
    std::fs::write(&file, "rack=r7\nzone=\"open\nzone=\"b\" c\n").unwrap();
    let check = |path: &Path| {
        let set = format!("node_labels={}", path.display());
        crate::cli::tallyport(&["config", "check", "--set", &set])
    };
    let ran = check(&file);
    assert_ne!(ran.code, 0);
    for mistake in [":2: the quotes are not closed", ":3: \" c\" is left over after the quotes"] {
        assert!(ran.err.contains(&format!("{}{mistake}", file.display())), "{}", ran.err);
    }
    let ran = check(&directory.path().join("nothing"));
    assert!(ran.code != 0 && ran.err.contains("cannot be read: No such file"), "{}", ran.err);
}
