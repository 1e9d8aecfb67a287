//! `tallyport explain`: follows a task's metrics station by station, and reports what stopped them.

mod losses;
mod recorded;
mod rejected;
mod scraped;

use std::process::ExitCode;

use serde::Serialize;

use self::losses::count_by_container;
use self::recorded::{check_records, matching_records};
pub(super) use self::rejected::find_recently_rejected;
use self::rejected::{format_rejected, suggest_fix};
use self::scraped::check_scrapes;
use super::args::{ExplainArgs, OutputFormat};
use super::doctor::fetch_publishers;
use super::documents::{format_elapsed, name as name_of, sorted_counts};
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use super::output::Console;
use super::paragraphs::write_paragraph;
use super::resolve::{FoundTask, parse_response};
use super::setting_places::SettingPlaces;
use super::wait::find_sending_task;
use crate::aggregate::{Dropped, KERNEL_DROPS_FIX, OVERFLOW};
use crate::client::Client;
use crate::net::clock;
use crate::wire::{
    ContainerDocument, ExposedNameDocument, NodeDocument, PublisherDocument, RecordDocument, Task,
    TaskMetrics, TaskNames,
};

/// The result at a station.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum StationOutcome {
    Ok,
    Note,
    Stop,
}

/// One station on the way from the socket to the scraper.
#[derive(Debug, Serialize)]
struct Station {
    station: &'static str,
    outcome: StationOutcome,
    found: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advice: Vec<String>,
    /// The names on the page for scrapers, as the agent lists them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<ExposedNameDocument>,
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

pub(super) async fn explain_task(args: &ExplainArgs, out: &mut Console) -> Result<ExitCode, Failure> {
    let patience = args.wait.find_patience(&[Some(&args.task_id), args.name.as_deref()])?;
    let client = args.client.build_client()?;
    let found = find_sending_task(&client, &args.pod, &args.task_id, patience).await?;
    found.report_whole(out);
    let FoundTask { task, .. } = found;
    // The admin socket also has the rejected lines; without it, only their codes are shown.
    let admin = args.admin.build_client();
    let task = with_lines(&admin, &task).await.unwrap_or(task);
    let path = format!("/v1/tasks/{}/metrics", encode_segment(&task.task_id));
    let TaskMetrics::<RecordDocument> { metrics, .. } = parse_response(&client.get(&path).await?)?;
    let names = fetch_names(&client, &task, args.name.as_deref()).await;
    let publishers = fetch_publishers(&client).await;
    let found = Found { task: &task, records: &metrics, names: &names, publishers: &publishers };
    let mut explanation = build_explanation(&found, args.name.as_deref(), &client.target().to_string());
    let places = SettingPlaces::fetch_places(fetch_config_file(&client).await, &admin).await;
    for advice in explanation.stations.iter_mut().flat_map(|station| &mut station.advice) {
        *advice = places.name_in(advice);
    }
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&explanation)?,
        OutputFormat::Ndjson => out.write_ndjson([&explanation])?,
        OutputFormat::Table => print_explanation(&explanation, out)?,
    }
    Ok(if explanation.arrives { ExitCode::SUCCESS } else { ExitCode::from(code::NO_DATA) })
}

async fn with_lines(admin: &Client, task: &Task) -> Option<Task> {
    let response = admin.get(&format!("/v1/tasks/{}", encode_segment(&task.task_id))).await.ok()?;
    parse_response(&response).ok()
}

/// The configuration file that the agent has read, if it says so.
async fn fetch_config_file(client: &Client) -> Option<String> {
    parse_response::<NodeDocument>(&client.get("/v1/node").await.ok()?).ok()?.config_file
}

/// The names for Prometheus; none from an agent without that route.
async fn fetch_names(client: &Client, task: &Task, name: Option<&str>) -> Vec<ExposedNameDocument> {
    let query = encode_query(name.map(|name| ("name", name)));
    let path = format!("/v1/tasks/{}/names{query}", encode_segment(&task.task_id));
    let Ok(response) = client.get(&path).await else { return Vec::new() };
    parse_response(&response).map_or_else(|_| Vec::new(), |TaskNames { names, .. }| names)
}

/// What the agent says of a task.
struct Found<'a> {
    task: &'a Task,
    records: &'a [RecordDocument],
    names: &'a [ExposedNameDocument],
    publishers: &'a [PublisherDocument],
}

/// `url` is that of the agent.
fn build_explanation(found: &Found<'_>, name: Option<&str>, url: &str) -> Explanation {
    let Found { task, records, names, publishers } = *found;
    let arrives = matching_records(records, name).next().is_some();
    let mut stations = vec![
        check_containers(task),
        check_environment(task),
        check_datagrams(task, !records.is_empty()),
        check_lines(task, name, arrives),
        check_values(task),
        check_records(task, records, name),
        check_scrapes(task, names, records, name, url),
    ];
    stations.extend(publishers.iter().map(check_publisher));
    end_at_stop(&mut stations, task, arrives);
    let stopped = stations.iter().find(|station| station.outcome == StationOutcome::Stop);
    let subject = name.map_or_else(|| "its metrics".to_owned(), |name| format!("{name:?}"));
    let verdict = match stopped {
        _ if arrives && loses_counters(task, records, name) => format!(
            "{subject} can be read in part: {} values of counters are in {OVERFLOW}",
            task.totals.values.folded
        ),
        _ if arrives => format!("{subject} can be read"),
        Some(station) => format!("{subject}: stopped at {:?}: {}", station.station, station.found),
        None => format!("{subject}: nothing has arrived yet; wait for the first window"),
    };
    Explanation { task_id: task.task_id.clone(), name: name.map(str::to_owned), stations, verdict, arrives }
}

/// Whether values of these counters can be missing because they were folded.
fn loses_counters(task: &Task, records: &[RecordDocument], name: Option<&str>) -> bool {
    task.totals.values.folded > 0
        && matching_records(records, name).any(|record| record.metric_type == "counter")
}

/// Ends the list at the station that stopped the metrics. A station that they have passed all the same, as the station of
/// one container among several, did not stop them.
fn end_at_stop(stations: &mut Vec<Station>, task: &Task, arrives: bool) {
    let passed = match () {
        () if arrives => "recorded",
        () if task.last_datagram.is_some() => "received",
        () => "known",
    };
    for station in stations.iter_mut().take_while(|station| station.station != passed) {
        if station.outcome == StationOutcome::Stop {
            station.outcome = StationOutcome::Note;
        }
    }
    if let Some(stop) = stations.iter().position(|station| station.outcome == StationOutcome::Stop) {
        stations.truncate(stop + 1);
    }
}

fn new_station(name: &'static str, outcome: StationOutcome, found: impl Into<String>) -> Station {
    Station { station: name, outcome, found: found.into(), advice: Vec::new(), names: Vec::new() }
}

impl Station {
    fn with_advice(mut self, advice: impl IntoIterator<Item = String>) -> Self {
        self.advice.extend(advice);
        self
    }
}

/// Whether a publisher delivers. What it selects is not known here, so it stops nothing.
fn check_publisher(publisher: &PublisherDocument) -> Station {
    let PublisherDocument { name, state, records, .. } = publisher;
    let last = publisher.last_delivery.map(|last| format_elapsed(clock::wall_time(), last));
    let delivered = match last {
        Some(last) => format!("to {name}, last {last} ago"),
        None => format!("nothing to {name} yet"),
    };
    if !matches!(&**state, "held" | "retrying") {
        return new_station("published", StationOutcome::Ok, delivered);
    }
    let answer = publisher.last_answer.as_ref().map_or(String::new(), |answer| format!(": {answer}"));
    let found = format!("{delivered}; it is {state} with {} records pending{answer}", records.pending);
    new_station("published", StationOutcome::Note, found).with_advice(publisher.advice.clone())
}

fn check_containers(task: &Task) -> Station {
    let containers: Vec<String> = task
        .containers
        .iter()
        .map(|c| format!("{} ({}, generation {})", name_of(c), c.reserved.state, c.reserved.generation))
        .collect();
    let outcome = if task.finished { StationOutcome::Note } else { StationOutcome::Ok };
    new_station("known", outcome, containers.join(", "))
}

fn check_environment(task: &Task) -> Station {
    let addresses: Vec<String> =
        task.containers.iter().map(|container| container.reserved.statsd_address()).collect();
    let mut found = format!("STATSD_UDP_HOST:STATSD_UDP_PORT = {}", addresses.join(", "));
    let mut advice = Vec::new();
    let mut outcome = StationOutcome::Ok;
    let mut with_variables = Vec::new();
    for container in &task.containers {
        let reserved = &container.reserved;
        if let Some(why) = unserved_reason(container) {
            outcome = StationOutcome::Stop;
            found = format!("{found}; {} is {}", name_of(container), reserved.state);
            found = format!("{found}: {}", reserved.reason.as_deref().unwrap_or(why));
            advice.push("restart it to give it a socket".to_owned());
            continue;
        }
        match environment_of(container) {
            Some(EnvironmentMatch::Ours) => with_variables.push(name_of(container)),
            Some(EnvironmentMatch::Without) => {
                outcome = StationOutcome::Stop;
                found = format!("{found}; {} does not have them", process_of(task, container));
                advice.push(
                    "the launcher did not pass the variables on; start it with `tallyport run` or its hook"
                        .to_owned(),
                );
            }
            Some(EnvironmentMatch::Other(other)) => {
                outcome = StationOutcome::Stop;
                let process = process_of(task, container);
                let wrong = format!("{process} has {other}, its socket is at {}", reserved.statsd_address());
                found = if task.containers.len() > 1 { format!("{found}; {wrong}") } else { wrong };
                advice.push(
                    "something between the launcher and the process overwrote the variables".to_owned(),
                );
            }
            None if !reserved.attached && !task.finished => {
                outcome = StationOutcome::Note;
                advice.push("no process was attached yet; the reservation expires without one".to_owned());
            }
            None => {}
        }
    }
    match (with_variables.len(), task.containers.len()) {
        (0, _) => {}
        (1, 1) => found.push_str("; the process has them"),
        (with, all) if with == all => found.push_str("; all processes have them"),
        _ => found = format!("{found}; the processes of {} have them", with_variables.join(", ")),
    }
    new_station("injected", outcome, found).with_advice(advice)
}

/// The process of a container, with the container's name if the task has several.
fn process_of(task: &Task, container: &ContainerDocument) -> String {
    match task.containers.len() {
        0 | 1 => "the process".to_owned(),
        _ => format!("the process of {}", name_of(container)),
    }
}

/// Why a running container has no socket.
fn unserved_reason(container: &ContainerDocument) -> Option<&'static str> {
    match &*container.reserved.state {
        "mute" => Some("it was started while the agent was away, or could not be served"),
        "lost" => Some("its address could not be opened again after a restart of the agent"),
        _ => None,
    }
}

/// Whether the environment of a process has its address.
enum EnvironmentMatch {
    Ours,
    Other(String),
    Without,
}

fn environment_of(container: &ContainerDocument) -> Option<EnvironmentMatch> {
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
            if ours { EnvironmentMatch::Ours } else { EnvironmentMatch::Other(format!("{host}:{port}")) }
        }
        _ => EnvironmentMatch::Without,
    })
}

/// `restored` says whether there are records. Counts begin at 0 when the agent starts, and records can be older.
fn check_datagrams(task: &Task, restored: bool) -> Station {
    let (datagrams, kernel) = (task.totals.datagrams.received, task.totals.datagrams.kernel_drops);
    let Some(last) = task.last_datagram else {
        if restored {
            let found = "no datagram since the agent started; the records are from before";
            return new_station("received", StationOutcome::Note, found);
        }
        if task.finished {
            return new_station(
                "received",
                StationOutcome::Stop,
                "no datagram arrived before the task ended",
            )
            .with_advice([
                "to see its lines, start it again and run `tallyport tail` while it runs".to_owned(),
                "a client that buffers must be closed or flushed before its process ends".to_owned(),
            ]);
        }
        return new_station("received", StationOutcome::Stop, "no datagram has arrived").with_advice([
            "does the application send? `tallyport tail` shows lines as they come".to_owned(),
            "does its client read STATSD_UDP_HOST and STATSD_UDP_PORT, or is it configured with another address?"
                .to_owned(),
            "does its client buffer? Many send only when a buffer is full or closed".to_owned(),
        ]);
    };
    let found = format!("{datagrams} datagrams, the last {} ago", format_elapsed(clock::wall_time(), last));
    if kernel > 0 {
        let found = format!("{found}; the kernel dropped {kernel} because the buffer was full");
        return new_station("received", StationOutcome::Note, found)
            .with_advice([format!("{KERNEL_DROPS_FIX} and net.core.rmem_max")])
            .with_advice(count_by_container(task, "dropped", |container| container.kernel_drops));
    }
    new_station("received", StationOutcome::Ok, found)
}

/// Stops a metric that has no series if its lines are among those that were rejected last.
fn check_lines(task: &Task, name: Option<&str>, arrives: bool) -> Station {
    let lines = &task.totals.lines;
    let rejected = sorted_counts(&lines.rejected);
    if rejected.is_empty() {
        return new_station(
            "read",
            StationOutcome::Ok,
            format!("{} lines, all of them accepted", lines.received),
        );
    }
    let total: u64 = rejected.iter().map(|(_, n)| n).sum();
    let recent = find_recently_rejected(task, name);
    if let (Some(name), false, [(line, _), ..]) = (name, arrives, &*recent) {
        let found = format!("lines of {name:?} were rejected: {}", line.code);
        return new_station("read", StationOutcome::Stop, found)
            .with_advice(suggest_fix(&line.code))
            .with_advice(recent.iter().filter_map(|(line, times)| format_rejected(line, *times)));
    }
    let outcome = if lines.accepted == 0 { StationOutcome::Stop } else { StationOutcome::Note };
    let codes: Vec<String> = rejected.iter().map(|(code, n)| format!("{n} {code}")).collect();
    let found = format!("{} lines, {total} of them rejected: {}", lines.received, codes.join(", "));
    let advice = rejected.iter().filter_map(|(code, _)| suggest_fix(code));
    let shown = recent.iter().filter_map(|(line, times)| format_rejected(line, *times));
    let others = match name.filter(|_| recent.is_empty()) {
        Some(_) => show_other_names(task, arrives),
        None => Vec::new(),
    };
    new_station("read", outcome, found)
        .with_advice(advice)
        .with_advice(shown)
        .with_advice(others)
        .with_advice(count_by_container(task, "rejected", |container| container.rejected))
}

/// That the lines which were rejected last have other names, with the lines if the metric does not arrive: its name may be
/// written wrongly in them.
fn show_other_names(task: &Task, arrives: bool) -> Vec<String> {
    let others = find_recently_rejected(task, None);
    let lines = others.iter().filter(|_| !arrives);
    let lines: Vec<String> = lines.filter_map(|(line, times)| format_rejected(line, *times)).collect();
    let heading = if lines.is_empty() {
        "the last of them have other names"
    } else {
        "the last of them have other names:"
    };
    std::iter::once(heading.to_owned()).chain(lines).collect()
}

fn check_values(task: &Task) -> Station {
    let values = &task.totals.values;
    let dropped: Vec<(String, u64)> = sorted_counts(&values.dropped)
        .into_iter()
        .chain(sorted_counts(&task.totals.datagrams.dropped))
        .collect();
    let over = sorted_counts(&task.totals.over_limit);
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
        (true, true) => StationOutcome::Ok,
        (false, _) if values.in_records + values.open == 0 => StationOutcome::Stop,
        _ => StationOutcome::Note,
    };
    let mut reasons: Vec<&str> = dropped.iter().chain(&over).map(|(reason, _)| reason.as_str()).collect();
    if values.folded > 0 && !reasons.contains(&Dropped::SeriesLimit.as_str()) {
        reasons.push(Dropped::SeriesLimit.as_str());
    }
    let advice = reasons.into_iter().filter_map(|reason| {
        let known = Dropped::ALL.iter().find(|known| known.as_str() == reason)?;
        Some(format!("{reason}: {}", known.suggested_fix()))
    });
    new_station("kept", outcome, found.join(", "))
        .with_advice(advice)
        .with_advice(many_series(task, dropped.iter().chain(&over)))
        .with_advice(count_by_container(task, "dropped", |container| container.dropped))
        .with_advice(count_by_container(task, "folded", |container| container.folded))
}

/// Names the tags with the most values, if there are too many series.
fn many_series<'r>(task: &Task, reasons: impl IntoIterator<Item = &'r (String, u64)>) -> Option<String> {
    let limits = [Dropped::SeriesLimit, Dropped::MemoryLimit, Dropped::NodeMemory].map(Dropped::as_str);
    let too_many = task.totals.values.folded > 0
        || reasons.into_iter().any(|(reason, _)| limits.contains(&reason.as_str()));
    let wide = task.widest_tags.iter().flatten().map(|tag| match &tag.key {
        Some(key) => format!("{key} ({} values in {} series)", tag.values, tag.series),
        None => format!("the name itself ({} names)", tag.values),
    });
    let wide: Vec<String> = wide.collect();
    (too_many && !wide.is_empty()).then(|| format!("what makes most series: {}", wide.join(", ")))
}

/// Cells of the mark and the label of a station.
const INDENT: usize = 16;

fn print_explanation(explanation: &Explanation, out: &mut Console) -> std::io::Result<()> {
    for station in &explanation.stations {
        let mark = match station.outcome {
            StationOutcome::Ok => out.style_success("ok  "),
            StationOutcome::Note => out.style_warning("note"),
            StationOutcome::Stop => out.style_error("STOP"),
        };
        let label = format!("  {:<9} ", station.station);
        let texts = std::iter::once(&station.found).chain(&station.advice);
        write_paragraph(mark, &label, INDENT, texts.map(String::as_str), out)?;
    }
    out.write_line(out.style_bold(&explanation.verdict))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::snapshots::{HOSTILE, compare_with_files};

    #[test]
    fn an_explanation_is_readable_at_every_width() {
        let stations = vec![
            new_station("known", StationOutcome::Ok, "main (listening, generation 1)"),
            new_station("read", StationOutcome::Note, "8 lines, 1 of them rejected: 1 missing_type")
                .with_advice([
                    format!("3s ago, missing_type: {HOSTILE:?}"),
                    "write name:value|type".to_owned(),
                ]),
            new_station("recorded", StationOutcome::Stop, format!("no series fits {HOSTILE:?}")),
        ];
        let explanation = Explanation {
            task_id: "web.1".to_owned(),
            name: Some(HOSTILE.to_owned()),
            stations,
            verdict: format!("{HOSTILE:?}: stopped at \"recorded\""),
            arrives: false,
        };
        compare_with_files("explain", |_, out| print_explanation(&explanation, out));
    }
}
