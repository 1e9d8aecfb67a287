//! The records of a metric, and why there may be none.

use super::{Station, StationOutcome, new_station};
use crate::aggregate::{Dropped, OVERFLOW};
use crate::cli::details::format_value;
use crate::cli::documents::{format_elapsed, sorted_counts};
use crate::cli::nearest::list_nearest_names;
use crate::model::Glob;
use crate::net::clock;
use crate::wire::{RecordDocument, Task};

/// How many records are shown.
const RECORDS_SHOWN: usize = 5;

pub(super) fn matching_records<'r>(
    records: &'r [RecordDocument],
    name: Option<&str>,
) -> impl Iterator<Item = &'r RecordDocument> {
    let glob = name.map(Glob::new);
    records.iter().filter(move |record| glob.as_ref().is_none_or(|glob| glob.is_match(&record.name)))
}

pub(super) fn check_records(task: &Task, records: &[RecordDocument], name: Option<&str>) -> Station {
    let found: Vec<&RecordDocument> = matching_records(records, name).collect();
    match (found.first(), name) {
        (Some(_), None) => new_station("recorded", StationOutcome::Ok, format!("{} series", found.len())),
        (Some(_), Some(_)) => {
            let shown = found.iter().take(RECORDS_SHOWN).map(|record| format_record(record));
            let rest = found.len().saturating_sub(RECORDS_SHOWN);
            new_station("recorded", StationOutcome::Ok, format!("{} series", found.len()))
                .with_advice(shown)
                .with_advice(
                    (rest > 0).then(|| format!("and {rest} more; `tallyport metrics details` lists them")),
                )
        }
        (None, None) => new_station("recorded", StationOutcome::Stop, "no series"),
        (None, Some(name)) => explain_missing(task, records, name),
    }
}

fn format_record(record: &RecordDocument) -> String {
    let age = if record.open {
        "in the open window".to_owned()
    } else {
        format!("{} ago", format_elapsed(clock::wall_time(), record.end))
    };
    let tags = if record.tags.is_empty() { String::new() } else { format!(" [{}]", record.format_tags()) };
    format!("{} {}{tags}: {} {age}", record.metric_type, record.name, format_value(record))
}

/// A name without a series: it may be misspelt, or among what a limit kept out.
fn explain_missing(task: &Task, records: &[RecordDocument], name: &str) -> Station {
    let nearest = list_nearest_names(records.iter().map(|record| &*record.name), name);
    let nearest = match nearest.is_empty() {
        true => format!("the task has {} other series", records.len()),
        false => format!("nearest names: {}", nearest.join(", ")),
    };
    let found = format!("no series fits {name:?}");
    let lost = list_losses(task);
    if lost.is_empty() {
        let prefix = "clients put a prefix before every name; patterns such as '*latency' find it";
        return new_station("recorded", StationOutcome::Stop, found)
            .with_advice([nearest, prefix.to_owned()]);
    }
    let found = format!("{found}; it may be among what was lost: {}", lost.join(", "));
    new_station("recorded", StationOutcome::Stop, found)
        .with_advice(
            limits_reached(task).map(|limit| format!("{}: {}", limit.as_str(), limit.suggested_fix())),
        )
        .with_advice([nearest])
}

/// Everything of this task that has no record, with the reason of each.
fn list_losses(task: &Task) -> Vec<String> {
    let totals = &task.totals;
    let values = sorted_counts(&totals.values.dropped);
    let datagrams = sorted_counts(&totals.datagrams.dropped);
    let mut lost: Vec<String> = values.iter().map(|(reason, n)| format!("{n} values ({reason})")).collect();
    let folded = totals.values.folded;
    lost.extend((folded > 0).then(|| format!("{folded} values of counters, now in {OVERFLOW}")));
    lost.extend(datagrams.iter().map(|(reason, n)| format!("{n} datagrams ({reason})")));
    let kernel = totals.datagrams.kernel_drops;
    lost.extend((kernel > 0).then(|| format!("{kernel} datagrams (receive buffer full)")));
    lost
}

/// The limits that keep a new series out.
fn limits_reached(task: &Task) -> impl Iterator<Item = Dropped> {
    let values = &task.totals.values;
    [Dropped::SeriesLimit, Dropped::MemoryLimit, Dropped::NodeMemory].into_iter().filter(|limit| {
        values.dropped.contains_key(limit.as_str()) || (*limit == Dropped::SeriesLimit && values.folded > 0)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::snapshots::sample_task;

    fn task(folded: u64, dropped: &serde_json::Value) -> Task {
        let mut task = sample_task("jobs.1", "listening", 8);
        task.totals.datagrams.kernel_drops = 0;
        task.totals.datagrams.dropped.clear();
        task.totals.values.folded = folded;
        task.totals.values.dropped = serde_json::from_value(dropped.clone()).unwrap();
        task
    }

    #[test]
    fn a_name_without_a_series_may_be_among_what_a_limit_kept_out() {
        let station = check_records(&task(12, &json!({"series_limit": 97})), &[], Some("jobs.time"));
        assert_eq!(station.outcome, StationOutcome::Stop);
        assert_eq!(
            station.found,
            format!(
                "no series fits \"jobs.time\"; it may be among what was lost: 97 values (series_limit), 12 values of \
                 counters, now in {OVERFLOW}"
            )
        );
        assert!(station.advice[0].contains("raise limits.series (`tally"), "{:?}", station.advice);
        assert!(!station.advice.iter().any(|advice| advice.contains("prefix")), "{:?}", station.advice);
        let folded = check_records(&task(12, &json!({})), &[], Some("jobs.time"));
        assert!(folded.advice[0].contains("raise limits.series (`tally"), "{:?}", folded.advice);
    }

    #[test]
    fn a_name_without_a_series_is_misspelt_if_nothing_was_lost() {
        let station = check_records(&task(0, &json!({})), &[], Some("jobs.time"));
        assert_eq!(station.found, "no series fits \"jobs.time\"");
        assert!(station.advice.iter().any(|advice| advice.contains("prefix")), "{:?}", station.advice);
    }
}
