//! Optional parts of the program: a build without one refuses its settings, routes and commands, and says so. Each test holds for
//! any choice of features, and `scripts/ci/features` runs them without all of them.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that panics has done its work"
)]

#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "suite/agent.rs"]
mod agent;

use std::process::Command;

use agent::{Agent, BINARY, Ran, ran};
use serde_json::{Value, json};
use tallyport::products::Product;

fn tallyport(args: &[&str]) -> Ran {
    ran(Command::new(BINARY).args(args))
}

fn missing() -> Vec<&'static str> {
    Product::list_missing().map(Product::feature_name).collect()
}

#[test]
fn an_agent_refuses_the_settings_of_products_that_it_does_not_have() {
    for (setting, product) in [
        ("nri.enabled=true", Product::Nri),
        ("kubernetes.mode=opt-in", Product::Nri),
        ("listeners.guard=required", Product::Guard),
        ("dcos.host=10.1.2.3", Product::Dcos),
        ("archive.enabled=true", Product::Archive),
    ] {
        let checked = tallyport(&["config", "check", "--set", setting]);
        if product.is_built_in() {
            assert_eq!(checked.code, 0, "{setting}: {checked:?}");
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let started = ran(Command::new("timeout")
            .args(["20", BINARY, "agent", "--http-listen", "127.0.0.1:0", "--set", setting, "--admin-socket"])
            .arg(directory.path().join("admin.sock")));
        for refused in [checked, started] {
            assert_eq!(refused.code, 1, "{setting}: {refused:?}");
            let key = setting.split('=').next().unwrap();
            let why = format!("this program was built without {} (cargo feature", product.describe_product());
            assert!(refused.err.contains(key) && refused.err.contains(&why), "{refused:?}");
        }
    }
}

#[test]
fn a_command_of_a_product_that_is_not_built_in_is_unknown() {
    for (command, product) in [("hook", Product::Install), ("top", Product::Top), ("untaint", Product::Nri)] {
        let asked = tallyport(&[command, "--help"]);
        if product.is_built_in() {
            assert_eq!(asked.code, 0, "{asked:?}");
        } else {
            assert_eq!(asked.code, 2, "{asked:?}");
            assert!(asked.err.contains("has no command"), "{asked:?}");
        }
        let help = tallyport(&["--help"]).out;
        let listed = help.lines().any(|line| line.split_whitespace().next() == Some(command));
        assert_eq!(listed, product.is_built_in(), "{help}");
    }
}

#[test]
fn the_version_lists_what_is_missing() {
    let number = env!("CARGO_PKG_VERSION");
    let (text, document) = match missing().as_slice() {
        [] => (format!("tallyport {number}\n"), Value::Null),
        missing => (format!("tallyport {number} (built without {})\n", missing.join(", ")), json!(missing)),
    };
    assert_eq!(tallyport(&["--version"]).out, text);
    assert!(tallyport(&["version"]).out.starts_with(&text), "{}", tallyport(&["version"]).out);
    let printed: Value = serde_json::from_str(&tallyport(&["version", "--json"]).out).unwrap();
    assert_eq!((&printed["version"], &printed["without"]), (&json!(number), &document));
    let built_in = Product::ALL.into_iter().filter(|product| product.is_built_in());
    assert_eq!(printed["features"], json!(built_in.map(Product::feature_name).collect::<Vec<_>>()));
}

#[test]
fn a_route_of_a_product_that_is_not_built_in_is_unknown_and_not_described() {
    let agent = Agent::start();
    agent.reserve("c-1", "web.1");
    let described = agent.get("/v1/openapi.json").1;
    for (path, template, product) in [
        ("/", "/", Product::Page),
        ("/v0/ping", "/v0/ping", Product::Dcos),
        ("/v0/node", "/v0/node", Product::Dcos),
        ("/containers", "/containers", Product::Dcos),
        ("/container/c-1", "/container/{container_id}", Product::Dcos),
    ] {
        let answer = agent.runtime().block_on(agent.admin_client().get(path)).unwrap();
        if product.is_built_in() {
            assert_eq!(answer.status, 200, "{path}");
        } else {
            let unknown = agent.admin("GET", "/nowhere", &Value::Null);
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!((answer.status, body), unknown, "{path}");
            assert_eq!(unknown.0, 404);
        }
        assert_eq!(described["paths"].get(template).is_some(), product.is_built_in(), "{path}");
    }
}

#[test]
fn an_agent_without_products_still_counts_and_is_found_healthy() {
    let agent = Agent::start();
    let address = agent.reserve("c-1", "web.1");
    address.send("requests:3|c");
    agent.until("the count is shown", || {
        agent.totals("web.1").get("requests").is_some_and(|record| record["value"] == 3.0)
    });
    let (_, node) = agent.get("/v1/node");
    if !Product::Guard.is_built_in() {
        assert_eq!(node["guard"], "unavailable");
        assert!(node["guard_missing"].as_str().unwrap().contains("built without the guard"), "{node}");
    }
    assert_eq!(node["nri"]["state"], "off");
    // It shows what the agent knows of the task's resources, and nothing where the agent cannot say.
    let summary = agent.cli(&["metrics", "summary", "web.1"]);
    assert_eq!(summary.code, 0, "{summary:?}");
    let doctor = agent.cli(&["doctor"]);
    assert_eq!(doctor.code, 0, "{doctor:?}");
}
