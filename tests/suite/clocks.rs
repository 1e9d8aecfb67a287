//! Clocks that are wrong for a while, and processes that are stopped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::Agent;

/// A library that adds the seconds in a file to the wall clock.
const SHIFT: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    long failed = syscall(SYS_clock_gettime, id, at);
    const char *path = getenv("CLOCK_SHIFT");
    if (failed || id != CLOCK_REALTIME || !path) return failed;
    char text[32] = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) at->tv_sec += atol(text);
        close(file);
    }
    return 0;
}
"#;

/// Agents whose clock can be set.
struct Clock {
    directory: tempfile::TempDir,
}

impl Clock {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("shift.c");
        std::fs::write(&source, SHIFT).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(directory.path().join("shift.so")).arg(&source);
        assert!(compiler.status().unwrap().success());
        let clock = Self { directory };
        clock.set(0);
        clock
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sets it this many seconds ahead.
    fn set(&self, ahead: i64) {
        let (new, path) = (self.file("shift.new"), self.file("shift"));
        std::fs::write(&new, ahead.to_string()).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn agent(&self, directory: tempfile::TempDir) -> Agent {
        let setting = |name: &str, path: &Path| format!("{name}={}", path.display());
        let preload = setting("LD_PRELOAD", &self.file("shift.so"));
        let shift = setting("CLOCK_SHIFT", &self.file("shift"));
        Agent::by(&["env", &preload, &shift], directory, &["--window", "1s", "--keep", "4"])
    }
}

fn starts(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| record["start"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_clock_that_was_ahead_for_a_while_costs_no_window_and_no_follower_after_a_restart() {
    let clock = Clock::new();
    let agent = clock.agent(tempfile::tempdir().unwrap());
    let address = agent.reserve("clock-1", "web.1");
    let closes = |agent: &Agent, name: &str| {
        address.send(format!("{name}:1|c"));
        agent.until("its window closes", || {
            agent.metrics("web.1", "?window=all").iter().any(|record| record["name"] == name)
        });
    };
    clock.set(3600);
    agent.until("it sees the step", || {
        agent.own_metric("tallyport_clock_steps_total{direction=\"forward\"}") >= 1.0
    });
    for n in 0..4 {
        closes(&agent, &format!("ahead{n}"));
    }
    clock.set(0);
    agent.until("it sees the step", || {
        agent.own_metric("tallyport_clock_steps_total{direction=\"back\"}") >= 1.0
    });
    let ahead = starts(&agent.metrics("web.1", "?window=all"));
    let agent = clock.agent(agent.into_directory());
    assert_eq!(agent.own_metric("tallyport_windows_restored_ahead"), 4.0);
    assert!(agent.cli(&["doctor"]).out.contains("start after this one did"));
    let mut cursor = agent.get("/v1/node").1["cursor"].as_str().unwrap().to_owned();
    for n in 0..6 {
        let name = format!("now{n}");
        closes(&agent, &name);
        let newest = agent.metrics("web.1", "?window=all");
        let newest: Vec<_> = newest.iter().filter(|record| record["name"] == name.as_str()).collect();
        assert!(
            newest.iter().all(|record| record["start"].as_str() < Some(ahead[0].as_str())),
            "{newest:#?}"
        );
        let scraped = agent.get_raw(&format!("/v1/metrics?since={cursor}"));
        assert_eq!(scraped.status, 200, "a follower that has read everything is not told of a gap");
        let scraped: Value = serde_json::from_slice(&scraped.body).unwrap();
        let names: Vec<_> =
            scraped["metrics"].as_array().unwrap().iter().map(|record| &record["name"]).collect();
        assert!(names.contains(&&Value::from(name)), "{names:?}");
        cursor = scraped["cursor"].as_str().unwrap().to_owned();
    }
    let left = starts(&agent.metrics("web.1", "?window=all"));
    assert!(left.iter().all(|start| !ahead.contains(start)), "the oldest by closing are gone: {left:?}");
}

#[test]
fn windows_around_a_time_in_which_the_agent_was_stopped_say_that_they_are_partial() {
    const STOPPED: Duration = Duration::from_secs(5);
    let agent = Agent::start();
    let address = agent.reserve("clock-2", "web.1");
    address.send("before:1|c");
    agent.until("it is received", || agent.own_metric("tallyport_datagrams_received_total") >= 1.0);
    agent.signal(Signal::SIGSTOP);
    // Threads do not stop at the same time.
    agent.until("all of it stands still", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
        threads
            .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok())
            .all(|stat| stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T')))
    });
    let stopped = Instant::now();
    (0..50).for_each(|_| address.send("waited:1|c"));
    while stopped.elapsed() < STOPPED {
        std::thread::sleep(STOPPED.saturating_sub(stopped.elapsed()));
    }
    agent.signal(Signal::SIGCONT);
    let records = |name: &str| {
        let mut records = agent.metrics("web.1", "?window=all");
        records.retain(|record| record["name"] == name);
        records
    };
    agent.until("the window after it closes", || !records("waited").is_empty());
    for (name, sum) in [("before", 1.0), ("waited", 50.0)] {
        let all = records(name);
        assert_eq!(
            (all.len(), &all[0]["value"], &all[0]["partial"]),
            (1, &json!(sum), &json!(true)),
            "{all:#?}"
        );
        assert!(all[0]["covered"].as_f64() < Some(1.0), "{all:#?}");
    }
    assert!(agent.own_metric("tallyport_shard_pauses_total") >= 1.0);
    agent.until_logged("this shard did not run and read nothing");
    address.send("after:1|c");
    agent.until("another window closes", || !records("after").is_empty());
    assert_eq!(records("after")[0]["partial"], false, "and then all is as before");
}
