//! Builds windows.

use std::sync::Arc;

use super::{
    CarriedRow, CheckRow, CounterRow, DistributionRow, GaugeRow, Layout, Offset, RangeRow, SetRow, Slice,
    Window, WindowSpan,
};
use crate::aggregate::LedgerRow;
use crate::aggregate::distribution::Distribution;
use crate::aggregate::gauge::Gauge;
use crate::aggregate::state::{Counter, SeriesState};
use crate::aggregate::weight::Weight;

/// Builds a window record by record, in ascending order of places.
#[derive(Debug)]
pub struct WindowBuilder {
    span: WindowSpan,
    counters: Vec<CounterRow>,
    gauges: Vec<GaugeRow>,
    ranges: Vec<RangeRow>,
    carried: Vec<CarriedRow>,
    distributions: Vec<DistributionRow>,
    sets: Vec<SetRow>,
    checks: Vec<CheckRow>,
    decremented: Vec<u32>,
    counts: Vec<(u32, Weight)>,
    bytes: Vec<u8>,
}

impl WindowBuilder {
    /// A window without records.
    #[must_use]
    pub fn new(span: WindowSpan) -> Self {
        Self {
            span,
            counters: Vec::new(),
            gauges: Vec::new(),
            ranges: Vec::new(),
            carried: Vec::new(),
            distributions: Vec::new(),
            sets: Vec::new(),
            checks: Vec::new(),
            decremented: Vec::new(),
            counts: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Adds the record of the series at `place`, with its ledger row.
    pub fn push_with(&mut self, place: u32, state: &SeriesState, ledger: &LedgerRow) {
        match state {
            SeriesState::Counter(counter) if ledger.decremented => {
                let counter = Counter { decremented: true, ..*counter };
                self.push(place, &SeriesState::Counter(counter), ledger.total);
            }
            state => self.push(place, state, ledger.total),
        }
    }

    /// Adds the record of the series at `place`. `total` is its ledger's total, used for a counter. A state without
    /// samples adds nothing, except for a gauge, which is carried.
    pub fn push(&mut self, place: u32, state: &SeriesState, total: f64) {
        let samples = u32::try_from(state.sample_count()).unwrap_or(u32::MAX);
        let count = state.count();
        if samples > 0 && count != Weight::from_count(u64::from(samples)) {
            self.counts.push((place, count));
        }
        match state {
            SeriesState::Gauge(gauge) if samples == 0 => {
                self.carried.push(CarriedRow { place, last: gauge.last, last_at: gauge.last_at });
            }
            _ if samples == 0 => {}
            SeriesState::Counter(counter) => {
                self.counters.push(CounterRow { place, samples, sum: counter.sum, total });
                if counter.decremented {
                    self.decremented.push(place);
                }
            }
            SeriesState::Gauge(gauge) => self.push_gauge(place, samples, gauge),
            SeriesState::Distribution(values) => self.push_distribution(place, samples, values),
            SeriesState::Set(set) => {
                let members = self.append_packed(|out| set.pack_members(out));
                self.sets.push(SetRow { place, samples, members });
            }
            SeriesState::Check(check) => {
                if let Some(outcome) = &check.outcome {
                    let outcome = Arc::clone(outcome);
                    self.checks.push(CheckRow { place, samples, last_at: check.last_at, outcome });
                }
            }
        }
    }

    fn push_gauge(&mut self, place: u32, samples: u32, gauge: &Gauge) {
        let last_at = Offset::new(gauge.last_at, self.span.start);
        self.gauges.push(GaugeRow { place, samples, last: gauge.last, last_at });
        // Without a range, both its ends are read as the last value. 0 and -0 are equal, but have different bits.
        if gauge.min < gauge.max || gauge.min.to_bits() != gauge.last.to_bits() {
            self.ranges.push(RangeRow { place, min: gauge.min, max: gauge.max });
        }
    }

    fn push_distribution(&mut self, place: u32, samples: u32, values: &Distribution) {
        let sketch = self.append_packed(|out| values.sketch.pack_into(out));
        let summary = &values.summary;
        self.distributions.push(DistributionRow {
            place,
            samples,
            sum: summary.sum,
            min: summary.min,
            max: summary.max,
            first: summary.first,
            last: summary.last,
            squares: summary.squared_deviations(),
            first_at: Offset::new(summary.first_at, self.span.start),
            last_at: Offset::new(summary.last_at, self.span.start),
            sketch,
        });
    }

    #[expect(clippy::expect_used, reason = "a wrong place would give a record the values of another")]
    fn append_packed(&mut self, pack: impl FnOnce(&mut Vec<u8>)) -> Slice {
        let start = self.bytes.len();
        pack(&mut self.bytes);
        let at = |place: usize| u32::try_from(place).expect("one window packs less than 4 GiB");
        Slice { start: at(start), length: at(self.bytes.len() - start) }
    }

    /// The finished window.
    #[must_use]
    pub fn build(self, layout: Layout) -> Window {
        Window {
            span: self.span,
            layout,
            counters: self.counters.into(),
            gauges: self.gauges.into(),
            ranges: self.ranges.into(),
            carried: self.carried.into(),
            distributions: self.distributions.into(),
            sets: self.sets.into(),
            checks: self.checks.into(),
            decremented: self.decremented.into(),
            counts: self.counts.into(),
            bytes: self.bytes.into(),
        }
    }
}
