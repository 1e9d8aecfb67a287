//! Resource usage of containers and the node in the DC/OS metrics API.
//!
//! Names and units are those of its first generation, which both of its command-line tools support. A limit that is not
//! set has no datapoint. `io.*` is an addition: the disk metrics of Mesos are not available from control groups.

use serde_json::{Value, json};

use super::{WholeDatapoint, WholeMessage, metrics_message};
use crate::containers::{ContainerInfo, SocketNamespace};
use crate::host::{self, ContainerResources};
use crate::model::Timestamp;
use crate::query::Data;
use crate::render::number::{Whole, finite_value};
use crate::wire::{Word, v0 as wire};

const SECONDS: &str = "seconds";
const COUNT: &str = "count";
const BYTES: &str = "bytes";
const PERCENT: &str = "percent";

/// Collects datapoints with the same timestamp.
struct Points {
    at: Timestamp,
    points: Vec<WholeDatapoint>,
}

impl Points {
    const fn new(at: Timestamp) -> Self {
        Self { at, points: Vec::new() }
    }

    fn add_value(&mut self, name: &str, value: impl Into<Option<f64>>, unit: &'static str) {
        self.add_tagged(name, value, unit, None);
    }

    fn add_tagged(
        &mut self,
        name: &str,
        value: impl Into<Option<f64>>,
        unit: &'static str,
        tags: Option<&Value>,
    ) {
        if let Some(value) = value.into().and_then(finite_value) {
            let name = name.to_owned();
            self.points.push(WholeDatapoint {
                name,
                value: Whole(value),
                unit: unit.into(),
                timestamp: self.at,
                tags: tags.cloned(),
            });
        }
    }

    /// Bytes, packets, errors and dropped packets.
    fn add_traffic(&mut self, names: [&str; 4], values: [u64; 4], tags: Option<&Value>) {
        for ((name, value), unit) in names.into_iter().zip(values).zip([BYTES, COUNT, COUNT, COUNT]) {
            self.add_tagged(name, value as f64, unit, tags);
        }
    }
}

/// The resource usage of a container; `None` if it cannot be read.
#[must_use]
pub fn read_resources(data: &Data, info: &ContainerInfo, at: Timestamp) -> Option<WholeMessage> {
    let mut datapoints = of_container(&resource_datapoints(data, info)?, at);
    // Both generations of DC/OS have it as a tag in addition to the dimension.
    let tags = json!({"container_id": info.origin.container_id.as_str()});
    datapoints.iter_mut().for_each(|datapoint| datapoint.tags = Some(tags.clone()));
    metrics_message(data, info, datapoints)
}

/// The resource usage of a container, if its process is known and alive.
fn resource_datapoints(data: &Data, info: &ContainerInfo) -> Option<ContainerResources> {
    let (pid, id) = (info.pid?, &info.origin.container_id);
    let own_network = matches!(info.place, SocketNamespace::Own(_));
    let resources = host::read_container_resources(pid, id.as_str(), own_network).ok()?;
    // If the container is still live now, the process id was valid while it was read.
    let now = data.directory.find_container(id)?;
    (now.allocation == info.allocation && now.state.is_live()).then_some(resources)
}

fn of_container(resources: &ContainerResources, at: Timestamp) -> Vec<WholeDatapoint> {
    let mut points = Points::new(at);
    if let Some(cpu) = &resources.cpu {
        points.add_value("cpus.user.time", cpu.user.as_secs_f64(), SECONDS);
        points.add_value("cpus.system.time", cpu.system.as_secs_f64(), SECONDS);
        points.add_value("cpus.limit", cpu.limit, COUNT);
        points.add_value("cpus.nr.periods", cpu.periods as f64, COUNT);
        points.add_value("cpus.nr.throttled", cpu.throttled_periods as f64, COUNT);
        points.add_value("cpus.throttled.time", cpu.throttled.as_secs_f64(), SECONDS);
    }
    if let Some(memory) = &resources.memory {
        for (name, bytes) in [
            ("mem.total", Some(memory.total)),
            ("mem.total.memsw", memory.total_and_swap),
            ("mem.limit", memory.limit),
            ("mem.soft.limit", memory.soft_limit),
            ("mem.cache", memory.cache),
            ("mem.rss", memory.rss),
            ("mem.mapped.file", memory.mapped_file),
            ("mem.swap", memory.swap),
            ("mem.unevictable", memory.unevictable),
        ] {
            points.add_value(name, bytes.map(|bytes| bytes as f64), BYTES);
        }
    }
    if let Some(io) = &resources.io {
        points.add_value("io.read.bytes", io.read_bytes as f64, BYTES);
        points.add_value("io.write.bytes", io.written_bytes as f64, BYTES);
        points.add_value("io.read.operations", io.reads as f64, COUNT);
        points.add_value("io.write.operations", io.writes as f64, COUNT);
    }
    points.add_value("processes", resources.processes.map(|n| n as f64), COUNT);
    points.add_value("threads", resources.threads.map(|n| n as f64), COUNT);
    if let Some(network) = &resources.network {
        let names = ["net.rx.bytes", "net.rx.packets", "net.rx.errors", "net.rx.dropped"];
        points.add_traffic(names, network.received, None);
        let names = ["net.tx.bytes", "net.tx.packets", "net.tx.errors", "net.tx.dropped"];
        points.add_traffic(names, network.sent, None);
    }
    points.points
}

/// The resource usage of the node. `cpu` are the shares of CPU time.
#[must_use]
pub fn of_node(
    data: &Data,
    cpu: Option<host::Shares>,
    at: Timestamp,
) -> wire::Message<Whole, wire::NodeDimensions> {
    let datapoints =
        host::read_node_resources().map(|node| node_datapoints(&node, cpu, at)).unwrap_or_default();
    let hostname = data.current_config().node.clone();
    wire::Message { datapoints, dimensions: wire::NodeDimensions { mesos_id: Word::default(), hostname } }
}

fn node_datapoints(
    node: &host::NodeResources,
    cpu: Option<host::Shares>,
    at: Timestamp,
) -> Vec<WholeDatapoint> {
    let mut points = Points::new(at);
    // In seconds, but with the unit of DC/OS, which readers expect.
    points.add_value("system.uptime", node.uptime.as_secs_f64().floor(), COUNT);
    points.add_value("process.count", node.processes as f64, COUNT);
    points.add_value("cpu.cores", node.cores as f64, COUNT);
    if let Some(cpu) = cpu {
        points.add_value("cpu.total", cpu.total, PERCENT);
        points.add_value("cpu.user", cpu.user, PERCENT);
        points.add_value("cpu.system", cpu.system, PERCENT);
        points.add_value("cpu.idle", cpu.idle, PERCENT);
        points.add_value("cpu.wait", cpu.wait, PERCENT);
    }
    for (name, load) in ["load.1min", "load.5min", "load.15min"].into_iter().zip(node.load) {
        // The kernel gives two decimal places; the conversion would add spurious ones.
        points.add_value(name, (load * 100.0).round() / 100.0, COUNT);
    }
    for (name, bytes) in
        ["memory.total", "memory.free", "memory.buffers", "memory.cached"].into_iter().zip(node.memory)
    {
        points.add_value(name, bytes as f64, BYTES);
    }
    let [total, free] = node.swap;
    points.add_value("swap.total", total as f64, BYTES);
    points.add_value("swap.free", free as f64, BYTES);
    points.add_value("swap.used", total.saturating_sub(free) as f64, BYTES);
    for system in &node.file_systems {
        let tags = json!({"path": system.path.to_string_lossy()});
        for (word, (bytes, inodes)) in
            ["total", "used", "free"].into_iter().zip(system.bytes.into_iter().zip(system.inodes))
        {
            points.add_tagged(&format!("filesystem.capacity.{word}"), bytes as f64, BYTES, Some(&tags));
            points.add_tagged(&format!("filesystem.inode.{word}"), inodes as f64, COUNT, Some(&tags));
        }
    }
    for interface in &node.interfaces {
        let tags = json!({"interface": interface.name});
        let names = ["network.in", "network.in.packets", "network.in.errors", "network.in.dropped"];
        points.add_traffic(names, interface.received, Some(&tags));
        let names = ["network.out", "network.out.packets", "network.out.errors", "network.out.dropped"];
        points.add_traffic(names, interface.sent, Some(&tags));
    }
    points.points
}
