//! Forged datagrams to every address that can be guessed, and the containers under which they are counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::containers::{Bundle, Runtime};
use crate::namespaces::Namespace;
use crate::tools;

/// Datagrams of all forgers together.
const DATAGRAMS: usize = 10_000;

/// Sends a datagram to each address of a list repeatedly, alternately with `sendto` and to a connected peer; bound to a
/// source address if the list has one. Counts the kernel's results.
const FORGER: &str = r#"use strict; use Socket qw(:DEFAULT :addrinfo inet_pton pack_sockaddr_in6 AF_INET6);
    my ($list, $times, $line) = @ARGV;
    open my $lines, '<', $list or die $!;
    my @targets = map { chomp; [split ' '] } <$lines>;
    sub name { my ($host, $port) = @_;
        $host =~ /:/ ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $host)) : pack_sockaddr_in($port, inet_pton(AF_INET, $host)) }
    my %said;
    for my $n (0 .. $times - 1) {
        my ($from, $host, $port) = @{$targets[$n % @targets]};
        my $ok = socket(my $s, $host =~ /:/ ? AF_INET6 : AF_INET, SOCK_DGRAM, 17);
        setsockopt($s, SOL_SOCKET, SO_BROADCAST, 1);
        $ok &&= bind($s, name($from, 0)) if $from ne '-';
        my $to = name($host, $port);
        $ok &&= int($n / @targets) % 2 ? connect($s, $to) && send($s, $line, 0) : send($s, $line, 0, $to);
        $said{$ok ? 'sent' : $! == 1 ? 'refused' : 'failed'}++;
    }
    print "$_ $said{$_}\n" for sort keys %said;"#;

/// A node in a separate network: its agent, two containers with their own networks, two on the node's network.
struct Node {
    agent: Agent,
    network: Namespace,
    bundles: [Bundle; 4],
}

const NAMES: [&str; 4] = ["alone", "alone_too", "on_the_node", "on_the_node_too"];

impl Node {
    fn new(runtime: &Runtime, guard: &str) -> Self {
        let network = Namespace::new();
        inside(&network, &["ip", "link", "set", "lo", "up"]);
        inside(&network, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        let guard = format!("listeners.guard={guard}");
        let agent = Agent::inside(&network.path(), &["--window", "1s", "--set", &guard]);
        let bundles = [0, 1, 2, 3].map(|n| {
            let bundle = Bundle::new(runtime, &agent.admin_socket());
            bundle.change(|config| {
                config["annotations"] = json!({"tallyport.task-id": NAMES[n]});
                if n >= 2 {
                    config["linux"]["namespaces"][4]["path"] = json!(network.path());
                }
            });
            bundle.create();
            if n < 2 {
                link(&network, &bundle, n + 1);
            }
            bundle.must(&["start", &bundle.id]);
            bundle.until_ready();
            bundle
        });
        Self { agent, network, bundles }
    }

    fn shown(&self, n: usize) -> Value {
        self.agent.admin("GET", &format!("/v1/containers/{}", self.bundles[n].id), &Value::Null).1
    }

    /// Every address that can be derived from this node's API, interfaces and socket tables.
    fn guesses(&self) -> Vec<String> {
        let registered: Vec<(String, u64)> = [0, 1, 2, 3]
            .map(|n| self.shown(n))
            .iter()
            .map(|shown| {
                (shown["statsd_host"].as_str().unwrap().to_owned(), shown["statsd_port"].as_u64().unwrap())
            })
            .collect();
        let mut hosts: Vec<String> = registered.iter().map(|(host, _)| host.clone()).collect();
        let others = ["127.0.0.1", "0.0.0.0", "127.255.255.255", "255.255.255.255"];
        hosts.extend(others.map(str::to_owned));
        // The node's and the containers' addresses, and broadcast addresses.
        for network in [1, 2] {
            hosts.extend([1, 2, 255].map(|host| format!("10.77.{network}.{host}")));
        }
        let twins: Vec<String> = hosts.iter().map(|host| format!("::ffff:{host}")).collect();
        hosts.extend(twins);
        hosts.extend(["::1", "::"].map(str::to_owned));
        let ports = registered.iter().map(|(_, port)| *port).chain(18_125..18_128);
        let ports: std::collections::BTreeSet<u64> = ports.collect();
        let mut guesses: Vec<String> =
            hosts.iter().flat_map(|host| ports.iter().map(move |port| format!("- {host} {port}"))).collect();
        // Bound to the container's address, to the unspecified and to the broadcast address.
        for (host, port) in &registered[2..] {
            guesses.extend([format!("{host} 0.0.0.0 {port}"), format!("{host} 127.255.255.255 {port}")]);
        }
        guesses.extend(self.sockets());
        guesses
    }

    /// The node's tables of UDP sockets.
    fn sockets(&self) -> Vec<String> {
        let table = inside(&self.network, &["cat", "/proc/net/udp"]);
        let local = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.split_once(':'));
        let readable = local.map(|(host, port)| {
            let host = u32::from_str_radix(host, 16).unwrap().to_ne_bytes();
            let port = u16::from_str_radix(port, 16).unwrap();
            format!("- {} {port}", std::net::Ipv4Addr::from(host))
        });
        let found: Vec<String> = readable.collect();
        assert!(found.len() >= 2, "those of the containers on the node: {found:?}");
        found
    }

    /// Sends forged datagrams from the node and from every container. Returns the kernel's results for each.
    fn forge(&self) -> BTreeMap<&'static str, String> {
        let guesses = self.guesses();
        let times = (DATAGRAMS / 5).to_string();
        eprintln!("{} addresses, 5 forgers, {times} datagrams each", guesses.len());
        let mut said = BTreeMap::new();
        let list = self.bundles[0].path("out/list");
        std::fs::write(&list, guesses.join("\n")).unwrap();
        let from_the_node = ["perl", "-e", FORGER, list.to_str().unwrap(), &times, "forged_by_the_node:1|c"];
        said.insert("the_node", inside(&self.network, &from_the_node));
        for (name, bundle) in NAMES.into_iter().zip(&self.bundles) {
            std::fs::write(bundle.path("out/list"), guesses.join("\n")).unwrap();
            let line = format!("forged_by_{name}:1|c");
            let ran =
                bundle.must(&["exec", &bundle.id, "/usr/bin/perl", "-e", FORGER, "/out/list", &times, &line]);
            said.insert(name, ran.out);
        }
        said
    }

    /// The counts of each container, by name of series.
    fn counted(&self) -> Vec<BTreeMap<String, f64>> {
        for (n, bundle) in self.bundles.iter().enumerate() {
            bundle.kill();
            self.agent.until("it is gone", || self.shown(n)["state"] == "gone");
        }
        let counted = NAMES.map(|task| {
            let path = format!("/v1/tasks/{task}/metrics?window=all&merge");
            let (status, answer) = self.agent.admin("GET", &path, &Value::Null);
            assert_eq!(status, 200, "{answer}");
            let records = answer["metrics"].as_array().unwrap().clone();
            let one = |record: Value| {
                (record["name"].as_str().unwrap().to_owned(), record["value"].as_f64().unwrap())
            };
            records.into_iter().map(one).collect()
        });
        counted.into()
    }
}

/// Connects a container's own network with the node's.
fn link(network: &Namespace, bundle: &Bundle, n: usize) {
    let (pid, outside) = (bundle.pid().to_string(), format!("out{n}"));
    inside(network, &["ip", "link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
    inside(network, &["ip", "address", "add", &format!("10.77.{n}.1/24"), "broadcast", "+", "dev", &outside]);
    inside(network, &["ip", "link", "set", &outside, "up"]);
    let within = |words: &[&str]| {
        let ran = Command::new("nsenter").args(["--net", "--target", &pid]).args(words).status();
        assert!(ran.unwrap().success(), "{words:?}");
    };
    within(&["ip", "address", "add", &format!("10.77.{n}.2/24"), "broadcast", "+", "dev", "eth0"]);
    within(&["ip", "link", "set", "eth0", "up"]);
    within(&["ip", "route", "add", "default", "via", &format!("10.77.{n}.1")]);
}

/// Runs a program in a network. Returns its output.
fn inside(network: &Namespace, words: &[&str]) -> String {
    let net = format!("--net={}", network.path().display());
    let ran = Command::new("nsenter").arg(net).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn runtime() -> Option<Runtime> {
    tools::network_namespaces()?;
    tools::guard()?;
    if !Path::new("/usr/bin/perl").exists() {
        return None;
    }
    tools::runtime("runc")
}

/// Counts under a name that came from another sender.
fn strangers<'c>(name: &str, counted: &'c BTreeMap<String, f64>) -> BTreeMap<&'c str, f64> {
    let own = ["starts".to_owned(), format!("forged_by_{name}")];
    counted
        .iter()
        .filter(|(series, _)| !own.contains(series))
        .map(|(series, n)| (series.as_str(), *n))
        .collect()
}

#[test]
fn nothing_is_counted_under_the_name_of_a_container_that_did_not_send_it() {
    let Some(runtime) = runtime() else { return };
    let node = Node::new(&runtime, "required");
    let guards = [0, 1, 2, 3].map(|n| node.shown(n)["origin_guard"].clone());
    assert_eq!(guards, [json!("netns"), json!("netns"), json!("cgroup"), json!("cgroup")]);
    let said = node.forge();
    eprintln!("the kernel said: {said:?}");
    for name in ["the_node", "on_the_node", "on_the_node_too"] {
        assert!(said[name].contains("refused") && said[name].contains("sent"), "{name}: {}", said[name]);
    }
    for (name, counted) in NAMES.into_iter().zip(node.counted()) {
        assert_eq!(strangers(name, &counted), BTreeMap::new(), "{name}");
        assert_eq!(counted["starts"], 1.0, "{name}");
        assert!(counted[&format!("forged_by_{name}")] > 0.0, "{name} is no stranger to itself: {counted:?}");
    }
}

#[test]
fn without_the_guard_containers_on_the_nodes_network_say_so_and_others_are_as_safe() {
    let Some(runtime) = runtime() else { return };
    let node = Node::new(&runtime, "off");
    let guards = [0, 1, 2, 3].map(|n| node.shown(n)["origin_guard"].clone());
    assert_eq!(guards, [json!("netns"), json!("netns"), json!("none"), json!("none")]);
    node.forge();
    for (name, counted) in NAMES.into_iter().zip(node.counted()) {
        let strangers = strangers(name, &counted);
        eprintln!("got through to {name}, of {DATAGRAMS}: {strangers:?}");
        // Without the guard every forger on the node's network succeeds; otherwise the test above would prove nothing.
        let expected: &[&str] = match name {
            "on_the_node" => &["forged_by_on_the_node_too", "forged_by_the_node"],
            "on_the_node_too" => &["forged_by_on_the_node", "forged_by_the_node"],
            _ => &[],
        };
        assert_eq!(strangers.keys().copied().collect::<Vec<_>>(), expected, "{name}");
    }
}
