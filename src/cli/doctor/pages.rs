//! Whether readers get their answers.

use serde::Deserialize;

use super::{Finding, Status};
use crate::config::{Effect, Setting};

const CHECK: &str = "readers";
const PAGE_MEMORY: Effect = Setting::effect_of("http.page_memory");
const WRITE_TIMEOUT: Effect = Setting::effect_of("http.write_timeout");

/// What the agent says of the answers that it builds.
#[derive(Debug, Deserialize)]
pub(super) struct Pages {
    bytes: u64,
    limit: u64,
    busy: u64,
    late: u64,
    cut: u64,
    slow: u64,
}

impl Pages {
    pub(super) fn finding(&self) -> Finding {
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
            return Finding::new(CHECK, Status::Ok, held);
        }
        let mut finding =
            Finding::new(CHECK, Status::Warning, format!("{held}; since the start, {}", lost.join(", ")));
        if self.busy + self.late > 0 {
            finding = finding.advise(
                "ask less often, for fewer series (filters, shard=), and with fewer patterns; \
                 tallyport_http_pages_failed_total counts by reason",
            );
        }
        if self.cut + self.slow > 0 {
            finding = finding.advise(format!(
                "look for clients that ask and do not read; on slow networks, raise http.page_memory and {}, or raise \
                 http.write_timeout and {}",
                PAGE_MEMORY.remedy(),
                WRITE_TIMEOUT.remedy(),
            ));
        }
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_were_not_given_are_warned_of() {
        let mut pages = Pages { bytes: 1, limit: 1 << 20, busy: 0, late: 0, cut: 0, slow: 0 };
        let finding = pages.finding();
        assert_eq!((finding.status, finding.found.as_str()), (Status::Ok, "answers hold 1 of 1024 KiB"));
        pages.slow = 3;
        let finding = pages.finding();
        assert_eq!((finding.status, finding.advice.len()), (Status::Warning, 1));
        assert!(finding.found.contains("3 connections") && !finding.found.contains("429"), "{finding:?}");
        pages.busy = 1;
        assert_eq!(pages.finding().advice.len(), 2);
    }
}
