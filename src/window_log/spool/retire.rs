//! What becomes of files that the log no longer needs: they are kept for publishers, dropped before them when they are too many,
//! and removed.

use std::io;

use super::file_name::{SpoolFileName, list_set_aside};
use super::progress::UnreadRecords;
use super::reader::{SpoolEntry, SpoolFileReader};
use super::{Spool, SpoolDrop, SpoolFile, SpoolState};
use crate::store::Cursor;
use crate::wal::remove_file;
use crate::window_log::entry::Birth;
use crate::window_log::segment::SealedSegment;
use crate::window_log::status::LogDamage;

/// What one publisher loses with a file.
struct Loss {
    publisher: String,
    unread: UnreadRecords,
    untaken: u64,
    in_hand: u64,
    /// The end of the file.
    through: Cursor,
}

impl Spool {
    /// Takes a file that the log no longer needs: it is kept if a publisher has not read all of it.
    ///
    /// # Errors
    /// When it could be neither renamed nor removed; it is then still there under its name.
    pub(in crate::window_log) fn retire_file(&self, sealed: &SealedSegment) -> io::Result<()> {
        let (files, last, number) = (self.files()?, sealed.last.map(Cursor::from), sealed.number);
        let kept_until = last.filter(|last| self.lock().may_keep(*last));
        self.move_file(number, || {
            let Some(last) = kept_until else {
                return remove_file(&*files, &sealed.name).map(|()| None);
            };
            match files.rename(&sealed.name, &SpoolFileName { number, last }.format_name()) {
                Ok(()) => Ok(Some(SpoolFile::new(last, Some(sealed.length)))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Renames or removes a file, and notes what has become of it. Until then, readers wait for it.
    fn move_file(
        &self,
        number: u64,
        change: impl FnOnce() -> io::Result<Option<SpoolFile>>,
    ) -> io::Result<()> {
        self.lock().set_moving(number, true);
        let moved = change().inspect_err(|_| self.lock().set_moving(number, false))?;
        let mut state = self.lock();
        match moved {
            Some(file) => drop(state.files.insert(number, file)),
            None => drop(state.files.remove(&number)),
        }
        Ok(())
    }

    /// Removes spool files that every publisher has read, and the oldest ones while they are too many bytes.
    ///
    /// # Errors
    /// When one could not be removed; the next call tries again.
    pub(in crate::window_log) fn prune_files(&self) -> io::Result<()> {
        loop {
            let (oldest, is_needed, is_over) = {
                let state = self.lock();
                let Some((number, file)) = state.oldest_spooled() else { return Ok(()) };
                let bytes: u64 = state.files.values().filter_map(|file| file.spooled).sum();
                (number, state.is_needed(file.last), bytes > state.limit)
            };
            match (is_needed, is_over) {
                (true, false) => return Ok(()),
                (true, true) => self.drop_oldest()?,
                (false, _) => self.remove_spooled(oldest)?,
            }
        }
    }

    /// Drops the oldest spool file, which publishers may need. What each of them had not read is counted, and recorded before
    /// the file goes.
    ///
    /// # Errors
    /// When it could not be removed. Its records are then dropped all the same.
    pub(in crate::window_log) fn drop_oldest(&self) -> io::Result<()> {
        let (number, file, mut losses) = {
            let mut state = self.lock();
            let Some((number, file)) = state.oldest_spooled() else { return Ok(()) };
            // From here on, no publisher is handed anything of the file.
            let losses = state.begin_dropping(file.last);
            (number, file, losses)
        };
        self.count_losses(number, file, &mut losses);
        for loss in losses.iter().filter(|loss| loss.untaken + loss.in_hand > 0) {
            let Loss { unread, untaken, in_hand, through, .. } = *loss;
            let dropped = SpoolDrop { through, untaken, in_hand, handed: unread.in_hand.1 };
            if let Some(recorder) = self.recorder.get() {
                recorder.record_drop(&loss.publisher, dropped);
            }
        }
        self.lock().end_dropping(&losses);
        self.remove_spooled(number)
    }

    /// Counts the records in a file that publishers have not read.
    fn count_losses(&self, number: u64, file: SpoolFile, losses: &mut [Loss]) {
        let Some(first) = losses.iter().map(|loss| loss.unread.from()).min() else { return };
        let name = SpoolFileName { number, last: file.last }.format_name();
        let bytes = match self.files().and_then(|files| files.read(&name)) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(file = name, %error, "cannot count the records of a file that is dropped from the spool");
                self.lock().note_damage(number, LogDamage { files: 1, ..LogDamage::default() });
                // The sequence tells as much as the file would, if it is of one run.
                for loss in losses {
                    let (from, to) = loss.unread.in_hand;
                    loss.untaken = places_between(loss.unread.taken, file.last);
                    loss.in_hand = places_between(from, file.last.min(to));
                }
                return;
            }
        };
        let mut reader = SpoolFileReader::new(bytes, number, first, file.last);
        while let Some(entry) = reader.next_entry() {
            let (birth, cursor, records) = match &entry {
                SpoolEntry::Window(window) => {
                    (window.birth, window.cursor, window.published.window().len() as u64)
                }
                // Nothing but this file tells of them.
                SpoolEntry::Lost(lost) => (lost.birth, lost.end_cursor(), lost.records),
            };
            for loss in losses.iter_mut() {
                loss.through = loss.through.max(cursor);
                if birth > loss.unread.taken {
                    loss.untaken = loss.untaken.saturating_add(records);
                } else if loss.unread.is_in_hand(birth) {
                    loss.in_hand = loss.in_hand.saturating_add(records);
                }
            }
        }
    }

    /// Removes a file that is kept for publishers; one that is damaged is set aside.
    fn remove_spooled(&self, number: u64) -> io::Result<()> {
        let files = self.files()?;
        let Some(file) = self.lock().files.get(&number).copied() else { return Ok(()) };
        let name = SpoolFileName { number, last: file.last };
        self.move_file(number, || {
            if file.is_damaged {
                // The newest one is enough to look at, and they do not pile up.
                for older in list_set_aside(&files.list_names()?) {
                    remove_file(&*files, &older)?;
                }
                files.rename(&name.format_name(), &name.format_set_aside())?;
            } else {
                remove_file(&*files, &name.format_name())?;
            }
            Ok(None)
        })?;
        self.lock().set_aside += u64::from(file.is_damaged);
        Ok(())
    }
}

/// The places after a cursor and up to another of the same run. Of windows that were open when a run ended, it cannot be told.
fn places_between(after: Cursor, last: Cursor) -> u64 {
    let is_told = after.epoch == last.epoch && Birth::from(last).open_number().is_none();
    if is_told { last.seq.saturating_sub(after.seq) } else { 0 }
}

impl SpoolState {
    fn set_moving(&mut self, number: u64, is_moving: bool) {
        if let Some(file) = self.files.get_mut(&number) {
            file.is_moving = is_moving;
        }
    }

    /// Whether a file whose last window has this birth is to be kept for a publisher.
    fn may_keep(&self, last: Cursor) -> bool {
        self.limit > 0 && self.is_needed(last)
    }

    /// Whether a publisher has not read a file whose last window has this birth.
    fn is_needed(&self, last: Cursor) -> bool {
        self.publishers.values().any(|progress| progress.hold < last)
    }

    fn oldest_spooled(&self) -> Option<(u64, SpoolFile)> {
        let mut spooled = self.files.iter().filter(|(_, file)| file.spooled.is_some());
        spooled.next().map(|(number, file)| (*number, *file))
    }

    /// Ends reading up to a place. Returns the publishers that may lose something, with how far each was.
    fn begin_dropping(&mut self, last: Cursor) -> Vec<Loss> {
        let losses = self.publishers.iter_mut().filter_map(|(name, progress)| {
            let unread = progress.begin_dropping(last)?;
            Some(Loss { publisher: name.clone(), unread, untaken: 0, in_hand: 0, through: last })
        });
        losses.collect()
    }

    /// Notes what was dropped.
    fn end_dropping(&mut self, losses: &[Loss]) {
        for Loss { publisher, untaken, in_hand, through, .. } in losses {
            let Some(progress) = self.publishers.get_mut(publisher) else { continue };
            progress.end_dropping(*untaken, *through);
            if untaken + in_hand > 0 {
                tracing::warn!(
                    publisher,
                    records = untaken,
                    under_way = in_hand,
                    "the oldest windows that were kept for a publisher are dropped: it is too far behind for the size of the spool"
                );
            }
        }
    }
}
