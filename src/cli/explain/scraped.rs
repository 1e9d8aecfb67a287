//! The names of a metric on the page for scrapers, and what is not there.

use std::collections::BTreeSet;

use super::recorded::matching_records;
use super::{Station, StationOutcome, new_station};
use crate::cli::documents::format_elapsed;
use crate::net::clock;
use crate::render::prometheus::SPAN_SECONDS;
use crate::wire::{ExposedNameDocument, RecordDocument, Task};

/// How many names are shown.
const NAMES_SHOWN: usize = 5;

/// `url` is that of the agent.
pub(super) fn check_scrapes(
    task: &Task,
    names: &[ExposedNameDocument],
    records: &[RecordDocument],
    name: Option<&str>,
    url: &str,
) -> Station {
    let shown = names.iter().take(NAMES_SHOWN).flat_map(|name| {
        [format!("{} {} is {}", name.metric_type, name.name, name.scraped), format!("  {}", name.promql)]
    });
    let rest = names.len().saturating_sub(NAMES_SHOWN);
    let rest = (rest > 0).then(|| format!("and {rest} more; name one of them to see it"));
    let station = match task.last_scrape {
        Some(last) => new_station(
            "scraped",
            StationOutcome::Ok,
            format!("this node was scraped {} ago", format_elapsed(clock::wall_time(), last)),
        ),
        None => new_station(
            "scraped",
            StationOutcome::Note,
            "this node has not been scraped since the agent started",
        )
        .with_advice([describe_page(url)]),
    };
    let percentiles = names.iter().any(|name| name.promql.contains("quantile=")).then(describe_spans);
    let absent = describe_absent(names, records, name);
    let mut station =
        station.with_advice(shown).with_advice(rest).with_advice(absent).with_advice(percentiles);
    station.names = names.to_vec();
    station
}

/// Where scrapers find the metrics of tasks. `url` may be a Unix socket, of which scrapers know nothing.
fn describe_page(url: &str) -> String {
    let server = if url.starts_with("http") { url.trim_end_matches('/') } else { "" };
    format!("set the scraper's path to {server}/metrics/tasks; /metrics has only the agent's own metrics")
}

/// The names with records that the page does not have, as after a restart. None without any name, as from an agent without
/// the route.
fn describe_absent(
    names: &[ExposedNameDocument],
    records: &[RecordDocument],
    name: Option<&str>,
) -> Option<String> {
    let recorded = matching_records(records, name).filter(|record| record.metric_type != "service_check");
    let recorded: BTreeSet<&str> = recorded.map(|record| &*record.name).collect();
    let absent: Vec<&str> =
        recorded.into_iter().filter(|recorded| !names.iter().any(|name| name.name == *recorded)).collect();
    let shown = absent.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
    let rest = absent.len().saturating_sub(NAMES_SHOWN);
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    (!absent.is_empty() && !names.is_empty())
        .then(|| format!("in windows but not on /metrics/tasks until it is sent again: {shown}{rest}"))
}

/// Why a percentile in Prometheus is not the one that other commands show.
fn describe_spans() -> String {
    format!(
        "percentiles of a scrape cover {SPAN_SECONDS} s, those of `tallyport metrics details` and the page one window"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::snapshots::sample_task;

    fn exposed(name: &str, promql: &str) -> ExposedNameDocument {
        let document = serde_json::json!({"name": name, "type": "timer", "unit": "ms", "scraped": "a_seconds",
            "samples": ["a_seconds"], "selector": "a_seconds", "promql": promql});
        serde_json::from_value(document).unwrap()
    }

    fn record(name: &str) -> RecordDocument {
        let document = serde_json::json!({"name": name, "type": "counter", "unit": "", "tags": {}, "agg": {},
            "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:10Z", "covered": 10, "origin": {}});
        serde_json::from_value(document).unwrap()
    }

    const URL: &str = "http://127.0.0.1:9725";

    #[test]
    fn percentiles_of_a_scrape_are_told_from_those_of_a_window() {
        let task = sample_task("web.1", "listening", 8);
        let says = |promql: &str| {
            check_scrapes(&task, &[exposed("a", promql)], &[], None, URL).advice.contains(&describe_spans())
        };
        assert!(says("max(a_seconds{quantile=\"0.99\"})"));
        assert!(!says("sum(rate(a_total[5m]))"), "a counter has none");
        assert!(
            !says("histogram_quantile(0.99, sum by (le) (rate(a_bucket[5m])))"),
            "a query chooses the time"
        );
    }

    #[test]
    fn a_task_that_is_not_scraped_says_where_its_metrics_are() {
        let mut task = sample_task("web.1", "listening", 8);
        let found = check_scrapes(&task, &[], &[], None, URL);
        assert_eq!(found.outcome, StationOutcome::Note);
        assert!(found.advice[0].contains("http://127.0.0.1:9725/metrics/tasks;"), "{found:?}");
        task.last_scrape = Some("2026-01-01T00:00:00Z".parse().unwrap());
        let found = check_scrapes(&task, &[exposed("a", "a")], &[], None, URL);
        assert!(
            (found.outcome, found.advice.len(), found.names.len()) == (StationOutcome::Ok, 2, 1),
            "{found:?}"
        );
    }

    #[test]
    fn names_with_windows_alone_are_listed_apart() {
        let task = sample_task("web.1", "listening", 8);
        let records = [record("a"), record("b"), record("c")];
        let said = |names: &[ExposedNameDocument], name| {
            let found = check_scrapes(&task, names, &records, name, URL);
            found.advice.into_iter().find(|advice| advice.starts_with("in windows"))
        };
        let exposed = [exposed("a", "a")];
        assert!(said(&exposed, None).unwrap().ends_with(": b, c"));
        assert_eq!(said(&exposed, Some("a")), None);
        assert_eq!(said(&[], None), None, "of an agent without names");
    }
}
