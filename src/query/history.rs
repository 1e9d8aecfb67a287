//! The history of a task in steps: from the archive, with what it does not have yet from memory.
//!
//! Steps are read, folded and written a few at a time, fewer where containers have many series, so that a month of a container
//! takes no more memory than an hour.

mod selection;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use selection::HISTORY;
pub use selection::HistorySelection;

use super::data::{Data, Error};
use super::documents::task_short;
use super::records::{encode_hdr, start_hdr};
use super::sink::Sink;
use crate::aggregate::{Record, Window, WindowFold};
use crate::archive::{Archive, ArchiveError, ArchiveReader, ArchivedContainer, SeriesPlaces};
use crate::containers::{ContainerInfo, TaskContainers};
use crate::model::{ByIdentity, Origin, SeriesKey, Timestamp};
use crate::render::record::RecordFrame;
use crate::store::{Cursor, Published};
use crate::wire::{self, Word};

/// Steps that are in memory at a time.
const PAGE: u32 = 16;
/// Bytes of slots that are read at once, if they are of more than one step.
const PAGE_BYTES: u64 = 8 << 20;
/// Records of an answer.
const MOST_RECORDS: u64 = 100_000;

/// A container whose history is read.
#[derive(Debug)]
struct HistorySource {
    origin: Arc<Origin>,
    archived: Option<ArchivedContainer>,
    /// Its windows in memory, in the order of the sequence, each with its birth.
    kept: Vec<(Cursor, Arc<Published>)>,
}

/// A task whose history is read.
#[derive(Debug)]
pub struct HistoryTask {
    task: wire::TaskShort,
    sources: Vec<HistorySource>,
    reader: Option<ArchiveReader>,
    archive: Archive,
}

/// Finds the containers of a task, in the archive and among those that are known. `None` if neither knows the task.
///
/// # Errors
/// When the archive cannot be read.
pub fn find_history(
    data: &Data,
    archive: &Archive,
    id: &str,
    listed: Option<&TaskContainers>,
    selection: &HistorySelection,
) -> Result<Option<HistoryTask>, Error> {
    // A task may have been found by another name.
    let id = listed.map_or(id, |listed| listed.task_id.as_str());
    let failed = |error: &ArchiveError| describe_failure(archive, error);
    let reader = archive.open_reader().map_err(|error| failed(&error))?;
    let archived = match &reader {
        Some(reader) => reader.find_containers(id).map_err(|error| failed(&error))?,
        None => Vec::new(),
    };
    let task = match listed {
        Some(listed) => task_short(listed),
        None if archived.is_empty() => return Ok(None),
        None => describe_archived_task(id, &archived),
    };
    let known = listed.map(|_| data.directory.every_container_of(id)).unwrap_or_default();
    let mut sources: BTreeMap<_, HistorySource> = BTreeMap::new();
    for container in archived {
        let origin = Arc::clone(&container.origin);
        let key = (origin.container_id.clone(), origin.generation);
        sources.insert(key, HistorySource { origin, archived: Some(container), kept: Vec::new() });
    }
    for info in &known {
        let origin = Arc::clone(&info.origin);
        let key = (origin.container_id.clone(), origin.generation);
        let new = || HistorySource { origin: Arc::clone(&origin), archived: None, kept: Vec::new() };
        let source = sources.entry(key).or_insert_with(new);
        source.origin = origin;
        source.kept = read_kept(data, info);
    }
    let is_wanted = |source: &HistorySource| selection.filters.matches_origin(&source.origin);
    let sources = sources.into_values().filter(is_wanted).collect();
    Ok(Some(HistoryTask { task, sources, reader, archive: archive.clone() }))
}

/// The windows of a container in memory, in the order of the sequence.
fn read_kept(data: &Data, info: &ContainerInfo) -> Vec<(Cursor, Arc<Published>)> {
    let Some(history) = data.store.find_history(info.allocation) else { return Vec::new() };
    let epoch = data.store.epoch();
    let kept = history.published_windows().map(|kept| (kept.birth_in(epoch), Arc::clone(kept)));
    let mut kept: Vec<_> = kept.collect();
    kept.sort_by_key(|(birth, _)| *birth);
    kept
}

fn describe_archived_task(id: &str, archived: &[ArchivedContainer]) -> wire::TaskShort {
    let origins = || archived.iter().map(|container| &container.origin);
    let mut labels = origins().next().map(|origin| origin.labels.clone()).unwrap_or_default();
    for origin in origins() {
        labels.retain(|key, value| origin.labels.get(key) == Some(value));
    }
    let mut containers: Vec<_> = origins().map(|origin| origin.container_id.to_string()).collect();
    containers.dedup();
    wire::TaskShort {
        task_id: id.to_owned(),
        state: Word::Borrowed("gone"),
        finished: true,
        generation: origins().map(|origin| origin.generation.0).max().unwrap_or(0),
        containers,
        labels,
    }
}

fn describe_failure(archive: &Archive, error: &ArchiveError) -> Error {
    archive.note_read_failure(error);
    tracing::warn!(%error, "the archive cannot be read");
    Error::Archive(error.to_string())
}

/// Writes a task with the steps that a selection chooses, as `wire::TaskMetrics` reads them: by time, then by series and container.
///
/// # Errors
/// When there are too many records, the archive cannot be read, or the document is no longer wanted.
pub fn write_history<S: Sink>(
    writer: &mut S,
    (node, epoch): (&str, u64),
    task: &mut HistoryTask,
    selection: &HistorySelection,
    now: Timestamp,
) -> Result<(), S::Stop> {
    task.check_record_count(writer, selection)?;
    writer.write_bytes(br#"{"task":"#)?;
    writer.write_json(&task.task)?;
    writer.write_bytes(format!(r#","step":{},"metrics":["#, selection.step.as_secs()).as_bytes())?;
    let mut hdr = start_hdr(writer, selection.hdr);
    let mut first = true;
    task.visit_steps(writer, selection, |writer, origins, step| {
        let mut frames = Vec::new();
        let mut picks = Vec::new();
        for (source, window, chosen) in step {
            let Some(origin) = origins.get(*source) else { continue };
            let frame = RecordFrame::new(node, epoch, origin, window.span);
            // A step that has not ended can still get windows.
            frames.push(if window.span.end > now { frame.into_open() } else { frame });
            picks.extend(
                chosen.iter().filter_map(|index| Some((frames.len() - 1, window.record_at(*index)?))),
            );
        }
        picks.sort_by(|(frame, a), (other, b)| {
            SeriesKey(a.series).cmp(&SeriesKey(b.series)).then_with(|| frame.cmp(other))
        });
        for (frame, record) in &picks {
            if !std::mem::take(&mut first) {
                writer.write_bytes(b",")?;
            }
            if let Some(frame) = frames.get(*frame) {
                let encoded = encode_hdr(&mut hdr, &record.view);
                writer.write_json(&frame.record_document(None, record).with_hdr(encoded))?;
            }
        }
        Ok(())
    })?;
    writer.write_bytes(b"]}")
}

/// One step of one source: which source, its window, and the records that are wanted.
type StepPart = (usize, Window, Vec<usize>);

impl HistoryTask {
    /// Refuses what would be too long an answer, before anything is written.
    fn check_record_count<S: Sink>(
        &mut self,
        writer: &mut S,
        selection: &HistorySelection,
    ) -> Result<(), S::Stop> {
        if self.bound_records(selection).map_err(S::Stop::from)? <= MOST_RECORDS {
            return Ok(());
        }
        let mut records = 0;
        self.visit_steps(writer, selection, |_, _, step| {
            records += step.iter().map(|(_, _, chosen)| chosen.len() as u64).sum::<u64>();
            if records > MOST_RECORDS {
                return Err(Error::TooManyRecords { most: MOST_RECORDS }.into());
            }
            Ok(())
        })
    }

    /// A number of records that the answer does not exceed, from indexes and lists of series alone.
    fn bound_records(&self, selection: &HistorySelection) -> Result<u64, Error> {
        let range = (selection.from, selection.until);
        let failed = |error| describe_failure(&self.archive, &error);
        let mut most = 0;
        for source in &self.sources {
            let kept = source.kept.iter().filter(|(_, kept)| is_within(kept, selection));
            most += kept.map(|(_, kept)| kept.window().len() as u64).sum::<u64>();
            let Some((reader, archived)) = self.reader.as_ref().zip(source.archived.as_ref()) else {
                continue;
            };
            for number in &archived.numbers {
                let (slots, _) =
                    reader.count_slots(&[*number], selection.granularity, range).map_err(failed)?;
                if slots > 0 {
                    let series = reader.read_series(*number).map_err(failed)?;
                    let wanted =
                        series.iter().filter(|series| selection.filters.matches_series(series)).count();
                    most = most.saturating_add(slots.saturating_mul(wanted as u64));
                }
            }
        }
        Ok(most)
    }

    /// Calls a function with each step that has records, in the order of time.
    fn visit_steps<S: Sink>(
        &mut self,
        writer: &mut S,
        selection: &HistorySelection,
        mut visit: impl FnMut(&mut S, &[Arc<Origin>], &[StepPart]) -> Result<(), S::Stop>,
    ) -> Result<(), S::Stop> {
        let origins: Vec<_> = self.sources.iter().map(|source| Arc::clone(&source.origin)).collect();
        let mut wanted = WantedSeries::new(selection);
        let mut from = self.first_start(selection).map_err(S::Stop::from)?;
        while from < selection.until {
            writer.ensure_wanted()?;
            let until = self.choose_page_end(selection, from).map_err(S::Stop::from)?;
            let steps = self.read_steps(selection, (from, until), &mut wanted).map_err(S::Stop::from)?;
            for step in steps.values() {
                visit(writer, &origins, step)?;
            }
            from = until;
        }
        Ok(())
    }

    /// The end of the steps that are read at once from a moment on: fewer where containers have many series.
    fn choose_page_end(&self, selection: &HistorySelection, from: Timestamp) -> Result<Timestamp, Error> {
        let mut steps = PAGE;
        loop {
            let until = from.saturating_add(selection.step * steps).min(selection.until);
            if steps == 1 || self.count_bytes(selection, (from, until))? <= PAGE_BYTES {
                return Ok(until);
            }
            steps /= 2;
        }
    }

    /// Bytes of the slots in an interval.
    fn count_bytes(&self, selection: &HistorySelection, range: (Timestamp, Timestamp)) -> Result<u64, Error> {
        let Some(reader) = &self.reader else { return Ok(0) };
        let numbers: Vec<_> = self
            .sources
            .iter()
            .filter_map(|source| source.archived.as_ref())
            .flat_map(|of| &of.numbers)
            .copied()
            .collect();
        let counted = reader.count_bytes(&numbers, selection.granularity, range);
        counted.map_err(|error| describe_failure(&self.archive, &error))
    }

    /// The start of the first step that can have records: there may be years before it.
    fn first_start(&self, selection: &HistorySelection) -> Result<Timestamp, Error> {
        let range = (selection.from, selection.until);
        let mut first = selection.until;
        for source in &self.sources {
            let starts = source.kept.iter().map(|(_, kept)| kept.window().span.start);
            first = starts.filter(|start| *start >= selection.from).fold(first, Timestamp::min);
            let Some((reader, archived)) = self.reader.as_ref().zip(source.archived.as_ref()) else {
                continue;
            };
            let counted = reader.count_slots(&archived.numbers, selection.granularity, range);
            let (_, start) = counted.map_err(|error| describe_failure(&self.archive, &error))?;
            first = first.min(start.unwrap_or(first));
        }
        Ok(first.floor_to_window(selection.step))
    }

    /// The steps of an interval that have records, by start.
    fn read_steps(
        &mut self,
        selection: &HistorySelection,
        range: (Timestamp, Timestamp),
        wanted: &mut WantedSeries<'_>,
    ) -> Result<BTreeMap<Timestamp, Vec<StepPart>>, Error> {
        let mut steps: BTreeMap<Timestamp, Vec<StepPart>> = BTreeMap::new();
        for (index, source) in self.sources.iter().enumerate() {
            let mut parts = BTreeMap::new();
            let mut cursor = Cursor { epoch: 0, seq: 0 };
            if let Some((reader, archived)) = self.reader.as_mut().zip(source.archived.as_ref()) {
                let read = reader.read_slots(archived, selection.granularity, range);
                let read = read.map_err(|error| describe_failure(&self.archive, &error))?;
                if read.damaged > 0 {
                    tracing::warn!(slots = read.damaged, container = %source.origin.container_id, "damaged slots of the archive are left out of an answer");
                }
                cursor = read.cursor;
                for slot in read.slots {
                    parts
                        .entry(slot.span.start.floor_to_window(selection.step))
                        .or_insert_with(StepParts::default)
                        .slots
                        .push(slot);
                }
            }
            for (birth, kept) in &source.kept {
                let start = kept.window().span.start.floor_to_window(selection.step);
                if *birth > cursor && start >= range.0 && start < range.1 && is_within(kept, selection) {
                    parts.entry(start).or_insert_with(StepParts::default).kept.push(kept);
                }
            }
            for (start, part) in parts {
                let window = part.fold(start, selection.step, wanted);
                let chosen = wanted.choose_records(&window);
                if !chosen.is_empty() {
                    steps.entry(start).or_default().push((index, window, chosen));
                }
            }
        }
        Ok(steps)
    }
}

/// Whether a window in memory belongs to a step of a selection.
fn is_within(published: &Published, selection: &HistorySelection) -> bool {
    let span = published.window().span;
    span.start >= selection.from && span.start < selection.until && span.nominal_length() <= selection.step
}

/// What one step of one container is made of.
#[derive(Default)]
struct StepParts<'a> {
    slots: Vec<Window>,
    /// Windows that are not in the slots.
    kept: Vec<&'a Arc<Published>>,
}

impl StepParts<'_> {
    /// The records of a step that are wanted. Others are left out here, because a container may have thousands of series of which
    /// one is asked for.
    fn fold(mut self, start: Timestamp, step: Duration, wanted: &mut WantedSeries<'_>) -> Window {
        let is_slot = |slot: &Window| slot.span.start == start && slot.span.nominal_length() >= step;
        if self.kept.is_empty()
            && self.slots.len() == 1
            && wanted.has_all()
            && let Some(slot) = self.slots.pop_if(|slot| is_slot(slot))
        {
            return slot;
        }
        let (mut fold, mut places) = (WindowFold::new(start, step), SeriesPlaces::new_unstored());
        for slot in &self.slots {
            places.fold_window(&mut fold, slot, |record| wanted.is_wanted(record));
        }
        for kept in &self.kept {
            places.fold_published(&mut fold, kept, |record| wanted.is_wanted(record));
        }
        fold.build(Arc::clone(places.to_layout().layout()))
    }
}

/// Which series are wanted. Patterns are matched once for each series instead of once for each record.
struct WantedSeries<'s> {
    selection: &'s HistorySelection,
    known: HashMap<ByIdentity, bool>,
}

impl<'s> WantedSeries<'s> {
    fn new(selection: &'s HistorySelection) -> Self {
        Self { selection, known: HashMap::new() }
    }

    /// Whether every series is wanted.
    fn has_all(&self) -> bool {
        self.selection.filters.has_all_series()
    }

    fn is_wanted(&mut self, record: &Record<'_>) -> bool {
        let matches = || self.selection.filters.matches_series(record.series);
        *self.known.entry(ByIdentity(Arc::clone(record.series))).or_insert_with(matches)
    }

    fn choose_records(&mut self, window: &Window) -> Vec<usize> {
        let is_wanted =
            |index: &usize| window.record_at(*index).is_some_and(|record| self.is_wanted(&record));
        (0..window.len()).filter(is_wanted).collect()
    }
}
