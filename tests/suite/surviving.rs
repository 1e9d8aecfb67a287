//! Data that survives a kill: closed windows, and open ones as of the last checkpoint.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::{Agent, BINARY, ran};
use crate::tools;

impl Agent {
    /// Kills it, and starts another with its state.
    fn killed(mut self, flags: &[&str]) -> Self {
        self.signal(Signal::SIGKILL);
        assert!(!self.wait().success());
        Self::in_directory(self.into_dead_directory(), flags)
    }

    fn window_log(&self) -> Value {
        self.get("/v1/node").1["window_log"].clone()
    }

    pub(crate) fn own_metric(&self, line: &str) -> f64 {
        let page = self.admin_text("/metrics");
        let value = page.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {line} in {page}"))
    }

    /// Every record of a task, without the keys that change with a restart.
    fn records(&self, task: &str) -> Vec<Value> {
        let mut records = self.metrics(task, "?window=all");
        for record in &mut records {
            let record = record.as_object_mut().unwrap();
            record.remove("epoch");
            record.remove("seq");
        }
        records.sort_by_key(|record| (record["start"].to_string(), record["name"].to_string()));
        records
    }

    fn state_directory(&self) -> PathBuf {
        self.admin_socket().with_file_name("state")
    }
}

/// The sum of a counter's records.
fn sum(records: &[Value], name: &str) -> f64 {
    records
        .iter()
        .filter(|record| record["name"] == name)
        .map(|record| record["value"].as_f64().unwrap())
        .sum()
}

const EVERYTHING: &str = "c:3|c\nc:1|c|@0.5\ng:7|g\nt:14.41:3|ms|#route:/pay\ns:anna|s\n_sc|up|1|m:well";

#[test]
fn closed_windows_are_back_after_a_kill_as_they_were() {
    let agent = Agent::with(&["--window", "1s"]);
    let address = agent.reserve_with(
        &json!({"container_id": "survivor-1", "task_id": "web.1", "labels": {"zone": "a"}, "ttl": null}),
    );
    for _ in 0..3 {
        address.send(EVERYTHING);
        address.send("_e{1,3}:t|one");
        let before = agent.records("web.1").len();
        agent.until("a window closes", || agent.records("web.1").len() >= before + 5);
    }
    agent.until("all of it is written", || {
        let written = agent.own_metric("tallyport_records_published_total");
        agent.records("web.1").len() as f64 == written
            && agent.own_metric("tallyport_window_log_windows_total") >= 3.0
    });
    std::thread::sleep(Duration::from_millis(1200));
    let before = agent.records("web.1");
    let epoch = agent.get("/v1/node").1["epoch"].as_u64();
    let agent = agent.killed(&["--window", "1s"]);
    let after = agent.records("web.1");
    for record in &before {
        assert!(after.contains(record), "{record} is lost; there are {after:#?}");
    }
    assert!(agent.get("/v1/node").1["epoch"].as_u64() > epoch, "counters and cursors start a new life");
    let (_, task) = agent.get("/v1/tasks/web.1");
    assert_eq!(task["containers"][0]["state"], "listening", "{task}");
    let (_, events) = agent.get("/v1/tasks/web.1/events");
    assert_eq!(events["events"].as_array().unwrap().len(), 3, "{events}");
    let (_, checks) = agent.get("/v1/tasks/web.1/checks");
    assert_eq!(checks["checks"][0]["status"], "warning", "{checks}");
    // A reader with a cursor is told that the epoch has changed, and gets everything from its start.
    let scraped = agent.get_raw("/v1/metrics?since=1-0");
    assert_eq!(scraped.status, 410);
    let doctor = agent.cli(&["doctor"]);
    assert!(doctor.out.contains("the agent was killed; no datagrams were received for "), "{}", doctor.out);
    assert!(agent.own_metric("tallyport_gap_seconds") > 0.0);
    assert!(agent.own_metric("tallyport_windows_restored{state=\"closed\"}") >= 3.0);
    agent.until_logged("no datagrams were received until this start");
    // A second time, from the restored data.
    let agent = agent.killed(&["--window", "1s"]);
    let again = agent.records("web.1");
    for record in &after {
        assert!(again.contains(record), "{record} is lost; there are {again:#?}");
    }
}

#[test]
fn an_open_window_is_back_as_of_the_last_checkpoint_and_its_counter_starts_anew() {
    let agent = Agent::with(&["--window", "1h", "--set", "windows.checkpoint=100ms"]);
    let address = agent.reserve("survivor-2", "web.1");
    for _ in 0..100 {
        address.send("c:1|c\nt:5|ms");
    }
    let checkpoints = || agent.own_metric("tallyport_checkpoints_total");
    agent.until("everything is received", || agent.own_metric("tallyport_values_accepted_total") >= 200.0);
    let now = checkpoints();
    agent.until("two checkpoints are made", || checkpoints() >= now + 2.0);
    let agent = agent.killed(&["--window", "1h"]);
    let records = agent.records("web.1");
    assert_eq!((sum(&records, "c"), records.len()), (100.0, 2), "{records:#?}");
    assert!(records.iter().all(|record| record["partial"] == true), "{records:#?}");
    assert_eq!(agent.window_log()["restored_open"], 1);
    // The same container continues: its counter starts at zero, as a new series.
    address.send("c:1|c");
    agent.finish("survivor-2");
    let (_, all) = agent.get("/v1/tasks/web.1/metrics?window=all&container=survivor-2");
    let all = all["metrics"].as_array().unwrap();
    let newest = all.iter().filter(|record| record["name"] == "c").max_by_key(|r| r["seq"].as_u64()).unwrap();
    assert_eq!((&newest["agg"]["total"], &newest["value"]), (&json!(1.0), &json!(101.0)), "{all:#?}");
}

#[test]
fn without_checkpoints_an_open_window_is_lost_and_without_a_log_everything() {
    for (flags, closed) in [
        (&["--window", "1s", "--set", "windows.checkpoint=0s"][..], true),
        (&["--window", "1s", "--set", "windows.log=false"][..], false),
    ] {
        let agent = Agent::with(flags);
        let address = agent.reserve("survivor-3", "web.1");
        address.send("a:1|c");
        agent.until("it is closed", || !agent.metrics("web.1", "?window=all").is_empty());
        if closed {
            agent.until("it is written", || agent.own_metric("tallyport_window_log_windows_total") > 0.0);
        } else {
            assert_eq!(agent.window_log(), Value::Null);
            assert!(agent.cli(&["doctor"]).out.contains("off (windows.log)"));
            assert!(!agent.state_directory().join("windows").exists());
        }
        assert_eq!(agent.own_metric("tallyport_checkpoints_total"), 0.0);
        let agent = agent.killed(flags);
        assert_eq!(agent.metrics("web.1", "?window=all").len(), usize::from(closed));
    }
}

#[test]
fn an_end_in_order_loses_nothing_and_is_told_from_a_kill() {
    let agent = Agent::with(&["--window", "1h"]);
    let address = agent.reserve("survivor-4", "web.1");
    (0..10).for_each(|_| address.send("a:1|c"));
    let agent = Agent::in_directory(agent.into_directory(), &["--window", "1h"]);
    assert_eq!(sum(&agent.records("web.1"), "a"), 10.0);
    let log = agent.window_log();
    assert_eq!(
        (&log["ended_in_order"], &log["damaged"], &log["restored_open"]),
        (&json!(true), &json!(0), &json!(0))
    );
    assert!(!agent.log().contains("no datagrams were received until this start"), "{}", agent.log());
    assert!(agent.cli(&["doctor"]).out.contains("; 1 closed windows were restored"));
}

#[test]
fn a_finished_container_that_came_back_goes_with_its_tombstone() {
    let flags = ["--window", "1s", "--set", "containers.tombstone=3s"];
    let agent = Agent::with(&flags);
    agent.reserve("survivor-5", "web.1").send("a:1|c");
    agent.finish("survivor-5");
    agent.until("it is written", || agent.own_metric("tallyport_window_log_windows_total") > 0.0);
    let agent = agent.killed(&flags);
    let (status, _) = agent.get("/v1/tasks/web.1");
    assert_eq!(status, 200);
    agent.until("it is forgotten", || agent.get("/v1/tasks/web.1").0 == 404);
    let agent = agent.killed(&flags);
    assert_eq!(agent.get("/v1/tasks/web.1").0, 404, "what is forgotten stays so");
}

#[test]
fn damage_is_reported_and_costs_only_what_it_hit() {
    let agent = Agent::with(&["--window", "1s"]);
    let address = agent.reserve("survivor-6", "web.1");
    for n in 0..4 {
        address.send(format!("a{n}:1|c"));
        agent.until("a window closes", || agent.metrics("web.1", "?window=all").len() > n);
    }
    agent.until("all is written", || agent.own_metric("tallyport_window_log_windows_total") >= 4.0);
    let mut agent = agent;
    agent.signal(Signal::SIGKILL);
    assert!(!agent.wait().success());
    let windows = agent.state_directory().join("windows");
    let mut files: Vec<_> = std::fs::read_dir(&windows).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.file_name().unwrap().to_str().unwrap().starts_with("windows-"));
    let mut bytes = std::fs::read(&files[0]).unwrap();
    // In the second window: every window writes its new series first.
    let at = bytes.windows(2).position(|pair| pair == b"a1").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    let agent = Agent::in_directory(agent.into_dead_directory(), &["--window", "1s"]);
    let records = agent.records("web.1");
    let names: Vec<_> = records.iter().map(|record| record["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"a0") && !names.contains(&"a1"), "{names:?}");
    assert!(records.iter().all(|record| record["value"] == 1.0), "a wrong number: {records:#?}");
    assert!(agent.window_log()["damaged"].as_u64() > Some(0));
    agent.until_logged("parts of the window log are damaged and left out");
    assert!(agent.cli(&["doctor"]).out.contains("were damaged at the start and left out"));
    assert!(agent.own_metric("tallyport_window_log_damaged{what=\"part\"}") >= 1.0);
}

/// A failed allocation ends the process in this way.
#[test]
fn an_abort_costs_what_a_kill_costs() {
    let mut agent = Agent::start();
    agent.reserve("survivor-9", "web.9").send("kept:1|c");
    agent.until("it is written", || agent.own_metric("tallyport_window_log_windows_total") >= 1.0);
    let kept = agent.records("web.9");
    agent.signal(Signal::SIGABRT);
    let status = agent.wait();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(Signal::SIGABRT as i32),
        "{status}"
    );
    let agent = Agent::in_directory(agent.into_dead_directory(), &["--window", "1s"]);
    assert_eq!(agent.records("web.9"), kept);
    let (_, task) = agent.get("/v1/tasks/web.9");
    assert_eq!(task["containers"][0]["state"], "listening", "{task}");
}

/// A file system of half a megabyte in memory that exists as long as this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=512k", "tallyport-test"]).arg(&path);
        assert!(mount.status().unwrap().success());
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{how}")]).arg(self.path());
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _either_way = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_stops_nothing_is_said_once_and_made_good() {
    let Some(()) = tools::mounting() else { return };
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::at(directory.path().join("state"));
    let agent = Agent::in_directory(directory, &["--window", "1s"]);
    let address = agent.reserve("survivor-7", "web.1");
    address.send("before:1|c");
    agent.until("it works", || agent.own_metric("tallyport_window_log_windows_total") > 0.0);
    let filler = disk.path().join("filler");
    fill(&filler);
    let until = Instant::now() + Duration::from_secs(4);
    // A full disk still has room in the last page of each file: new names fill it.
    for n in 0.. {
        if Instant::now() > until {
            break;
        }
        let names = (0..10).map(|k| format!("\na-series-with-a-long-name-{n}-{k}:1|c"));
        address.send(format!("meanwhile:1|c{}", names.collect::<String>()));
        std::thread::sleep(Duration::from_millis(50));
    }
    agent.until("the failure is reported", || agent.own_metric("tallyport_window_log_failing") == 1.0);
    let served = sum(&agent.records("web.1"), "meanwhile");
    assert!(served > 20.0, "{served} of what was sent is served");
    agent.reserve("newcomer-7", "web.2").send("new:1|c");
    agent.until("a new container is served", || !agent.metrics("web.2", "?window=all").is_empty());
    let doctor = agent.cli(&["doctor"]);
    assert!(doctor.out.contains("nothing can be written"), "{}", doctor.out);
    let complaints = agent.log().matches("cannot write the window log").count();
    assert_eq!(complaints, 1, "{}", agent.log());
    std::fs::remove_file(&filler).unwrap();
    agent.until("the failure is over", || agent.own_metric("tallyport_window_log_failing") == 0.0);
    agent.until_logged("the window log is written again");
    address.send("meanwhile:1|c");
    agent.until("the open window is closed", || sum(&agent.records("web.1"), "meanwhile") > served);
    std::thread::sleep(Duration::from_millis(1500));
    let before = agent.records("web.1");
    let agent = agent.killed(&["--window", "1s"]);
    let after = agent.records("web.1");
    let lost: Vec<_> = before.iter().filter(|record| !after.contains(record)).collect();
    assert!(lost.is_empty(), "{lost:#?}");
    let directory = agent.into_directory();
    // While something is mounted in it, the directory cannot be removed.
    drop(disk);
    drop(directory);
}

/// Writes until the file system is full.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
fn a_read_only_state_directory_is_refused_by_name() {
    let Some(()) = tools::mounting() else { return };
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::at(directory.path().join("disk"));
    let state = disk.path().join("state");
    std::fs::create_dir(&state).unwrap();
    disk.remount("ro");
    let socket = directory.path().join("admin.sock");
    let mut command = Command::new(BINARY);
    command.args(["agent", "--http-listen", "127.0.0.1:0", "--admin-socket"]).arg(socket);
    let refused = ran(command.arg("--state-dir").arg(&state));
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("state") && refused.err.contains("Read-only file system"),
        "{}",
        refused.err
    );
}

#[test]
fn a_small_budget_makes_checkpoints_rarer_and_says_how_rare() {
    let agent = Agent::with(&[
        "--window",
        "1h",
        "--set",
        "windows.checkpoint=100ms",
        "--set",
        "windows.checkpoint_rate=1KiB",
    ]);
    let address = agent.reserve("survivor-9", "web.1");
    let send = || {
        for n in 0..100 {
            address.send(format!("a-series-with-a-long-name-{n}:1|c\nanother-one-{n}:7|ms"));
        }
    };
    agent.until("checkpoints are rare", || {
        send();
        agent.own_metric("tallyport_checkpoint_interval_seconds") > 1.0
    });
    let before = agent.own_metric("tallyport_window_log_written_bytes_total{state=\"open\"}");
    assert!(before > 1024.0);
    assert!(agent.window_log()["checkpoint_seconds"].as_f64() > Some(1.0));
}
