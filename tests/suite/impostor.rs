//! Processes that listen in place of the agent, and the parts of their answers that the wrapper and the launcher
//! accept.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{BINARY, PATIENCE, Ran, ran};
use crate::containers::WRAPPER;
use crate::tools;

const CONFIG: &str = r#"{"process":{"env":["A=B"]},"linux":{"cgroupsPath":"/libpod_parent/libpod-0ab1","namespaces":[{"type":"network"}]}}"#;

/// Answers every request at a socket: reserve calls with a body, others with 202. Records the requests.
fn answer(socket: &Path, body: &Value) -> Receiver<String> {
    let listener = UnixListener::bind(socket).unwrap();
    let (body, (asked, requests)) = (body.to_string(), channel());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&stream);
            let (mut line, mut length) = (String::new(), 0);
            reader.read_line(&mut line).unwrap();
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                if let Some((_, value)) = header.split_once("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if header.trim().is_empty() {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let (status, body) = if line.starts_with("POST") { (201, body.as_str()) } else { (202, "") };
            let length = body.len();
            write!(&stream, "HTTP/1.1 {status} Yes\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
            if asked.send(line.trim().to_owned()).is_err() {
                return;
            }
        }
    });
    requests
}

/// The configuration that podman's `precreate` hook returns with these settings.
fn precreated(socket: &Path, settings: &str) -> Ran {
    let file = socket.with_file_name("oci.toml");
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new(WRAPPER);
    command.arg("precreate").env("TALLYPORT_ADMIN_SOCKET", socket).env("TALLYPORT_OCI_CONFIG", file);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(CONFIG.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn reserved(env: &Value, unix_socket: &Value) -> Value {
    json!({"container_id": "0ab1", "task_id": "0ab1", "generation": 1, "state": "reserved", "attached": false,
        "statsd_host": "127.0.0.1", "statsd_port": 18125, "env": env, "unix_socket": unix_socket, "warnings": []})
}

fn pair() -> Value {
    json!({"STATSD_UDP_HOST": "127.0.0.1", "STATSD_UDP_PORT": "18125"})
}

#[test]
fn what_the_wrapper_did_not_ask_for_is_refused_and_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("sockets");
    std::fs::create_dir(&source).unwrap();
    let mount = |source: &Path, at: &str, env: Value| {
        reserved(&pair(), &json!({"mount": {"source": source, "destination": at}, "env": env}))
    };
    let mut preload = pair();
    preload["LD_PRELOAD"] = json!("/tmp/evil.so");
    let broken = json!({"STATSD_UDP_HOST": "127.0.0.1\nLD_PRELOAD=/x", "STATSD_UDP_PORT": "1"});
    let answers = [
        (reserved(&preload, &Value::Null), "\"LD_PRELOAD\" does not name a socket"),
        (reserved(&broken, &Value::Null), "control characters"),
        (mount(&source, "/run/datadog", json!({"PATH": "/x"})), "\"PATH\" does not name a socket"),
    ];
    for (n, (body, why)) in answers.into_iter().enumerate() {
        let socket = directory.path().join(format!("{n}.sock"));
        let asked = answer(&socket, &body);
        let ran = precreated(&socket, "");
        assert_eq!((ran.code, ran.out.as_str()), (0, CONFIG), "{why}: it starts without");
        assert!(ran.err.contains(why) && ran.err.contains("starts without a socket"), "{}", ran.err);
        assert!(asked.recv_timeout(PATIENCE).unwrap().starts_with("POST /v1/containers "));
        assert!(
            asked.recv_timeout(PATIENCE).unwrap().starts_with("DELETE /v1/containers/0ab1 "),
            "given back"
        );
        let ran = precreated(&socket, "fail_closed = true");
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{why}: it does not start");
        assert!(ran.err.contains(why), "{}", ran.err);
    }
    let socket = directory.path().join("good.sock");
    let url = json!({"DD_DOGSTATSD_URL": "unix:///var/run/datadog/dsd.socket"});
    let _asked = answer(&socket, &mount(&source, "/var/run/datadog", url));
    let ran = precreated(&socket, "");
    assert!(
        ran.out.contains("DD_DOGSTATSD_URL=unix:///var/run/datadog/dsd.socket"),
        "{} {}",
        ran.out,
        ran.err
    );
    assert!(ran.out.contains(r#""destination":"/var/run/datadog""#), "{}", ran.out);
}

#[test]
fn a_mount_that_is_refused_costs_the_unix_socket_and_not_the_address() {
    let directory = tempfile::tempdir().unwrap();
    let (source, file) = (directory.path().join("sockets"), directory.path().join("file"));
    std::fs::create_dir(&source).unwrap();
    std::fs::write(&file, "").unwrap();
    let url = json!({"DD_DOGSTATSD_URL": "unix:///run/elsewhere/dsd.socket"});
    let mounts = [
        (source.as_path(), "/run/elsewhere", "set unix_path to the agent's unix.path"),
        (&source, "/etc", "the agent wants it at \"/etc\""),
        (&source, "/var/run/datadog/..", "the agent wants it at "),
        (&file, "/var/run/datadog", "is not a directory that can be reached"),
        (Path::new("sockets"), "/var/run/datadog", "is not an absolute path"),
    ];
    for (n, (source, at, why)) in mounts.into_iter().enumerate() {
        let unix_socket = json!({"mount": {"source": source, "destination": at}, "env": url});
        for (kind, env) in [("beside", pair()), ("only", json!({}))] {
            let socket = directory.path().join(format!("{kind}-{n}.sock"));
            let asked = answer(&socket, &reserved(&env, &unix_socket));
            let ran = precreated(&socket, "fail_closed = true");
            assert!(ran.err.contains(why), "{kind}: {}", ran.err);
            assert!(!ran.out.contains("mounts") && !ran.out.contains("DD_DOGSTATSD_URL"), "{}", ran.out);
            assert!(asked.recv_timeout(PATIENCE).unwrap().starts_with("POST "));
            if kind == "beside" {
                assert!(
                    ran.code == 0 && ran.out.contains("STATSD_UDP_PORT=18125"),
                    "{} {}",
                    ran.out,
                    ran.err
                );
                assert!(asked.try_recv().is_err(), "the reservation stays");
            } else {
                assert_eq!((ran.code, ran.out.as_str()), (1, ""), "it has no other socket");
                assert!(asked.recv_timeout(PATIENCE).unwrap().starts_with("DELETE "), "given back");
            }
        }
    }
}

#[test]
fn a_launcher_sets_no_variable_that_does_not_name_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let mut env = pair();
    env["LD_PRELOAD"] = json!("/tmp/evil.so");
    env["STATSD_HOST"] = json!("a\nLD_PRELOAD=/tmp/evil.so");
    let mut body = reserved(&env, &Value::Null);
    body["task_id"] = json!("web.1");
    let _asked = answer(&socket, &body);
    let command = |args: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(args).env("TALLYPORT_ADMIN_SOCKET", &socket).env_remove("LD_PRELOAD");
        ran(&mut command)
    };
    for args in [&["run", "--task-id", "web.1", "--", "env"][..], &["env", "--task-id", "web.1", "c"]] {
        let ran = command(args);
        assert!(ran.out.contains("STATSD_UDP_PORT=18125"), "{ran:?}");
        assert!(!ran.out.contains("evil.so"), "{ran:?}");
        assert!(ran.err.contains("\"LD_PRELOAD\" does not name a socket"), "{ran:?}");
    }
}

/// A process of another user that listens at a path and answers nothing.
struct Other(Child);

impl Other {
    fn at(socket: &Path) -> Self {
        const LISTEN: &str = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 9) or die $!; \
                              sleep 1 while 1;";
        let mut command = Command::new("setpriv");
        command.args(["--reuid=4711", "--regid=4711", "--clear-groups", "perl", "-e", LISTEN]).arg(socket);
        let child = command.spawn().unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        // The socket file exists before the process listens.
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(std::time::Instant::now() < deadline, "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _either_way = self.0.kill();
        let _either_way = self.0.wait();
    }
}

fn writable(directory: &tempfile::TempDir) -> PathBuf {
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    directory.path().join("admin.sock")
}

#[test]
fn a_socket_of_another_user_is_not_asked_and_not_passed_anything() {
    let Some(()) = tools::guard() else { return };
    let directory = tempfile::tempdir().unwrap();
    let socket = writable(&directory);
    let _other = Other::at(&socket);
    let refused = precreated(&socket, "");
    assert_eq!((refused.code, refused.out.as_str()), (0, CONFIG));
    assert!(
        refused.err.contains("user 4711 listens at ") && refused.err.contains("agent_user"),
        "{}",
        refused.err
    );
    assert_eq!(precreated(&socket, "fail_closed = true").code, 1);
    let believed = precreated(&socket, "agent_user = \"4711\"\nbudget_ms = 100");
    assert!(
        believed.err.contains("did not answer in time"),
        "the agent's user is believed: {}",
        believed.err
    );
    // Hooks check the peer as well.
    let mut hook = Command::new(WRAPPER);
    hook.args(["hook", "poststop", "--container", "c", "--admin-socket"]).arg(&socket).stdin(Stdio::null());
    assert!(ran(&mut hook).err.contains("user 4711 listens at "));
}

#[test]
fn broken_settings_start_nothing_where_they_say_that_nothing_may_start_without_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let ran = precreated(&socket, "fail_closed = true\nbudget_ms = = 7");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{}", ran.err);
    assert!(ran.err.contains("oci.toml") && ran.err.contains("fail_closed = true holds"), "{}", ran.err);
    let ran = precreated(&socket, "budget_ms = = 7");
    assert_eq!((ran.code, ran.out.as_str()), (0, CONFIG));
    assert!(
        ran.err.contains("containers start without sockets until the configuration is fixed"),
        "{}",
        ran.err
    );
}
