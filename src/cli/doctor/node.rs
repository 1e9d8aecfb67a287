//! What doctor says of the agent's process and of the node it runs on.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::finding::{Finding, FindingStatus};
use crate::cli::documents::format_elapsed;
use crate::config::{Effect, Setting};
use crate::model::Timestamp;
use crate::model::setting_name::setting_name;
use crate::net::address::{ephemeral_ports, holder_of};
use crate::net::clock;
use crate::net::tls::RENEWAL;
use crate::wire::{AccountingDocument, NodeDocument, StateDamageDocument};

/// Bytes that the kernel charges to a socket's buffer for a small datagram, as measured on Linux 6. The buffer is twice
/// the requested size.
const SMALL_DATAGRAM: usize = 832;

const NODE_MEMORY: Effect = Setting::effect_of("limits.node_memory");
const PORT: Effect = Setting::effect_of("listeners.port");
const CERTIFICATE: Effect = Setting::effect_of("http.tls_certificate");

/// What needs only the answers about the node and its accounting.
pub(super) fn check_node(node: &NodeDocument, accounting: &AccountingDocument) -> Vec<Finding> {
    let mut findings = vec![check_agent(node), check_readiness(node), check_memory(node)];
    findings.push(check_accounting(accounting));
    findings.push(describe_scrapes(node.last_scrape, clock::wall_time()));
    findings.extend(check_receive_buffers(node));
    findings.extend(check_ephemeral_ports(node.listeners_port));
    findings.extend(node.listeners_port.and_then(check_port_holder));
    findings.push(check_journal(node));
    findings.extend(node.state_damage.iter().map(damage));
    findings.extend(check_certificate(node));
    findings
}

fn check_agent(node: &NodeDocument) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let found =
        format!("{} runs tallyport {} as pid {}, epoch {}", node.node, node.version, node.pid, node.epoch);
    if node.version == ours {
        return Finding::new("agent", FindingStatus::Ok, found);
    }
    Finding::new("agent", FindingStatus::Warning, found)
        .with_advice(format!("this command is {ours}; restart the agent to have one version"))
}

fn check_readiness(node: &NodeDocument) -> Finding {
    let shards = format!("{} of {} shards run", node.shards - node.shards_ended, node.shards);
    match node.ready && node.shards_ended == 0 {
        true => Finding::new("ready", FindingStatus::Ok, shards),
        false => Finding::new("ready", FindingStatus::Failed, format!("not ready; {shards}"))
            .with_advice("GET /ready says what is pending; the agent's log says why"),
    }
}

fn check_memory(node: &NodeDocument) -> Finding {
    let percent = node.memory.saturating_mul(100) / node.memory_limit.max(1);
    let found = format!(
        "{} MiB of {} MiB ({percent} %), {} containers",
        node.memory >> 20,
        node.memory_limit >> 20,
        node.containers
    );
    match percent {
        0..80 => Finding::new("memory", FindingStatus::Ok, found),
        80..100 => Finding::new("memory", FindingStatus::Warning, found)
            .with_advice("at 100 % no container gets new series"),
        _ => Finding::new("memory", FindingStatus::Failed, found).with_advice(format!(
            "no container gets new series; raise {} and {}, or use fewer names and tag values",
            setting_name!("limits.node_memory"),
            NODE_MEMORY.remedy_text()
        )),
    }
}

/// When the metrics of tasks were scraped. Not being scraped is no problem of a node that publishes or is only looked at.
fn describe_scrapes(last: Option<Timestamp>, now: Timestamp) -> Finding {
    let found = match last {
        Some(last) => format!("metrics of tasks were scraped {} ago", format_elapsed(now, last)),
        None => {
            "metrics of tasks have not been scraped since the agent started; Prometheus reads them at /metrics/tasks"
                .to_owned()
        }
    };
    Finding::new("scrapes", FindingStatus::Ok, found)
}

/// Checks that every value is counted exactly once; anything else is a bug of tallyport.
fn check_accounting(accounting: &AccountingDocument) -> Finding {
    let wrong = accounting.containers.iter().filter(|container| !container.counts.balanced);
    let wrong: Vec<&str> = wrong.map(|container| container.container_id.as_str()).collect();
    if wrong.is_empty() {
        let n = accounting.containers.len();
        return Finding::new(
            "accounting",
            FindingStatus::Ok,
            format!("everything is counted once in {n} containers"),
        );
    }
    Finding::new(
        "accounting",
        FindingStatus::Failed,
        format!("the counts do not agree in {}", wrong.join(", ")),
    )
    .with_advice("this is a defect of tallyport; please report it with the output of GET /v1/accounting")
}

fn check_receive_buffers(node: &NodeDocument) -> Option<Finding> {
    let most: usize = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?.trim().parse().ok()?;
    let granted = node.receive_buffer.min(most);
    let holds = granted * 2 / SMALL_DATAGRAM;
    let found = format!(
        "{} KiB a socket, which holds {holds} small datagrams; in all {} of {} MiB",
        granted >> 10,
        node.receive_buffers >> 20,
        node.receive_buffers_limit >> 20
    );
    if granted == node.receive_buffer {
        return Some(Finding::new("receive buffers", FindingStatus::Ok, found));
    }
    let wanted = node.receive_buffer >> 10;
    Some(
        Finding::new(
            "receive buffers",
            FindingStatus::Warning,
            format!("{found}; {wanted} KiB were asked for"),
        )
        .with_advice(format!(
            "sysctl -w net.core.rmem_max={}, or run with CAP_NET_ADMIN",
            node.receive_buffer
        )),
    )
}

/// Checks whether the kernel could give the port of containers' sockets to another process.
fn check_ephemeral_ports(port: Option<u16>) -> Option<Finding> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    Some(port_in(port?, &ephemeral_ports(&text)?))
}

/// Checks whether another process has bound the port on every address, so that no container on the host's network can
/// bind it.
fn check_port_holder(port: u16) -> Option<Finding> {
    let holder = holder_of(port)?;
    let found = format!(
        "{port} (listeners.port) is held on every address by {holder}: containers on the host's network get no socket"
    );
    let advice = format!(
        "end that process, or set another port as {} and {}",
        setting_name!("listeners.port"),
        PORT.remedy_text()
    );
    Some(Finding::new("ports", FindingStatus::Failed, found).with_advice(advice))
}

fn port_in(port: u16, range: &RangeInclusive<u16>) -> Finding {
    let (first, last) = (range.start(), range.end());
    if !range.contains(&port) {
        let found = format!("{port} (listeners.port) is outside the kernel's own {first} to {last}");
        return Finding::new("ports", FindingStatus::Ok, found);
    }
    let found = format!("{port} (listeners.port) is inside the kernel's own {first} to {last}");
    Finding::new("ports", FindingStatus::Warning, found).with_advice(format!(
        "the kernel may give it to another process; set a port outside that range as {} and {}",
        setting_name!("listeners.port"),
        PORT.remedy_text()
    ))
}

/// Checks whether a crash would lose addresses.
fn check_journal(node: &NodeDocument) -> Finding {
    match &node.journal_trouble {
        None => Finding::new("journal", FindingStatus::Ok, "containers outlive a crash of the agent"),
        Some(why) => {
            let found = format!("it cannot be written, and a crash would lose containers: {why}");
            Finding::new("journal", FindingStatus::Failed, found)
                .with_advice("make room in state_dir, or make it writable; the agent tries again by itself")
        }
    }
}

/// Reports state files of the previous run that could not be read.
fn damage(damage: &StateDamageDocument) -> Finding {
    let found = format!("{} was damaged at the start: {}", damage.file, damage.found);
    let advice = match &*damage.file {
        "journal" => "restart the containers that have no socket any more, and check the disk of state_dir",
        _ => "check the disk of state_dir",
    };
    Finding::new("state files", FindingStatus::Warning, found).with_advice(advice)
}

fn check_certificate(node: &NodeDocument) -> Option<Finding> {
    let (now, expires) = (clock::wall_time(), node.certificate_expires?);
    let advice = format!(
        "replace the file of {} and {}; new connections get the new one",
        setting_name!("http.tls_certificate"),
        CERTIFICATE.remedy_text()
    );
    let finding = |status, found| Finding::new("certificate", status, found);
    Some(match expires.duration_since(now) {
        Duration::ZERO => {
            finding(FindingStatus::Failed, format!("it expired {} ago", format_elapsed(now, expires)))
                .with_advice(advice)
        }
        left if left < RENEWAL => {
            finding(FindingStatus::Warning, format!("it expires in {}", format_elapsed(expires, now)))
                .with_advice(advice)
        }
        _ => finding(FindingStatus::Ok, format!("it expires in {}", format_elapsed(expires, now))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_that_scrapers_should_read_is_named() {
        let now: Timestamp = "2026-01-01T00:00:05Z".parse().unwrap();
        let found = describe_scrapes(Some("2026-01-01T00:00:00Z".parse().unwrap()), now);
        assert_eq!(found.found, "metrics of tasks were scraped 5s ago");
        assert!(describe_scrapes(None, now).found.ends_with("at /metrics/tasks"));
    }

    #[test]
    fn the_port_that_is_set_is_compared_with_the_kernels_range() {
        let check = |port| {
            let finding = port_in(port, &(32_768..=60_999));
            (finding.status, finding.found.contains(&port.to_string()))
        };
        assert_eq!(check(18_125), (FindingStatus::Ok, true));
        assert_eq!(check(40_000), (FindingStatus::Warning, true));
    }
}
