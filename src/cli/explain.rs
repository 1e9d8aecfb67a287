//! `tallyport explain`: the way of a task's metrics, station by station, and what stopped them.

use std::process::ExitCode;

use serde::Serialize;

use super::args::{ExplainArgs, Format};
use super::details::value;
use super::documents::{ago, counted, name as name_of};
use super::failure::{Failure, code};
use super::output::Output;
use super::resolve::{read, segment, task};
use crate::aggregate::{Dropped, OVERFLOW};
use crate::client::Client;
use crate::model::Glob;
use crate::net::clock;
use crate::statsd::Rejected;
use crate::wire::{Container, Record, Task, TaskMetrics};

/// How a station went.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Good,
    Note,
    Bad,
}

/// One station of the way.
#[derive(Debug, Serialize)]
struct Station {
    station: &'static str,
    outcome: Outcome,
    found: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advice: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Explanation {
    task_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    stations: Vec<Station>,
    verdict: String,
    arrives: bool,
}

pub(super) async fn explain(args: &ExplainArgs, out: &mut Output) -> Result<ExitCode, Failure> {
    let client = args.client.client()?;
    let task = task(&client, &args.pod, &args.task_id).await?;
    // The admin socket knows the lines themselves; without it their codes have to do.
    let task = with_lines(&args.admin.client(), &task).await.unwrap_or(task);
    let path = format!("/v1/tasks/{}/metrics", segment(&task.task_id));
    let TaskMetrics::<Record> { metrics, .. } = read(&client.get(&path).await?)?;
    let explanation = explained(&task, &metrics, args.name.as_deref());
    match args.output.format() {
        Format::Json => out.json(&explanation)?,
        Format::Ndjson => out.ndjson([&explanation])?,
        Format::Prom => {
            return Err(Failure::usage("an explanation is not a metric; use table, json or ndjson"));
        }
        Format::Table => print(&explanation, out)?,
    }
    Ok(if explanation.arrives { ExitCode::SUCCESS } else { ExitCode::from(code::NO_DATA) })
}

async fn with_lines(admin: &Client, task: &Task) -> Option<Task> {
    let response = admin.get(&format!("/v1/tasks/{}", segment(&task.task_id))).await.ok()?;
    read(&response).ok()
}

fn explained(task: &Task, records: &[Record], name: Option<&str>) -> Explanation {
    let stations = vec![
        known(task),
        injected(task),
        received(task),
        read_lines(task),
        kept(task),
        recorded(records, name),
        scraped(task),
    ];
    let stopped = stations.iter().find(|station| station.outcome == Outcome::Bad);
    let arrives = matching(records, name).next().is_some();
    let subject = name.map_or_else(|| "its metrics".to_owned(), |name| format!("{name:?}"));
    let verdict = match stopped {
        _ if arrives => format!("{subject} can be read"),
        Some(station) => format!("{subject}: stopped at {:?}: {}", station.station, station.found),
        None => format!("{subject}: nothing has come yet; wait for the first window"),
    };
    Explanation { task_id: task.task_id.clone(), name: name.map(str::to_owned), stations, verdict, arrives }
}

fn station(name: &'static str, outcome: Outcome, found: impl Into<String>) -> Station {
    Station { station: name, outcome, found: found.into(), advice: Vec::new() }
}

impl Station {
    fn advise(mut self, advice: impl IntoIterator<Item = String>) -> Self {
        self.advice.extend(advice);
        self
    }
}

fn known(task: &Task) -> Station {
    let containers: Vec<String> = task
        .containers
        .iter()
        .map(|c| format!("{} ({}, generation {})", name_of(c), c.reserved.state, c.reserved.generation))
        .collect();
    let outcome = if task.finished { Outcome::Note } else { Outcome::Good };
    station("known", outcome, containers.join(", "))
}

fn injected(task: &Task) -> Station {
    let addresses: Vec<String> =
        task.containers.iter().map(|container| container.reserved.address()).collect();
    let mut found = format!("STATSD_UDP_HOST:STATSD_UDP_PORT = {}", addresses.join(", "));
    let mut advice = Vec::new();
    let mut outcome = Outcome::Good;
    for container in &task.containers {
        let reserved = &container.reserved;
        if let Some(why) = unserved(container) {
            outcome = Outcome::Bad;
            found = format!("{found}; {} is {}", name_of(container), reserved.state);
            found = format!("{found}: {}", reserved.reason.as_deref().unwrap_or(why));
            advice.push("restart it to give it a socket".to_owned());
            continue;
        }
        match environment_of(container) {
            Some(Seen::Ours) => found.push_str("; the process has them"),
            Some(Seen::Without) => {
                outcome = Outcome::Bad;
                found.push_str("; the process does not have them");
                advice.push(
                    "the launcher did not hand the variables on; start it with `tallyport run` or its hook"
                        .to_owned(),
                );
            }
            Some(Seen::Other(other)) => {
                outcome = Outcome::Bad;
                found = format!("the process has {other}, its socket is at {}", reserved.address());
                advice.push(
                    "something between the launcher and the process overwrote the variables".to_owned(),
                );
            }
            None if !reserved.attached && !task.finished => {
                outcome = Outcome::Note;
                advice.push("no process was attached yet; the reservation expires without one".to_owned());
            }
            None => {}
        }
    }
    station("injected", outcome, found).advise(advice)
}

/// Why a container that runs has no socket.
fn unserved(container: &Container) -> Option<&'static str> {
    match &*container.reserved.state {
        "mute" => Some("it was started while the agent was away, or could not be served"),
        "lost" => Some("its address could not be opened again after a restart of the agent"),
        _ => None,
    }
}

/// What a process has in its environment, as far as we may look.
enum Seen {
    Ours,
    Other(String),
    Without,
}

fn environment_of(container: &Container) -> Option<Seen> {
    let environment = std::fs::read(format!("/proc/{}/environ", container.pid?)).ok()?;
    let variable = |name: &str| {
        let text = format!("{name}=");
        let found =
            environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(text.as_bytes()));
        found.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    Some(match (variable("STATSD_UDP_HOST"), variable("STATSD_UDP_PORT")) {
        (Some(host), Some(port)) => {
            let ours = Some(&host) == container.reserved.statsd_host.as_ref()
                && port.parse().ok() == container.reserved.statsd_port;
            if ours { Seen::Ours } else { Seen::Other(format!("{host}:{port}")) }
        }
        _ => Seen::Without,
    })
}

fn received(task: &Task) -> Station {
    let (datagrams, kernel) = (task.totals.datagrams.received, task.totals.datagrams.kernel_drops);
    let Some(last) = task.last_datagram else {
        return station("received", Outcome::Bad, "no datagram has come").advise([
            "does the application send? `tallyport tail` shows lines as they come".to_owned(),
            "does its client read STATSD_UDP_HOST and STATSD_UDP_PORT, or has it an address of its own?"
                .to_owned(),
            "does its client buffer? Many send only when a buffer is full or closed".to_owned(),
        ]);
    };
    let found = format!("{datagrams} datagrams, the last {} ago", ago(clock::wall(), last));
    if kernel > 0 {
        let found = format!("{found}; the kernel dropped {kernel} for want of buffer");
        let advice =
            "send fewer and fuller datagrams, or raise listeners.receive_buffer and net.core.rmem_max";
        return station("received", Outcome::Note, found).advise([advice.to_owned()]);
    }
    station("received", Outcome::Good, found)
}

fn read_lines(task: &Task) -> Station {
    let lines = &task.totals.lines;
    let rejected = counted(&lines.rejected);
    if rejected.is_empty() {
        return station("read", Outcome::Good, format!("{} lines, all of them accepted", lines.received));
    }
    let total: u64 = rejected.iter().map(|(_, n)| n).sum();
    let outcome = if lines.accepted == 0 { Outcome::Bad } else { Outcome::Note };
    let codes: Vec<String> = rejected.iter().map(|(code, n)| format!("{n} {code}")).collect();
    let found = format!("{} lines, {total} of them rejected: {}", lines.received, codes.join(", "));
    let advice = rejected.iter().filter_map(|(code, _)| {
        let advice = Rejected::ALL.iter().find(|known| known.code() == code)?.advice();
        Some(format!("{code}: {advice}"))
    });
    let shown = task.recent_rejected.iter().rev().take(3).filter_map(|line| {
        Some(format!("{} ago, {}: {:?}", ago(clock::wall(), line.at), line.code, line.line.as_ref()?))
    });
    station("read", outcome, found).advise(advice.chain(shown))
}

fn kept(task: &Task) -> Station {
    let values = &task.totals.values;
    let dropped: Vec<(String, u64)> =
        counted(&values.dropped).into_iter().chain(counted(&task.totals.datagrams.dropped)).collect();
    let over = counted(&task.totals.over_limit);
    let mut found = vec![
        format!("{} values accepted", values.accepted),
        format!("{} in records", values.in_records),
        format!("{} in the open window", values.open),
    ];
    found.extend((values.folded > 0).then(|| format!("{} of counters in {OVERFLOW}", values.folded)));
    if !dropped.is_empty() {
        let reasons: Vec<String> = dropped.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        found.push(format!("dropped: {}", reasons.join(", ")));
    }
    let outcome = match (dropped.is_empty(), over.is_empty() && values.folded == 0) {
        (true, true) => Outcome::Good,
        (false, _) if values.in_records + values.open == 0 => Outcome::Bad,
        _ => Outcome::Note,
    };
    let advice = dropped.iter().chain(&over).filter_map(|(reason, _)| {
        let known = Dropped::ALL.iter().find(|known| known.reason() == reason)?;
        Some(format!("{reason}: {}", known.advice()))
    });
    station("kept", outcome, found.join(", "))
        .advise(advice)
        .advise(many_series(task, dropped.iter().chain(&over)))
}

/// What makes so many series, where there are too many.
fn many_series<'r>(task: &Task, reasons: impl IntoIterator<Item = &'r (String, u64)>) -> Option<String> {
    let limits = [Dropped::SeriesLimit, Dropped::MemoryLimit, Dropped::NodeMemory].map(Dropped::reason);
    let too_many = task.totals.values.folded > 0
        || reasons.into_iter().any(|(reason, _)| limits.contains(&reason.as_str()));
    let wide = task.widest_tags.iter().flatten().map(|tag| match &tag.key {
        Some(key) => format!("{key} ({} values in {} series)", tag.values, tag.series),
        None => format!("the name itself ({} names)", tag.values),
    });
    let wide: Vec<String> = wide.collect();
    (too_many && !wide.is_empty()).then(|| format!("what makes most series: {}", wide.join(", ")))
}

fn matching<'r>(records: &'r [Record], name: Option<&str>) -> impl Iterator<Item = &'r Record> {
    let glob = name.map(Glob::new);
    records.iter().filter(move |record| glob.as_ref().is_none_or(|glob| glob.matches(&record.name)))
}

fn recorded(records: &[Record], name: Option<&str>) -> Station {
    let found: Vec<&Record> = matching(records, name).collect();
    match (found.first(), name) {
        (Some(_), None) => station("recorded", Outcome::Good, format!("{} series", found.len())),
        (Some(_), Some(_)) => {
            let now = clock::wall();
            let shown = found.iter().take(5).map(|record| {
                let age = if record.open {
                    "in the open window".to_owned()
                } else {
                    format!("{} ago", ago(now, record.end))
                };
                let tags =
                    if record.tags.is_empty() { String::new() } else { format!(" [{}]", record.tags()) };
                format!("{} {}{tags}: {} {age}", record.metric_type, record.name, value(record))
            });
            station("recorded", Outcome::Good, format!("{} series", found.len())).advise(shown)
        }
        (None, None) => station("recorded", Outcome::Bad, "no series"),
        (None, Some(name)) => {
            let nearest = nearest(records, name);
            let advice = match nearest.is_empty() {
                true => format!("the task has {} other series", records.len()),
                false => format!("nearest names: {}", nearest.join(", ")),
            };
            let prefix = "clients put a prefix before every name; patterns such as '*latency' find it";
            station("recorded", Outcome::Bad, format!("no series fits {name:?}"))
                .advise([advice, prefix.to_owned()])
        }
    }
}

fn nearest(records: &[Record], name: &str) -> Vec<String> {
    let mut names: Vec<(f64, &str)> = records
        .iter()
        .map(|record| {
            let part = if record.name.contains(name) { 1.0 } else { 0.0 };
            (part + strsim::normalized_damerau_levenshtein(&record.name, name), record.name.as_str())
        })
        .filter(|(likeness, _)| *likeness > 0.4)
        .collect();
    names.sort_by(|(a, first), (b, second)| b.total_cmp(a).then(first.cmp(second)));
    names.dedup_by(|(_, a), (_, b)| a == b);
    names.into_iter().take(5).map(|(_, name)| name.to_owned()).collect()
}

fn scraped(task: &Task) -> Station {
    match task.last_scrape {
        Some(last) => station(
            "scraped",
            Outcome::Good,
            format!("this node was scraped {} ago", ago(clock::wall(), last)),
        ),
        None => station("scraped", Outcome::Note, "nobody has scraped this node since the agent started"),
    }
}

fn print(explanation: &Explanation, out: &mut Output) -> std::io::Result<()> {
    for station in &explanation.stations {
        let mark = match station.outcome {
            Outcome::Good => out.good("ok  "),
            Outcome::Note => out.warning("note"),
            Outcome::Bad => out.bad("STOP"),
        };
        out.line(mark + format!("  {:<9} {}", station.station, station.found))?;
        for advice in &station.advice {
            out.line(format!("                {advice}"))?;
        }
    }
    out.line(out.strong(&explanation.verdict))
}
