//! Totals of series that are gone which the agent forgot before a day was over.

use super::{Finding, FindingStatus};
use crate::config::{Effect, Setting};
use crate::wire::TotalsEvicted;

const SERIES: Effect = Setting::effect_of("limits.series");
const REMEMBERED: Effect = Setting::effect_of("limits.remembered");

/// Nothing where none was forgotten early.
pub(super) fn totals_finding(TotalsEvicted { series_limit, node }: TotalsEvicted) -> Option<Finding> {
    if series_limit + node == 0 {
        return None;
    }
    let found = format!(
        "{} totals of series that are gone were forgotten early: {series_limit} because their workload had as many as \
         limits.series, {node} because the node had more than limits.remembered; if such a series returns, its counter starts at 0",
        series_limit + node
    );
    let raised = match node {
        0 => format!("limits.series and {}", SERIES.remedy_text()),
        _ => format!("limits.remembered and {}", REMEMBERED.remedy_text()),
    };
    let finding = Finding::new("totals", FindingStatus::Warning, found);
    Some(finding.with_advice(format!("use fewer names and tag values that come and go, or raise {raised}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_that_were_forgotten_early_are_a_warning_with_their_reasons() {
        assert!(totals_finding(TotalsEvicted::default()).is_none());
        let found = totals_finding(TotalsEvicted { series_limit: 7, node: 5 }).unwrap();
        assert_eq!(found.status, FindingStatus::Warning);
        assert!(["12 totals", "7 because", "5 because"].iter().all(|part| found.found.contains(part)));
        assert!(found.advice.iter().any(|advice| advice.contains("limits.remembered")), "{found:?}");
        let found = totals_finding(TotalsEvicted { series_limit: 7, node: 0 }).unwrap();
        assert!(found.advice.iter().any(|advice| advice.contains("limits.series")), "{found:?}");
    }
}
