//! What doctor says of publishers: whether each delivers, and what was lost.

use super::finding::{Finding, FindingStatus};
use crate::cli::publish::{describe_difference, describe_result, verify_sample};
use crate::cli::units::format_elapsed;
use crate::client::Client;
use crate::model::setting_name::setting_name;
use crate::net::clock;
use crate::wire::{NodeDocument, PublisherDocument};

const CHECK: &str = "publishers";
/// Seconds that a publisher may be behind before that is worth a warning.
const BEHIND: f64 = 60.0;
/// The time of which a sample of what was sent is compared with what a destination holds.
const COMPARED: &str = "1h";

pub(super) fn check_publisher(publisher: &PublisherDocument) -> Vec<Finding> {
    let mut findings = vec![check_delivery(publisher)];
    let PublisherDocument { name, records, dead_letters, .. } = publisher;
    if !records.dropped.is_empty() {
        let dropped = records.dropped.iter().map(|(reason, n)| format!("{n} ({reason})"));
        let found = format!("{name} has lost records: {}", dropped.collect::<Vec<_>>().join(", "));
        findings.push(Finding::new(CHECK, FindingStatus::Warning, found).with_advice(concat!(
            "records with the reason spool had no room: raise ",
            setting_name!("publish.spool"),
            "; those with expired were in no file any more; all reasons are in docs/publish.md"
        )));
    }
    if *dead_letters > 0 {
        let found = format!("{dead_letters} records were refused by the destination of {name}");
        let advice = format!(
            "see `tallyport publish dead {name}`; once the cause is gone, `tallyport publish replay {name}`"
        );
        findings.push(Finding::new(CHECK, FindingStatus::Warning, found).with_advice(advice));
    }
    findings
}

/// Whether what is not delivered survives a reboot.
pub(super) fn check_backlog(node: &NodeDocument, publishers: &[PublisherDocument]) -> Option<Finding> {
    let is_lost = !publishers.is_empty() && node.window_log.as_ref().is_some_and(|log| log.in_memory);
    is_lost.then(|| {
        let found =
            format!("{} is in memory: what is not delivered does not survive a reboot", node.state_dir);
        Finding::new(CHECK, FindingStatus::Warning, found)
            .with_advice("set state_dir to a directory on a disk")
    })
}

fn check_delivery(publisher: &PublisherDocument) -> Finding {
    let PublisherDocument { name, destination, records, behind_seconds, .. } = publisher;
    let last = publisher.last_delivery.map(|last| format_elapsed(clock::wall_time(), last));
    let delivered = match &last {
        Some(last) => format!(
            "{name} has delivered {} records to {destination}, the last {last} ago",
            records.delivered
        ),
        None => format!("{name} has delivered nothing to {destination} yet"),
    };
    let waits = matches!(&*publisher.state, "held" | "retrying");
    if !records.is_balanced() {
        let found = format!("{delivered}; its counts do not add up");
        return Finding::new(CHECK, FindingStatus::Failed, found)
            .with_advice("this is a bug; please report it");
    }
    if publisher.state != "held" && *behind_seconds < BEHIND {
        let finding = Finding::new(CHECK, FindingStatus::Ok, delivered);
        // Its first request may still be to come, so that this says nothing about the destination.
        return match last {
            Some(_) => finding,
            None => finding.with_advice(format!("`tallyport publish check {name}` tries it now")),
        };
    }
    let answer = publisher.last_answer.as_ref().map_or(String::new(), |answer| format!(": {answer}"));
    let state = if waits { format!("; it is {}{answer}", publisher.state) } else { String::new() };
    let found = format!("{delivered}; {} records wait for {behind_seconds:.0} s{state}", records.pending);
    let finding = Finding::new(CHECK, FindingStatus::Warning, found);
    match &publisher.advice {
        Some(advice) => finding.with_advice(advice.clone()),
        None => finding.with_advice(format!("try `tallyport publish check {name}`")),
    }
}

/// Compares a part of what a publisher has sent with what its destination holds. `None` where its type answers no queries.
pub(super) async fn compare_sample(admin: &Client, publisher: &PublisherDocument) -> Option<Finding> {
    let name = &publisher.name;
    let advice = format!("see `tallyport publish verify {name} --since {COMPARED}`");
    let verified = match verify_sample(admin, name, COMPARED).await {
        Ok(verified) => verified,
        Err(failure) => {
            let found = format!("{name} was not compared with its destination: {failure}");
            return Some(Finding::new(CHECK, FindingStatus::Warning, found).with_advice(advice));
        }
    };
    let found = format!("{name}, compared with its destination: {}", describe_result(&verified).join("; "));
    match &*verified.outcome {
        "unsupported" => None,
        "ok" => Some(Finding::new(CHECK, FindingStatus::Ok, found)),
        "differs" => {
            let examples = verified.differences.iter().map(describe_difference).collect();
            Some(
                Finding::new(CHECK, FindingStatus::Failed, found).with_examples(examples).with_advice(advice),
            )
        }
        _ => Some(Finding::new(CHECK, FindingStatus::Warning, found).with_advice(advice)),
    }
}
