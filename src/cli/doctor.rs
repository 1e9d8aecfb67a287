//! `tallyport doctor`: what is wrong on this node, and what to do about it.

mod clients;
mod names;
mod pages;
mod plugin;
mod totals;
mod window_log;

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::names::MarkedName;
use self::pages::Pages;
use self::plugin::Plugin;
use self::window_log::WindowLog;
use super::args::{DoctorArgs, Format};
use super::documents::{Container, Task, Totals, ago, counted};
use super::failure::{Failure, code};
use super::output::Output;
use super::probe::probe;
use super::resolve::read;
use crate::client::Client;
use crate::config::{Effect, Setting};
use crate::model::Timestamp;
use crate::net::address::ephemeral_ports;
use crate::net::clock;
use crate::net::holder::holder_of;
use crate::net::tls::RENEWAL;
use crate::statsd::Rejected;

/// What the kernel charges a small datagram against a socket's buffer, which holds twice what was asked for: measured
/// on Linux 6.
const SMALL_DATAGRAM: usize = 832;

const NODE_MEMORY: Effect = Setting::effect_of("limits.node_memory");
const PORT: Effect = Setting::effect_of("listeners.port");
const GUARD: Effect = Setting::effect_of("listeners.guard");
const CERTIFICATE: Effect = Setting::effect_of("http.tls_certificate");

/// How a check went.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    status: Status,
    found: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advice: Vec<String>,
}

impl Finding {
    pub(super) fn new(check: &'static str, status: Status, found: impl Into<String>) -> Self {
        Self { check, status, found: found.into(), advice: Vec::new() }
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }
}

#[derive(Debug, Deserialize)]
struct Node {
    node: String,
    version: String,
    pid: u32,
    epoch: u64,
    ready: bool,
    containers: usize,
    memory: usize,
    memory_limit: usize,
    receive_buffer: usize,
    receive_buffers: usize,
    receive_buffers_limit: usize,
    /// Agents before this version do not say.
    #[serde(default)]
    listeners_port: Option<u16>,
    guard: String,
    guard_missing: Option<String>,
    journal_trouble: Option<String>,
    /// Agents before this version do not say.
    #[serde(default)]
    state_damage: Vec<StateDamage>,
    shards: usize,
    shards_ended: usize,
    /// Agents before this version say neither.
    #[serde(default)]
    certificate_expires: Option<Timestamp>,
    #[serde(default)]
    window_log: Option<WindowLog>,
    #[serde(default)]
    nri: Option<Plugin>,
    #[serde(default)]
    totals_evicted: totals::Evicted,
    #[serde(default)]
    names_marked: usize,
    #[serde(default)]
    marked_names: Vec<MarkedName>,
    #[serde(default)]
    pages: Option<Pages>,
}

#[derive(Debug, Deserialize)]
struct StateDamage {
    file: String,
    found: String,
}

#[derive(Debug, Deserialize)]
struct Accounting {
    containers: Vec<CountedContainer>,
}

#[derive(Debug, Deserialize)]
struct CountedContainer {
    container_id: String,
    #[serde(flatten)]
    totals: Totals,
}

pub(super) async fn doctor(args: &DoctorArgs, out: &mut Output) -> Result<ExitCode, Failure> {
    let client = args.client.client()?;
    let node: Node = read(&client.get("/v1/node").await?)?;
    let accounting: Accounting = read(&client.get("/v1/accounting").await?)?;
    let mut findings = vec![agent(&node), ready(&node), memory(&node), counts(&accounting)];
    findings.extend(buffers(&node));
    findings.extend(ports(node.listeners_port));
    findings.extend(node.listeners_port.and_then(taken));
    findings.push(guard(&node));
    findings.push(journal(&node));
    findings.extend(node.state_damage.iter().map(StateDamage::finding));
    findings.extend(certificate(&node));
    findings.extend(window_log::findings(node.window_log.as_ref()));
    findings.extend(node.nri.iter().flat_map(Plugin::findings));
    findings.extend(node.totals_evicted.finding());
    findings.extend(names::findings(node.names_marked, &node.marked_names));
    findings.extend(node.pages.iter().map(Pages::finding));
    findings.extend(containers(&args.admin.client()).await);
    findings.extend(probe(args).await);
    match args.output.format() {
        Format::Json => out.json(&findings)?,
        Format::Ndjson => out.ndjson(&findings)?,
        Format::Prom => return Err(Failure::usage("findings are not metrics; use table, json or ndjson")),
        Format::Table => print(&findings, out)?,
    }
    let failed = findings.iter().any(|finding| finding.status == Status::Failed);
    Ok(if failed { ExitCode::from(code::ERROR) } else { ExitCode::SUCCESS })
}

fn agent(node: &Node) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let found =
        format!("{} runs tallyport {} as pid {}, epoch {}", node.node, node.version, node.pid, node.epoch);
    if node.version == ours {
        return Finding::new("agent", Status::Ok, found);
    }
    Finding::new("agent", Status::Warning, found)
        .advise(format!("this command is {ours}; restart the agent to have one version"))
}

fn ready(node: &Node) -> Finding {
    let shards = format!("{} of {} shards run", node.shards - node.shards_ended, node.shards);
    match node.ready && node.shards_ended == 0 {
        true => Finding::new("ready", Status::Ok, shards),
        false => Finding::new("ready", Status::Failed, format!("not ready; {shards}"))
            .advise("GET /ready says what is pending; the agent's log says why"),
    }
}

fn memory(node: &Node) -> Finding {
    let percent = node.memory.saturating_mul(100) / node.memory_limit.max(1);
    let found = format!(
        "{} MiB of {} MiB ({percent} %), {} containers",
        node.memory >> 20,
        node.memory_limit >> 20,
        node.containers
    );
    match percent {
        0..80 => Finding::new("memory", Status::Ok, found),
        80..100 => {
            Finding::new("memory", Status::Warning, found).advise("at 100 % no container gets new series")
        }
        _ => Finding::new("memory", Status::Failed, found).advise(format!(
            "no container gets new series; raise limits.node_memory and {}, or use fewer names and tag values",
            NODE_MEMORY.remedy()
        )),
    }
}

/// Everything is counted once, or we have a mistake.
fn counts(accounting: &Accounting) -> Finding {
    let wrong = accounting.containers.iter().filter(|container| !container.totals.balanced);
    let wrong: Vec<&str> = wrong.map(|container| container.container_id.as_str()).collect();
    if wrong.is_empty() {
        let n = accounting.containers.len();
        return Finding::new(
            "accounting",
            Status::Ok,
            format!("everything is counted once in {n} containers"),
        );
    }
    Finding::new("accounting", Status::Failed, format!("the counts do not agree in {}", wrong.join(", ")))
        .advise("this is a defect of tallyport; please report it with the output of GET /v1/accounting")
}

fn buffers(node: &Node) -> Option<Finding> {
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
        return Some(Finding::new("receive buffers", Status::Ok, found));
    }
    let wanted = node.receive_buffer >> 10;
    Some(
        Finding::new("receive buffers", Status::Warning, format!("{found}; {wanted} KiB were asked for"))
            .advise(format!(
                "sysctl -w net.core.rmem_max={}, or run with CAP_NET_ADMIN",
                node.receive_buffer
            )),
    )
}

/// Whether the kernel could give the port of containers' sockets to another process.
fn ports(port: Option<u16>) -> Option<Finding> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    Some(port_in(port?, &ephemeral_ports(&text)?))
}

/// Whether another process has the port on every address, so that no container of the host's network can have it on its own.
fn taken(port: u16) -> Option<Finding> {
    let holder = holder_of(port)?;
    let found = format!(
        "{port} (listeners.port) is held on every address by {holder}: containers on the host's network get no socket"
    );
    let advice = format!("end that process, or set listeners.port to another port and {}", PORT.remedy());
    Some(Finding::new("ports", Status::Failed, found).advise(advice))
}

fn port_in(port: u16, range: &RangeInclusive<u16>) -> Finding {
    let (first, last) = (range.start(), range.end());
    if !range.contains(&port) {
        let found = format!("{port} (listeners.port) is outside the kernel's own {first} to {last}");
        return Finding::new("ports", Status::Ok, found);
    }
    let found = format!("{port} (listeners.port) is inside the kernel's own {first} to {last}");
    Finding::new("ports", Status::Warning, found).advise(format!(
        "the kernel may give it to another process; set listeners.port outside that range and {}",
        PORT.remedy()
    ))
}

/// Whether containers on the host's network can be forged.
fn guard(node: &Node) -> Finding {
    let all = "every process of the host's network can send to containers there";
    match (node.guard.as_str(), &node.guard_missing) {
        ("on", _) => {
            Finding::new("guard", Status::Ok, "the kernel keeps others from containers on the host's network")
        }
        ("off", _) => Finding::new("guard", Status::Ok, format!("off (listeners.guard); {all}")),
        (_, why) => {
            let why = why.as_deref().unwrap_or("the agent does not say why");
            Finding::new("guard", Status::Warning, format!("{all}: {why}"))
                .advise(format!(
                    "containers with a network of their own need none; if this is intended, set listeners.guard = \"off\" and {}",
                    GUARD.remedy()
                ))
        }
    }
}

/// Whether a crash would lose addresses.
fn journal(node: &Node) -> Finding {
    match &node.journal_trouble {
        None => Finding::new("journal", Status::Ok, "containers outlive a crash of the agent"),
        Some(why) => {
            let found = format!("it cannot be written, and a crash would lose containers: {why}");
            Finding::new("journal", Status::Failed, found)
                .advise("make room in state_dir, or make it writable; the agent tries again by itself")
        }
    }
}

impl StateDamage {
    /// What an earlier run left and this one could not read.
    fn finding(&self) -> Finding {
        let found = format!("{} was damaged at the start: {}", self.file, self.found);
        let advice = match self.file.as_str() {
            "journal" => {
                "restart the containers that have no socket any more, and check the disk of state_dir"
            }
            _ => "check the disk of state_dir",
        };
        Finding::new("state files", Status::Warning, found).advise(advice)
    }
}

fn certificate(node: &Node) -> Option<Finding> {
    let (now, expires) = (clock::wall(), node.certificate_expires?);
    let advice =
        format!("replace http.tls_certificate and {}; new connections get the new one", CERTIFICATE.remedy());
    let finding = |status, found| Finding::new("certificate", status, found);
    Some(match expires.since(now) {
        Duration::ZERO => {
            finding(Status::Failed, format!("it expired {} ago", ago(now, expires))).advise(advice)
        }
        left if left < RENEWAL => {
            finding(Status::Warning, format!("it expires in {}", ago(expires, now))).advise(advice)
        }
        _ => finding(Status::Ok, format!("it expires in {}", ago(expires, now))),
    })
}

/// What only the admin socket tells.
async fn containers(admin: &Client) -> Vec<Finding> {
    let listed = match admin.get("/v1/containers").await {
        Ok(response) => read::<Vec<Container>>(&response),
        Err(error) => Err(error.into()),
    };
    let Ok(containers) = listed else {
        let found = format!("{} does not answer", admin.target());
        let advice = "launchers cannot reserve; does your user belong to its group? See admin.mode";
        return vec![Finding::new("admin socket", Status::Warning, found).advise(advice)];
    };
    let mut findings = vec![Finding::new("admin socket", Status::Ok, format!("{} answers", admin.target()))];
    for container in &containers {
        findings.extend(troubles(container));
        findings.extend(clients::findings(container));
    }
    if let Ok(response) = admin.get("/v1/tasks").await
        && let Ok(tasks) = read::<Vec<Task>>(&response)
    {
        findings.extend(tasks.iter().filter_map(rejected));
    }
    findings
}

fn troubles(container: &Container) -> Option<Finding> {
    let named = format!("{} of task {}", container.name(), container.task_id);
    if matches!(container.state.as_str(), "lost" | "mute") {
        let said = container.reason.iter().chain(container.warnings.first());
        let why = said.fold(String::new(), |why, said| why + "; " + said);
        let advice = match container.state.as_str() {
            "lost" => {
                "its metrics reach nobody until its address can be opened; the agent tries again by itself"
            }
            _ => "its metrics reach nobody under its name; restart it",
        };
        return Some(
            Finding::new("container", Status::Failed, format!("{named} is {}{why}", container.state))
                .advise(advice),
        );
    }
    if container.kernel_drops + container.dropped > 0 {
        let found = format!(
            "{named} lost {} datagrams in the kernel and {} by its limits",
            container.kernel_drops, container.dropped
        );
        return Some(
            Finding::new("container", Status::Warning, found)
                .advise(format!("`tallyport explain {}` says why", container.task_id)),
        );
    }
    if let Some(why) = &container.origin_guard_missing {
        let found = format!("others on the host's network can send to {named}: {why}");
        return Some(Finding::new("container", Status::Warning, found));
    }
    let warning = container.warnings.first()?;
    Some(Finding::new("container", Status::Warning, format!("{named}: {warning}")))
}

fn rejected(task: &Task) -> Option<Finding> {
    let codes = counted(&task.totals.lines.rejected);
    if codes.is_empty() {
        return None;
    }
    let text: Vec<String> = codes.iter().map(|(code, n)| format!("{n} {code}")).collect();
    let mut finding = Finding::new(
        "rejected lines",
        Status::Warning,
        format!("task {}: {}", task.task_id, text.join(", ")),
    );
    for line in task.recent_rejected.iter().rev().take(3) {
        let advice = Rejected::ALL
            .iter()
            .find(|known| known.code() == line.code)
            .map_or(line.advice.as_str(), |c| c.advice());
        let shown = line.line.as_ref().map_or(String::new(), |line| format!("{line:?}: "));
        finding =
            finding.advise(format!("{} ago {shown}{}: {advice}", ago(clock::wall(), line.at), line.code));
    }
    Some(finding)
}

fn print(findings: &[Finding], out: &mut Output) -> std::io::Result<()> {
    for finding in findings {
        let mark = match finding.status {
            Status::Ok => out.good("ok     "),
            Status::Warning => out.warning("warning"),
            Status::Failed => out.bad("FAILED "),
        };
        out.line(mark + format!("  {:<15}  {}", finding.check, finding.found))?;
        for advice in &finding.advice {
            out.line(format!("                          {advice}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_that_is_set_is_compared_with_the_kernels_range() {
        let check = |port| {
            let finding = port_in(port, &(32_768..=60_999));
            (finding.status, finding.found.contains(&port.to_string()))
        };
        assert_eq!(check(18_125), (Status::Ok, true));
        assert_eq!(check(40_000), (Status::Warning, true));
    }
}
