//! The names of one workload: which series claimed which spelling, and which names rest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::model::{MetricType, Series, Timestamp};
use crate::render::exposition::Escaping;
use crate::render::prometheus::{Name, NameKind, NameSpelling, Spelled};

/// Marks that are tried until one is free.
const MAX_MARKS: u8 = 8;

/// The names of a workload. A writer copies them if a reader still holds them.
pub(super) type Claims = Arc<HashMap<Name, NameClaim>>;

#[derive(Default, Debug)]
pub(super) struct Workload {
    pub(super) claims: Claims,
    /// By escaping scheme: which name has claimed which spelling.
    pub(super) taken: [HashMap<u64, Name>; Escaping::ALL.len()],
    /// Names in the order in which they lost their last series. Some have had a series again since.
    pub(super) at_rest: VecDeque<(Timestamp, Name)>,
    pub(super) resting: usize,
    /// Bytes of the claims.
    pub(super) bytes: usize,
}

/// Bytes that a claim takes: the name, which all tables share, and its places in them. Tables double when they are seven
/// eighths full, so that on average they have half as many places again as entries. The text has two counts before it, and
/// the allocator's header.
pub(super) fn bytes_of(name: &Name) -> usize {
    let text = (name.text.len() + 3 * size_of::<usize>()).next_multiple_of(16);
    let in_claims = size_of::<(Name, NameClaim)>() + 1;
    let in_taken = Escaping::ALL.len() * (size_of::<(u64, Name)>() + 1);
    text + (in_claims + in_taken + size_of::<(Timestamp, Name)>()) * 3 / 2
}

/// A name's claim, to change. Nothing is copied for a name that is missing.
pub(super) fn claim_mut<'c>(claims: &'c mut Claims, name: &Name) -> Option<&'c mut NameClaim> {
    if claims.contains_key(name) { Arc::make_mut(claims).get_mut(name) } else { None }
}

#[derive(Clone, Debug)]
pub(super) struct NameClaim {
    /// How many series have the name.
    pub(super) series: u32,
    pub(super) rests_since: Timestamp,
    pub(super) spelled: Spelled,
    pub(super) first: Option<Name>,
}

impl Workload {
    /// Claims the first free spelling of a name; returns its mark, and the name that has the plain spelling if another
    /// does.
    pub(super) fn claim_spelling(&mut self, name: &Name, escaping: Escaping) -> (Option<u8>, Option<Name>) {
        let Some(taken) = self.taken.get_mut(escaping as usize) else { return (None, None) };
        let mut met = None;
        for mark in std::iter::once(None).chain((0..MAX_MARKS).map(Some)) {
            let claims = name.claim_hashes(NameSpelling { escaping, mark });
            if let Some(other) = claims.iter().find_map(|claim| taken.get(claim)) {
                met.get_or_insert_with(|| other.clone());
                continue;
            }
            taken.extend(claims.into_iter().map(|claim| (claim, name.clone())));
            return (mark, met);
        }
        // A page omits series whose name still collides, and counts them.
        (MAX_MARKS.checked_sub(1), met)
    }

    pub(super) fn give_back(&mut self, name: &Name, spelling: NameSpelling) {
        let Some(taken) = self.taken.get_mut(spelling.escaping as usize) else { return };
        for claim in name.claim_hashes(spelling) {
            if taken.get(&claim).is_some_and(|of| of == name) {
                taken.remove(&claim);
            }
        }
    }

    pub(super) fn mark_resting(&mut self, name: Name, since: Timestamp) {
        self.at_rest.push_back((since, name));
        self.resting += 1;
        // Names that come and go leave an entry each time.
        if self.at_rest.len() > 2 * self.resting + 64 {
            let claims = &self.claims;
            let mut seen = HashSet::new();
            self.at_rest.retain(|(since, name)| {
                let of = claims.get(name).filter(|claim| claim.series == 0 && claim.rests_since == *since);
                of.is_some() && seen.insert(name.clone())
            });
        }
    }

    pub(super) fn is_resting(&self, name: &Name, since: Timestamp) -> bool {
        self.claims.get(name).is_some_and(|claim| claim.series == 0 && claim.rests_since == since)
    }

    /// The number of names that have had no series since before a moment.
    pub(super) fn count_expired(&self, limit: Timestamp) -> usize {
        let old = self.at_rest.iter().take_while(|(since, _)| *since < limit);
        old.filter(|(since, name)| self.is_resting(name, *since)).count()
    }
}

/// The distinct names of series, in the order of their first occurrence, each with its number of series. The series of
/// an application share few names, and readers of the store only ever wait for the lookup of these.
pub(super) fn distinct_names<'s>(series: impl Iterator<Item = &'s Arc<Series>>) -> Vec<(Name, u32)> {
    let mut places: HashMap<(NameKind, &str), usize> = HashMap::new();
    let mut all: Vec<(Name, u32)> = Vec::new();
    for (kind, text) in series.flat_map(|series| series_names(series)) {
        let place = *places.entry((kind, text)).or_insert(all.len());
        match all.get_mut(place) {
            Some((_, series)) => *series += 1,
            None => all.push((Name { kind, text: text.into() }, 1)),
        }
    }
    all
}

/// The names that a series has.
fn series_names(series: &Series) -> impl Iterator<Item = (NameKind, &str)> {
    let shown = series.metric_type != MetricType::ServiceCheck;
    let metric = (NameKind::Metric(series.metric_type), &*series.name);
    let labels = series.tags.iter().map(|(key, _)| (NameKind::Label, key));
    std::iter::once(metric).chain(labels).filter(move |_| shown)
}
