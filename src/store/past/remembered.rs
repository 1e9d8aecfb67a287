//! Remembered totals by identity, within bounds that no identity can exhaust at the expense of others.
//!
//! A bound on remembered entries that can change at run time.

use std::collections::HashMap;
use std::sync::Arc;

use super::{SeriesTotals, Summed};
use crate::aggregate::{LedgerEntry, Weight};
use crate::model::{ByIdentity, SharedMap, Timestamp};
use crate::render::prometheus::{SeriesIdentity, Total};

/// Remembered totals of one level. Cheap to clone; only entries that readers hold are copied before they change.
pub type GoneByIdentity = SharedMap<SeriesIdentity, Arc<Gone>>;

/// The totals of all removed series of one identity.
#[derive(Clone, Default, Debug)]
pub struct Gone {
    series: HashMap<ByIdentity, SeriesTotals>,
    bytes: usize,
}

impl Gone {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &SeriesTotals> {
        self.series.values()
    }

    pub(super) fn from_counted(counted: impl IntoIterator<Item = SeriesTotals>) -> Self {
        let keyed = counted.into_iter().map(|counted| (ByIdentity(Arc::clone(&counted.series)), counted));
        let mut gone = Self { series: keyed.collect(), bytes: 0 };
        gone.bytes = gone.recount_bytes();
        gone
    }

    pub(super) fn add(&mut self, (series, row, histogram): LedgerEntry<'_>) {
        let one = || SeriesTotals {
            series: Arc::clone(series),
            created: series.created,
            last_seen: row.last_seen,
            total: Total::default(),
            count: Weight::ZERO,
            histogram: None,
            decremented: false,
        };
        let key = ByIdentity(Arc::clone(series));
        let before = self.series.get(&key).map_or(0, SeriesTotals::bytes);
        let counted = self.series.entry(key).or_insert_with(one);
        counted.created = counted.created.min(series.created);
        counted.last_seen = counted.last_seen.max(row.last_seen);
        counted.total = counted.total.saturating_add(row.total.into());
        counted.count = counted.count.saturating_add(row.count);
        counted.decremented |= row.decremented;
        histogram.into_iter().for_each(|histogram| Summed::add(&mut counted.histogram, histogram));
        self.bytes = (self.bytes + counted.bytes()).saturating_sub(before);
    }

    /// Adds the totals of series. If there are more than `share`, evicts the least recently updated. Returns the number
    /// of evicted totals.
    pub(super) fn add_all<'e, 'l: 'e>(
        &mut self,
        entries: impl Iterator<Item = &'e LedgerEntry<'l>>,
        share: usize,
    ) -> usize {
        entries.for_each(|entry| self.add(*entry));
        // Evict a tenth at once, so that this is rare.
        if self.series.len() > share { self.trim_to(share - share / 10) } else { 0 }
    }

    fn remove(&mut self, key: &ByIdentity) {
        if let Some(counted) = self.series.remove(key) {
            self.bytes = self.bytes.saturating_sub(counted.bytes());
        }
    }

    /// Evicts the least recently updated totals until at most `most` are left. Returns the number of evicted totals.
    fn trim_to(&mut self, most: usize) -> usize {
        let over = self.series.len().saturating_sub(most);
        if over > 0 {
            let mut by_age: Vec<_> =
                self.series.iter().map(|(key, counted)| (counted.last_seen, key.clone())).collect();
            by_age.sort_unstable_by_key(|(last_seen, _)| *last_seen);
            by_age.iter().take(over).for_each(|(_, key)| self.remove(key));
        }
        over
    }

    fn recount_bytes(&self) -> usize {
        self.series.values().map(SeriesTotals::bytes).sum()
    }
}

impl SeriesTotals {
    /// Bytes that it takes to remember it.
    fn bytes(&self) -> usize {
        let histogram = self.histogram.as_ref().map_or(0, |histogram| histogram.buckets.bytes());
        size_of::<(ByIdentity, Self)>() + self.series.bytes() + histogram
    }
}

/// Totals of one level.
#[derive(Default, Debug)]
pub(super) struct RememberedTotals {
    of: GoneByIdentity,
    len: usize,
    bytes: usize,
}

impl RememberedTotals {
    pub(super) fn new(of: GoneByIdentity) -> Self {
        let len = of.values().map(|gone| gone.series.len()).sum();
        let bytes = of.values().map(|gone| gone.bytes).sum();
        Self { of, len, bytes }
    }

    /// All of them as they are now.
    pub(super) fn by_identity(&self) -> &GoneByIdentity {
        &self.of
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of one identity's.
    pub(super) fn bytes_of(&self, identity: &SeriesIdentity) -> usize {
        self.of.get(identity).map_or(0, |gone| gone.bytes)
    }

    /// Recounts the totals and their bytes.
    pub(super) fn recount_totals(&self) -> (usize, usize) {
        let len = self.of.values().map(|gone| gone.series.len()).sum();
        (len, self.of.values().map(|gone| gone.recount_bytes()).sum())
    }

    /// Adds the totals of an identity's series, of which at most `share` are kept. Returns the number of evicted
    /// totals.
    pub(super) fn add(
        &mut self,
        identity: &SeriesIdentity,
        entries: &[LedgerEntry<'_>],
        share: usize,
    ) -> usize {
        self.of.get_or_insert_with(identity.clone(), Arc::default);
        self.update_totals(identity, |gone| gone.add_all(entries.iter(), share))
    }

    /// The totals of an identity as they are now.
    pub(super) fn get(&self, identity: &SeriesIdentity) -> Option<Arc<Gone>> {
        self.of.get(identity).cloned()
    }

    /// Whether no reader holds the totals of an identity, so that changing them copies nothing.
    pub(super) fn is_free(&self, identity: &SeriesIdentity) -> bool {
        !self.of.is_shared(identity) && self.of.get(identity).is_none_or(|gone| Arc::strong_count(gone) == 1)
    }

    pub(super) fn replace_totals(&mut self, identity: &SeriesIdentity, gone: Arc<Gone>) {
        self.remove(identity);
        if !gone.series.is_empty() {
            self.len += gone.series.len();
            self.bytes += gone.bytes;
            self.of.insert(identity.clone(), gone);
        }
    }

    /// Forgets series of an identity.
    pub(super) fn forget_series<'s>(
        &mut self,
        identity: &SeriesIdentity,
        series: impl Iterator<Item = &'s Arc<crate::model::Series>>,
    ) {
        self.update_totals(identity, |gone| {
            series.for_each(|series| gone.remove(&ByIdentity(Arc::clone(series))));
        });
    }

    /// Forgets an identity.
    pub(super) fn remove(&mut self, identity: &SeriesIdentity) {
        if let Some(gone) = self.of.remove(identity) {
            self.len -= gone.series.len();
            self.bytes = self.bytes.saturating_sub(gone.bytes);
        }
    }

    /// Removes totals that were not updated since `limit`.
    pub(super) fn forget_before(&mut self, limit: Timestamp) {
        let old = |gone: &Gone| gone.iter().any(|counted| counted.last_seen < limit);
        for identity in self.find_identities(old) {
            self.update_totals(&identity, |gone| {
                let old = gone.series.iter().filter(|(_, counted)| counted.last_seen < limit);
                let old: Vec<_> = old.map(|(key, _)| key.clone()).collect();
                old.iter().for_each(|key| gone.remove(key));
            });
        }
    }

    /// Evicts totals until `target` are left for all identities together. Each identity may keep the same number, so a
    /// large identity cannot evict the totals of a smaller one. Returns the number of evicted totals.
    pub(super) fn keep_to(&mut self, target: usize) -> usize {
        if self.len <= target {
            return 0;
        }
        let share = fair_share(self.of.values().map(|gone| gone.series.len()).collect(), target);
        let mut went = 0;
        for identity in self.find_identities(|gone| gone.series.len() > share) {
            went += self.update_totals(&identity, |gone| gone.trim_to(share));
        }
        if self.len > target {
            // There are more identities than the target: the least recently updated ones are removed entirely.
            let newest = |gone: &Gone| gone.iter().map(|counted| counted.last_seen).max();
            let mut by_age: Vec<_> =
                self.of.iter().map(|(identity, gone)| (newest(gone), identity.clone())).collect();
            by_age.sort_unstable();
            for (_, identity) in by_age {
                if self.len <= target {
                    break;
                }
                let before = self.len;
                self.remove(&identity);
                went += before - self.len;
            }
        }
        went
    }

    fn find_identities(&self, which: impl Fn(&Gone) -> bool) -> Vec<SeriesIdentity> {
        let found = self.of.iter().filter(|(_, gone)| which(gone));
        found.map(|(identity, _)| identity.clone()).collect()
    }

    /// Changes the totals of an identity, and removes it if none are left.
    fn update_totals<T: Default>(
        &mut self,
        identity: &SeriesIdentity,
        change: impl FnOnce(&mut Gone) -> T,
    ) -> T {
        let Some(gone) = self.of.get_mut(identity) else { return T::default() };
        let gone = Arc::make_mut(gone);
        let before = (gone.series.len(), gone.bytes);
        let changed = change(gone);
        self.len = (self.len + gone.series.len()).saturating_sub(before.0);
        self.bytes = (self.bytes + gone.bytes).saturating_sub(before.1);
        if gone.series.is_empty() {
            self.of.remove(identity);
        }
        changed
    }
}

/// The largest number that each may keep so that all together keep at most `target`; at least 1.
pub(in crate::store) fn fair_share(mut lens: Vec<usize>, target: usize) -> usize {
    lens.sort_unstable();
    let mut left = target;
    let mut many = lens.len();
    for len in lens {
        // All that are left have at least this many.
        if len.saturating_mul(many) > left {
            return (left / many.max(1)).max(1);
        }
        left -= len;
        many -= 1;
    }
    usize::MAX
}

/// How many entries beyond the excess are removed at once. Removal holds the store's lock, for which shards wait.
const REMOVED_PER_STEP: usize = 1000;

/// A bound on remembered entries. A lower bound takes effect in steps, as new entries arrive.
#[derive(Debug)]
pub(in crate::store) struct RememberedBound {
    in_force: usize,
    configured: usize,
}

impl RememberedBound {
    pub(in crate::store) const fn new(most: usize) -> Self {
        Self { in_force: most, configured: most }
    }

    pub(in crate::store) fn set(&mut self, most: usize) {
        self.configured = most;
        self.in_force = self.in_force.max(most);
    }

    /// How many to keep of `len` entries if they are too many: fewer than the bound, so that this is rare.
    pub(in crate::store) fn target(&mut self, len: usize) -> Option<usize> {
        self.in_force = self.configured.max(self.in_force.min(len).saturating_sub(REMOVED_PER_STEP));
        (len > self.in_force).then(|| self.in_force - (self.in_force / 10).min(REMOVED_PER_STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fair_share_cuts_only_the_largest() {
        assert_eq!(fair_share(vec![5, 100, 1], 50), 44);
        assert_eq!(fair_share(vec![5, 100, 100, 1], 50), 22);
        assert_eq!(fair_share(vec![5, 1], 50), usize::MAX);
        assert_eq!(fair_share(vec![1; 100], 50), 1, "one is the least");
    }

    #[test]
    fn a_tenth_goes_at_once_and_never_more_than_a_step_beyond_what_is_too_much() {
        assert_eq!(RememberedBound::new(100).target(100), None);
        assert_eq!(RememberedBound::new(100).target(101), Some(90));
        assert_eq!(RememberedBound::new(100_000).target(100_010), Some(99_000));
    }

    #[test]
    fn a_bound_that_is_lowered_comes_into_force_in_steps() {
        let mut bound = RememberedBound::new(100_000);
        bound.set(100);
        let mut len = 5000;
        let mut steps = 0;
        while let Some(target) = bound.target(len) {
            assert!(len - target <= 2 * REMOVED_PER_STEP, "{len} to {target}");
            len = target;
            steps += 1;
        }
        assert!((80..=100).contains(&len) && steps >= 3, "{len} after {steps}");
        bound.set(10_000);
        assert_eq!(bound.target(9000), None, "one that is raised is in force at once");
    }
}
