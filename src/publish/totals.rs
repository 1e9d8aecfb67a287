//! Running totals: the cumulative value of each series, from what windows have added. For receivers that compute increases
//! themselves, such as those of Prometheus remote write. They also say which series were sent, and have to be ended.
//!
//! The ledger of a container has its newest total alone. A publisher reads windows that are minutes old, or hours, and
//! needs the totals as of those. They are sums that do not depend on the order in which containers close.
//!
//! What a round adds is staged under its start, and counted for good when the round is finished. A round that is read again
//! meanwhile has the values that were sent, also where some of its windows are gone.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::aggregate::{Native, View, Weight};
use crate::model::{ByIdentity, MetricType, Origin, Series, Timestamp};
use crate::render::prometheus::{SeriesIdentity, Total};
use crate::render::publish::RunningTotal;

/// What a publisher has sent of each series.
#[derive(Clone, Debug)]
pub struct RunningTotals {
    of_identity: HashMap<SeriesIdentity, IdentityTotals>,
    /// The most series that are remembered.
    most: usize,
    /// Whether values are counted in buckets as well.
    in_buckets: bool,
}

#[derive(Clone, Debug)]
struct IdentityTotals {
    /// One of the identity's containers.
    origin: Arc<Origin>,
    of_series: HashMap<ByIdentity, SeriesTotal, RandomState>,
}

/// The totals of one identity, while a round adds to them.
#[derive(Debug)]
pub struct StagedIdentity<'t> {
    totals: &'t mut IdentityTotals,
    in_buckets: bool,
}

#[derive(Clone, Debug)]
struct SeriesTotal {
    created: Timestamp,
    sums: SeriesSums,
    /// What the round under way adds.
    staged: Option<Staged>,
    last_seen: Timestamp,
    /// Whether a value was sent.
    sent: bool,
}

#[derive(Clone, Debug)]
struct Staged {
    start: Timestamp,
    sums: SeriesSums,
}

/// What was added up.
#[derive(Clone, Debug)]
struct SeriesSums {
    total: Total,
    count: Weight,
    buckets: Option<Arc<Native>>,
}

/// A series' total as of a round.
#[derive(Clone, Debug)]
pub struct SeriesRunning {
    created: Timestamp,
    total: f64,
    count: f64,
    buckets: Option<Arc<Native>>,
    first: bool,
}

/// Series of one identity of which nothing more is sent.
#[derive(Clone, Debug)]
pub struct EndedIdentity {
    /// Its labels.
    pub identity: SeriesIdentity,
    /// One of its containers.
    pub origin: Arc<Origin>,
    /// Those of its series of which something was sent.
    pub series: Vec<Arc<Series>>,
}

impl SeriesSums {
    fn zero() -> Self {
        Self { total: Total::default(), count: Weight::ZERO, buckets: None }
    }

    /// What a record adds. Zero for a gauge, a set or a check, which have no totals.
    fn from_view(view: &View<'_>, metric_type: MetricType, in_buckets: bool) -> Self {
        let (sum, count) = match view {
            View::Counter { counter, .. } => (counter.sum, counter.count),
            View::Distribution { summary, .. } => (summary.sum, summary.count),
            View::Gauge(_) | View::Set { .. } | View::Check { .. } => return Self::zero(),
        };
        let buckets = in_buckets.then(|| view.to_native(metric_type)).flatten();
        Self { total: Total::from(sum), count, buckets: buckets.map(Arc::new) }
    }

    fn add(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        self.count = self.count.saturating_add(other.count);
        match (&mut self.buckets, &other.buckets) {
            (Some(buckets), Some(others)) => {
                // The unit depends on the type of a series, so it is the same.
                let _same_unit = Arc::make_mut(buckets).merge(others);
            }
            (None, Some(others)) => self.buckets = Some(Arc::clone(others)),
            (_, None) => {}
        }
    }
}

impl SeriesRunning {
    /// As a record of a round has it.
    #[must_use]
    pub fn as_total(&self) -> RunningTotal<'_> {
        RunningTotal {
            created: self.created,
            total: self.total,
            count: self.count,
            buckets: self.buckets.as_deref(),
            first: self.first,
        }
    }

    /// Whether this is the first value that is sent of the series.
    #[must_use]
    pub(super) const fn is_first(&self) -> bool {
        self.first
    }
}

/// Whether series of a type have a total.
#[must_use]
pub(super) const fn is_cumulative(metric_type: MetricType) -> bool {
    match metric_type {
        MetricType::Counter | MetricType::Timer | MetricType::Histogram | MetricType::Distribution => true,
        MetricType::Gauge | MetricType::Set | MetricType::ServiceCheck => false,
    }
}

impl RunningTotals {
    /// No totals yet. Of more than `most` series, those that were seen least recently are ended.
    #[must_use]
    pub fn new(most: usize, in_buckets: bool) -> Self {
        Self { of_identity: HashMap::new(), most, in_buckets }
    }

    /// The totals of an identity, to which a round adds something. `origin` is one of its containers.
    pub fn stage_identity(&mut self, identity: &SeriesIdentity, origin: &Origin) -> StagedIdentity<'_> {
        let in_buckets = self.in_buckets;
        let totals = self.of_identity.entry(identity.clone()).or_insert_with(|| IdentityTotals {
            origin: Arc::new(origin.clone()),
            of_series: HashMap::default(),
        });
        StagedIdentity { totals, in_buckets }
    }

    /// Counts for good what is staged. `sent` says whether the round was sent, or was too old for it.
    pub fn commit_round(&mut self, sent: bool) {
        for of in self.of_identity.values_mut().flat_map(|known| known.of_series.values_mut()) {
            of.sent |= sent && of.staged.is_some();
            of.commit();
        }
    }

    /// Removes the series of identities that are not live, and the least recently seen ones beyond the limit. If they come
    /// back, they begin at 0. Must not be called while a round is under way.
    pub fn take_ended(&mut self, is_live: impl Fn(&SeriesIdentity) -> bool) -> Vec<EndedIdentity> {
        let gone: Vec<_> = self.of_identity.keys().filter(|identity| !is_live(identity)).cloned().collect();
        let gone = gone.into_iter().filter_map(|identity| self.of_identity.remove_entry(&identity));
        let ended = gone.map(|(identity, IdentityTotals { origin, of_series })| EndedIdentity {
            identity,
            origin,
            series: sent_series(of_series),
        });
        let mut ended: Vec<_> = ended.collect();
        ended.extend(self.take_least_recent());
        ended.retain(|ended| !ended.series.is_empty());
        ended
    }

    fn take_least_recent(&mut self) -> Vec<EndedIdentity> {
        let beyond = self.len().saturating_sub(self.most);
        if beyond == 0 {
            return Vec::new();
        }
        let all = self.of_identity.values().flat_map(|known| known.of_series.values());
        let mut seen: Vec<_> = all.map(|of| of.last_seen).collect();
        seen.sort_unstable();
        let oldest_kept = seen.get(beyond).copied().unwrap_or(Timestamp::MAX);
        let ended = self.of_identity.iter_mut().map(|(identity, known)| {
            let gone = known.of_series.extract_if(|_, of| of.last_seen < oldest_kept);
            let series = sent_series(gone);
            EndedIdentity { identity: identity.clone(), origin: Arc::clone(&known.origin), series }
        });
        let ended = ended.collect();
        self.of_identity.retain(|_, known| !known.of_series.is_empty());
        ended
    }

    /// The number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of_identity.values().map(|known| known.of_series.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of_identity.is_empty()
    }
}

impl StagedIdentity<'_> {
    /// Stages what the round with this span adds to a series, and returns its total as of this round. Nothing is added a
    /// second time by a round that is read again. `None` for types without a total.
    pub fn stage_record(
        &mut self,
        series: &Arc<Series>,
        view: &View<'_>,
        (start, end): (Timestamp, Timestamp),
    ) -> Option<SeriesRunning> {
        let known = self.totals.of_series.entry(ByIdentity(Arc::clone(series)));
        let of = known.or_insert_with(|| SeriesTotal {
            created: start,
            sums: SeriesSums::zero(),
            staged: None,
            last_seen: end,
            sent: false,
        });
        if of.staged.as_ref().is_none_or(|staged| staged.start != start) {
            of.commit();
            let sums = SeriesSums::from_view(view, series.metric_type, self.in_buckets);
            of.staged = Some(Staged { start, sums });
        }
        of.last_seen = of.last_seen.max(end);
        is_cumulative(series.metric_type).then(|| of.running())
    }
}

fn sent_series(series: impl IntoIterator<Item = (ByIdentity, SeriesTotal)>) -> Vec<Arc<Series>> {
    series.into_iter().filter(|(_, of)| of.sent).map(|(ByIdentity(series), _)| series).collect()
}

impl SeriesTotal {
    fn commit(&mut self) {
        if let Some(staged) = self.staged.take() {
            self.sums.add(&staged.sums);
        }
    }

    fn running(&self) -> SeriesRunning {
        let mut sums = self.sums.clone();
        if let Some(staged) = &self.staged {
            sums.add(&staged.sums);
        }
        SeriesRunning {
            created: self.created,
            total: sums.total.as_f64(),
            count: sums.count.to_rounded_f64(),
            buckets: sums.buckets,
            first: !self.sent,
        }
    }
}

#[cfg(test)]
mod tests;
