//! Failures while a container starts, one row each: the container starts, or with `fail_closed` does not start and a
//! message gives the reason. `docs/reference/runtimes.md` has the same table.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::containers::{Bundle, Runtime};
use crate::namespaces::{Namespace, Process};
use crate::tools;

/// The outcome for a container.
#[derive(Copy, Clone, Debug)]
enum Becomes {
    /// It starts without an address.
    Without,
    /// It starts with an address at which it is not served.
    Unserved,
    /// It does not start, and this text is reported.
    Refused(&'static str),
}

impl Becomes {
    /// The text in the documentation.
    fn text(self) -> String {
        match self {
            Self::Without => "starts without a socket".to_owned(),
            Self::Unserved => "starts, and what it sends may be lost".to_owned(),
            Self::Refused(message) => format!("does not start: `{message}`"),
        }
    }
}

/// The failure during which a runtime waits for longer than usual.
const STOPPED_HOOK: &str =
    "the hook is stopped, until runc's time limit for it is over (the budget and two seconds)";

/// One failure.
struct Row {
    /// The failure, in the words of the documentation.
    what: &'static str,
    /// The affected runtimes.
    runtimes: &'static [&'static str],
    /// The outcome without `fail_closed`.
    open: Becomes,
    /// The outcome with `fail_closed`.
    closed: Becomes,
    /// Causes the failure, or prepares it.
    breaks: fn(&mut Scene),
    /// The action between create and start.
    between: fn(&Scene),
}

/// A container that will be started, and its agent.
struct Scene {
    agent: Agent,
    bundle: Bundle,
    /// Objects that must exist while it starts.
    kept: tempfile::TempDir,
}

use Becomes::{Refused, Unserved, Without};

const BOTH: &[&str] = &["runc", "crun"];
const LATE: &str = "did not answer in time";

const ROWS: &[Row] = &[
    Row {
        what: "the agent is not there",
        runtimes: BOTH,
        open: Without,
        closed: Refused("no agent answers"),
        breaks: |scene| scene.bundle.ask_at(scene.kept.path().join("nobody.sock")),
        between: |_| {},
    },
    Row {
        what: "the agent hangs",
        runtimes: BOTH,
        open: Without,
        closed: Refused(LATE),
        breaks: |scene| scene.agent.signal(Signal::SIGSTOP),
        between: |_| {},
    },
    Row {
        what: "the agent is so slow that the budget is used up before the process is attached",
        runtimes: BOTH,
        open: Unserved,
        closed: Refused(LATE),
        breaks: |scene| {
            let slow = slow(&scene.agent, &scene.kept, Duration::from_millis(550));
            scene.bundle.ask_at(slow);
        },
        between: |_| {},
    },
    Row {
        what: "the agent has as many containers as it may have",
        runtimes: BOTH,
        open: Without,
        closed: Refused("as many as it may; raise limits.containers"),
        breaks: |scene| drop(scene.agent.reserve("the-only-one", "t")),
        between: |_| {},
    },
    Row {
        what: "the agent is killed after it has answered, before the process is attached",
        runtimes: BOTH,
        open: Unserved,
        closed: Refused("has no socket: no agent answers"),
        breaks: |scene| scene.first_hook(&format!("kill -9 {}", scene.agent.pid())),
        between: |_| {},
    },
    Row {
        what: "the agent hangs after it has answered, before the process is attached",
        runtimes: BOTH,
        open: Unserved,
        closed: Refused(LATE),
        breaks: |scene| scene.first_hook(&format!("kill -STOP {}", scene.agent.pid())),
        between: |_| {},
    },
    Row {
        what: "the agent is killed between create and start",
        runtimes: BOTH,
        open: Unserved,
        closed: Unserved,
        breaks: |_| {},
        between: |scene| scene.agent.signal(Signal::SIGKILL),
    },
    Row {
        what: "the hook is killed",
        runtimes: BOTH,
        open: Refused("hook"),
        closed: Refused("hook"),
        breaks: |scene| scene.signal_the_hook("KILL"),
        between: |_| {},
    },
    Row {
        // Only for runc: crun 1.8 has no time limit for hooks, and waits until a stopped one is resumed.
        what: STOPPED_HOOK,
        runtimes: &["runc"],
        open: Refused("hook"),
        closed: Refused("hook"),
        breaks: |scene| scene.signal_the_hook("STOP"),
        between: |_| {},
    },
    Row {
        what: "the runtime cannot create the container",
        runtimes: BOTH,
        open: Refused("no-such-root"),
        closed: Refused("no-such-root"),
        breaks: |scene| scene.bundle.change(|config| config["root"]["path"] = json!("no-such-root")),
        between: |_| {},
    },
];

impl Scene {
    /// Makes the runtime run this before the hook that attaches the process.
    fn first_hook(&self, script: &str) {
        let script = format!("/bin/cat > /dev/null; {script}");
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        self.bundle.change(|config| config["hooks"] = json!({"prestart": [hook]}));
    }

    /// Sends a signal to the hook once it runs and waits for a hanging agent.
    fn signal_the_hook(&self, signal: &str) {
        let hook = format!("[h]ook create-runtime --container {} ", self.bundle.id);
        self.first_hook(&format!(
            "kill -STOP {}; (until /usr/bin/pgrep -f '{hook}'; do /bin/sleep 0.005; done; \
             kill -{signal} $(/usr/bin/pgrep -f '{hook}')) > /dev/null 2>&1 < /dev/null &",
            self.agent.pid()
        ));
    }
}

/// A socket at which the agent answers with this delay.
fn slow(agent: &Agent, directory: &tempfile::TempDir, by: Duration) -> PathBuf {
    let (path, to) = (directory.path().join("slow.sock"), agent.admin_socket());
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for caller in listener.incoming().map_while(Result::ok) {
            let to = to.clone();
            std::thread::spawn(move || {
                std::thread::sleep(by);
                let Ok(agent) = UnixStream::connect(to) else { return };
                let (mut from, mut back) = (caller.try_clone().unwrap(), agent.try_clone().unwrap());
                std::thread::spawn(move || io::copy(&mut from, &mut back));
                // The caller may have disconnected.
                let _either_way = io::copy(&mut &agent, &mut &caller);
                let _either_way = caller.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    path
}

/// The duration of a start without a failure.
fn usual(runtime: &Runtime) -> Duration {
    let bundle = Bundle::new(runtime, "/nowhere".as_ref());
    bundle.settings("mode = \"pass-through\"");
    let started = Instant::now();
    bundle.create();
    started.elapsed()
}

fn runtimes() -> Vec<Runtime> {
    if tools::network_namespaces().is_none() {
        return Vec::new();
    }
    BOTH.iter().filter_map(|name| tools::runtime(name)).collect()
}

fn plays(row: &Row, runtime: &Runtime, fail_closed: bool, usual: Duration) {
    let named = format!("{runtime:?}, fail_closed = {fail_closed}: {}", row.what);
    let flags = ["--window", "1s", "--set", "limits.containers=1", "--set", "containers.reservation_ttl=1s"];
    let agent = Agent::with(&flags);
    let bundle = Bundle::new(runtime, &agent.admin_socket());
    bundle.settings(&format!("fail_closed = {fail_closed}"));
    let mut scene = Scene { agent, bundle, kept: tempfile::tempdir().unwrap() };
    (row.breaks)(&mut scene);
    let started = Instant::now();
    let ran = scene.bundle.try_create();
    let taken = started.elapsed();
    let said = format!("{}{}", ran.err, scene.bundle.log());
    let becomes = if fail_closed { row.closed } else { row.open };
    match becomes {
        Refused(message) => assert!(ran.code != 0 && said.contains(message), "{named}: {} {said}", ran.code),
        Without | Unserved => {
            assert_eq!(ran.code, 0, "{named}: {said}");
            (row.between)(&scene);
            scene.bundle.must(&["start", &scene.bundle.id]);
            scene.bundle.until_ready();
            let environment = scene.bundle.environment();
            let expected: &[&str] = match becomes {
                // The application's own values are kept.
                Without => &["STATSD_UDP_PORT=1"],
                _ => &["STATSD_UDP_HOST=127.0.0.1", "STATSD_UDP_PORT=18125"],
            };
            assert_eq!(environment, expected, "{named}");
            scene.bundle.delete();
        }
    }
    // The budget of one second for all calls to the agent, plus the delay of a busy machine. A runtime waits for a
    // stopped hook until its timeout, and then for the pipes that the hook holds open.
    let budget = Duration::from_secs(if row.what == STOPPED_HOOK { 9 } else { 1 });
    let most = usual * 2 + budget + Duration::from_secs(5);
    assert!(taken < most, "{named}: {taken:?}, which is more than {most:?}; usually {usual:?}");
    leaves_nothing(scene, &named);
}

/// A surviving agent keeps nothing of the container once its reservation has expired.
fn leaves_nothing(mut scene: Scene, named: &str) {
    // The agent may have been stopped or killed.
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(scene.agent.pid()), signal);
    signal(Signal::SIGCONT).unwrap();
    let listed = scene.agent.try_admin("/v1/containers");
    if listed.is_none() {
        assert!(!scene.agent.wait().success(), "{named}");
        return;
    }
    let id = &scene.bundle.id;
    scene.agent.until("nothing is left of it", || {
        let (_, listed) = scene.agent.try_admin("/v1/containers").unwrap();
        let ours = |container: &&Value| container["container_id"] == id.as_str();
        listed.as_array().unwrap().iter().filter(ours).all(|container| container["state"] == "gone")
    });
}

#[test]
fn whatever_fails_a_container_starts_or_is_refused_with_the_reason_within_the_budget() {
    for runtime in runtimes() {
        let usual = usual(&runtime);
        let name = runtime.0.file_name().and_then(|name| name.to_str()).unwrap();
        for row in ROWS.iter().filter(|row| row.runtimes.contains(&name)) {
            for fail_closed in [false, true] {
                plays(row, &runtime, fail_closed, usual);
            }
        }
    }
}

#[test]
fn the_page_has_the_same_table() {
    let page = std::fs::read_to_string(tools::root().join("docs/reference/runtimes.md")).unwrap();
    for Row { what, open, closed, .. } in ROWS {
        let line = format!("| {what} | {} | {} |", open.text(), closed.text());
        assert!(page.lines().any(|on_page| on_page == line), "the page lacks: {line}");
    }
    for Claim { what, code, .. } in CLAIMS {
        let line = format!("| {what} | `{code}` |");
        assert!(page.lines().any(|on_page| on_page == line), "the page lacks: {line}");
    }
}

/// A claim that a process is a container, and the refusal.
struct Claim {
    what: &'static str,
    code: &'static str,
    /// The body of the claim, and objects that must exist while it is made.
    made: fn(&Agent) -> (Value, Vec<Kept>),
}

/// Objects that a claim needs until it is answered.
#[expect(dead_code, reason = "they are kept, and go")]
enum Kept {
    Namespace(Namespace),
    Process(Process),
}

fn reserve(agent: &Agent, container: &str, network: &Value) {
    let body = json!({"container_id": container, "network": network});
    let (status, reserved) = agent.admin("POST", "/v1/containers", &body);
    assert_eq!(status, 201, "{reserved}");
}

fn at(namespace: &Namespace) -> Value {
    json!({"mode": "netns", "path": namespace.path()})
}

/// Start times are in ticks.
fn ticks() {
    std::thread::sleep(Duration::from_millis(100));
}

const CLAIMS: &[Claim] = &[
    Claim {
        what: "a process of another network",
        code: "another_namespace",
        made: |agent| {
            let (mine, theirs) = (Namespace::new(), Namespace::new());
            reserve(agent, "c1", &at(&mine));
            let process = theirs.process();
            let body = json!({"pid": process.pid()});
            (body, vec![Kept::Namespace(mine), Kept::Namespace(theirs), Kept::Process(process)])
        },
    },
    Claim {
        what: "a process of the host, for a container with a network of its own",
        code: "another_namespace",
        made: |agent| {
            reserve(agent, "c1", &json!({"mode": "new"}));
            let process = Process::start(std::process::Command::new("sleep").arg("600"));
            (json!({"pid": process.pid()}), vec![Kept::Process(process)])
        },
    },
    Claim {
        what: "a process of its own network, for a container of the host's",
        code: "another_namespace",
        made: |agent| {
            reserve(agent, "c1", &json!({"mode": "host"}));
            let process = Process::apart();
            (json!({"pid": process.pid()}), vec![Kept::Process(process)])
        },
    },
    Claim {
        what: "a process that was there before the container was reserved",
        code: "another_process",
        made: |agent| {
            let process = Process::apart();
            ticks();
            reserve(agent, "c1", &json!({"mode": "new"}));
            (json!({"pid": process.pid()}), vec![Kept::Process(process)])
        },
    },
    Claim {
        what: "a process in a network where another container lives",
        code: "another_namespace",
        made: |agent| {
            let theirs = Namespace::new();
            reserve(agent, "c2", &at(&theirs));
            reserve(agent, "c1", &json!({"mode": "new"}));
            let process = theirs.process();
            (json!({"pid": process.pid()}), vec![Kept::Namespace(theirs), Kept::Process(process)])
        },
    },
    Claim {
        what: "a number that was given to another process since",
        code: "another_process",
        made: |agent| {
            reserve(agent, "c1", &json!({"mode": "new"}));
            let process = Process::apart();
            (json!({"pid": process.pid(), "start_ticks": 7}), vec![Kept::Process(process)])
        },
    },
    Claim {
        what: "a process that has ended",
        code: "no_such_process",
        made: |agent| {
            reserve(agent, "c1", &json!({"mode": "new"}));
            let mut process = Process::apart();
            process.end();
            (json!({"pid": process.pid()}), Vec::new())
        },
    },
    Claim {
        what: "a process in a network that has taken the place of the one that was reserved",
        code: "another_namespace",
        made: |agent| {
            let mine = Namespace::new();
            reserve(agent, "c1", &at(&mine));
            mine.replace();
            let process = mine.process();
            let body = json!({"pid": process.pid()});
            (body, vec![Kept::Namespace(mine), Kept::Process(process)])
        },
    },
];

#[test]
fn a_process_that_is_not_the_container_is_never_attached() {
    let Some(()) = tools::network_namespaces() else { return };
    for Claim { what, code, made } in CLAIMS {
        let agent = Agent::start();
        let (body, kept) = made(&agent);
        let (status, error) = agent.admin("POST", "/v1/containers/c1/attach", &body);
        assert!(status >= 400 && error["code"] == *code, "{what}: {status} {error}");
        let shown = agent.admin("GET", "/v1/containers/c1", &Value::Null).1;
        assert_eq!((&shown["attached"], &shown["pid"]), (&json!(false), &Value::Null), "{what}");
        drop(kept);
    }
}

#[test]
fn a_process_of_the_wrong_network_is_refused_in_the_reserve_call_too() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::start();
    let (mine, theirs) = (Namespace::new(), Namespace::new());
    let stranger = theirs.process();
    let body = json!({"container_id": "c", "network": at(&mine), "pid": stranger.pid()});
    let (status, error) = agent.admin("POST", "/v1/containers", &body);
    assert_eq!((status, &error["code"]), (409, &json!("another_namespace")));
    assert_eq!(agent.admin("GET", "/v1/containers", &Value::Null).1, json!([]), "nothing is left of it");
}
