//! The samples of one series of a round.

use std::time::Duration;

use tallyport_core::model::Timestamp;

use super::point::{FamilyText, FamilyType, PointValue, SamplePoint, SeriesBody};
use crate::prometheus::scraped::format_help;
use crate::prometheus::shape::{Declared, Stat};
use crate::prometheus::stat::{QUANTILES, Reading, emit_numbers};
use crate::publish::RoundRecord;
use crate::publish::labels::LabelOf;
use crate::publish::scraped::ScrapedSeries;

/// The label that is the name.
pub(super) const NAME: &str = "__name__";

/// How long after the start of its first window the zero of a series is. A series of this name can have been in the window before,
/// and have ended a millisecond after it with a stale marker ([`super::ENDED_AFTER`]).
const ZERO_AFTER: Duration = Duration::from_millis(2);

/// Writes the samples of a series.
pub(super) struct SampleWriter<'w> {
    body: &'w mut dyn SeriesBody,
    family: &'w str,
    /// All labels but those of single samples, sorted by name.
    labels: Vec<(&'w str, &'w str)>,
    written: bool,
}

impl<'w> SampleWriter<'w> {
    pub(super) fn new(
        body: &'w mut dyn SeriesBody,
        series: &'w ScrapedSeries<'_>,
        identity: &'w [LabelOf<'_>],
        external: &[(&'w str, &'w str)],
    ) -> Self {
        let own = identity.iter().chain(&series.tags).map(|(name, value)| (name.as_ref(), value.as_ref()));
        let mut labels: Vec<_> = own.chain(external.iter().copied()).collect();
        // Of two with one name, the first is kept.
        labels.sort_by_key(|(name, _)| *name);
        labels.dedup_by_key(|(name, _)| *name);
        Self { body, family: &series.family, labels, written: false }
    }

    /// Whether there was any sample.
    pub(super) fn has_written(&self) -> bool {
        self.written
    }

    /// Writes what a record says.
    pub(super) fn write_record(
        &mut self,
        record: &RoundRecord<'_>,
        series: &ScrapedSeries<'_>,
        at: Timestamp,
    ) {
        let help = format_help(record.series);
        let divisor = series.shape.divisor();
        for (stat, suffix) in series.sent_parts() {
            let family = self.describe(record, series, suffix);
            let text = family.as_text(&help);
            let created = record.running.filter(|_| is_cumulative(stat)).map(|running| running.created);
            let point = |value| SamplePoint { value, at, created };
            if stat == Stat::Native {
                if let Some((running, buckets)) =
                    record.running.and_then(|running| Some((running, running.buckets?)))
                {
                    let value = PointValue::Native { buckets, sum: running.total / divisor };
                    self.put(suffix, None, &point(value), Some(text));
                }
                continue;
            }
            emit_numbers(stat, divisor, record, &mut |reading| match reading {
                Reading::One(value) => self.put(suffix, None, &point(PointValue::Number(value)), Some(text)),
                Reading::Labelled { name, text: label, value, .. } => {
                    let value = PointValue::Number(value);
                    self.put(suffix, Some((name, label)), &point(value), Some(text));
                }
                Reading::Native { .. } => {}
            });
        }
    }

    /// Writes a zero for each cumulative sample.
    pub(super) fn write_zeros(&mut self, record: &RoundRecord<'_>, series: &ScrapedSeries<'_>) {
        let help = format_help(record.series);
        for (stat, suffix) in series.sent_parts().filter(|(stat, _)| is_cumulative(*stat)) {
            let value = match stat {
                Stat::Native => PointValue::NoValues,
                _ => PointValue::Number(0.0),
            };
            let at = record.span.start.saturating_add(ZERO_AFTER);
            let family = self.describe(record, series, suffix);
            self.put(suffix, None, &SamplePoint { value, at, created: None }, Some(family.as_text(&help)));
        }
    }

    /// Writes the end of every sample that the series can have.
    pub(super) fn write_stale_markers(&mut self, series: &ScrapedSeries<'_>, at: Timestamp) {
        for (stat, suffix) in series.sent_parts() {
            let point = |value| SamplePoint { value, at, created: None };
            match stat {
                Stat::Native => self.put(suffix, None, &point(PointValue::StaleNative), None),
                Stat::Quantiles => {
                    for (text, _) in QUANTILES {
                        self.put(suffix, Some(("quantile", text)), &point(PointValue::Stale), None);
                    }
                }
                _ => self.put(suffix, None, &point(PointValue::Stale), None),
            }
        }
    }

    /// Describes the family of a part. A family with a single sample has the sample's name, as in the older formats of a page.
    fn describe(
        &self,
        record: &RoundRecord<'_>,
        series: &ScrapedSeries<'_>,
        suffix: &str,
    ) -> FamilyDescription {
        let alone = series.sent_parts().count() == 1 || series.shape.declared == Declared::Unknown;
        let name = if alone { format!("{}{suffix}", self.family) } else { self.family.to_owned() };
        let kind = match series.shape.declared {
            Declared::Counter | Declared::Summary if record.can_decrease() => FamilyType::Unknown,
            Declared::Counter => FamilyType::Counter,
            Declared::Gauge => FamilyType::Gauge,
            Declared::Summary => FamilyType::Summary,
            Declared::Histogram | Declared::Native => FamilyType::Histogram,
            Declared::Unknown => FamilyType::Unknown,
        };
        FamilyDescription { name, kind, unit: series.shape.unit }
    }

    fn put(
        &mut self,
        suffix: &str,
        more: Option<(&str, &str)>,
        point: &SamplePoint<'_>,
        family: Option<FamilyText<'_>>,
    ) {
        let name = format!("{}{suffix}", self.family);
        let mut labels: Vec<(&str, &str)> = Vec::with_capacity(self.labels.len() + 2);
        labels.extend(&self.labels);
        for (key, value) in [(NAME, name.as_str())].into_iter().chain(more) {
            match labels.binary_search_by_key(&key, |(name, _)| *name) {
                Ok(at) => labels.get_mut(at).into_iter().for_each(|label| label.1 = value),
                Err(at) => labels.insert(at, (key, value)),
            }
        }
        self.body.push_series(&labels, point, family);
        self.written = true;
    }
}

/// A [`FamilyText`] that owns its name.
struct FamilyDescription {
    name: String,
    kind: FamilyType,
    unit: &'static str,
}

impl FamilyDescription {
    fn as_text<'t>(&'t self, help: &'t str) -> FamilyText<'t> {
        FamilyText { name: &self.name, kind: self.kind, help, unit: self.unit }
    }
}

/// Whether a part only grows while its series lasts, from zero.
fn is_cumulative(stat: Stat) -> bool {
    matches!(stat, Stat::Total | Stat::Sum | Stat::Count | Stat::Buckets | Stat::Native)
}
