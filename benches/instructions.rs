//! The number of instructions for parsing, counting and publishing, which is the same on every run and independent of the
//! machine's load.
//!
//! `cargo bench --bench instructions [-- --json FILE]`. Runs itself under valgrind's callgrind twice for each subject,
//! with N turns and with 2 N, so that the difference excludes the cost of starting.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a bench"
)]

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tallyport::aggregate::{Aggregator, GaugeSign};
use tallyport::config::{AgentConfig, ProcessEnvironment};
use tallyport::model::{Allocation, ContainerId, Generation, Moment, Origin, TaskId, Timestamp};
use tallyport::publish::RoundRehearsal;
use tallyport::statsd::{ParsedLine, Sample, TagStyles, parse};
use tallyport::store::{Published, Store};

const TURNS: u64 = 2_000;
const TAGS: &str = "|#env:production,region:eu-west-1,handler:checkout";
const PLAIN: [&str; 4] = [
    "service.requests.total:1|c",
    "service.queue.depth:42|g",
    "service.response.latency:12.75|ms",
    "service.response.size:1536|h",
];

/// The measured subjects: a name, its kind, and the line or lines of one turn.
const SUBJECTS: [(&str, Kind, usize, &str); 13] = [
    ("parse a plain line", Kind::Parse, 1, ""),
    ("parse a line with three tags", Kind::Parse, 1, TAGS),
    ("insert a counter", Kind::Insert, 1, "c:1|c"),
    ("insert a gauge", Kind::Insert, 1, "g:1|g"),
    ("insert a timer", Kind::Insert, 1, "t:12.5|ms"),
    ("insert a set's member", Kind::Insert, 1, "s:member|s"),
    ("datagram of 1 line", Kind::Datagram, 1, ""),
    ("datagram of 8 lines", Kind::Datagram, 8, ""),
    ("datagram of 8 lines with three tags", Kind::Datagram, 8, TAGS),
    ("datagram of 30 lines", Kind::Datagram, 30, ""),
    ("round for influxdb", Kind::Publish, ROUND, "type = 'influxdb'"),
    ("round for remote write 2.0", Kind::Publish, ROUND, "type = 'remote_write'\nurl = 'http://localhost/'"),
    (
        "round for remote write 1.0",
        Kind::Publish,
        ROUND,
        "type = 'remote_write'\nurl = 'http://localhost/'\nversion = '1.0'",
    ),
];
/// The records of a published round: fifty counters, 25 gauges and 25 timers of twenty values of each container.
const ROUND: usize = 100 * CONTAINERS;
const CONTAINERS: usize = 20;
/// How many turns each kind takes, in units of which a run has one or two.
const PUBLISHED_ROUNDS: u64 = 20;

#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    Parse,
    Insert,
    Datagram,
    /// Everything that a publisher does with closed windows, short of sending.
    Publish,
}

impl Kind {
    const fn turns(self) -> u64 {
        match self {
            Self::Publish => PUBLISHED_ROUNDS,
            Self::Parse | Self::Insert | Self::Datagram => TURNS,
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, index, turns] = arguments.as_slice()
        && word == "turns"
    {
        return take_turns(index.parse().unwrap(), turns.parse().unwrap());
    }
    // Criterion's flag: each runs once, without valgrind and without counting, so that a broken one is noticed.
    if arguments.iter().any(|argument| argument == "--test") {
        return (0..SUBJECTS.len()).for_each(|index| take_turns(index, 1));
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return println!("instructions: SKIPPED, valgrind is not installed");
    }
    let json = arguments.iter().position(|argument| argument == "--json").map(|at| &arguments[at + 1]);
    let mut rows = serde_json::Map::new();
    println!("{:38} {:>12} {:>8}", "instructions", "in a turn", "a line or record");
    for (index, (name, kind, lines, _)) in SUBJECTS.iter().enumerate() {
        let turns = kind.turns();
        let each = (counted(index, 2 * turns) - counted(index, turns)) as f64 / turns as f64;
        println!("{name:38} {each:12.0} {:8.0}", each / *lines as f64);
        rows.insert((*name).to_owned(), each.round().into());
    }
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
    }
}

/// The number of instructions of a complete run.
fn counted(index: usize, turns: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["turns", &index.to_string(), &turns.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let line =
        text.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind says what it counted");
    line.1.trim().parse().unwrap()
}

fn take_turns(index: usize, turns: u64) {
    let (_, kind, lines, text) = SUBJECTS[index];
    if kind == Kind::Publish {
        return publish_rounds(text, turns);
    }
    let now = Moment { wall: Timestamp::from_secs(1_767_225_600), mono: Duration::ZERO };
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, now.wall);
    let texts: Vec<String> = PLAIN.iter().map(|line| format!("{line}{text}")).collect();
    let all: Vec<&str> = texts.iter().map(String::as_str).cycle().take(lines).collect();
    let datagram = all.join("\n").into_bytes();
    let sample = |line: &'static str| -> Sample<'static> {
        match parse(line.as_bytes(), TagStyles::NONE) {
            Ok(ParsedLine::Sample(sample)) => sample,
            other => panic!("{line}: {other:?}"),
        }
    };
    let inserted = (kind == Kind::Insert).then(|| sample(text));
    for turn in 0..turns {
        match (kind, &inserted) {
            (Kind::Parse, _) => {
                let line = &texts[usize::try_from(turn).unwrap() % texts.len()];
                let _read = black_box(parse(black_box(line.as_bytes()), TagStyles::NONE));
            }
            (_, Some(sample)) => aggregator.ingest_sample(black_box(sample), now.wall),
            _ => aggregator.ingest_datagram(black_box(&datagram), now, None),
        }
    }
}

/// Publishes the same windows again and again, as rounds of a publisher with these settings.
fn publish_rounds(settings: &str, rounds: u64) {
    let config = AgentConfig::from_toml(&format!("[publish.p]\n{settings}\n"), &ProcessEnvironment);
    let publisher = config.unwrap().publish.publishers.remove(0);
    let mut rehearsal = RoundRehearsal::open(publisher).unwrap();
    let windows = close_windows();
    for _ in 0..rounds {
        let encoded = rehearsal.encode_windows(black_box(&windows));
        assert!(encoded.records >= ROUND, "{encoded:?}");
    }
}

/// A window of each container.
fn close_windows() -> Vec<Arc<Published>> {
    let start = Timestamp::from_secs(1_767_225_600);
    let now = |secs| Moment { wall: start.saturating_add(Duration::from_secs(secs)), mono: Duration::ZERO };
    let store = Store::new(1, 10);
    for number in 0..CONTAINERS {
        let origin = Origin {
            container_id: ContainerId::new(&format!("{number:064x}")).unwrap(),
            generation: Generation(1),
            task_id: TaskId::new(&format!("shop_web.{number:08x}")).unwrap(),
            labels: [].into(),
        };
        let allocation = Allocation(number as u64 + 1);
        store.open(allocation, Arc::new(origin), start);
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, start);
        let mut send = |line: String| aggregator.ingest_datagram(line.as_bytes(), now(4), None);
        for n in 0..50 {
            send(format!("service.requests.{n}:{n}|c"));
        }
        for n in 0..25_u8 {
            send(format!("service.depth.{n}:{n}|g"));
            for value in 0..20_u8 {
                let latency = f64::from(5 + n) * 8_f64.powf(f64::from(value) / 20.0);
                send(format!("service.latency.{n}:{latency:.2}|ms"));
            }
        }
        store.push(allocation, aggregator.roll_window(now(10).wall).unwrap());
    }
    store.kept_after(0)
}
