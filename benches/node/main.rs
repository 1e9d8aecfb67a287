//! The cost of receiving on a node: the agent compared with two receivers that discard everything.
//!
//! ```text
//! cargo bench --bench node                 the whole table, some minutes
//! cargo bench --bench node -- 1000         only loads whose name contains this
//! cargo bench --bench node -- --json FILE  also writes the figures as JSON
//! TALLYPORT_BINARY=PATH cargo bench …      another build of the agent
//! cargo bench --bench node -- --before PATH [--rounds N]  this build and that one in turn, nine rounds of each load
//! ```
//!
//! For each load the receivers and the agent take turns, three rounds. A figure is the median of its rounds; for losses
//! it is the worst. CPU time is that of all threads of the receiving process, as counted by the scheduler, so it does
//! not depend on the sender. Ratios within a row can be compared between machines, nanoseconds cannot.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a bench"
)]

mod agent;
mod attacks;
mod flood;
mod pair;
mod peers;
mod receive;
mod run;
mod send;
mod standing;
mod storms;

use run::{Outcome, Subject};
use send::{Load, Pacing};

/// Rounds of each load.
const ROUNDS: usize = 3;

const LOADS: [Load; 7] = [
    Load::new("64 x 1", 64, 100_000).lines(1),
    Load::new("64 x 1, paced one by one", 64, 60_000).lines(1).paced(Pacing::Each),
    Load::new("64 x 8", 64, 100_000).lines(8),
    Load::new("64 x 8, 4 tags", 64, 100_000).lines(8).tags(4),
    Load::new("1 x 8", 1, 50_000).lines(8),
    Load::new("1000 x 1", 1000, 100_000).lines(1),
    Load::new("64 x 8, flat out", 64, 0).lines(8),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, kind, containers] = arguments.as_slice()
        && word == "receive"
    {
        return receive::main(kind, containers.parse().unwrap());
    }
    // Criterion's flag: each runs once, so that a broken one is noticed.
    let once = arguments.iter().any(|argument| argument == "--test");
    let value_of =
        |flag: &str| arguments.iter().position(|argument| argument == flag).map(|at| &arguments[at + 1]);
    let (json, before, rounds) = (value_of("--json"), value_of("--before"), value_of("--rounds"));
    let values = [json, before, rounds];
    let filter =
        arguments.iter().find(|argument| !argument.starts_with("--") && !values.contains(&Some(*argument)));
    let wanted = |load: &&Load| filter.is_none_or(|filter| load.name.contains(filter.as_str()));
    if let Some(before) = before {
        let rounds = rounds.map_or(pair::ROUNDS, |rounds| rounds.parse().unwrap());
        return pair::compare(before.as_ref(), LOADS.iter().filter(wanted), rounds);
    }
    let rows: Vec<Row> = LOADS
        .iter()
        .filter(wanted)
        .take(if once { 1 } else { LOADS.len() })
        .map(|load| measure(load, if once { 1 } else { ROUNDS }, if once { 0.2 } else { 3.0 }))
        .collect();
    if !rows.is_empty() {
        println!("{}", Row::HEAD);
        rows.iter().for_each(|row| println!("{row}"));
    }
    let mut rows: Vec<_> = rows.iter().map(Row::json).collect();
    let wanted = |name: &str| !once && filter.is_none_or(|filter| name.contains(filter.as_str()));
    if wanted("idle") {
        rows.push(standing::idle(12));
    }
    if wanted("full") {
        rows.push(standing::full(30));
    }
    if wanted("peers") {
        rows.push(peers::compare(ROUNDS, 3.0));
    }
    if wanted("flood") {
        rows.push(flood::flood(5));
    }
    let storms = storms::STORMS.into_iter().filter(|storm| wanted(storm.name));
    rows.extend(storms.map(|storm| storms::storm(storm, 10)));
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
    }
}

/// One load, and the outcome for each subject.
struct Row {
    load: Load,
    outcomes: [(Subject, Outcome); 3],
}

fn measure(load: &Load, rounds: usize, seconds: f64) -> Row {
    let mut outcomes = Subject::ALL.map(|subject| (subject, Vec::new()));
    for round in 0..rounds {
        for (subject, outcomes) in &mut outcomes {
            eprintln!("{}: round {}, {}", load.name, round + 1, subject.name());
            outcomes.push(run::run(*subject, load, seconds));
        }
    }
    Row { load: *load, outcomes: outcomes.map(|(subject, outcomes)| (subject, Outcome::median(&outcomes))) }
}

impl Row {
    const HEAD: &str = "\
load                        datagrams/s | ns CPU a datagram: naive  coalescing   agent | agent / naive  / coalescing | ns a value | lost: naive  coal.  agent | agent MB";

    fn of(&self, wanted: Subject) -> &Outcome {
        let (_, outcome) = self.outcomes.iter().find(|(subject, _)| *subject == wanted).unwrap();
        outcome
    }

    fn json(&self) -> serde_json::Value {
        let outcomes =
            self.outcomes.iter().map(|(subject, outcome)| (subject.name().to_owned(), outcome.json()));
        serde_json::json!({
            "load": self.load.name,
            "containers": self.load.containers,
            "lines": self.load.lines,
            "outcomes": outcomes.collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [naive, coalescing, agent] = Subject::ALL.map(|subject| self.of(subject));
        write!(
            f,
            "{:26} {:12.0} | {:24.0} {:11.0} {:7.0} | {:13.2} {:13.2} | {:10.0} | {:11.2}% {:5.2}% {:5.2}% | {:8.1}",
            self.load.name,
            agent.rate,
            naive.nanos,
            coalescing.nanos,
            agent.nanos,
            agent.nanos / naive.nanos,
            agent.nanos / coalescing.nanos,
            agent.nanos / self.load.lines as f64,
            naive.lost * 100.0,
            coalescing.lost * 100.0,
            agent.lost * 100.0,
            agent.memory as f64 / f64::from(1 << 20),
        )
    }
}
