//! The series of one container in the archive.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::aggregate::{KnownLayout, Layout, Record, Window, WindowFold};
use crate::model::{ByIdentity, Series};
use crate::store::Published;

/// Places beyond this are not given out; the codec refuses them.
const MOST_PLACES: usize = 1 << 24;

/// The series of one container, at places that never change: a slot has no names of its own.
#[derive(Debug)]
pub struct SeriesPlaces {
    container: i64,
    series: Vec<Option<Arc<Series>>>,
    by_identity: HashMap<ByIdentity, u32>,
    /// How many of them are stored.
    stored: usize,
    /// The layout that was looked up last, with the places of its series.
    known: Option<(Layout, Vec<Option<u32>>)>,
}

impl SeriesPlaces {
    /// The stored series of a container. A place is vacant where one could not be read.
    #[must_use]
    pub fn new(container: i64, series: Vec<Option<Arc<Series>>>) -> Self {
        let placed =
            (0..).zip(&series).filter_map(|(place, series)| Some((Arc::clone(series.as_ref()?), place)));
        let by_identity = placed.map(|(series, place)| (ByIdentity(series), place)).collect();
        let stored = series.len();
        Self { container, series, by_identity, stored, known: None }
    }

    /// An empty list that is stored nowhere, for windows that are folded for one answer.
    #[must_use]
    pub fn new_unstored() -> Self {
        Self::new(0, Vec::new())
    }

    /// The number of the container in the archive.
    #[must_use]
    pub fn container_number(&self) -> i64 {
        self.container
    }

    /// How many places are taken.
    #[must_use]
    pub fn count_places(&self) -> usize {
        self.series.len()
    }

    /// The series, by place.
    pub fn iter_series(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.series.iter().flatten()
    }

    /// The series that are not stored yet, with their places. They count as stored from now on.
    pub fn take_new(&mut self) -> impl Iterator<Item = (usize, &Series)> {
        let before = std::mem::replace(&mut self.stored, self.series.len());
        let new = self.series.iter().enumerate().skip(before);
        new.filter_map(|(place, series)| Some((place, series.as_deref()?)))
    }

    /// Adds those records of a window, or a slot, to a fold that are wanted. Returns the number of records that were not added.
    pub fn fold_window(
        &mut self,
        fold: &mut WindowFold,
        window: &Window,
        mut is_wanted: impl FnMut(&Record<'_>) -> bool,
    ) -> u64 {
        self.use_layout(window.layout());
        fold.add_window(window, |record| is_wanted(record).then(|| self.find_or_add(record))?)
    }

    /// Adds to a fold what a window added to its interval: a revision repeats what was there before, which counts once. Returns
    /// the number of records of which that is not known, or that were not added.
    pub fn fold_published(
        &mut self,
        fold: &mut WindowFold,
        published: &Published,
        mut is_wanted: impl FnMut(&Record<'_>) -> bool,
    ) -> u64 {
        let window = published.window();
        match (published.added_apart(), published.added_window()) {
            (Some(added), _) => {
                self.use_layout(added.layout());
                fold.add_revision(added, window.span, |record| {
                    is_wanted(record).then(|| self.find_or_add(record))?
                })
            }
            (None, Some(added)) => self.fold_window(fold, added, is_wanted),
            (None, None) => window.len() as u64,
        }
    }

    /// Prepares for the records of a window.
    fn use_layout(&mut self, layout: &Layout) {
        if !self.known.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, layout)) {
            self.known = Some((Arc::clone(layout), vec![None; layout.len()]));
        }
    }

    /// The place of a record's series, which gets one if it has none.
    fn find_or_add(&mut self, record: &Record<'_>) -> Option<u32> {
        let known = self.known.as_ref().and_then(|(_, places)| places.get(record.place as usize).copied());
        if let Some(Some(place)) = known {
            return Some(place);
        }
        let next = u32::try_from(self.series.len()).ok().filter(|place| (*place as usize) < MOST_PLACES);
        let place = match self.by_identity.entry(ByIdentity(Arc::clone(record.series))) {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(vacant) => {
                let place = *vacant.insert(next?);
                self.series.push(Some(Arc::clone(record.series)));
                place
            }
        };
        let slot = self.known.as_mut().and_then(|(_, places)| places.get_mut(record.place as usize));
        if let Some(slot) = slot {
            *slot = Some(place);
        }
        Some(place)
    }

    /// The layout that slots are encoded and decoded with.
    #[must_use]
    pub fn to_layout(&self) -> KnownLayout {
        KnownLayout::with_identity(self.series.as_slice().into(), self.container.cast_unsigned())
    }
}
