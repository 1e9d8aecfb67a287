//! A request: resources, in each of them metrics, in each of these data points (`proto/otlp.proto`).

use std::ops::Range;
use std::sync::Arc;

use super::OtlpTemporality;
use crate::publish::protobuf::ProtoWriter;
use crate::publish::split::{EncodedBody, RequestBody};

/// The key and the length of a message: at most four bytes of length, since a request has at most 128 MiB.
const HEADER: usize = 1 + 4;
/// The most bytes that a metric takes besides its head and its points: itself, its data, and the two fields there.
const METRIC: usize = HEADER + HEADER + 2 + 2;
/// The most bytes that a resource takes besides its attributes and its metrics: itself and its scope.
const RESOURCE: usize = HEADER + HEADER + SCOPE_FIELDS;
const SCOPE_FIELDS: usize = 2 + 2 + SCOPE.len();

/// The instrumentation scope of all metrics.
const SCOPE: &str = "tallyport";

/// A request being written.
#[derive(Debug)]
pub(super) struct OtlpRequest {
    temporality: OtlpTemporality,
    resources: Vec<ResourceMetrics>,
    /// The points of all metrics, as fields.
    points: ProtoWriter,
    /// The most bytes that everything else takes.
    around: usize,
}

/// The metrics of a resource.
#[derive(Debug)]
struct ResourceMetrics {
    /// The field `resource`.
    resource: Arc<[u8]>,
    metrics: Vec<MetricPoints>,
}

/// The points of a metric.
#[derive(Debug)]
struct MetricPoints {
    name: String,
    kind: MetricKind,
    /// Its name, description and unit, as fields.
    head: ProtoWriter,
    points: Range<usize>,
}

/// What a metric is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum MetricKind {
    Gauge,
    Sum { monotonic: bool },
    ExponentialHistogram,
}

/// What the points of a metric have in common.
#[derive(Copy, Clone, Debug)]
pub(super) struct MetricHead<'a> {
    pub(super) name: &'a str,
    pub(super) help: &'a str,
    pub(super) unit: &'a str,
    pub(super) kind: MetricKind,
}

impl OtlpRequest {
    pub(super) fn new(temporality: OtlpTemporality) -> Self {
        Self { temporality, resources: Vec::new(), points: ProtoWriter::default(), around: 0 }
    }

    /// Adds a data point. Points of one resource, and in it of one metric, must follow each other, or the resource or the
    /// metric is there several times.
    pub(super) fn push_point(
        &mut self,
        resource: &Arc<[u8]>,
        head: MetricHead<'_>,
        write: impl FnOnce(&mut ProtoWriter),
    ) {
        if self.resources.last().is_none_or(|last| !Arc::ptr_eq(&last.resource, resource)) {
            self.around += RESOURCE + resource.len();
            self.resources.push(ResourceMetrics { resource: Arc::clone(resource), metrics: Vec::new() });
        }
        let Some(ResourceMetrics { metrics, .. }) = self.resources.last_mut() else { return };
        let start = self.points.len();
        if metrics.last().is_none_or(|last| last.name != head.name || last.kind != head.kind) {
            let metric = MetricPoints::new(head, start);
            self.around += METRIC + metric.head.len();
            metrics.push(metric);
        }
        self.points.write_message(1, write);
        if let Some(metric) = metrics.last_mut() {
            metric.points.end = self.points.len();
        }
    }
}

impl MetricPoints {
    fn new(MetricHead { name, help, unit, kind }: MetricHead<'_>, start: usize) -> Self {
        let mut head = ProtoWriter::default();
        head.write_string(1, name);
        head.write_string(2, help);
        head.write_string(3, unit);
        Self { name: name.to_owned(), kind, head, points: start..start }
    }

    fn write_fields(&self, out: &mut ProtoWriter, points: &[u8], temporality: OtlpTemporality) {
        out.append_fields(self.head.as_bytes());
        let tag = match self.kind {
            MetricKind::Gauge => 5,
            MetricKind::Sum { .. } => 7,
            MetricKind::ExponentialHistogram => 10,
        };
        out.write_message(tag, |out| {
            out.append_fields(points);
            if self.kind != MetricKind::Gauge {
                out.write_uint(2, if temporality == OtlpTemporality::Delta { 1 } else { 2 });
            }
            out.write_uint(3, (self.kind == MetricKind::Sum { monotonic: true }).into());
        });
    }
}

/// How far a request was filled.
pub(super) struct OtlpMark {
    resources: usize,
    metrics: usize,
    points: usize,
    around: usize,
}

impl RequestBody for OtlpRequest {
    type Mark = OtlpMark;

    fn mark(&mut self) -> OtlpMark {
        OtlpMark {
            resources: self.resources.len(),
            metrics: self.resources.last().map_or(0, |last| last.metrics.len()),
            points: self.points.len(),
            around: self.around,
        }
    }

    fn roll_back(&mut self, mark: OtlpMark) {
        self.resources.truncate(mark.resources);
        self.points.truncate_to(mark.points);
        self.around = mark.around;
        if let Some(last) = self.resources.last_mut() {
            last.metrics.truncate(mark.metrics);
            if let Some(metric) = last.metrics.last_mut() {
                metric.points.end = metric.points.end.min(mark.points);
            }
        }
    }

    fn body_len(&self) -> usize {
        self.points.len() + self.around
    }

    fn take_body(&mut self) -> EncodedBody {
        let done = std::mem::replace(self, Self::new(self.temporality));
        let mut out = ProtoWriter::default();
        for ResourceMetrics { resource, metrics } in &done.resources {
            out.write_message(1, |out| {
                out.append_fields(resource);
                out.write_message(2, |out| {
                    out.write_message(1, |out| out.write_string(1, SCOPE));
                    for metric in metrics {
                        let points = done.points.as_bytes().get(metric.points.clone()).unwrap_or_default();
                        out.write_message(2, |out| metric.write_fields(out, points, done.temporality));
                    }
                });
            });
        }
        EncodedBody { body: out.into_bytes(), content_type: "application/x-protobuf", content_encoding: None }
    }
}
