//! The messages of Prometheus' protobuf format that the agent serves, maintained by hand; `proto/metrics.proto` explains them.

/// Series of the same name that differ in their labels.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MetricFamily {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) help: String,
    /// One of the five constants below. Written even if it is 0, which means a counter.
    #[prost(int32, optional, tag = "3")]
    pub(super) kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub(super) metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    pub(super) unit: String,
}

pub(super) const COUNTER: i32 = 0;
pub(super) const GAUGE: i32 = 1;
pub(super) const SUMMARY: i32 = 2;
pub(super) const UNTYPED: i32 = 3;
pub(super) const HISTOGRAM: i32 = 4;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LabelPair {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// One series. The kind of its family determines which of the five values is set.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(super) label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub(super) gauge: Option<ProtoNumber>,
    #[prost(message, optional, tag = "3")]
    pub(super) counter: Option<ProtoCounter>,
    #[prost(message, optional, tag = "4")]
    pub(super) summary: Option<ProtoSummary>,
    #[prost(message, optional, tag = "5")]
    pub(super) untyped: Option<ProtoNumber>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<ProtoHistogram>,
}

/// The value of a gauge or of an untyped metric.
#[derive(Copy, Clone, PartialEq, prost::Message)]
pub(super) struct ProtoNumber {
    #[prost(double, optional, tag = "1")]
    pub(super) value: Option<f64>,
}

#[derive(Copy, Clone, PartialEq, prost::Message)]
pub(super) struct ProtoCounter {
    #[prost(double, optional, tag = "1")]
    pub(super) value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    pub(super) created: Option<Time>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoSummary {
    #[prost(uint64, optional, tag = "1")]
    pub(super) count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) quantile: Vec<Quantile>,
}

#[derive(Copy, Clone, PartialEq, prost::Message)]
pub(super) struct Quantile {
    #[prost(double, optional, tag = "1")]
    pub(super) quantile: Option<f64>,
    #[prost(double, optional, tag = "2")]
    pub(super) value: Option<f64>,
}

/// A classic histogram has buckets, a native one has spans.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoHistogram {
    #[prost(uint64, optional, tag = "1")]
    pub(super) count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) bucket: Vec<Bucket>,
    /// Used instead of `count` if counts are not whole numbers.
    #[prost(double, optional, tag = "4")]
    pub(super) count_float: Option<f64>,
    #[prost(sint32, optional, tag = "5")]
    pub(super) schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    pub(super) zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    pub(super) zero_count: Option<u64>,
    #[prost(double, optional, tag = "8")]
    pub(super) zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "9")]
    pub(super) negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "10")]
    pub(super) negative_delta: Vec<i64>,
    #[prost(double, repeated, tag = "11")]
    pub(super) negative_count: Vec<f64>,
    #[prost(message, repeated, tag = "12")]
    pub(super) positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    pub(super) positive_delta: Vec<i64>,
    #[prost(double, repeated, tag = "14")]
    pub(super) positive_count: Vec<f64>,
    #[prost(message, optional, tag = "15")]
    pub(super) created: Option<Time>,
}

/// A cumulative bucket: the number of values less than or equal to a bound.
#[derive(Copy, Clone, PartialEq, prost::Message)]
pub(super) struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    pub(super) count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) bound: Option<f64>,
}

/// Adjacent buckets of a native histogram, without a gap between them.
#[derive(Copy, Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct BucketSpan {
    /// The number of buckets skipped since the previous span; for the first span, the index of its first bucket.
    #[prost(sint32, optional, tag = "1")]
    pub(crate) offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub(crate) length: Option<u32>,
}

/// `google.protobuf.Timestamp`.
#[derive(Copy, Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Time {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}
