//! The number of instructions for parsing and counting, which is the same on every run and independent of the machine's
//! load.
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
use tallyport::model::{Moment, Timestamp};
use tallyport::statsd::{ParsedLine, Sample, TagStyles, parse};

const TURNS: u64 = 2_000;
const TAGS: &str = "|#env:production,region:eu-west-1,handler:checkout";
const PLAIN: [&str; 4] = [
    "service.requests.total:1|c",
    "service.queue.depth:42|g",
    "service.response.latency:12.75|ms",
    "service.response.size:1536|h",
];

/// The measured subjects: a name, its kind, and the line or lines of one turn.
const SUBJECTS: [(&str, Kind, usize, &str); 10] = [
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
];

#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    Parse,
    Insert,
    Datagram,
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
    println!("{:38} {:>12} {:>8}", "instructions", "in a turn", "a line");
    for (index, (name, _, lines, _)) in SUBJECTS.iter().enumerate() {
        let each = (counted(index, 2 * TURNS) - counted(index, TURNS)) as f64 / TURNS as f64;
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
