//! A receiver of remote write that accepts and refuses what Prometheus does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;

use super::{Backend, Received, Reply};

/// The number that ends a series.
const STALE: u64 = 0x7ff0_0000_0000_0002;
const WRITTEN: &str = "X-Prometheus-Remote-Write-Samples-Written: 1";

pub(super) type Labels = BTreeMap<String, String>;

/// A sample of a series, its value as bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SentSample {
    pub(super) labels: Labels,
    pub(super) at: i64,
    pub(super) bits: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct InternedRequest {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<InternedSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct InternedSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

/// Whether a request is one of 2.0.
pub(super) fn is_v2(request: &Received) -> bool {
    request.headers["content-type"].contains("io.prometheus.write.v2.Request")
}

/// The samples of a request.
pub(super) fn decode(request: &Received) -> Vec<SentSample> {
    assert_eq!(request.headers["content-encoding"], "snappy");
    let message = snap::raw::Decoder::new().decompress_vec(&request.body).unwrap();
    let all: Vec<(Labels, Vec<Sample>)> = if is_v2(request) {
        let InternedRequest { symbols, timeseries } = InternedRequest::decode(message.as_slice()).unwrap();
        let text = |number: &u32| symbols[*number as usize].clone();
        let labels = |refs: &[u32]| refs.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        timeseries.into_iter().map(|series| (labels(&series.labels_refs), series.samples)).collect()
    } else {
        let decoded = WriteRequest::decode(message.as_slice()).unwrap();
        let labels = |labels: Vec<Label>| labels.into_iter().map(|label| (label.name, label.value)).collect();
        decoded.timeseries.into_iter().map(|series| (labels(series.labels), series.samples)).collect()
    };
    let samples = all.into_iter().flat_map(|(labels, samples)| {
        samples.into_iter().map(move |Sample { value, timestamp }| SentSample {
            labels: labels.clone(),
            at: timestamp,
            bits: value.to_bits(),
        })
    });
    samples.collect()
}

/// The values of samples, without those that end a series.
fn values(samples: &[(i64, u64)]) -> Vec<f64> {
    samples.iter().filter(|(_, bits)| *bits != STALE).map(|(_, bits)| f64::from_bits(*bits)).collect()
}

/// What is stored, and what was refused.
#[derive(Default, Debug)]
pub(super) struct Stored {
    series: BTreeMap<Labels, Vec<(i64, u64)>>,
    pub(super) refused: Vec<(SentSample, &'static str)>,
}

/// A receiver, and what it has stored.
pub(super) struct Receiver {
    pub(super) backend: Backend,
    stored: Arc<Mutex<Stored>>,
    speaks_v2: bool,
}

impl Stored {
    /// Why a sample is refused, if it is.
    fn refuse(&self, sample: &SentSample) -> Option<&'static str> {
        let (at, bits) = self.series.get(&sample.labels)?.last()?;
        match sample.at.cmp(at) {
            std::cmp::Ordering::Less => Some("out of order sample"),
            std::cmp::Ordering::Equal => (sample.bits != *bits).then_some("duplicate sample for timestamp"),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// Takes a request as Prometheus does: of 1.0 nothing is stored if one sample is refused, of 2.0 the others are.
    pub(super) fn take(&mut self, request: &Received, speaks_v2: bool) -> Reply {
        if is_v2(request) && !speaks_v2 {
            // Nothing of it is understood.
            return Reply::Status(204, "", "");
        }
        let header = if is_v2(request) { WRITTEN } else { "" };
        let (refused, accepted): (Vec<_>, Vec<_>) = decode(request)
            .into_iter()
            .map(|sample| (self.refuse(&sample), sample))
            .partition(|(why, _)| why.is_some());
        let why = refused.first().and_then(|(why, _)| *why);
        self.refused.extend(refused.into_iter().filter_map(|(why, sample)| Some((sample, why?))));
        if why.is_none() || is_v2(request) {
            for (_, sample) in accepted {
                let samples = self.series.entry(sample.labels).or_default();
                if samples.last() != Some(&(sample.at, sample.bits)) {
                    samples.push((sample.at, sample.bits));
                }
            }
        }
        match why {
            Some(why) => Reply::Status(400, header, why),
            None => Reply::Status(204, header, ""),
        }
    }

    fn named<'s>(&'s self, name: &str) -> impl Iterator<Item = (&'s Labels, &'s Vec<(i64, u64)>)> {
        self.series.iter().filter(move |(labels, _)| labels["__name__"] == name)
    }

    /// What `increase()` over everything says of the series with a name, together. The first sample of each counts nothing.
    pub(super) fn increase(&self, name: &str) -> f64 {
        let step = |pair: &[f64]| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] };
        let of = |samples: &[(i64, u64)]| values(samples).windows(2).map(step).sum::<f64>();
        self.named(name).map(|(_, samples)| of(samples)).sum()
    }

    /// The series with a name whose increase is more than this, with their samples.
    pub(super) fn samples_of_more_than(&self, name: &str, most: f64) -> Vec<(Labels, Vec<(i64, f64)>)> {
        let named = self.named(name).map(|(labels, samples)| {
            (labels.clone(), samples.iter().map(|(at, bits)| (*at, f64::from_bits(*bits))).collect())
        });
        let increase = |samples: &[(i64, f64)]| {
            samples.iter().map(|(_, value)| *value).filter(|it| !it.is_nan()).sum::<f64>()
        };
        named.filter(|(_, samples): &(_, Vec<_>)| increase(samples) > most).collect()
    }

    /// How often the series with a name began again.
    pub(super) fn resets(&self, name: &str) -> usize {
        let of = |samples: &[(i64, u64)]| values(samples).windows(2).filter(|pair| pair[1] < pair[0]).count();
        self.named(name).map(|(_, samples)| of(samples)).sum()
    }

    /// The samples of the series with a name, together.
    pub(super) fn samples(&self, name: &str) -> Vec<(i64, f64)> {
        self.named(name)
            .flat_map(|(_, all)| all.iter().map(|(at, bits)| (*at, f64::from_bits(*bits))))
            .collect()
    }

    /// The labels of every series that has not ended.
    pub(super) fn lasting(&self) -> Vec<&Labels> {
        let lasts = |samples: &Vec<(i64, u64)>| samples.last().is_some_and(|(_, bits)| *bits != STALE);
        self.series.iter().filter(|(_, samples)| lasts(samples)).map(|(labels, _)| labels).collect()
    }

    /// Makes the newest sample of the series with a name this many milliseconds newer, as if another sender had sent it.
    pub(super) fn move_newest(&mut self, name: &str, by: i64) {
        let named = self.series.iter_mut().filter(|(labels, _)| labels["__name__"] == name);
        named.filter_map(|(_, samples)| samples.last_mut()).for_each(|newest| newest.0 += by);
    }

    /// The number of series.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }
}

impl Receiver {
    pub(super) fn new(speaks_v2: bool) -> Self {
        let stored: Arc<Mutex<Stored>> = Arc::default();
        let new = Self { backend: Backend::new(|_| Reply::Hang), stored, speaks_v2 };
        new.follow(|_| None);
        new
    }

    /// Answers what the script does, and where it says nothing, as Prometheus does.
    pub(super) fn follow(&self, mut script: impl FnMut(&Received) -> Option<Reply> + Send + 'static) {
        let (stored, speaks_v2) = (Arc::clone(&self.stored), self.speaks_v2);
        self.backend.follow(move |request| {
            let taken = || stored.lock().unwrap_or_else(PoisonError::into_inner).take(request, speaks_v2);
            script(request).unwrap_or_else(taken)
        });
    }

    /// What is stored, for scripts.
    pub(super) fn stored_apart(&self) -> Arc<Mutex<Stored>> {
        Arc::clone(&self.stored)
    }

    /// Gives another receiver what this one has.
    pub(super) fn share_with(&self, other: &Self) {
        *other.stored() = std::mem::take(&mut *self.stored());
    }

    /// What is stored now.
    pub(super) fn stored(&self) -> std::sync::MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
