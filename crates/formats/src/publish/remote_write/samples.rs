//! The samples of one series of a round.

use std::borrow::Cow;
use std::time::Duration;

use tallyport_core::model::Timestamp;

use super::labels::{IdentityLabels, SampleLabels, SeriesLabels};
use super::point::{FamilyText, FamilyType, PointValue, SamplePoint, SeriesBody};
use crate::prometheus::scraped::format_help;
use crate::prometheus::shape::{Declared, Stat};
use crate::prometheus::stat::{QUANTILES, Reading, emit_numbers};
use crate::publish::RoundRecord;
use crate::publish::scraped::ScrapedSeries;

/// How long after the start of its first window the zero of a series is. A series of this name can have been in the window before,
/// and have ended a millisecond after it with a stale marker ([`super::ENDED_AFTER`]).
const ZERO_AFTER: Duration = Duration::from_millis(2);

/// Writes the samples of a series.
pub(super) struct SampleWriter<'w> {
    body: &'w mut dyn SeriesBody,
    family: &'w str,
    labels: Cow<'w, SeriesLabels<'w>>,
    /// The name of the last sample.
    name: String,
    written: bool,
}

impl<'w> SampleWriter<'w> {
    pub(super) fn new(
        body: &'w mut dyn SeriesBody,
        series: &'w ScrapedSeries<'_>,
        labels: &'w IdentityLabels<'_>,
    ) -> Self {
        let labels = labels.of_series(&series.tags);
        Self { body, family: &series.family, labels, name: String::new(), written: false }
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
            let text = self.describe(record, series, (suffix, &help));
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
            let text = self.describe(record, series, (suffix, &help));
            self.put(suffix, None, &SamplePoint { value, at, created: None }, Some(text));
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
    fn describe<'t>(
        &self,
        record: &RoundRecord<'_>,
        series: &ScrapedSeries<'_>,
        (suffix, help): (&'static str, &'t str),
    ) -> FamilyText<'t>
    where
        'w: 't,
    {
        let alone = series.sent_parts().count() == 1 || series.shape.declared == Declared::Unknown;
        let kind = match series.shape.declared {
            Declared::Counter | Declared::Summary if record.can_decrease() => FamilyType::Unknown,
            Declared::Counter => FamilyType::Counter,
            Declared::Gauge => FamilyType::Gauge,
            Declared::Summary => FamilyType::Summary,
            Declared::Histogram | Declared::Native => FamilyType::Histogram,
            Declared::Unknown => FamilyType::Unknown,
        };
        let name = (self.family, if alone { suffix } else { "" });
        FamilyText { name, kind, help, unit: series.shape.unit }
    }

    fn put(
        &mut self,
        suffix: &str,
        more: Option<(&str, &str)>,
        point: &SamplePoint<'_>,
        family: Option<FamilyText<'_>>,
    ) {
        self.name.clear();
        self.name.push_str(self.family);
        self.name.push_str(suffix);
        self.body.push_series(SampleLabels { series: &self.labels, name: &self.name, more }, point, family);
        self.written = true;
    }
}

/// Whether a part only grows while its series lasts, from zero.
fn is_cumulative(stat: Stat) -> bool {
    matches!(stat, Stat::Total | Stat::Sum | Stat::Count | Stat::Buckets | Stat::Native)
}
