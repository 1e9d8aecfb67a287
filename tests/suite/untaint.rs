//! `tallyport untaint` with a simulated API server over HTTPS, and a simulated agent.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::access::Files;
use crate::agent::{BINARY, PATIENCE, ran};

const KEY: &str = "tallyport/agent-not-ready";
const TOKEN: &str = "a-token-of-a-service-account";

/// The relevant parts of a request.
struct Asked {
    method: String,
    path: String,
    token: String,
    media: String,
    body: Value,
}

/// An answer: status and document. `None` closes the connection.
type Answer = Option<(u16, Value)>;

/// A single-threaded server on its own address.
fn serve(
    tls: Option<Arc<ServerConfig>>,
    mut answer: impl FnMut(Asked) -> Answer + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tls = tls.as_ref().map(|tls| ServerConnection::new(Arc::clone(tls)).unwrap());
            match tls {
                Some(tls) => exchange(StreamOwned::new(tls, stream), &mut answer),
                None => exchange(stream, &mut answer),
            }
        }
    });
    address
}

/// One request and its answer.
fn exchange(stream: impl Read + Write, answer: &mut impl FnMut(Asked) -> Answer) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        // A client that does not trust the certificate closes the connection.
        if stream.read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let field = |name: &str| {
        let found = lines.iter().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_default().to_owned()
    };
    let mut body = vec![0; field("content-length: ").parse().unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let mut first = lines[0].split(' ').map(str::to_owned);
    let asked = Asked {
        method: first.next().unwrap(),
        path: first.next().unwrap(),
        token: field("authorization: Bearer "),
        media: field("content-type: "),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let Some((status, document)) = answer(asked) else { return };
    let text = document.to_string();
    let head = format!("HTTP/1.1 {status} It\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
    let stream = stream.get_mut();
    stream.write_all(format!("{head}{text}").as_bytes()).unwrap();
    stream.flush().unwrap();
}

/// An API server with one node that follows Kubernetes' rules for resource versions.
struct Cluster {
    address: SocketAddr,
    node: Arc<Mutex<Node>>,
    /// The certificate and the service account's files.
    files: Files,
}

#[derive(Default)]
struct Node {
    version: u64,
    taints: Vec<Value>,
    /// Answers to send before requests succeed.
    troubles: Vec<Answer>,
    patches: usize,
    /// Errors in requests.
    wrong: Option<String>,
    /// The number of patches just before which another client changes the node.
    races: usize,
}

impl Node {
    fn answer(&mut self, asked: &Asked) -> Answer {
        if asked.token != TOKEN {
            return Some((401, json!({"kind": "Status", "message": "who are you?"})));
        }
        if !self.troubles.is_empty() {
            return self.troubles.remove(0);
        }
        let path = asked.path.split('?').next().unwrap();
        if path != "/api/v1/nodes/node-1" {
            return Some((404, json!({"kind": "Status", "message": format!("{path} not found")})));
        }
        if asked.method == "PATCH" {
            if self.races > 0 {
                self.races -= 1;
                self.taint(&json!({"key": format!("race-{}", self.races), "effect": "NoSchedule"}));
            }
            if asked.media != "application/merge-patch+json" {
                self.wrong = Some(asked.media.clone());
            }
            if asked.body["metadata"]["resourceVersion"] != self.version.to_string().as_str() {
                return Some((409, json!({"kind": "Status", "message": "the object has been modified"})));
            }
            self.taints.clone_from(asked.body["spec"]["taints"].as_array().unwrap());
            self.version += 1;
            self.patches += 1;
        }
        Some((
            200,
            json!({
                "kind": "Node",
                "metadata": {"name": "node-1", "resourceVersion": self.version.to_string()},
                "spec": {"taints": self.taints},
            }),
        ))
    }

    fn taint(&mut self, taint: &Value) {
        self.taints.push(taint.clone());
        self.version += 1;
    }
}

impl Cluster {
    fn new() -> Self {
        let files = Files::new();
        files.write("token", &format!("{TOKEN}\n"));
        std::fs::copy(files.at("a.crt"), files.at("ca.crt")).unwrap();
        let node = Arc::new(Mutex::new(Node { version: 7, ..Node::default() }));
        node.lock().unwrap().taint(&ours());
        let shared = Arc::clone(&node);
        let address = serve(Some(tls(&files)), move |asked| shared.lock().unwrap().answer(&asked));
        Self { address, node, files }
    }

    fn command(&self, agent: &str) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(["untaint", "--node", "node-1", "--interval", "20ms", "--url", agent, "--credentials"])
            .arg(self.files.at("."))
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", self.address.port().to_string())
            .env_remove("TALLYPORT_CA")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn keys(&self) -> Vec<String> {
        let node = self.node.lock().unwrap();
        assert_eq!(node.wrong, None);
        node.taints.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
    }
}

fn ours() -> Value {
    json!({"key": KEY, "effect": "NoSchedule"})
}

fn tls(files: &Files) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(files.at("a.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(files.at("a.key")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

/// An agent that answers /ready with a configured document.
fn agent(tls: Option<Arc<ServerConfig>>) -> (SocketAddr, Arc<Mutex<Answer>>) {
    let ready = Arc::new(Mutex::new(None));
    let shared = Arc::clone(&ready);
    let address = serve(tls, move |asked| {
        assert_eq!(
            (asked.path.as_str(), asked.token.as_str()),
            ("/ready", ""),
            "no token is needed, and none is sent"
        );
        shared.lock().unwrap().clone()
    });
    (address, ready)
}

fn degraded(what: &str) -> (u16, Value) {
    (200, json!({"ready": true, "pending": [], "degraded": [{"what": what, "why": "no socket yet"}]}))
}

fn registered() -> (u16, Value) {
    (200, json!({"ready": true, "pending": [], "degraded": []}))
}

/// A running command, whose log can be read.
struct Running {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
        });
        Self { child, log }
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    fn end(mut self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _either_way = self.child.kill();
    }
}

#[test]
fn a_taint_goes_when_the_agent_is_registered_and_again_when_it_comes_back() {
    let cluster = Cluster::new();
    let other = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    cluster.node.lock().unwrap().taint(&other);
    let (address, ready) = agent(None);
    let running = Running::start(&mut cluster.command(&format!("http://{address}")));
    running.until("it sees that the agent does not answer", || running.log().contains("not registered yet"));
    *ready.lock().unwrap() = Some((503, json!({"ready": false, "pending": ["shards"], "degraded": []})));
    running.until("it sees what is pending", || running.log().contains("pending: shards"));
    *ready.lock().unwrap() = Some(degraded("nri"));
    running.until("it sees that the plugin is not registered", || running.log().contains("no socket yet"));
    assert_eq!(cluster.keys(), [KEY, "node.kubernetes.io/unschedulable"]);
    *ready.lock().unwrap() = Some(degraded("guard"));
    running.until("the taint is gone", || cluster.keys() == ["node.kubernetes.io/unschedulable"]);
    cluster.node.lock().unwrap().taint(&ours());
    running.until("it is gone again", || cluster.node.lock().unwrap().patches == 2);
    assert_eq!(cluster.keys(), ["node.kubernetes.io/unschedulable"]);
    running.end(Signal::SIGTERM);
}

#[test]
fn what_another_client_adds_at_the_same_time_is_not_lost() {
    let cluster = Cluster::new();
    cluster.node.lock().unwrap().races = 3;
    let (address, ready) = agent(None);
    *ready.lock().unwrap() = Some(registered());
    let running = Running::start(&mut cluster.command(&format!("http://{address}")));
    running.until("the taint is gone", || cluster.keys() == ["race-2", "race-1", "race-0"]);
    running.end(Signal::SIGINT);
}

#[test]
fn an_api_server_that_hangs_up_fails_or_refuses_is_asked_again() {
    let cluster = Cluster::new();
    let denied = json!({"kind": "Status", "message": "nodes \"node-1\" is forbidden"});
    cluster.node.lock().unwrap().troubles = vec![None, Some((503, json!("starting"))), Some((403, denied))];
    let (address, ready) = agent(None);
    *ready.lock().unwrap() = Some(registered());
    let running = Running::start(&mut cluster.command(&format!("http://{address}")));
    running.until("the taint is gone", || cluster.keys().is_empty());
    let log = running.log();
    assert!(log.contains("does not answer") && log.contains("answers 503"), "{log}");
    assert!(log.contains("is forbidden") && log.contains("allowed to get and patch nodes"), "{log}");
    running.end(Signal::SIGTERM);
}

#[test]
fn an_agent_that_speaks_tls_is_asked_without_a_token_once_its_certificate_is_there() {
    let cluster = Cluster::new();
    let (address, ready) = agent(Some(tls(&cluster.files)));
    *ready.lock().unwrap() = Some(registered());
    let late = cluster.files.at("late.crt");
    let mut command = cluster.command(&format!("https://localhost:{}", address.port()));
    // An unreadable token file is not an error.
    command.env("TALLYPORT_CA", &late).env("TALLYPORT_TOKEN_FILE", "/nowhere/token");
    let running = Running::start(&mut command);
    running.until("it says what is missing", || running.log().contains("late.crt"));
    assert_eq!(cluster.keys(), [KEY]);
    std::fs::copy(cluster.files.at("a.crt"), late).unwrap();
    running.until("the taint is gone", || cluster.keys().is_empty());
    running.end(Signal::SIGTERM);
}

#[test]
fn a_signal_ends_it_at_once_whatever_it_waits_for() {
    let cluster = Cluster::new();
    let running = Running::start(&mut cluster.command("http://127.0.0.1:1"));
    running.until("it waits for the agent", || running.log().contains("not registered yet"));
    running.end(Signal::SIGTERM);
    cluster.node.lock().unwrap().troubles = vec![Some((500, Value::Null)); 50];
    let running = Running::start(&mut cluster.command("http://127.0.0.1:1"));
    running.until("it waits for the API server", || running.log().contains("retry_in"));
    running.end(Signal::SIGINT);
}

#[test]
fn outside_of_a_pod_it_says_what_is_missing() {
    let mut command = Command::new(BINARY);
    command.args(["untaint", "--node", "node-1"]).env_remove("KUBERNETES_SERVICE_HOST");
    let refused = ran(&mut command);
    assert!(refused.code == 2 && refused.err.contains("KUBERNETES_SERVICE_HOST"), "{refused:?}");
}
