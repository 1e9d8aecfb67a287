//! Totals of series that are gone which the agent forgot before a day was over.

use super::{Finding, FindingStatus};
use crate::wire::TotalsEvicted;

/// Nothing where none was forgotten early.
pub(super) fn totals_finding(TotalsEvicted { series_limit, node }: TotalsEvicted) -> Option<Finding> {
    if series_limit + node == 0 {
        return None;
    }
    let found = format!(
        "{} totals of series that are gone were forgotten early: {series_limit} because their workload had as many as \
         limits.series, {node} because the node had too many; if such a series returns, its counter starts at 0",
        series_limit + node
    );
    let finding = Finding::new("totals", FindingStatus::Warning, found);
    Some(finding.with_advice("use fewer names and tag values that come and go, or raise limits.series"))
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
    }
}
