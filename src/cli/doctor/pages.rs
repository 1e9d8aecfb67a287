//! Whether readers get their answers.

use super::{Finding, FindingStatus};
use crate::config::{Effect, Setting};
use crate::wire::PagesDocument;

const CHECK: &str = "readers";
const PAGE_MEMORY: Effect = Setting::effect_of("http.page_memory");
const WRITE_TIMEOUT: Effect = Setting::effect_of("http.write_timeout");

pub(super) fn pages_finding(pages: &PagesDocument) -> Finding {
    let held = format!("answers hold {} of {} KiB", pages.bytes.div_ceil(1024), pages.limit / 1024);
    let lost = [
        (pages.busy, "requests got 429"),
        (pages.late, "answers were not finished in time"),
        (pages.cut, "readers were disconnected for want of memory"),
        (pages.slow, "connections were closed because their clients did not read"),
    ];
    let lost: Vec<String> =
        lost.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if lost.is_empty() {
        return Finding::new(CHECK, FindingStatus::Ok, held);
    }
    let mut finding =
        Finding::new(CHECK, FindingStatus::Warning, format!("{held}; since the start, {}", lost.join(", ")));
    if pages.busy + pages.late > 0 {
        finding = finding.with_advice(
            "ask less often, for fewer series (filters, shard=), and with fewer patterns; \
             tallyport_http_pages_failed_total counts by reason",
        );
    }
    if pages.cut + pages.slow > 0 {
        finding = finding.with_advice(format!(
            "look for clients that ask and do not read; on slow networks, raise http.page_memory and {}, or raise \
             http.write_timeout and {}",
            PAGE_MEMORY.remedy_text(),
            WRITE_TIMEOUT.remedy_text(),
        ));
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_were_not_given_are_warned_of() {
        let mut pages = PagesDocument { bytes: 1, limit: 1 << 20, busy: 0, late: 0, cut: 0, slow: 0 };
        let found = pages_finding(&pages);
        assert_eq!((found.status, found.found.as_str()), (FindingStatus::Ok, "answers hold 1 of 1024 KiB"));
        pages.slow = 3;
        let found = pages_finding(&pages);
        assert_eq!((found.status, found.advice.len()), (FindingStatus::Warning, 1));
        assert!(found.found.contains("3 connections") && !found.found.contains("429"), "{found:?}");
        pages.busy = 1;
        assert_eq!(pages_finding(&pages).advice.len(), 2);
    }
}
