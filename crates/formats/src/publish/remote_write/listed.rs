//! The samples of a round as values, for a reader that compares them with what a receiver answers.

use std::ops::Range;

use super::labels::{IdentityLabels, SampleLabels};
use super::point::{FamilyText, PointValue, SamplePoint, SeriesBody};
use super::{IdentityRuns, RemoteWriteOptions, SampleWriter};
use crate::publish::{Round, RoundRecord};

/// A sample of a round.
#[derive(Clone, PartialEq, Debug)]
pub struct ScrapedSample {
    /// Its labels, sorted by name, `__name__` among them.
    pub labels: Vec<(String, String)>,
    /// Its value; of cumulative samples what [`RoundRecord::running`] says.
    pub value: ScrapedValue,
    /// Whether its series only grows while it lasts. Such a sample is listed only if its record has running totals.
    pub cumulative: bool,
}

/// The value of a sample.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum ScrapedValue {
    /// A number.
    Number(f64),
    /// A native histogram, without its buckets.
    Histogram {
        /// The number of values, weighted by 1/rate.
        count: f64,
        /// Their sum.
        sum: f64,
    },
}

/// Lists what [`encode_remote_write`](super::encode_remote_write) sends of a range of a round. The protocol and the metadata of
/// the options make no difference.
#[must_use]
pub fn list_samples(
    round: &Round<'_>,
    records: Range<usize>,
    options: &RemoteWriteOptions,
) -> Vec<ScrapedSample> {
    let mut list = SampleList::default();
    let external = options.external_labels(round.node);
    let names = (round.level, round.marks);
    for run in IdentityRuns::<RoundRecord<'_>>::new(&round.records, records, names, options.spelling()) {
        let labels = IdentityLabels::new(&run.identity, &external);
        for series in run.series.iter().filter(|series| !series.clashes) {
            if let Some(record) = round.records.get(series.index) {
                let mut writer = SampleWriter::new(&mut list, series, &labels);
                writer.write_record(record, series, round.end);
            }
        }
    }
    list.0
}

#[derive(Default)]
struct SampleList(Vec<ScrapedSample>);

impl SeriesBody for SampleList {
    fn push_series(
        &mut self,
        labels: SampleLabels<'_>,
        point: &SamplePoint<'_>,
        _family: Option<FamilyText<'_>>,
    ) {
        let value = match point.value {
            PointValue::Number(number) => ScrapedValue::Number(number),
            PointValue::Native { buckets, sum } => {
                ScrapedValue::Histogram { count: buckets.count().as_f64(), sum }
            }
            PointValue::NoValues | PointValue::Stale | PointValue::StaleNative => return,
        };
        let mut listed = Vec::with_capacity(labels.count_slots() + 1);
        labels.for_each(|_, name, value| listed.push((name.to_owned(), value.to_owned())));
        self.0.push(ScrapedSample { labels: listed, value, cumulative: point.created.is_some() });
    }
}
