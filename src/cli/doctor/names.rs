//! Names that would have been one on `/metrics/tasks`, and which of them carries a mark.

use super::{Finding, FindingStatus};
use crate::wire::MarkedNameDocument;

const CHECK: &str = "names";

/// One finding for each that is listed, and one for the rest. Nothing where no two names meet.
pub(super) fn check_marked_names(marked: usize, listed: &[MarkedNameDocument]) -> Vec<Finding> {
    let mut findings: Vec<_> = listed.iter().map(marked_name_finding).collect();
    let rest = marked.saturating_sub(listed.len());
    if rest > 0 {
        let found = format!("{rest} more names carry a mark on /metrics/tasks");
        findings.push(
            Finding::new(CHECK, FindingStatus::Warning, found)
                .with_advice("tallyport_names_marked counts them"),
        );
    }
    findings
}

fn marked_name_finding(marked: &MarkedNameDocument) -> Finding {
    let MarkedNameDocument { workload, kind, name, shown, .. } = marked;
    let because = match (&marked.first_kind, &marked.first_name) {
        (Some(kind), Some(name)) => format!("the {kind} {name} had the plain name first"),
        _ => "another had the plain name first".to_owned(),
    };
    let found = format!("the {kind} {name} of {{{workload}}} is {shown} on /metrics/tasks: {because}");
    Finding::new(CHECK, FindingStatus::Warning, found).with_advice(
        "rename one of the two in the application, or scrape with UTF-8 names (escaping=allow-utf-8)",
    )
}
