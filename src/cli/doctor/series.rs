//! What doctor says of series: whether a limit folds them, and whether their names meet in Prometheus.

use super::finding::{Finding, FindingStatus, RepeatedFinding, merge_repeated};
use crate::aggregate::{Dropped, OVERFLOW};
use crate::cli::documents::sorted_counts;
use crate::config::{Effect, Setting};
use crate::model::setting_name::setting_name;
use crate::wire::{AccountingDocument, Counted, CountsDocument, MarkedNameDocument, NodeDocument};

const LIMIT_CHECK: &str = "series";
const NAMES_CHECK: &str = "names";
const SERIES: Effect = Setting::effect_of("limits.series");

/// Checks whether containers have more series than their limits allow. Ended containers are left out.
pub(super) fn check_limits(accounting: &AccountingDocument) -> Vec<Finding> {
    let live = accounting.containers.iter().filter(|counted| counted.state != "gone");
    let findings = merge_repeated(live.filter_map(check_folded).collect());
    if findings.is_empty() {
        return vec![Finding::new(LIMIT_CHECK, FindingStatus::Ok, "no container has more than it may")];
    }
    findings
}

fn check_folded(counted: &Counted) -> Option<RepeatedFinding> {
    let named = format!("{} of task {}", counted.container_id, counted.task_id);
    let task = &counted.task_id;
    if let Some(kept_out) = describe_kept_out(&counted.counts) {
        let found = format!("{named} has more series than it may: {kept_out}");
        let alone = Finding::new(LIMIT_CHECK, FindingStatus::Warning, found)
            .with_advice(format!("`tallyport explain {task}` names the tags that make most series"))
            .with_advice(format!(
                "use fewer names and tag values, or raise {} and {}",
                setting_name!("limits.series"),
                SERIES.remedy_text()
            ));
        return Some(RepeatedFinding {
            alone,
            several: "containers have more series than they may",
            example: format!("{named}: {kept_out}"),
        });
    }
    let over = sorted_counts(&counted.counts.over_limit);
    let reasons: Vec<String> = over.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    let example = format!("{named}: {}", reasons.join(", "));
    (!over.is_empty()).then(|| RepeatedFinding {
        alone: Finding::new(
            LIMIT_CHECK,
            FindingStatus::Warning,
            format!("{example}; limits are only reported"),
        )
        .with_advice(concat!("\"enforce\" for ", setting_name!("limits.mode"), " applies them")),
        several: "containers are over limits that are only reported",
        example,
    })
}

/// What has become of the values of further series: those of counters lose their names and tags, all others are dropped.
fn describe_kept_out(counts: &CountsDocument) -> Option<String> {
    let folded = counts.values.folded;
    let dropped = counts.values.dropped.get(Dropped::SeriesLimit.as_str()).copied().unwrap_or_default();
    let folded = (folded > 0)
        .then(|| format!("{folded} values of counters are in {OVERFLOW}, without their names and tags"));
    let dropped = (dropped > 0).then(|| format!("{dropped} values of other types were dropped"));
    let said: Vec<String> = folded.into_iter().chain(dropped).collect();
    (!said.is_empty()).then(|| said.join(", and "))
}

/// Checks whether two names become one in Prometheus.
pub(super) fn check_names(node: &NodeDocument) -> Vec<Finding> {
    let mut findings = check_marked_names(node.names_marked, &node.marked_names);
    if node.scrape_clashes > 0 {
        let found = format!(
            "{} times a scrape left out a series, because prometheus.naming gives its name to another as well",
            node.scrape_clashes
        );
        findings.push(Finding::new(NAMES_CHECK, FindingStatus::Warning, found).with_advice(concat!(
            "rename one of the two in the application, or set \"openmetrics\" for ",
            setting_name!("prometheus.naming")
        )));
    }
    if findings.is_empty() {
        findings.push(Finding::new(NAMES_CHECK, FindingStatus::Ok, "no two names become one in Prometheus"));
    }
    findings
}

/// One finding for all names with a mark.
fn check_marked_names(marked: usize, listed: &[MarkedNameDocument]) -> Vec<Finding> {
    let mut findings = merge_repeated(listed.iter().map(marked_name_finding).collect());
    if marked > listed.len().max(1)
        && let Some(finding) = findings.first_mut()
    {
        finding.found = format!("{marked} {MARKED_NAMES}");
        finding.advice.push("tallyport_names_marked counts them".to_owned());
    }
    findings
}

const MARKED_NAMES: &str = "names carry a mark on /metrics/tasks, because another had the plain name first";

fn marked_name_finding(marked: &MarkedNameDocument) -> RepeatedFinding {
    let MarkedNameDocument { workload, kind, name, shown, .. } = marked;
    let because = match (&marked.first_kind, &marked.first_name) {
        (Some(kind), Some(name)) => format!("the {kind} {name} had the plain name first"),
        _ => "another had the plain name first".to_owned(),
    };
    let shown = format!("the {kind} {name} of {{{workload}}} is {shown}");
    let found = format!("{shown} on /metrics/tasks: {because}");
    RepeatedFinding {
        alone: Finding::new(NAMES_CHECK, FindingStatus::Warning, found).with_advice(
            "rename one of the two in the application, or scrape with UTF-8 names (escaping=allow-utf-8)",
        ),
        several: MARKED_NAMES,
        example: format!("{shown}: {because}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_series_limit_keeps_out_is_one_finding() {
        let mut counts = crate::cli::snapshots::sample_task("jobs.1", "listening", 8).totals;
        assert_eq!(describe_kept_out(&counts), None);
        counts.values.dropped.insert("series_limit".into(), 27);
        assert_eq!(describe_kept_out(&counts).unwrap(), "27 values of other types were dropped");
        counts.values.folded = 900;
        let both = describe_kept_out(&counts).unwrap();
        assert!(
            both.starts_with("900 values of counters")
                && both.ends_with("and 27 values of other types were dropped")
        );
    }
}
