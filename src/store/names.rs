//! Which of two names that would become one on a page keeps the plain name: the one that was there first.
//!
//! Names meet where their series would have the same labels, which is within a workload: its containers are one series at
//! the coarsest identity, and nothing that one workload sends can change what another's series are called. A name that
//! meets an older one gets a mark with its first sample and keeps it for as long as it is remembered, whatever becomes
//! of the other. A name is remembered as long as counters are ([`REMEMBERED`]) after its last series has gone, so a series
//! that readers may still have seen is never continued by another name.
//!
//! A workload has at most as many names as its containers may have series, and [`AT_REST`] more of which it has no series;
//! beyond that, those that went longest ago are forgotten, its own first. What the names of a workload take counts against the
//! memory of its containers, in equal shares.

mod change;
mod workload;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::past::{MOST, REMEMBERED, RememberedBound, fair_share};
use crate::model::{Origin, Series, Timestamp};
use crate::render::exposition::Escaping;
use crate::render::prometheus::{Level, MarksOfAll, Name, NameSpelling, SeriesIdentity, Spelled};
pub use change::{Meeting, NameChange, NameChanges, NameState};
use change::{TakenContents, TakenNames};
use workload::{NameClaim, Workload, bytes_of, claim_mut, distinct_names};

/// Maximum number of names without a series that are remembered per workload.
const AT_REST: usize = 10_000;
/// Number of changes that are kept for readers that follow them; a reader that has missed some gets the whole table.
const FOLLOWED: usize = 16_384;
/// How often expired names are removed.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);

/// Every name on the node.
#[derive(Debug)]
pub(super) struct Names {
    workloads: HashMap<SeriesIdentity, Workload>,
    marks: MarksOfAll,
    /// How many names carry a mark.
    marked: usize,
    at_rest: usize,
    at_rest_bound: RememberedBound,
    /// Bytes of all of them.
    bytes: usize,
    newest: Timestamp,
    swept: Timestamp,
    /// The last changes, and the place of the first of them.
    changes: VecDeque<Arc<NameChange>>,
    first: u64,
}

/// The names of added and removed series. Collecting them visits each of these series, so it is done before locking.
#[derive(Default, Debug)]
pub(super) struct Changed {
    /// `None` if no series was added or removed.
    workload: Option<SeriesIdentity>,
    came: Vec<(Name, u32)>,
    went: Vec<(Name, u32)>,
}

impl Changed {
    /// From the added and removed series of a container.
    pub(super) fn from_series<'s>(
        origin: &Origin,
        came: impl Iterator<Item = &'s Arc<Series>>,
        went: impl Iterator<Item = &'s Arc<Series>>,
    ) -> Self {
        let mut came: Vec<_> = came.collect();
        came.sort_by_key(|series| series.created);
        let (came, went) = (distinct_names(came.into_iter()), distinct_names(went));
        let workload =
            (!(came.is_empty() && went.is_empty())).then(|| SeriesIdentity::from_origin(origin, Level::Low));
        Self { workload, came, went }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self {
            workloads: HashMap::new(),
            marks: MarksOfAll::default(),
            marked: 0,
            at_rest: 0,
            at_rest_bound: RememberedBound::new(MOST),
            bytes: 0,
            newest: Timestamp::MIN,
            swept: Timestamp::MIN,
            changes: VecDeque::new(),
            first: 0,
        }
    }
}

impl Names {
    /// Bytes of a workload's names that count against each of its `here` containers.
    pub(super) fn bytes_per_container(&self, workload: &SeriesIdentity, here: usize) -> usize {
        self.workloads.get(workload).map_or(0, |names| names.bytes / here.max(1))
    }

    /// Bytes of all names.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Recounts the bytes of all names.
    pub(super) fn recount_bytes(&self) -> usize {
        self.workloads.values().flat_map(|names| names.claims.keys()).map(bytes_of).sum()
    }

    /// Applies changes in a container's series, as of `at` if that is known.
    pub(super) fn update_series(&mut self, changed: Changed, at: Option<Timestamp>) {
        self.newest = self.newest.max(at.unwrap_or(self.newest));
        if let Some(workload) = self.count(changed) {
            self.keep_to_limits(&workload);
        }
        self.sweep_expired();
    }

    /// Like [`Names::update_series`], for series from another process or an earlier run of the agent, without removing
    /// any names: names are claimed container by container, so names without a series may still get one.
    pub(super) fn update_series_unlimited(&mut self, changed: Changed, at: Option<Timestamp>) {
        self.newest = self.newest.max(at.unwrap_or(self.newest));
        self.count(changed);
    }

    /// Counts the series; returns the workload if any were added or removed.
    fn count(&mut self, Changed { workload, came, went }: Changed) -> Option<SeriesIdentity> {
        let workload = workload?;
        for (name, series) in came {
            self.claim_name(&workload, name, series);
        }
        for (name, series) in went {
            self.release_name(&workload, &name, series);
        }
        Some(workload)
    }

    fn claim_name(&mut self, workload: &SeriesIdentity, name: Name, series: u32) {
        let names = self.workloads.entry(workload.clone()).or_default();
        if let Some(claim) = claim_mut(&mut names.claims, &name) {
            if claim.series == 0 {
                names.resting -= 1;
                self.at_rest -= 1;
            }
            claim.series = claim.series.saturating_add(series);
            return;
        }
        let (mut spelled, mut first) = (Spelled::default(), None);
        for (spelled, escaping) in spelled.iter_mut().zip(Escaping::ALL) {
            let (mark, met) = names.claim_spelling(&name, escaping);
            *spelled = mark;
            first = first.or(met);
        }
        self.insert_name(workload, name, spelled, first, series);
    }

    /// Adds a new name.
    fn insert_name(
        &mut self,
        workload: &SeriesIdentity,
        name: Name,
        spelled: Spelled,
        first: Option<Name>,
        series: u32,
    ) {
        if spelled != Spelled::default()
            && let Some(marks) = self.marks.get_or_insert_with(workload.clone(), Arc::default)
        {
            let before = marks.len();
            Arc::make_mut(marks).set_spelling(&name, spelled);
            self.marked += marks.len() - before;
        }
        let now = NameState::Known(spelled, first.clone());
        self.push_change(NameChange { workload: workload.clone(), name: name.clone(), now });
        let names = self.workloads.entry(workload.clone()).or_default();
        names.bytes += bytes_of(&name);
        self.bytes += bytes_of(&name);
        Arc::make_mut(&mut names.claims)
            .insert(name.clone(), NameClaim { series, rests_since: self.newest, spelled, first });
        if series == 0 {
            names.mark_resting(name, self.newest);
            self.at_rest += 1;
        }
    }

    fn release_name(&mut self, workload: &SeriesIdentity, name: &Name, series: u32) {
        let Some(names) = self.workloads.get_mut(workload) else { return };
        let Some(claim) = claim_mut(&mut names.claims, name).filter(|claim| claim.series > 0) else { return };
        claim.series = claim.series.saturating_sub(series);
        if claim.series == 0 {
            claim.rests_since = self.newest;
            names.mark_resting(name.clone(), self.newest);
            self.at_rest += 1;
        }
    }

    fn keep_to_limits(&mut self, workload: &SeriesIdentity) {
        let over = self.workloads.get(workload).map_or(0, |names| names.resting.saturating_sub(AT_REST));
        (0..over).for_each(|_| self.forget_oldest(workload));
        self.keep_to_limit();
    }

    /// Sets how many names without a series are remembered on the node.
    pub(super) fn set_limit(&mut self, at_rest: usize) {
        self.at_rest_bound.set(at_rest);
        self.keep_to_limit();
    }

    /// Removes names without a series beyond the node's limit, first from the workloads with the most, so that these
    /// cannot evict the names of others.
    fn keep_to_limit(&mut self) {
        let Some(target) = self.at_rest_bound.target(self.at_rest) else { return };
        let share = fair_share(self.workloads.values().map(|names| names.resting).collect(), target);
        let over = self.workloads.iter().filter(|(_, names)| names.resting > share);
        let over: Vec<_> = over.map(|(workload, names)| (workload.clone(), names.resting - share)).collect();
        for (workload, names) in over {
            (0..names).for_each(|_| self.forget_oldest(&workload));
        }
        if self.at_rest > target {
            // There are more workloads than the limit allows names: those with the oldest names lose theirs.
            let oldest = |names: &Workload| names.at_rest.front().map(|(since, _)| *since);
            let resting = self.workloads.iter().filter(|(_, names)| names.resting > 0);
            let mut by_age: Vec<_> =
                resting.map(|(workload, names)| (oldest(names), workload.clone())).collect();
            by_age.sort_unstable();
            for (_, workload) in by_age.iter().take(self.at_rest - target) {
                self.forget_oldest(workload);
            }
        }
    }

    fn forget_oldest(&mut self, workload: &SeriesIdentity) {
        let Some(names) = self.workloads.get_mut(workload) else { return };
        while let Some((since, name)) = names.at_rest.pop_front() {
            if names.is_resting(&name, since) {
                self.forget_name(workload, &name);
                return;
            }
        }
    }

    /// Removes expired names of all workloads.
    fn sweep_expired(&mut self) {
        if self.newest.duration_since(self.swept) < PRUNE_INTERVAL {
            return;
        }
        self.swept = self.newest;
        let limit = self.newest.saturating_sub(REMEMBERED);
        let due: Vec<_> = self
            .workloads
            .iter()
            .map(|(workload, names)| (workload.clone(), names.count_expired(limit)))
            .collect();
        for (workload, due) in due {
            (0..due).for_each(|_| self.forget_oldest(&workload));
        }
    }

    fn forget_name(&mut self, workload: &SeriesIdentity, name: &Name) {
        let Some(names) = self.workloads.get_mut(workload) else { return };
        if !names.claims.contains_key(name) {
            return;
        }
        let Some(claim) = Arc::make_mut(&mut names.claims).remove(name) else { return };
        names.bytes = names.bytes.saturating_sub(bytes_of(name));
        self.bytes = self.bytes.saturating_sub(bytes_of(name));
        if claim.series == 0 {
            names.resting -= 1;
            self.at_rest -= 1;
        }
        for (escaping, mark) in Escaping::ALL.into_iter().zip(claim.spelled) {
            names.give_back(name, NameSpelling { escaping, mark });
        }
        if names.claims.is_empty() {
            self.workloads.remove(workload);
        }
        if claim.spelled != Spelled::default()
            && let Some(marks) = self.marks.get_mut(workload)
        {
            let before = marks.len();
            Arc::make_mut(marks).remove(name);
            self.marked -= before - marks.len();
            if marks.is_empty() {
                self.marks.remove(workload);
            }
        }
        let (workload, name) = (workload.clone(), name.clone());
        self.push_change(NameChange { workload, name, now: NameState::Forgotten });
    }

    fn push_change(&mut self, change: NameChange) {
        self.changes.push_back(Arc::new(change));
        if self.changes.len() > FOLLOWED {
            self.changes.pop_front();
            self.first += 1;
        }
    }

    /// The changes after a place, or the whole table if they are no longer kept; as pointers.
    pub(super) fn changes_after(&self, place: u64) -> TakenNames {
        let next = self.first + self.changes.len() as u64;
        let known = place.checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
        let what = match known.filter(|known| *known <= self.changes.len()) {
            Some(known) => TakenContents::Changes(self.changes.range(known..).cloned().collect()),
            None => TakenContents::Whole(
                self.workloads.iter().map(|(of, names)| (of.clone(), Arc::clone(&names.claims))).collect(),
            ),
        };
        TakenNames { what, next }
    }

    /// Restores the names of another process or an earlier run of the agent, as of `at`. Their series are added later.
    pub(super) fn restore_changes(&mut self, changes: impl IntoIterator<Item = NameChange>, at: Timestamp) {
        self.newest = self.newest.max(at);
        for NameChange { workload, name, now } in changes {
            match now {
                NameState::Forgotten => self.forget_name(&workload, &name),
                NameState::Known(spelled, first) => {
                    let names = self.workloads.entry(workload.clone()).or_default();
                    if names.claims.contains_key(&name) {
                        continue;
                    }
                    for (escaping, mark) in Escaping::ALL.into_iter().zip(spelled) {
                        for claim in name.claim_hashes(NameSpelling { escaping, mark }) {
                            let taken = names.taken.get_mut(escaping as usize);
                            taken.map(|taken| taken.entry(claim).or_insert_with(|| name.clone()));
                        }
                    }
                    self.insert_name(&workload, name, spelled, first, 0);
                }
            }
        }
    }

    /// The marks of every workload that has any.
    pub(super) fn all_marks(&self) -> MarksOfAll {
        self.marks.clone()
    }

    /// The end of the newest window whose names were recorded.
    pub(super) fn newest_end(&self) -> Timestamp {
        self.newest
    }

    /// How many names carry a mark.
    pub(super) fn marked_count(&self) -> usize {
        self.marked
    }

    /// Adds to each collision the older name because of which the other carries a mark.
    pub(super) fn explain_meetings(&self, meetings: &mut [Meeting]) {
        for meeting in meetings {
            let names = self.workloads.get(&meeting.workload);
            let claim = names.and_then(|names| names.claims.get(&meeting.marked));
            meeting.first = claim.and_then(|claim| claim.first.clone());
        }
    }
}

#[cfg(test)]
mod tests;
