//! What checks find, and how findings are printed.

use serde::Serialize;

use crate::cli::output::Console;
use crate::cli::paragraphs::write_paragraph;
use crate::cli::setting_places::SettingPlaces;

/// How many examples and how much advice a finding about several things has.
const MOST: usize = 3;

/// The result of a check.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum FindingStatus {
    Ok,
    Warning,
    Failed,
}

/// What a check found, and what to do about it.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Finding {
    pub(super) check: &'static str,
    pub(super) status: FindingStatus,
    pub(super) found: String,
    /// Some of the things that it is about, if they are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) examples: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) advice: Vec<String>,
}

/// A finding that can be true of many containers, tasks or names.
#[derive(Debug)]
pub(super) struct RepeatedFinding {
    /// What is said where it is true of one.
    pub(super) alone: Finding,
    /// What is said of several, behind their number, such as `containers are mute`.
    pub(super) several: &'static str,
    /// This one, as an example of several.
    pub(super) example: String,
}

impl Finding {
    pub(in crate::cli) fn new(check: &'static str, status: FindingStatus, found: impl Into<String>) -> Self {
        Self { check, status, found: found.into(), examples: Vec::new(), advice: Vec::new() }
    }

    pub(in crate::cli) fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }

    /// Says of every setting that it names where that is set.
    pub(super) fn name_places(&mut self, places: &SettingPlaces) {
        let texts = std::iter::once(&mut self.found).chain(&mut self.examples).chain(&mut self.advice);
        texts.for_each(|text| *text = places.name_in(text));
    }

    /// Adds the first examples, and the number of the others.
    pub(super) fn with_examples(mut self, examples: Vec<String>) -> Self {
        let rest = examples.len().saturating_sub(MOST);
        self.examples.extend(examples.into_iter().take(MOST));
        if rest > 0 {
            self.examples.push(format!("and {rest} more"));
        }
        self
    }
}

/// One finding for all that say the same, in the order of the first of each.
pub(super) fn merge_repeated(repeated: Vec<RepeatedFinding>) -> Vec<Finding> {
    let mut groups: Vec<Vec<RepeatedFinding>> = Vec::new();
    for finding in repeated {
        let group = groups.iter_mut().find(|group| {
            group.first().is_some_and(|first| {
                (first.several, first.alone.status) == (finding.several, finding.alone.status)
            })
        });
        match group {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups.into_iter().filter_map(merge_group).collect()
}

fn merge_group(mut group: Vec<RepeatedFinding>) -> Option<Finding> {
    if group.len() == 1 {
        return group.pop().map(|finding| finding.alone);
    }
    let first = group.first()?;
    let found = format!("{} {}", group.len(), first.several);
    let mut merged = Finding::new(first.alone.check, first.alone.status, found);
    for advice in group.iter().flat_map(|finding| &finding.alone.advice) {
        if merged.advice.len() < MOST && !merged.advice.contains(advice) {
            merged.advice.push(advice.clone());
        }
    }
    Some(merged.with_examples(group.into_iter().map(|finding| finding.example).collect()))
}

/// Leaves out what a check found in order, if the same check also found a problem.
pub(super) fn drop_contradicted(findings: &mut Vec<Finding>) {
    let troubled = findings.iter().filter(|finding| finding.status != FindingStatus::Ok);
    let troubled: Vec<&'static str> = troubled.map(|finding| finding.check).collect();
    findings.retain(|finding| finding.status != FindingStatus::Ok || !troubled.contains(&finding.check));
}

/// Cells of the mark and the label of a finding.
const INDENT: usize = 26;

pub(in crate::cli) fn print_findings(findings: &[Finding], out: &mut Console) -> std::io::Result<()> {
    for finding in findings {
        let mark = match finding.status {
            FindingStatus::Ok => out.style_success("ok     "),
            FindingStatus::Warning => out.style_warning("warning"),
            FindingStatus::Failed => out.style_error("FAILED "),
        };
        let label = format!("  {:<15}  ", finding.check);
        let texts = std::iter::once(&finding.found).chain(&finding.examples).chain(&finding.advice);
        write_paragraph(mark, &label, INDENT, texts.map(String::as_str), out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(container: &str, advice: &str) -> RepeatedFinding {
        let alone = Finding::new("container", FindingStatus::Warning, format!("{container} lost data"));
        RepeatedFinding {
            alone: alone.with_advice(advice),
            several: "containers lost data",
            example: container.to_owned(),
        }
    }

    #[test]
    fn what_is_true_of_many_is_one_line_with_a_count_and_examples() {
        let names = ["a", "b", "c", "d", "e"];
        let merged = merge_repeated(names.iter().map(|name| lost(name, "see its limits")).collect());
        assert_eq!(merged.len(), 1);
        assert_eq!(merged[0].found, "5 containers lost data");
        assert_eq!(merged[0].examples, ["a", "b", "c", "and 2 more"]);
        assert_eq!(merged[0].advice, ["see its limits"]);
    }

    #[test]
    fn what_is_true_of_one_is_said_of_it() {
        let merged = merge_repeated(vec![lost("a", "see its limits")]);
        assert_eq!((merged.len(), merged[0].found.as_str()), (1, "a lost data"));
        assert!(merged[0].examples.is_empty());
    }

    #[test]
    fn a_check_that_warns_is_not_also_in_order() {
        let finding = |check, status| Finding::new(check, status, "x");
        let mut findings = vec![
            finding("ports", FindingStatus::Ok),
            finding("memory", FindingStatus::Ok),
            finding("ports", FindingStatus::Failed),
        ];
        drop_contradicted(&mut findings);
        let left: Vec<_> = findings.iter().map(|finding| (finding.check, finding.status)).collect();
        assert_eq!(left, [("memory", FindingStatus::Ok), ("ports", FindingStatus::Failed)]);
    }
}
