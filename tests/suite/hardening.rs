//! The protections of the systemd unit permit everything that the agent does.

use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::deploy::{UNITS, read};
use crate::namespaces::Namespace;
use crate::restart::Sleeper;
use crate::tools;

/// Starts an agent with the filter and the umask of the unit. A call that is not allowed kills it.
fn within_the_unit() -> Option<Vec<String>> {
    tools::program("systemd-analyze", "scripts/setup containers")?;
    let (python, root) = (tools::program("python3", "scripts/setup python")?, tools::root());
    let words = [python, root.join("integration/common/filtered.py"), root.join(UNITS[0])];
    Some(words.map(|word: PathBuf| word.to_str().unwrap().to_owned()).to_vec())
}

#[test]
fn the_units_filter_and_umask_allow_all_that_the_agent_does() {
    let (Some(launcher), Some(())) = (within_the_unit(), tools::network_namespaces()) else { return };
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("agent.toml");
    std::fs::write(&config, "[unix]\nmode = \"all\"\n").unwrap();
    let flags = ["--window", "1s", "--config", config.to_str().unwrap()];
    let mut agent = Agent::by(&launcher, directory, &flags);

    // A container of each kind: on the host's network, guarded if possible; with its own network; with a Unix socket.
    let sleeper = Sleeper::start();
    agent
        .reserve_with(&json!({"container_id": "host", "task_id": "host", "pid": sleeper.pid()}))
        .send("a:1|c");
    let namespace = Namespace::new();
    let network = json!({"mode": "netns", "path": namespace.path()});
    let own = agent.reserve_with(&json!({"container_id": "own", "task_id": "own", "network": network}));
    namespace.send(own.to.port(), "a:1|c");
    for task in ["host", "own"] {
        agent.until("a window is closed", || !agent.metrics(task, "?window=all").is_empty());
    }
    let outside = agent.admin("GET", "/v1/containers/host", &Value::Null).1["unix_socket"]["mount"].clone();
    let socket = Path::new(outside["source"].as_str().unwrap()).join("dsd.socket");
    let found = std::fs::metadata(&socket).unwrap();
    assert!(
        found.file_type().is_socket() && found.mode() & 0o777 == 0o666,
        "containers may send to {socket:?}"
    );

    // Requests of users, and a hand-over.
    assert_eq!(agent.cli(&["doctor"]).out.lines().filter(|line| line.starts_with("error")).count(), 0);
    assert_eq!(agent.admin("POST", "/v1/config/reload", &Value::Null).0, 200);
    assert_eq!(agent.admin("POST", "/v1/reconcile", &Value::Null).0, 200);
    assert_eq!(agent.get("/metrics").0, 200);
    let mode = |agent: &Agent| std::fs::metadata(agent.admin_socket()).unwrap().mode() & 0o777;
    assert_eq!(mode(&agent), 0o660, "launchers of the group may ask");
    assert!(agent.is_running(), "{}", agent.log());
    let directory = agent.into_directory();
    std::fs::set_permissions(directory.path().join("agent.toml"), Permissions::from_mode(0o600)).unwrap();
    let mut again = Agent::by(&launcher, directory, &flags);
    again.until("its windows are back", || !again.metrics("host", "?window=all").is_empty());
    assert!(again.is_running(), "{}", again.log());
}

#[test]
fn the_units_memory_has_room_for_what_the_limits_allow() {
    let unit = read(UNITS[0]);
    let most = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('G')).unwrap();
    let settings = read("docs/reference/configuration.md");
    let default = |key: &str| -> u64 {
        let said = settings.split(&format!("## `{key}`\n")).nth(1).unwrap();
        let size = said.split("Default `").nth(1).unwrap().split('`').next().unwrap();
        let unit = size.trim_start_matches(|c: char| c.is_ascii_digit());
        let scale = ["B", "KiB", "MiB", "GiB"].iter().position(|known| *known == unit).unwrap();
        size.trim_end_matches(unit).parse::<u64>().unwrap() << (10 * scale)
    };
    let (limits, buffers) = (default("limits.node_memory"), default("listeners.receive_buffers"));
    assert!(most.parse::<u64>().unwrap() << 30 >= limits + 2 * buffers, "MemoryMax={most}G");
}

#[test]
fn every_test_and_every_attack_that_the_security_page_names_is_there() {
    let page = read("docs/security.md");
    let mut sources = String::new();
    let mut directories: Vec<_> = ["src", "crates", "tests"].map(|name| tools::root().join(name)).into();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => directories.push(entry),
                false => sources.push_str(&std::fs::read_to_string(entry).unwrap_or_default()),
            }
        }
    }
    let attack =
        |name: &str| tools::root().join(format!("integration/hostile/attacks/{}.py", name.replace('-', "_")));
    let target = |name: &str| tools::root().join(format!("fuzz/fuzz_targets/{name}.rs"));
    let mut named = 0;
    // The last cell of a row and text in parentheses name the tests.
    let rows = page.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.rsplit("| ").next());
    let words =
        rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|word| !word.contains([' ', '=']));
    for word in words {
        let is_test = sources.contains(&format!("fn {word}("));
        assert!(is_test || attack(word).exists() || target(word).exists(), "{word} is no test and no attack");
        named += 1;
    }
    assert!(named > 30, "{named}");
}
