//! Totals of series that are gone which the agent forgot before a day was over.

use super::{Finding, Status};
use crate::wire::TotalsEvicted;

/// Nothing where none was forgotten early.
pub(super) fn finding(TotalsEvicted { series_limit, node }: TotalsEvicted) -> Option<Finding> {
    if series_limit + node == 0 {
        return None;
    }
    let found = format!(
        "{} totals of series that are gone were forgotten early: {series_limit} because their workload had as many as \
         limits.series, {node} because the node had too many; if such a series returns, its counter starts at 0",
        series_limit + node
    );
    let finding = Finding::new("totals", Status::Warning, found);
    Some(finding.advise("use fewer names and tag values that come and go, or raise limits.series"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_that_were_forgotten_early_are_a_warning_with_their_reasons() {
        assert!(finding(TotalsEvicted::default()).is_none());
        let found = finding(TotalsEvicted { series_limit: 7, node: 5 }).unwrap();
        assert_eq!(found.status, Status::Warning);
        assert!(["12 totals", "7 because", "5 because"].iter().all(|part| found.found.contains(part)));
    }
}
