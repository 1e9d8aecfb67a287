//! Where each publisher is, and what it has lost after that, in memory and in its file.
//!
//! A publisher's own thread says what it is done with. The thread that writes the window log says what it loses when a file is
//! dropped, before the file goes: whatever happens in between, a record is either still there or counted.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cursor_file::{CursorFile, LostRecords, Position, SavedPosition};
use crate::store::Cursor;
use crate::window_log::{DropRecorder, SpoolDrop};

/// How often a failed write of a file is logged.
const QUIET: Duration = Duration::from_mins(1);

/// The places of all publishers.
#[derive(Debug)]
pub(super) struct PublisherPlaces {
    directory: PathBuf,
    by_name: Mutex<BTreeMap<String, Arc<PublisherPlace>>>,
}

/// The place of one publisher.
#[derive(Debug)]
pub(super) struct PublisherPlace {
    name: String,
    file: CursorFile,
    state: Mutex<PlaceState>,
}

#[derive(Debug, Default)]
struct PlaceState {
    /// `None` until it has begun.
    position: Option<Position>,
    lost: Option<UncountedLoss>,
    failure_logged: Option<Instant>,
}

/// What is lost after the position, and not counted yet.
#[derive(Copy, Clone, Debug)]
struct UncountedLoss {
    /// Nothing up to here is read any more.
    through: Cursor,
    /// Records that the publisher was not handed out.
    untaken: u64,
    /// Lost only if the publisher does not finish what it has in hand.
    in_hand: u64,
}

impl PublisherPlaces {
    /// With files in a directory.
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self { directory, by_name: Mutex::new(BTreeMap::new()) }
    }

    /// The place of a publisher, as the file says unless it is known.
    pub(super) fn open_place(&self, name: &str) -> Arc<PublisherPlace> {
        let mut by_name = self.lock();
        if let Some(place) = by_name.get(name) {
            return Arc::clone(place);
        }
        let place = Arc::new(PublisherPlace::open(CursorFile::new(&self.directory, name), name));
        by_name.insert(name.to_owned(), Arc::clone(&place));
        place
    }

    /// Removes the place of a publisher that is no longer configured.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub(super) fn forget_place(&self, name: &str) -> io::Result<()> {
        self.lock().remove(name);
        CursorFile::new(&self.directory, name).remove()
    }

    // Poisoning is ignored: places are only ever added or removed.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<PublisherPlace>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DropRecorder for PublisherPlaces {
    fn record_drop(&self, publisher: &str, dropped: SpoolDrop) {
        let place = self.lock().get(publisher).cloned();
        if let Some(place) = place {
            place.record_drop(dropped);
        }
    }
}

impl PublisherPlace {
    fn open(file: CursorFile, name: &str) -> Self {
        let saved = file.read().unwrap_or_else(|error| {
            tracing::error!(publisher = name, %error, "the cursor cannot be read; it begins with the next window");
            None
        });
        let position = saved.map(|saved| saved.position);
        let lost = saved.and_then(|saved| saved.lost).map(|LostRecords { through, records }| {
            // Nothing is in hand any more.
            UncountedLoss { through, untaken: records, in_hand: 0 }
        });
        let state = PlaceState { position, lost, failure_logged: None };
        Self { name: name.to_owned(), file, state: Mutex::new(state) }
    }

    /// Where the publisher is; `None` if it has never begun.
    #[must_use]
    pub(super) fn current_position(&self) -> Option<Position> {
        self.lock().position
    }

    /// Where the publisher goes on: after what is lost and not counted yet.
    #[must_use]
    pub(super) fn next_position(&self) -> Option<Position> {
        let state = self.lock();
        let through = state.lost.map(|lost| lost.through);
        state.position.map(|position| Position {
            cursor: position.cursor.max(through.unwrap_or(position.cursor)),
            ..position
        })
    }

    /// Is done with everything up to a position, with what it had in hand, too.
    pub(super) fn finish_through(&self, position: Position) {
        let mut state = self.lock();
        state.position = Some(position);
        if let Some(lost) = &mut state.lost {
            lost.in_hand = 0;
        }
        self.save(&mut state);
    }

    /// Notes where the publisher is while it has windows in hand.
    pub(super) fn note_position(&self, position: Position) {
        let mut state = self.lock();
        state.position = Some(position);
        self.save(&mut state);
    }

    /// Whether the spool has dropped something that the publisher has in hand.
    #[must_use]
    pub(super) fn has_lost(&self) -> bool {
        self.lock().lost.is_some_and(|lost| lost.in_hand > 0)
    }

    /// Takes the records that are lost, for a publisher that has nothing in hand, and moves on to their end.
    pub(super) fn count_lost(&self) -> Option<(Position, u64)> {
        let mut state = self.lock();
        let UncountedLoss { through, untaken, in_hand } = state.lost.take()?;
        let position = state.position.map(|position| {
            let cursor = position.cursor.max(through);
            Position { cursor, ..position }
        })?;
        state.position = Some(position);
        self.save(&mut state);
        Some((position, untaken + in_hand))
    }

    fn record_drop(&self, new: SpoolDrop) {
        let mut state = self.lock();
        // It may have finished what was in hand while the file was read.
        let is_in_hand = state.position.is_some_and(|position| position.cursor < new.handed);
        let in_hand = if is_in_hand { new.in_hand } else { 0 };
        let before = state.lost.unwrap_or(UncountedLoss { through: new.through, untaken: 0, in_hand: 0 });
        state.lost = Some(UncountedLoss {
            through: before.through.max(new.through),
            untaken: before.untaken + new.untaken,
            in_hand: before.in_hand + in_hand,
        });
        self.save(&mut state);
    }

    fn save(&self, state: &mut PlaceState) {
        let Some(position) = state.position else { return };
        let lost = state.lost.map(|UncountedLoss { through, untaken, in_hand }| LostRecords {
            through,
            records: untaken + in_hand,
        });
        let Err(error) = self.file.write(SavedPosition { position, lost }) else { return };
        if state.failure_logged.is_none_or(|logged| logged.elapsed() >= QUIET) {
            state.failure_logged = Some(Instant::now());
            let name = &self.name;
            tracing::error!(publisher = name, %error, "the cursor cannot be saved; after a restart records may be sent again");
        }
    }

    // Poisoning is ignored: a change that was not saved is saved with the next one.
    fn lock(&self) -> MutexGuard<'_, PlaceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seq: u64) -> Cursor {
        Cursor { epoch: 3, seq }
    }

    fn position(seq: u64) -> Position {
        Position { cursor: at(seq), earlier: at(seq), through: None, sending: None }
    }

    fn dropped(through: u64, handed: u64, untaken: u64, in_hand: u64) -> SpoolDrop {
        SpoolDrop { through: at(through), untaken, in_hand, handed: at(handed) }
    }

    #[test]
    fn what_is_lost_with_a_file_is_counted_once_whether_the_agent_is_killed_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let places = PublisherPlaces::new(directory.path().to_owned());
        let place = places.open_place("p");
        place.finish_through(position(100));
        assert_eq!(place.count_lost(), None);
        // It has 50 records in hand, of which a file goes that has 30 of them, and one that has 7 after them.
        places.record_drop("p", dropped(130, 150, 0, 30));
        places.record_drop("p", dropped(157, 150, 7, 20));
        // A publisher that is not there loses nothing.
        places.record_drop("q", dropped(157, 150, 7, 20));
        let next = PublisherPlaces::new(directory.path().to_owned()).open_place("p");
        assert_eq!(
            next.next_position().map(|position| position.cursor),
            Some(at(157)),
            "for files that are held"
        );
        let lost = |place: &PublisherPlace| place.count_lost().map(|(at, records)| (at.cursor.seq, records));
        assert_eq!((lost(&next), next.has_lost()), (Some((157, 57)), false), "the agent is killed");
        assert!(place.has_lost());
        place.finish_through(position(150));
        assert_eq!(lost(&place), Some((157, 7)), "what was in hand is delivered");
        assert_eq!((place.count_lost(), place.has_lost()), (None, false));
        let next = PublisherPlaces::new(directory.path().to_owned()).open_place("p");
        let cursor = next.current_position().map(|position| position.cursor);
        assert_eq!((cursor, next.count_lost()), (Some(at(157)), None));
    }

    #[test]
    fn what_is_finished_while_a_file_is_read_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let places = PublisherPlaces::new(directory.path().to_owned());
        let place = places.open_place("p");
        place.finish_through(position(150));
        places.record_drop("p", dropped(160, 150, 10, 50));
        assert!(!place.has_lost(), "what it has in hand next is not what was dropped");
        assert_eq!(place.count_lost().map(|(at, records)| (at.cursor.seq, records)), Some((160, 10)));
        places.forget_place("p").unwrap();
        assert_eq!(places.open_place("p").current_position(), None);
    }
}
