//! A container's series by place, in columns: data that every sample touches is separate from data that only a close
//! needs.

use std::sync::Arc;

use super::LedgerRow;
use crate::aggregate::state::SeriesState;
use crate::aggregate::table::{Place, SPELLINGS};
use crate::aggregate::weight::Weight;
use crate::aggregate::window::Layout;
use crate::model::{Series, Timestamp};

/// One cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Cell(Option<SeriesState>);

const _: () = assert!(size_of::<Cell>() == 64);

/// The ledger row of a vacant place.
const VACANT: LedgerRow =
    LedgerRow { total: 0.0, count: Weight::ZERO, last_seen: Timestamp::MIN, decremented: false };

/// Every series of a container. All columns are of one length.
#[derive(Debug, Default)]
pub(super) struct Columns {
    states: Vec<Cell>,
    ledger: Vec<LedgerRow>,
    series: Vec<Option<Arc<Series>>>,
    /// The number of remembered spellings of each.
    spellings: Vec<u8>,
    vacant: Vec<Place>,
}

pub(super) struct SeriesRow<'c> {
    pub(super) place: Place,
    pub(super) series: &'c Arc<Series>,
    pub(super) state: &'c SeriesState,
    pub(super) ledger: &'c LedgerRow,
}

pub(super) struct SeriesRowMut<'c> {
    pub(super) place: Place,
    pub(super) series: &'c Arc<Series>,
    pub(super) state: &'c mut SeriesState,
    pub(super) ledger: &'c mut LedgerRow,
}

impl Columns {
    /// Whether there has been no series yet.
    #[inline]
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Adds a series at a vacant place.
    pub(super) fn add(&mut self, series: Series, now: Timestamp) -> Place {
        let state = SeriesState::new(series.metric_type);
        let ledger = LedgerRow { last_seen: now, ..VACANT };
        match self.vacant.pop() {
            Some(place) => {
                self.set_row(place, Some((series, state, ledger)));
                place
            }
            None => self.push(Some((series, state, ledger))),
        }
    }

    /// The next place, with or without a series.
    #[expect(clippy::expect_used, reason = "two series with one place would be added to each other")]
    pub(super) fn push(&mut self, row: Option<(Series, SeriesState, LedgerRow)>) -> Place {
        let place = Place::try_from(self.states.len())
            .expect("as many series as 32 bits count take more memory than any limit allows");
        self.states.push(Cell(None));
        self.ledger.push(VACANT);
        self.series.push(None);
        self.spellings.push(0);
        match row {
            Some(row) => self.set_row(place, Some(row)),
            None => self.vacant.push(place),
        }
        place
    }

    /// Removes the series at a place.
    pub(super) fn remove(&mut self, place: Place) {
        self.set_row(place, None);
        self.vacant.push(place);
    }

    fn set_row(&mut self, place: Place, row: Option<(Series, SeriesState, LedgerRow)>) {
        let at = place as usize;
        let (series, state, ledger) = match row {
            Some((series, state, ledger)) => (Some(Arc::new(series)), Some(state), ledger),
            None => (None, None, VACANT),
        };
        if let (Some(cell), Some(row), Some(known), Some(spellings)) = (
            self.states.get_mut(at),
            self.ledger.get_mut(at),
            self.series.get_mut(at),
            self.spellings.get_mut(at),
        ) {
            (cell.0, *row, *known, *spellings) = (state, ledger, series, 0);
        }
    }

    /// Counts one more spelling of a series, unless it already has `most`.
    pub(super) fn take_spelling(&mut self, place: Place, most: u8) -> bool {
        debug_assert!(most <= SPELLINGS);
        match self.spellings.get_mut(place as usize) {
            Some(spellings) if *spellings < most => {
                *spellings += 1;
                true
            }
            _ => false,
        }
    }

    /// Forgets how many spellings are remembered.
    pub(super) fn forget_spellings(&mut self) {
        self.spellings.fill(0);
    }

    #[inline]
    pub(super) fn state_at(&self, place: Place) -> Option<&SeriesState> {
        self.states.get(place as usize)?.0.as_ref()
    }

    #[inline]
    pub(super) fn state_at_mut(&mut self, place: Place) -> Option<&mut SeriesState> {
        self.states.get_mut(place as usize)?.0.as_mut()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<(&mut SeriesState, &mut LedgerRow)> {
        Some((self.states.get_mut(place as usize)?.0.as_mut()?, self.ledger.get_mut(place as usize)?))
    }

    pub(super) fn series_at(&self, place: Place) -> Option<&Series> {
        self.series.get(place as usize)?.as_deref()
    }

    /// Every series that is there, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = SeriesRow<'_>> {
        self.iter_places().flatten()
    }

    /// Every series that is there, by place, to change.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = SeriesRowMut<'_>> {
        let columns = self.series.iter().zip(&mut self.states).zip(&mut self.ledger);
        (0..).zip(columns).filter_map(|(place, ((series, state), ledger))| {
            Some(SeriesRowMut { place, series: series.as_ref()?, state: state.0.as_mut()?, ledger })
        })
    }

    /// Every place, with its series or vacant.
    pub(super) fn iter_places(&self) -> impl Iterator<Item = Option<SeriesRow<'_>>> {
        let columns = self.series.iter().zip(&self.states).zip(&self.ledger);
        (0..).zip(columns).map(|(place, ((series, state), ledger))| {
            Some(SeriesRow { place, series: series.as_ref()?, state: state.0.as_ref()?, ledger })
        })
    }

    /// The series by place.
    pub(super) fn to_layout(&self) -> Layout {
        self.series.as_slice().into()
    }

    /// The ledger by place.
    pub(super) fn to_ledger_rows(&self) -> Box<[LedgerRow]> {
        self.ledger.as_slice().into()
    }

    /// Bytes of the columns, including spare capacity.
    pub(super) fn column_bytes(&self) -> usize {
        self.states.capacity() * size_of::<Cell>()
            + self.ledger.capacity() * size_of::<LedgerRow>()
            + self.series.capacity() * size_of::<Option<Arc<Series>>>()
            + self.spellings.capacity()
            + self.vacant.capacity() * size_of::<Place>()
    }

    /// Heap bytes that the columns refer to.
    pub(super) fn heap_bytes(&self) -> usize {
        self.iter().map(|row| row.bytes()).sum()
    }
}

impl SeriesRow<'_> {
    /// Heap bytes that the row refers to.
    pub(super) fn bytes(&self) -> usize {
        self.series.bytes() + self.state.heap_bytes()
    }
}
