//! Resource usage of a task's containers, from their control groups.

use serde::Serialize;

use super::encoding::encode_segment;
use super::failure::Failure;
use super::resolve::parse_response;
use super::units::Precision;
use crate::client::Client;
use crate::wire::Task;
use crate::wire::v0::{Datapoint, Message};

/// The total usage of all containers of a task. Values that no container reports are `None`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Used {
    cpu_seconds: Option<f64>,
    cpu_limit: Option<f64>,
    cpu_throttled_seconds: Option<f64>,
    memory_bytes: Option<f64>,
    memory_limit_bytes: Option<f64>,
    io_read_bytes: Option<f64>,
    io_written_bytes: Option<f64>,
    /// Whether some of it is that of a first process alone, because it shares its control group with other processes.
    first_process_only: bool,
}

/// Fetches the usage of all containers of a task; `None` if no container reports any.
pub(super) async fn fetch_usage(client: &Client, task: &Task) -> Result<Option<Used>, Failure> {
    let mut used = Used::default();
    let mut known = false;
    for container in &task.containers {
        let answer = client
            .get(&format!("/v0/containers/{}", encode_segment(&container.reserved.container_id)))
            .await?;
        // 204 if the agent does not know its usage; 404 if the container is gone, or the agent was built without the DC/OS calls.
        if matches!(answer.status, 204 | 404) {
            continue;
        }
        let message: Message = parse_response(&answer)?;
        known = true;
        message.datapoints.iter().for_each(|point| used.add(point));
        // Only a control group of its own has a number of processes.
        used.first_process_only |= message.datapoints.iter().all(|point| point.name != "processes");
    }
    Ok(known.then_some(used))
}

impl Used {
    fn add(&mut self, point: &Datapoint) {
        let sum = match point.name.as_str() {
            "cpus.user.time" | "cpus.system.time" => &mut self.cpu_seconds,
            "cpus.limit" => &mut self.cpu_limit,
            "cpus.throttled.time" => &mut self.cpu_throttled_seconds,
            "mem.total" => &mut self.memory_bytes,
            "mem.limit" => &mut self.memory_limit_bytes,
            "io.read.bytes" => &mut self.io_read_bytes,
            "io.write.bytes" => &mut self.io_written_bytes,
            _ => return,
        };
        *sum = Some(sum.unwrap_or_default() + point.value);
    }

    /// Lines for the known values, for people.
    pub(super) fn format_lines(&self, precision: Precision) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let alone = if self.first_process_only {
            " (its first process; it has no control group of its own)"
        } else {
            ""
        };
        if let Some(seconds) = self.cpu_seconds {
            let used = precision.format_seconds(seconds);
            let limit = self
                .cpu_limit
                .map_or(String::new(), |limit| format!(" of {} CPUs", precision.format_number(limit)));
            let throttled = self.cpu_throttled_seconds.filter(|seconds| *seconds > 0.0);
            let throttled = throttled.map_or(String::new(), |seconds| {
                format!(", throttled {}", precision.format_seconds(seconds))
            });
            lines.push(("cpu", format!("{used}{limit}{throttled}{alone}")));
        }
        if let Some(bytes) = self.memory_bytes {
            let limit = self
                .memory_limit_bytes
                .map_or(String::new(), |limit| format!(" of {}", precision.format_bytes(limit)));
            lines.push(("memory", format!("{}{limit}{alone}", precision.format_bytes(bytes))));
        }
        if let (Some(read), Some(written)) = (self.io_read_bytes, self.io_written_bytes) {
            let (read, written) = (precision.format_bytes(read), precision.format_bytes(written));
            lines.push(("io", format!("{read} read, {written} written")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_added_up_and_what_is_unknown_has_no_line() {
        let mut used = Used::default();
        for (name, value) in [
            ("cpus.user.time", 1.0),
            ("cpus.system.time", 0.5),
            ("mem.total", 1_048_576.0),
            ("mem.total", 524_288.0),
        ] {
            used.add(&Datapoint { name: name.to_owned(), value, ..Datapoint::default() });
        }
        let lines = |precision| used.format_lines(precision);
        let memory = |text: &str| [("cpu", "1.5 s".to_owned()), ("memory", text.to_owned())];
        assert_eq!(lines(Precision::Rounded), memory("1.5 MiB"));
        assert_eq!(lines(Precision::Exact), memory("1572864 B"));
    }
}
