//! The destinations: how records are encoded for each, how a request gets there, and what the answer means.

mod file;
mod http;
mod influx;
mod lines;

use std::ops::Range;

use self::file::FileWriter;
use self::influx::InfluxWriter;
use self::lines::LineSender;
use super::answer::Answer;
use crate::config::{DebugSink, GraphiteSink, PublisherConfig, SinkConfig};
use crate::render::prometheus::Level;
use crate::render::publish::{
    Encoded, GraphiteOptions, PathTemplate, RequestRoom, Round, TemplateError, encode_graphite,
    encode_influx, encode_json,
};

/// The most that a request may hold. Backends take more; this is what a publisher keeps of a backend that is stuck.
const ROOM: RequestRoom = RequestRoom { bytes: 1 << 20, records: 5000 };

/// A setting that cannot be delivered with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key} {reason}")]
pub struct SinkError {
    /// The key in the publisher's table.
    pub key: &'static str,
    /// What is wrong with its value, as a verb and its object.
    pub reason: String,
}

/// A destination.
#[derive(Debug)]
pub(super) struct Destination {
    target: SinkTarget,
    level: Level,
}

#[derive(Debug)]
enum SinkTarget {
    Debug(DebugSink),
    File(FileWriter),
    Graphite(LineSender, GraphiteOptions),
    Influx(InfluxWriter),
}

impl Destination {
    /// The destination of a publisher.
    ///
    /// # Errors
    /// When it cannot be delivered to.
    pub(super) fn open(config: &PublisherConfig) -> Result<Self, SinkError> {
        check_support(config)?;
        let target = match &config.sink {
            SinkConfig::Debug(sink) => SinkTarget::Debug(sink.clone()),
            SinkConfig::File(sink) => {
                if let Some(directory) = sink.missing_directory() {
                    tracing::warn!(publisher = config.name, directory = %directory.display(), "the directory does not exist; records are held until it does");
                }
                SinkTarget::File(FileWriter::new(sink.path.clone()))
            }
            SinkConfig::Graphite(sink) => {
                SinkTarget::Graphite(LineSender::new(sink), graphite_options(sink)?)
            }
            SinkConfig::Influxdb(sink) => SinkTarget::Influx(InfluxWriter::new(sink)),
            SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) | SinkConfig::Datadog(_) => {
                return Err(not_built_in());
            }
        };
        // A record in a file or a log line names its container, so records of several are not merged.
        let level = match &target {
            SinkTarget::Debug(_) | SinkTarget::File(_) => Level::High,
            SinkTarget::Graphite(..) | SinkTarget::Influx(_) => config.identity,
        };
        Ok(Self { target, level })
    }

    /// The level of identities. Records of one identity are merged.
    #[must_use]
    pub(super) fn identity_level(&self) -> Level {
        self.level
    }

    /// The most that a request may hold.
    #[must_use]
    pub(super) fn request_room() -> RequestRoom {
        ROOM
    }

    /// Encodes records of a round.
    #[must_use]
    pub(super) fn encode_round(
        &self,
        round: &Round<'_>,
        records: Range<usize>,
        room: RequestRoom,
    ) -> Encoded {
        match &self.target {
            SinkTarget::Debug(_) | SinkTarget::File(_) => encode_json(round, records, room),
            SinkTarget::Graphite(_, options) => encode_graphite(round, records, options, room),
            SinkTarget::Influx(writer) => encode_influx(round, records, writer.encoding_options(), room),
        }
    }

    /// Whether a record of the publisher's own may be sent to try the destination.
    #[must_use]
    pub(super) fn takes_probes(&self) -> bool {
        match &self.target {
            SinkTarget::Debug(_) | SinkTarget::File(_) => false,
            SinkTarget::Graphite(..) | SinkTarget::Influx(_) => true,
        }
    }

    /// Sends a body, and judges the answer. It ends within the timeout of the destination.
    pub(super) async fn send_body(&mut self, body: &[u8], content_type: &str) -> Answer {
        match &mut self.target {
            SinkTarget::Debug(sink) => {
                for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let record = String::from_utf8_lossy(line);
                    tracing::info!(target: "publish", logger = sink.logger, %record);
                }
                Answer::Ok
            }
            SinkTarget::File(writer) => writer.append_body(body).await,
            SinkTarget::Graphite(writer, _) => writer.send_lines(body).await,
            SinkTarget::Influx(writer) => writer.post_lines(body, content_type).await,
        }
    }

    /// Makes it as it was at the start, after a reload: a file that was moved away is opened again.
    pub(super) fn open_again(&mut self) {
        match &mut self.target {
            SinkTarget::File(writer) => writer.close_file(),
            SinkTarget::Graphite(writer, _) => writer.close_connection(),
            SinkTarget::Debug(_) | SinkTarget::Influx(_) => {}
        }
    }
}

/// Whether a publisher can be delivered to, as far as its configuration says.
///
/// # Errors
/// When its type, or a setting, is not built in.
pub fn check_support(config: &PublisherConfig) -> Result<(), SinkError> {
    match &config.sink {
        SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) | SinkConfig::Datadog(_) => {
            return Err(not_built_in());
        }
        SinkConfig::Graphite(sink) => drop(graphite_options(sink)?),
        SinkConfig::Debug(_) | SinkConfig::File(_) | SinkConfig::Influxdb(_) => {}
    }
    if config.workers != 1 {
        let reason = "is not supported yet: a publisher has one worker";
        return Err(SinkError { key: "workers", reason: reason.to_owned() });
    }
    if !config.batch.is_zero() {
        let reason =
            "is not supported yet: each round is sent by itself; a longer interval makes fewer of them";
        return Err(SinkError { key: "batch", reason: reason.to_owned() });
    }
    Ok(())
}

fn not_built_in() -> SinkError {
    let reason = "is not supported yet; use debug, file, influxdb or graphite";
    SinkError { key: "type", reason: reason.to_owned() }
}

fn graphite_options(sink: &GraphiteSink) -> Result<GraphiteOptions, SinkError> {
    if sink.template.is_empty() {
        return Ok(GraphiteOptions::with_default_template(sink.tags));
    }
    let template: Result<PathTemplate, TemplateError> = sink.template.parse();
    let template = template.map_err(|error| SinkError { key: "template", reason: error.to_string() })?;
    Ok(GraphiteOptions { template, tags: sink.tags })
}
