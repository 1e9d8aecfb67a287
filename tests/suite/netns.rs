//! Sockets inside containers' own network namespaces.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::namespaces::{Namespace, Process};
use crate::tools;

fn reserve(agent: &Agent, container: &str, network: &Value) -> Value {
    let body = json!({"container_id": container, "task_id": format!("task-{container}"), "network": network});
    let (status, reserved) = agent.admin("POST", "/v1/containers", &body);
    assert_eq!(status, 201, "{reserved}");
    reserved
}

fn network_of(namespace: &Namespace) -> Value {
    json!({"mode": "netns", "path": namespace.path()})
}

fn attach(agent: &Agent, container: &str, process: &Process) -> (u16, Value) {
    agent.admin("POST", &format!("/v1/containers/{container}/attach"), &json!({"pid": process.pid()}))
}

fn shown(agent: &Agent, container: &str) -> Value {
    agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null).1
}

fn wait_until_received(agent: &Agent, container: &str, datagrams: u64) {
    agent.until("the datagram is counted", || shown(agent, container)["received"] == datagrams);
}

#[test]
fn a_socket_in_a_namespace_is_reached_from_inside_and_from_nowhere_else() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::start();
    let namespace = Namespace::new();
    let reserved = reserve(&agent, "c1", &network_of(&namespace));
    assert_eq!(
        (&reserved["statsd_host"], &reserved["statsd_port"], &reserved["state"], &reserved["warnings"]),
        (&json!("127.0.0.1"), &json!(18_125), &json!("listening"), &json!([]))
    );
    // Only the agent has brought `lo` up in the namespace.
    namespace.send(18_125, "a:1|c");
    wait_until_received(&agent, "c1", 1);
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    for port in 18_120..18_140 {
        let _refused = outside.send_to(b"forged:1|c", ("127.0.0.1", port));
    }
    namespace.send(18_125, "a:2|c");
    wait_until_received(&agent, "c1", 2);
    assert_eq!(shown(&agent, "c1")["origin_guard"], "netns");
    agent.finish("c1");
    let totals = agent.totals("task-c1");
    assert_eq!((totals.len(), &totals["a"]["value"]), (1, &json!(3.0)));
}

#[test]
fn siblings_have_their_own_ports_and_a_restarted_container_keeps_its_port() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::start();
    let (pod, other) = (Namespace::new(), Namespace::new());
    let port = |id: &str, name: &str, namespace: &Namespace| {
        let body = json!({"container_id": id, "task_id": id, "labels": {"container": name}, "network": network_of(namespace)});
        let (status, reserved) = agent.admin("POST", "/v1/containers", &body);
        assert_eq!(status, 201, "{reserved}");
        u16::try_from(reserved["statsd_port"].as_u64().unwrap()).unwrap()
    };
    assert_eq!([port("c1", "app", &pod), port("c2", "sidecar", &pod)], [18_125, 18_126]);
    assert_eq!(port("c3", "app", &other), 18_125, "ports in another namespace are independent");
    pod.send(18_125, "a:1|c");
    pod.send(18_126, "b:1|c\nb:1|c");
    agent.finish("c1");
    assert_eq!(port("c4", "late", &pod), 18_127);
    assert_eq!(port("c5", "app", &pod), 18_125);
    agent.finish("c2");
    assert_eq!(
        (&agent.totals("c1")["a"]["value"], &agent.totals("c2")["b"]["value"]),
        (&json!(1.0), &json!(2.0))
    );
}

#[test]
fn a_port_that_the_application_has_is_left_to_it() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::start();
    let namespace = Namespace::new();
    reserve(&agent, "c1", &network_of(&namespace));
    // A second agent does not know the ports of the first, just as it does not know those of an application.
    let stranger = Agent::start();
    assert_eq!(reserve(&stranger, "c1", &network_of(&namespace))["statsd_port"], 18_126);
}

#[test]
fn a_container_that_was_told_its_port_gets_that_port_or_none() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::start();
    let namespace = Namespace::new();
    let ask = |container: &str, port: u32| {
        let body =
            json!({"container_id": container, "network": network_of(&namespace), "options": {"port": port}});
        agent.admin("POST", "/v1/containers", &body)
    };
    let (status, reserved) = ask("c1", 8125);
    assert_eq!((status, &reserved["statsd_port"]), (201, &json!(8125)), "{reserved}");
    namespace.send(8125, "a:1|c");
    wait_until_received(&agent, "c1", 1);
    assert_eq!(ask("c1", 8125).0, 200, "again");
    let (status, refused) = ask("c2", 8125);
    assert_eq!((status, &refused["code"]), (409, &json!("address_taken")), "{refused}");
    for port in [0, 65_536] {
        assert_eq!(ask("c3", port).0, 400, "{port}");
    }
}

#[test]
fn a_container_that_is_not_born_knows_its_address_and_has_it_once_it_is() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::start();
    let reserved = reserve(&agent, "c1", &json!({"mode": "new"}));
    assert_eq!((&reserved["state"], &reserved["attached"]), (&json!("reserved"), &json!(false)));
    assert_eq!(reserved["env"], json!({"STATSD_UDP_HOST": "127.0.0.1", "STATSD_UDP_PORT": "18125"}));
    let mut process = Process::apart();
    let (status, attached) = attach(&agent, "c1", &process);
    assert_eq!((status, &attached["state"], &attached["attached"]), (200, &json!("listening"), &json!(true)));
    assert_eq!((&attached["statsd_host"], &attached["statsd_port"]), (&json!("127.0.0.1"), &json!(18_125)));
    assert_eq!(attach(&agent, "c1", &process).0, 200, "a repeat changes nothing");
    process.send(18_125, "a:7|c");
    wait_until_received(&agent, "c1", 1);
    process.end();
    agent.until("it is gone", || shown(&agent, "c1")["state"] == "gone");
    assert_eq!(agent.totals("task-c1")["a"]["value"], 7.0);
}

#[test]
fn a_process_in_a_reserve_call_brings_its_namespace() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::start();
    let process = Process::apart();
    let body = json!({"container_id": "c1", "network": {"mode": "new"}, "pid": process.pid()});
    let (status, reserved) = agent.admin("POST", "/v1/containers", &body);
    assert_eq!((status, &reserved["state"], &reserved["attached"]), (201, &json!("listening"), &json!(true)));
    process.send(18_125, "a:1|c");
    wait_until_received(&agent, "c1", 1);
}

#[test]
fn a_namespace_goes_within_a_second_of_its_container() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::with(&["--window", "10s", "--set", "containers.reservation_ttl=1s"]);
    let descriptors = || agent.descriptors();
    let before = descriptors();
    // Three ways to end: its process, a release, or the expiry of its reservation.
    for ending in ["process", "release", "expiry"] {
        let namespace = Namespace::new();
        let leash = namespace.leash();
        reserve(&agent, ending, &network_of(&namespace));
        let mut process = namespace.process();
        if ending == "process" {
            assert_eq!(attach(&agent, ending, &process).0, 200);
        }
        drop(namespace);
        process.send(18_125, "a:1|c");
        wait_until_received(&agent, ending, 1);
        process.end();
        let ended = Instant::now();
        if ending == "release" {
            assert!(leash.holds(), "the socket keeps its namespace");
            agent.release(ending);
        }
        agent.until("the namespace is gone", || !leash.holds());
        let patience = Duration::from_secs(if ending == "expiry" { 3 } else { 1 });
        assert!(ended.elapsed() < patience, "{ending}: {:?}", ended.elapsed());
        assert_eq!(agent.totals(&format!("task-{ending}"))["a"]["value"], 1.0, "{ending}");
    }
    agent.until("no descriptor is left", || descriptors() <= before);
}
