//! Totals of series that are gone which the agent forgot before a day was over.

use serde::Deserialize;

use super::{Finding, FindingStatus};

/// As `/v1/node` says it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Evicted {
    series_limit: u64,
    node: u64,
}

impl Evicted {
    /// Nothing where none was forgotten early.
    pub(super) fn to_finding(&self) -> Option<Finding> {
        let Self { series_limit, node } = self;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_that_were_forgotten_early_are_a_warning_with_their_reasons() {
        assert!(Evicted::default().to_finding().is_none());
        let finding = Evicted { series_limit: 7, node: 5 }.to_finding().unwrap();
        assert_eq!(finding.status, FindingStatus::Warning);
        assert!(["12 totals", "7 because", "5 because"].iter().all(|part| finding.found.contains(part)));
    }
}
