//! Links, FIFOs and other objects in place of the agent's files.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, BINARY};

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

/// The standard error of a command that must end by itself.
fn failure(command: &mut Command) -> String {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{command:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn agent_in(directory: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["agent", "--http-listen", "127.0.0.1:0"]);
    command.arg("--admin-socket").arg(directory.join("admin.sock"));
    command.arg("--state-dir").arg(directory.join("state"));
    command
}

#[test]
fn a_fifo_in_place_of_a_file_stops_a_start_at_once_and_is_named() {
    for name in ["epoch", "containers.journal"] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        fifo(&directory.path().join("state").join(name));
        let said = failure(&mut agent_in(directory.path()));
        assert!(said.contains("a FIFO"), "{name}: {said}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    fifo(&path);
    for key in ["node_labels", "http.tokens"] {
        let set = format!("{key}={}", path.display());
        let said = failure(agent_in(directory.path()).args(["--set", &set]));
        assert!(said.contains("a FIFO"), "{key}: {said}");
    }
    let said = failure(agent_in(directory.path()).arg("--config").arg(&path));
    assert!(said.contains("a FIFO"), "{said}");
}

#[test]
fn a_fifo_in_the_window_log_is_left_out_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("state/windows")).unwrap();
    fifo(&directory.path().join("state/windows/windows-1.log"));
    let agent = Agent::in_directory(directory, &["--window", "1s"]);
    assert_eq!(agent.get("/v1/node").1["window_log"]["damaged"], 1);
}

#[test]
fn a_reload_refuses_a_fifo_and_the_agent_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("labels");
    std::fs::write(&file, "rack=r7\n").unwrap();
    let agent = Agent::with(&["--set", &format!("node_labels={}", file.display())]);
    std::fs::remove_file(&file).unwrap();
    fifo(&file);
    let (status, refused) = agent.admin("POST", "/v1/config/reload", &Value::Null);
    assert_eq!(status, 400, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("a FIFO"), "{refused}");
    assert_eq!(agent.get("/health").0, 200);
}

#[test]
fn an_agent_does_not_start_where_others_could_replace_its_sockets_or_its_state() {
    for which in ["", "state"] {
        let directory = tempfile::tempdir().unwrap();
        let shared = directory.path().join(which);
        std::fs::create_dir_all(&shared).unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
        let said = failure(&mut agent_in(directory.path()));
        assert!(said.contains("chmod go-w"), "{which:?}: {said}");
    }
}

#[test]
fn a_planted_lock_keeps_the_agent_from_starting_and_its_target_whole() {
    for name in ["admin.sock.lock", "admin.sock.fd.lock", "state/agent.lock"] {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        std::fs::create_dir(directory.path().join("state")).unwrap();
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, directory.path().join(name)).unwrap();
        let said = failure(&mut agent_in(directory.path()));
        assert!(said.contains("is not a lock file"), "{name}: {said}");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    }
}

#[test]
fn what_the_agent_keeps_can_be_read_by_its_user_alone() {
    let agent = Agent::start();
    agent.reserve("c1", "t").send("a:1|c");
    agent.finish("c1");
    let directory = agent.into_directory();
    let state = directory.path().join("state");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for name in ["agent.lock", "epoch", "containers.journal"] {
        assert_eq!(mode(&state.join(name)), 0o600, "{name}");
    }
    let windows = state.join("windows");
    assert_eq!(mode(&windows), 0o700);
    for entry in std::fs::read_dir(&windows).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}
