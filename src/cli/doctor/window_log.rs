//! What doctor says of windows on disk.

use super::{Finding, FindingStatus};
use crate::cli::documents::format_elapsed;
use crate::config::{Effect, Setting};
use crate::net::clock;
use crate::wire::WindowLogDocument;

const CHECK: &str = "window log";
const LOG_SIZE: Effect = Setting::effect_of("windows.log_size");

pub(super) fn check_window_log(log: Option<&WindowLogDocument>) -> Vec<Finding> {
    let Some(log) = log else {
        let found = "off (windows.log): windows are lost with the agent";
        return vec![Finding::new(CHECK, FindingStatus::Ok, found)];
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
        findings.push(Finding::new(CHECK, FindingStatus::Warning, found).with_advice(advice));
    }
    findings
}

fn check_writes(log: &WindowLogDocument) -> Finding {
    if let Some(why) = &log.failing {
        let since = log
            .failing_since
            .map_or(String::new(), |since| format!(" for {}", format_elapsed(clock::wall_time(), since)));
        return Finding::new(CHECK, FindingStatus::Warning, format!("nothing can be written{since}: {why}"))
            .with_advice("windows are served from memory meanwhile, and lost if the agent is killed; make room in state_dir");
    }
    let mut found = format!("{} of {} MiB", log.size.div_ceil(1 << 20), log.size_limit >> 20);
    if log.checkpoint_seconds > 0.0 {
        found = format!("{found}; open windows are written every {:.1} s", log.checkpoint_seconds);
    }
    if log.missed + log.given_up == 0 {
        return Finding::new(CHECK, FindingStatus::Ok, found);
    }
    Finding::new(
        CHECK,
        FindingStatus::Warning,
        format!("{found}; {} records and {} windows are not in it", log.missed, log.given_up),
    )
    .with_advice(format!(
        "records are missing if nothing could be written, windows if windows.log_size is too small; raise it and {}",
        LOG_SIZE.remedy_text()
    ))
}

/// Windows whose time had not come when the agent started.
fn check_clock(log: &WindowLogDocument) -> Option<Finding> {
    let ahead = log.restored_ahead;
    (ahead > 0).then(|| {
        let found = format!("{ahead} windows of the last run start after this one did; the clock was ahead then, or is behind now");
        Finding::new("clock", FindingStatus::Warning, found).with_advice(
            "check the node's time synchronization; these windows can still be read, and are dropped before newer ones",
        )
    })
}

/// What was not received because no agent was there.
fn check_restart_gap(log: &WindowLogDocument) -> Option<Finding> {
    let last = log.last_alive?;
    let found = format!(
        "for {:.1} s after {last} nobody received; {} closed windows are back, and {} that were open",
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
