//! Whether readers get their answers.

use serde::Deserialize;

use super::{Finding, FindingStatus};

const CHECK: &str = "readers";

/// What the agent says of the answers that it builds.
#[derive(Debug, Deserialize)]
pub(super) struct ReportedPages {
    bytes: u64,
    limit: u64,
    busy: u64,
    late: u64,
    cut: u64,
    slow: u64,
}

impl ReportedPages {
    pub(super) fn to_finding(&self) -> Finding {
        let held = format!("answers hold {} of {} KiB", self.bytes.div_ceil(1024), self.limit / 1024);
        let lost = [
            (self.busy, "requests got 429"),
            (self.late, "answers were not finished in time"),
            (self.cut, "readers were disconnected for want of memory"),
            (self.slow, "connections were closed because their clients did not read"),
        ];
        let lost: Vec<String> =
            lost.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if lost.is_empty() {
            return Finding::new(CHECK, FindingStatus::Ok, held);
        }
        let mut finding = Finding::new(
            CHECK,
            FindingStatus::Warning,
            format!("{held}; since the start, {}", lost.join(", ")),
        );
        if self.busy + self.late > 0 {
            finding = finding.with_advice(
                "ask less often, for fewer series (filters, shard=), and with fewer patterns; \
                 tallyport_http_pages_failed_total counts by reason",
            );
        }
        if self.cut + self.slow > 0 {
            finding = finding.with_advice(
                "look for clients that ask and do not read; raise http.page_memory or http.write_timeout for networks that are slow",
            );
        }
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_were_not_given_are_warned_of() {
        let mut pages = ReportedPages { bytes: 1, limit: 1 << 20, busy: 0, late: 0, cut: 0, slow: 0 };
        let finding = pages.to_finding();
        assert_eq!(
            (finding.status, finding.found.as_str()),
            (FindingStatus::Ok, "answers hold 1 of 1024 KiB")
        );
        pages.slow = 3;
        let finding = pages.to_finding();
        assert_eq!((finding.status, finding.advice.len()), (FindingStatus::Warning, 1));
        assert!(finding.found.contains("3 connections") && !finding.found.contains("429"), "{finding:?}");
        pages.busy = 1;
        assert_eq!(pages.to_finding().advice.len(), 2);
    }
}
