//! The destinations: how records are encoded for each, how a request gets there, and what the answer means.

mod datadog;
mod file;
mod http;
mod influx;
mod lines;
mod otlp;
mod remote_write;

use std::ops::Range;
use std::time::Duration;

use self::datadog::DatadogSender;
use self::file::FileWriter;
use self::influx::InfluxWriter;
use self::lines::LineSender;
use self::otlp::OtlpSender;
use self::remote_write::RemoteWriter;
use super::answer::Answer;
use super::round::RecordReading;
use crate::config::{DebugSink, GraphiteSink, PublisherConfig, SinkConfig, SinkType, Temporality};
use crate::model::MetricType;
use crate::render::prometheus::{Level, Naming, Timers};
use crate::render::publish::{
    DatadogRoute, Encoded, EncodedRequest, EndedRound, Framing, GraphiteOptions, OtlpTemporality,
    PathTemplate, RequestRoom, Round, TemplateError, encode_datadog, encode_graphite, encode_influx,
    encode_json, encode_otlp, encode_remote_write, encode_stale_markers, encode_zero_samples,
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
    RemoteWrite(RemoteWriter),
    Otlp(OtlpSender),
    Datadog(DatadogSender),
}

/// What is sent of the records of a round, one after the other.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum RoundStage {
    /// A zero for each new series.
    Zeros,
    /// The records.
    Records,
    /// Records whose zeros were refused, each alone.
    Suspects,
}

/// On which settings the totals of series depend. With others, they are totals of other series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SeriesForm {
    sink: SinkType,
    interval: Duration,
    /// A round that has been sent in part goes on with the same requests.
    batch: Duration,
    include: Vec<String>,
    exclude: Vec<String>,
    level: Level,
    naming: Option<Naming>,
    timers: Option<Timers>,
    labels: Vec<(String, String)>,
    temporality: Option<Temporality>,
}

impl SeriesForm {
    /// The form of a publisher's series.
    #[must_use]
    pub(super) fn from_config(config: &PublisherConfig) -> Self {
        let remote_write = match &config.sink {
            SinkConfig::RemoteWrite(sink) => Some(sink),
            _ => None,
        };
        let temporality = match &config.sink {
            SinkConfig::Otlp(sink) => Some(sink.temporality),
            _ => None,
        };
        Self {
            sink: config.sink.sink_type(),
            interval: config.interval,
            batch: config.batch,
            include: config.include.clone(),
            exclude: config.exclude.clone(),
            level: config.identity,
            naming: remote_write.map(|sink| sink.naming),
            timers: remote_write.map(|sink| sink.timers),
            labels: remote_write.map(|sink| sink.labels.clone()).unwrap_or_default(),
            temporality,
        }
    }
}

impl Destination {
    /// The destination of a publisher.
    ///
    /// # Errors
    /// When it cannot be delivered to.
    pub(super) fn open(config: &PublisherConfig) -> Result<Self, SinkError> {
        check_support(config)?;
        let workers = config.workers;
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
            SinkConfig::Influxdb(sink) => SinkTarget::Influx(InfluxWriter::new(sink, workers)),
            SinkConfig::RemoteWrite(sink) => SinkTarget::RemoteWrite(RemoteWriter::new(sink, workers)),
            SinkConfig::Otlp(sink) => SinkTarget::Otlp(OtlpSender::new(sink, workers)),
            SinkConfig::Datadog(sink) => SinkTarget::Datadog(DatadogSender::new(sink, workers)),
        };
        // A record in a file or a log line names its container, so records of several are not merged.
        let level = match &target {
            SinkTarget::Debug(_) | SinkTarget::File(_) => Level::High,
            SinkTarget::Graphite(..)
            | SinkTarget::Influx(_)
            | SinkTarget::RemoteWrite(_)
            | SinkTarget::Otlp(_)
            | SinkTarget::Datadog(_) => config.identity,
        };
        Ok(Self { target, level })
    }

    /// Which state of records it is sent. Receivers of what was added accept only what is newer than what they have.
    #[must_use]
    pub(super) fn record_reading(&self) -> RecordReading {
        match &self.target {
            SinkTarget::RemoteWrite(_) | SinkTarget::Otlp(_) => RecordReading::Added,
            SinkTarget::Debug(_)
            | SinkTarget::File(_)
            | SinkTarget::Graphite(..)
            | SinkTarget::Influx(_)
            | SinkTarget::Datadog(_) => RecordReading::Became,
        }
    }

    /// Groups of types whose records cannot be in one request.
    #[must_use]
    pub(super) fn type_groups(&self) -> fn(MetricType) -> u8 {
        match &self.target {
            SinkTarget::Datadog(_) => |metric_type| DatadogRoute::for_type(metric_type) as u8,
            _ => |_| 0,
        }
    }

    /// Whether running totals count values in buckets.
    #[must_use]
    pub(super) fn counts_in_buckets(&self) -> bool {
        match &self.target {
            SinkTarget::RemoteWrite(writer) => writer.encoding_options().timers == Timers::Native,
            SinkTarget::Otlp(sender) => sender.encoding_temporality() == OtlpTemporality::Cumulative,
            _ => false,
        }
    }

    /// Whether records are sent with running totals. A round that is read again must then have the totals that it was sent with.
    #[must_use]
    pub(super) fn sends_totals(&self) -> bool {
        match &self.target {
            SinkTarget::RemoteWrite(_) => true,
            SinkTarget::Otlp(sender) => sender.encoding_temporality() == OtlpTemporality::Cumulative,
            _ => false,
        }
    }

    /// Whether new series begin with a zero, and ended ones are marked.
    #[must_use]
    pub(super) fn marks_series(&self) -> bool {
        matches!(&self.target, SinkTarget::RemoteWrite(_))
    }

    /// The level of identities. Records of one identity are merged.
    #[must_use]
    pub(super) fn identity_level(&self) -> Level {
        self.level
    }

    /// What is around and between the records of a body, for joining the bodies of several rounds. Those of remote write are not
    /// joined.
    #[must_use]
    pub(super) fn body_framing(&self, metric_type: MetricType) -> Framing {
        match &self.target {
            SinkTarget::Datadog(_) => DatadogRoute::for_type(metric_type).body_framing(),
            _ => Framing::BARE,
        }
    }

    /// The most that a request may hold.
    #[must_use]
    pub(super) fn request_room() -> RequestRoom {
        ROOM
    }

    /// Encodes records of a round, which are of one group of types.
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
            SinkTarget::RemoteWrite(writer) => {
                encode_remote_write(round, records, writer.encoding_options(), room)
            }
            SinkTarget::Otlp(sender) => encode_otlp(round, records, sender.encoding_temporality(), room),
            SinkTarget::Datadog(_) => {
                let first = round.records.get(records.start).map(|record| record.series.metric_type);
                let route = first.map_or(DatadogRoute::Series, DatadogRoute::for_type);
                encode_datadog(round, records, route, room)
            }
        }
    }

    /// Encodes a zero for each new series among records of a round.
    #[must_use]
    pub(super) fn encode_zeros(
        &self,
        round: &Round<'_>,
        records: Range<usize>,
        room: RequestRoom,
    ) -> Vec<EncodedRequest> {
        match &self.target {
            SinkTarget::RemoteWrite(writer) => {
                encode_zero_samples(round, records, writer.encoding_options(), room)
            }
            _ => Vec::new(),
        }
    }

    /// Encodes the end of a range of series.
    #[must_use]
    pub(super) fn encode_ended(
        &self,
        ended: &EndedRound<'_>,
        series: Range<usize>,
        room: RequestRoom,
    ) -> Vec<EncodedRequest> {
        match &self.target {
            SinkTarget::RemoteWrite(writer) => {
                encode_stale_markers(ended, series, writer.encoding_options(), room)
            }
            _ => Vec::new(),
        }
    }

    /// Whether a record of the publisher's own may be sent to try the destination.
    #[must_use]
    pub(super) fn takes_probes(&self) -> bool {
        match &self.target {
            SinkTarget::Debug(_) | SinkTarget::File(_) => false,
            SinkTarget::Graphite(..)
            | SinkTarget::Influx(_)
            | SinkTarget::RemoteWrite(_)
            | SinkTarget::Otlp(_)
            | SinkTarget::Datadog(_) => true,
        }
    }

    /// Sends a body, and judges the answer. It ends within the timeout of the destination.
    pub(super) async fn send_body(&self, body: &[u8], content_type: &str) -> Answer {
        match &self.target {
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
            SinkTarget::RemoteWrite(writer) => writer.post_message(body, content_type).await,
            SinkTarget::Otlp(sender) => sender.post_message(body, content_type).await,
            SinkTarget::Datadog(sender) => sender.post_records(body, content_type).await,
        }
    }

    /// The number of bytes that are sent for a request, after compression.
    pub(super) fn measure_sent(&self, request: &EncodedRequest) -> usize {
        match &self.target {
            SinkTarget::Influx(writer) => writer.prepare_lines(&request.body, request.content_type).1.len(),
            _ => request.body.len(),
        }
    }

    /// Makes it as it was at the start, after a reload: a file that was moved away is opened again, and a version of the protocol
    /// that was not understood is tried again.
    pub(super) fn open_again(&self) {
        match &self.target {
            SinkTarget::File(writer) => writer.close_file(),
            SinkTarget::Graphite(writer, _) => writer.close_connection(),
            SinkTarget::RemoteWrite(writer) => writer.try_newest_version(),
            SinkTarget::Debug(_) | SinkTarget::Influx(_) | SinkTarget::Otlp(_) | SinkTarget::Datadog(_) => {}
        }
    }
}

/// Whether a publisher can be delivered to, as far as its configuration says.
///
/// # Errors
/// When a setting is not built in, or a value cannot be delivered with.
pub fn check_support(config: &PublisherConfig) -> Result<(), SinkError> {
    if let SinkConfig::Graphite(sink) = &config.sink {
        drop(graphite_options(sink)?);
    }
    Ok(())
}

fn graphite_options(sink: &GraphiteSink) -> Result<GraphiteOptions, SinkError> {
    if sink.template.is_empty() {
        return Ok(GraphiteOptions::with_default_template(sink.tags));
    }
    let template: Result<PathTemplate, TemplateError> = sink.template.parse();
    let template = template.map_err(|error| SinkError { key: "template", reason: error.to_string() })?;
    Ok(GraphiteOptions { template, tags: sink.tags })
}
