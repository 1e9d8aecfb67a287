//! What doctor says of the agent's state: windows on disk, totals that it remembers, and answers to readers.

use super::finding::{Finding, FindingStatus};
use crate::cli::documents::format_elapsed;
use crate::config::{Effect, Setting};
use crate::model::setting_name::setting_name;
use crate::net::clock;
use crate::wire::{PagesDocument, TotalsEvicted, WindowLogDocument};

const WINDOW_LOG_CHECK: &str = "window log";
const LOG_SIZE: Effect = Setting::effect_of("windows.log_size");

pub(super) fn check_window_log(log: Option<&WindowLogDocument>) -> Vec<Finding> {
    let Some(log) = log else {
        let found = "off (windows.log): windows are lost with the agent";
        return vec![Finding::new(WINDOW_LOG_CHECK, FindingStatus::Ok, found)];
    };
    let mut findings = vec![check_writes(log)];
    findings.extend(check_restart_gap(log));
    findings.extend(check_clock(log));
    if log.damaged > 0 {
        let found = format!(
            "{} parts of it, {} KiB, were damaged at the start and left out",
            log.damaged,
            log.damaged_bytes.div_ceil(1024)
        );
        let advice = "a kill leaves at most the last part unfinished; look at the disk if it is more";
        findings.push(Finding::new(WINDOW_LOG_CHECK, FindingStatus::Warning, found).with_advice(advice));
    }
    findings
}

fn check_writes(log: &WindowLogDocument) -> Finding {
    if let Some(why) = &log.failing {
        let since = log
            .failing_since
            .map_or(String::new(), |since| format!(" for {}", format_elapsed(clock::wall_time(), since)));
        return Finding::new(WINDOW_LOG_CHECK, FindingStatus::Warning, format!("nothing can be written{since}: {why}"))
            .with_advice("windows are served from memory meanwhile, and lost if the agent is killed; make room in state_dir");
    }
    let mut found = format!("{} of {} MiB", log.size.div_ceil(1 << 20), log.size_limit >> 20);
    if log.checkpoint_seconds > 0.0 {
        found = format!("{found}; open windows are written every {:.1} s", log.checkpoint_seconds);
    }
    if log.missed + log.given_up == 0 {
        return Finding::new(WINDOW_LOG_CHECK, FindingStatus::Ok, found);
    }
    Finding::new(
        WINDOW_LOG_CHECK,
        FindingStatus::Warning,
        format!("{found}; {} records and {} windows are not in it", log.missed, log.given_up),
    )
    .with_advice(format!(
        "records are missing if nothing could be written; windows are if there is no room: raise {} and {}",
        setting_name!("windows.log_size"),
        LOG_SIZE.remedy_text()
    ))
}

/// Reports windows that begin after the start of this agent.
fn check_clock(log: &WindowLogDocument) -> Option<Finding> {
    let ahead = log.restored_ahead;
    (ahead > 0).then(|| {
        let found = format!("{ahead} windows of the last run start after this one did; the clock was ahead then, or is behind now");
        Finding::new("clock", FindingStatus::Warning, found).with_advice(
            "check the node's time synchronization; these windows can still be read, and are dropped before newer ones",
        )
    })
}

/// Reports how long no agent received datagrams before this start.
fn check_restart_gap(log: &WindowLogDocument) -> Option<Finding> {
    let last = log.last_alive?;
    let found = format!(
        "no datagrams were received for {:.1} s after {last}; {} closed windows were restored, and {} that were open",
        log.gap_seconds, log.restored_windows, log.restored_open
    );
    Some(match log.ended_in_order {
        true => Finding::new("last restart", FindingStatus::Ok, found),
        false => {
            Finding::new("last restart", FindingStatus::Warning, format!("the agent was killed; {found}"))
                .with_advice("what was received after the last checkpoint is lost")
        }
    })
}

const SERIES: Effect = Setting::effect_of("limits.series");
const REMEMBERED: Effect = Setting::effect_of("limits.remembered");

/// `None` if none was forgotten early.
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
        0 => format!("{} and {}", setting_name!("limits.series"), SERIES.remedy_text()),
        _ => format!("{} and {}", setting_name!("limits.remembered"), REMEMBERED.remedy_text()),
    };
    let finding = Finding::new("totals", FindingStatus::Warning, found);
    Some(finding.with_advice(format!("use fewer names and tag values that come and go, or raise {raised}")))
}

const READERS_CHECK: &str = "readers";
const PAGE_MEMORY: Effect = Setting::effect_of("http.page_memory");
const WRITE_TIMEOUT: Effect = Setting::effect_of("http.write_timeout");

pub(super) fn pages_finding(pages: &PagesDocument) -> Finding {
    let held = format!("answers hold {} of {} KiB", pages.bytes.div_ceil(1024), pages.limit / 1024);
    let lost = [
        (pages.busy, "requests got 429"),
        (pages.late, "answers were not finished in time"),
        (pages.cut, "readers were disconnected because memory for pages was short"),
        (pages.slow, "connections were closed because their clients did not read"),
    ];
    let lost: Vec<String> =
        lost.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if lost.is_empty() {
        return Finding::new(READERS_CHECK, FindingStatus::Ok, held);
    }
    let mut finding = Finding::new(
        READERS_CHECK,
        FindingStatus::Warning,
        format!("{held}; since the start, {}", lost.join(", ")),
    );
    if pages.busy + pages.late > 0 {
        finding = finding.with_advice(
            "ask less often, for fewer series (filters, shard=), and with fewer patterns; \
             tallyport_http_pages_failed_total counts by reason",
        );
    }
    if pages.cut + pages.slow > 0 {
        finding = finding.with_advice(format!(
            "look for clients that ask and do not read; on slow networks, raise {} and {}, or raise {} and {}",
            setting_name!("http.page_memory"),
            PAGE_MEMORY.remedy_text(),
            setting_name!("http.write_timeout"),
            WRITE_TIMEOUT.remedy_text(),
        ));
    }
    finding
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
