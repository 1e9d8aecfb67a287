//! Encodes a container's summary, which accompanies its windows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallyport_wal::decode;

use super::{ContainerSummary, LastCheck, Ledger, LedgerRow, PersistentValue};
use crate::aggregate::aggregator::Habits;
use crate::aggregate::aggregator::snapshot::MANY;
use crate::aggregate::histogram::Histogram;
use crate::aggregate::record::{EVENTS, EventRecord};
use crate::aggregate::state::CheckOutcome;
use crate::aggregate::window::{CodecError, KnownLayout, Layout};
use crate::model::{MetricType, Series, Timestamp};
use tallyport_wal::encode_after;

#[derive(Serialize, Deserialize)]
struct SummaryV3 {
    layout: u64,
    rows: Box<[LedgerRow]>,
    histograms: Box<[Option<Histogram>]>,
    events: Vec<Arc<EventRecord>>,
    checks: Vec<(Arc<Series>, Timestamp, Arc<CheckOutcome>)>,
    lasting: Vec<PersistentValue>,
    habits: Habits,
}

impl PersistentValue {
    /// Whether an aggregator can have produced it.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let lasts = !matches!(self.series.metric_type, MetricType::Set | MetricType::ServiceCheck);
        lasts && self.value.is_finite()
    }
}

impl Ledger {
    /// The series of its rows.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

impl ContainerSummary {
    /// A summary with an empty ledger.
    #[must_use]
    pub fn without_ledger(
        events: Vec<Arc<EventRecord>>,
        checks: Vec<LastCheck>,
        lasting: Vec<PersistentValue>,
        habits: Habits,
    ) -> Self {
        let ledger = Ledger { layout: Layout::from([]), rows: Box::default(), histograms: Box::default() };
        let (events, checks, lasting) = (events.into(), checks.into(), lasting.into());
        Self { ledger: Arc::new(ledger), events, checks, lasting, habits }
    }

    /// Appends the encoded summary. `layout` is the fingerprint of its ledger's layout, which is stored separately.
    pub fn encode(&self, layout: u64, out: &mut Vec<u8>) {
        let checks =
            self.checks.iter().map(|check| (Arc::clone(&check.series), check.at, Arc::clone(&check.outcome)));
        let summary = SummaryV3 {
            layout,
            rows: self.ledger.rows.clone(),
            histograms: self.ledger.histograms.clone(),
            events: self.events.to_vec(),
            checks: checks.collect(),
            lasting: self.lasting.to_vec(),
            habits: self.habits,
        };
        *out = encode_after(std::mem::take(out), &summary);
    }

    /// The summary that [`ContainerSummary::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not a summary with this layout.
    pub fn decode(bytes: &[u8], layout: &KnownLayout) -> Result<Self, CodecError> {
        let summary: SummaryV3 = decode(bytes).ok_or(CodecError::Damaged)?;
        if summary.layout != layout.fingerprint() {
            return Err(CodecError::OtherLayout);
        }
        let is_check = |series: &Series| series.metric_type == MetricType::ServiceCheck;
        let plausible = summary.rows.iter().all(|row| row.total.is_finite())
            && summary.histograms.iter().flatten().all(Histogram::is_plausible)
            && summary.events.len() <= EVENTS
            && summary.checks.iter().all(|(series, ..)| is_check(series))
            && summary.lasting.iter().all(PersistentValue::is_plausible)
            && summary.habits.is_plausible(MANY);
        if !plausible {
            return Err(CodecError::Damaged);
        }
        let checks =
            summary.checks.into_iter().map(|(series, at, outcome)| LastCheck { series, at, outcome });
        let SummaryV3 { rows, histograms, habits, .. } = summary;
        Ok(Self {
            ledger: Arc::new(Ledger { layout: Arc::clone(layout.layout()), rows, histograms }),
            events: summary.events.into(),
            checks: checks.collect(),
            lasting: summary.lasting.into(),
            habits,
        })
    }
}
