//! What doctor says of windows on disk.

use serde::Deserialize;

use super::{Finding, Status};
use crate::cli::documents::ago;
use crate::config::{Effect, Setting};
use crate::model::Timestamp;
use crate::net::clock;

const CHECK: &str = "window log";
const LOG_SIZE: Effect = Setting::effect_of("windows.log_size");

#[derive(Debug, Deserialize)]
pub(super) struct WindowLog {
    last_alive: Option<Timestamp>,
    gap_seconds: f64,
    ended_in_order: bool,
    restored_windows: usize,
    restored_open: usize,
    /// Agents before this version do not say.
    #[serde(default)]
    restored_ahead: usize,
    damaged: u64,
    damaged_bytes: u64,
    size: u64,
    size_limit: u64,
    missed: u64,
    given_up: u64,
    checkpoint_seconds: f64,
    failing_since: Option<Timestamp>,
    failing: Option<String>,
}

pub(super) fn findings(log: Option<&WindowLog>) -> Vec<Finding> {
    let Some(log) = log else {
        let found = "off (windows.log): windows are lost with the agent";
        return vec![Finding::new(CHECK, Status::Ok, found)];
    };
    let mut findings = vec![writing(log)];
    findings.extend(gap(log));
    findings.extend(ahead(log));
    if log.damaged > 0 {
        let found = format!(
            "{} parts of it, {} KiB, were damaged at the start and left out",
            log.damaged,
            log.damaged_bytes.div_ceil(1024)
        );
        let advice = "a kill leaves at most the last part unfinished; look at the disk if it is more";
        findings.push(Finding::new(CHECK, Status::Warning, found).advise(advice));
    }
    findings
}

fn writing(log: &WindowLog) -> Finding {
    if let Some(why) = &log.failing {
        let since =
            log.failing_since.map_or(String::new(), |since| format!(" for {}", ago(clock::wall(), since)));
        return Finding::new(CHECK, Status::Warning, format!("nothing can be written{since}: {why}"))
            .advise("windows are served from memory meanwhile, and lost if the agent is killed; make room in state_dir");
    }
    let mut found = format!("{} of {} MiB", log.size.div_ceil(1 << 20), log.size_limit >> 20);
    if log.checkpoint_seconds > 0.0 {
        found = format!("{found}; open windows are written every {:.1} s", log.checkpoint_seconds);
    }
    if log.missed + log.given_up == 0 {
        return Finding::new(CHECK, Status::Ok, found);
    }
    Finding::new(
        CHECK,
        Status::Warning,
        format!("{found}; {} records and {} windows are not in it", log.missed, log.given_up),
    )
    .advise(format!(
        "records are missing if nothing could be written, windows if windows.log_size is too small; raise it and {}",
        LOG_SIZE.remedy()
    ))
}

/// Windows whose time had not come when the agent started.
fn ahead(log: &WindowLog) -> Option<Finding> {
    let ahead = log.restored_ahead;
    (ahead > 0).then(|| {
        let found = format!("{ahead} windows of the last run start after this one did; the clock was ahead then, or is behind now");
        Finding::new("clock", Status::Warning, found).advise(
            "check the node's time synchronization; these windows can still be read, and are dropped before newer ones",
        )
    })
}

/// What was not received because no agent was there.
fn gap(log: &WindowLog) -> Option<Finding> {
    let last = log.last_alive?;
    let found = format!(
        "for {:.1} s after {last} nobody received; {} closed windows are back, and {} that were open",
        log.gap_seconds, log.restored_windows, log.restored_open
    );
    Some(match log.ended_in_order {
        true => Finding::new("last restart", Status::Ok, found),
        false => Finding::new("last restart", Status::Warning, format!("the agent was killed; {found}"))
            .advise("what was received after the last checkpoint is lost"),
    })
}
