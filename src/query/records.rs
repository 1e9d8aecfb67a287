//! Selects, sorts and writes a task's records.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::data::{Data, Error};
use super::documents::task_short;
use super::merged::{group_picks, write_merged};
use super::parameters::{Selection, Windows};
use super::sink::Sink;
use crate::aggregate::{Record, View, Window, WindowSpan};
use crate::containers::{ContainerInfo, TaskContainers};
use crate::model::{Origin, Series, SeriesKey};
use crate::render::hdr::HdrEncoder;
use crate::render::record::{RecordFrame, RecordNumber};
use crate::shard::{ContainerSelection, ContainerStats};
use crate::store::{History, Published};

/// The sources of a container's records.
#[derive(Debug)]
pub struct RecordSource {
    info: Arc<ContainerInfo>,
    history: Option<Arc<History>>,
    open: Option<Arc<Window>>,
}

/// Collects the windows of these containers; open ones only if the selection can include them.
///
/// # Errors
/// When a shard has ended.
pub async fn collect_sources(
    data: &Data,
    containers: Vec<Arc<ContainerInfo>>,
    windows: Windows,
) -> Result<Vec<RecordSource>, Error> {
    let mut open = HashMap::new();
    if matches!(windows, Windows::Newest | Windows::Open) {
        let live = containers.iter().filter(|info| info.last.is_none()).map(|info| info.allocation).collect();
        let stats_by_container = data.pool.open_windows(&ContainerSelection::These(live)).await?;
        let window =
            |stats: &Arc<ContainerStats>| Some((stats.allocation, Arc::clone(&stats.open.as_ref()?.0)));
        open = stats_by_container.iter().filter_map(window).collect();
    }
    // Read after the open windows: a window that closes in between is in both, and the closed one is used.
    let source = |info: Arc<ContainerInfo>| RecordSource {
        history: data.store.find_history(info.allocation),
        open: open.remove(&info.allocation),
        info,
    };
    Ok(containers.into_iter().map(source).collect())
}

/// Writes a task with the records that a selection chooses from these sources, as `wire::TaskMetrics` reads them.
///
/// # Errors
/// When the document is no longer wanted.
pub fn write_task<S: Sink>(
    writer: &mut S,
    listed: &TaskContainers,
    (node, epoch): (&str, u64),
    sources: &[RecordSource],
    selection: &Selection,
) -> Result<(), S::Stop> {
    writer.write_bytes(br#"{"task":"#)?;
    writer.write_json(&task_short(listed))?;
    writer.write_bytes(br#","metrics":"#)?;
    write_records(writer, (node, epoch), sources, selection)?;
    writer.write_bytes(b"}")
}

/// A selected record, and the frame it belongs to.
pub(super) struct Pick<'a> {
    frame: usize,
    pub(super) number: Option<RecordNumber>,
    pub(super) record: Record<'a>,
    pub(super) origin: &'a Arc<Origin>,
    pub(super) span: WindowSpan,
}

/// The frames of the windows with selected records.
struct RecordFrames<'a> {
    node: &'a str,
    epoch: u64,
    frames: Vec<RecordFrame<'a>>,
    known: HashMap<*const Published, usize>,
}

impl<'a> RecordFrames<'a> {
    fn find_or_add(&mut self, published: &'a Arc<Published>) -> usize {
        *self.known.entry(Arc::as_ptr(published)).or_insert_with(|| {
            let span = published.window().span;
            self.frames.push(RecordFrame::new(self.node, self.epoch, published.origin(), span));
            self.frames.len() - 1
        })
    }

    fn open(&mut self, origin: &'a Origin, span: WindowSpan) -> usize {
        self.frames.push(RecordFrame::new(self.node, self.epoch, origin, span).into_open());
        self.frames.len() - 1
    }
}

/// Writes the records that a selection chooses as a JSON array, sorted by name, tags, type, container and time.
fn write_records<S: Sink>(
    writer: &mut S,
    (node, epoch): (&str, u64),
    sources: &[RecordSource],
    selection: &Selection,
) -> Result<(), S::Stop> {
    let mut frames = RecordFrames { node, epoch, frames: Vec::new(), known: HashMap::new() };
    let mut picks = Vec::new();
    for source in sources {
        pick_records(&mut picks, &mut frames, source, selection, writer);
        // If it stopped early, only some of the records were selected.
        writer.ensure_wanted()?;
    }
    writer.hold_bytes(picks.capacity() * size_of::<Pick<'_>>());
    picks.sort_by(by_series_container_and_time);
    let mut hdr = start_hdr(writer, selection.hdr);
    writer.write_bytes(b"[")?;
    if selection.merge || selection.by.is_some() {
        let groups = group_picks(&picks, selection.by.as_deref(), selection.merge);
        write_merged(writer, (node, epoch), groups, &mut hdr)?;
    } else {
        for (index, pick) in picks.iter().enumerate() {
            if index > 0 {
                writer.write_bytes(b",")?;
            }
            if let Some(frame) = frames.frames.get(pick.frame) {
                let encoded = encode_hdr(&mut hdr, &pick.record.view);
                writer.write_json(&frame.record_document(pick.number, &pick.record).with_hdr(encoded))?;
            }
        }
    }
    writer.write_bytes(b"]")
}

/// The encoder for a document with distributions. Its memory is counted until the document is finished.
pub(super) fn start_hdr(writer: &mut impl Sink, wanted: bool) -> Option<HdrEncoder> {
    wanted.then(|| {
        writer.hold_bytes(HdrEncoder::MOST_BYTES);
        HdrEncoder::default()
    })
}

/// A record's distribution, if it is wanted and can be encoded.
pub(super) fn encode_hdr(encoder: &mut Option<HdrEncoder>, view: &View<'_>) -> Option<String> {
    encoder.as_mut()?.encode_view(view)
}

fn by_series_container_and_time(a: &Pick<'_>, b: &Pick<'_>) -> Ordering {
    SeriesKey(a.record.series)
        .cmp(&SeriesKey(b.record.series))
        .then_with(|| a.origin.container_id.cmp(&b.origin.container_id))
        .then_with(|| (a.origin.generation, a.span.start).cmp(&(b.origin.generation, b.span.start)))
}

fn pick_records<'a>(
    picks: &mut Vec<Pick<'a>>,
    frames: &mut RecordFrames<'a>,
    source: &'a RecordSource,
    selection: &Selection,
    writer: &impl Sink,
) {
    let recent = |span: WindowSpan| selection.since.is_none_or(|since| span.end > since);
    // Match patterns once per series instead of once per record.
    let mut known: HashMap<SeriesKey<'a>, bool> = HashMap::new();
    let mut wanted = |series: &'a Series| {
        writer.goes_on()
            && *known.entry(SeriesKey(series)).or_insert_with(|| selection.filters.matches_series(series))
    };
    let mut seen = HashSet::new();
    let newest_only = matches!(selection.windows, Windows::Newest | Windows::Last);
    if selection.windows != Windows::Open {
        let kept = source.history.iter().flat_map(|history| history.kept_intervals().rev());
        for kept in kept.filter(|kept| kept.span().is_some_and(recent)) {
            for (published, number, record) in kept.newest_records() {
                if newest_only && !seen.insert(SeriesKey(record.series)) || !wanted(record.series) {
                    continue;
                }
                let (frame, span) = (frames.find_or_add(published), published.window().span);
                picks.push(Pick { frame, number: Some(number), record, origin: published.origin(), span });
            }
        }
    }
    let Some(open) = &source.open else { return };
    let chosen = open.records().filter(|record| {
        !seen.contains(&SeriesKey(record.series)) && wanted(record.series) && recent(open.span)
    });
    let chosen: Vec<_> = chosen.collect();
    if !chosen.is_empty() {
        let (frame, origin, span) =
            (frames.open(&source.info.origin, open.span), &source.info.origin, open.span);
        picks.extend(chosen.into_iter().map(|record| Pick { frame, number: None, record, origin, span }));
    }
}
