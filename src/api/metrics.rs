//! A task's records: chosen, merged if asked for, sorted, written.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::documents::TaskShort;
use super::error::ApiError;
use super::pages::{Asker, Deadline, Lane, Request, Stop, Work, Writer};
use super::query::{Query, SELECTION, Selection, Windows};
use super::{Answer, Api};
use crate::aggregate::{Record, Span, State, View, Window};
use crate::containers::{ContainerInfo, Listed};
use crate::model::{Origin, Series, SeriesKey, Timestamp};
use crate::net::clock;
use crate::render::record::{Frame, Number};
use crate::shard::{ContainerStats, Of};
use crate::store::{History, Published};

/// `GET /v1/tasks/{task_id}/metrics`
pub(super) async fn metrics(api: &Api, asker: Asker, id: &str, raw: &str) -> Result<Answer, ApiError> {
    let selection = Selection::read(&Query::read(raw, &SELECTION)?, clock::wall())?;
    let costly = selection.filters.has_patterns() || selection.windows == Windows::All;
    let lane = if costly { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/tasks/{task_id}/metrics", format!("{id}\n{raw}"));
    let (of_node, id) = (api.clone(), id.to_owned());
    let gather = move |work: Work| async move {
        let listed = of_node.task(asker, &id).await?;
        let selection = Arc::new(selection);
        let sources = sources(&of_node, &work, &listed, &selection).await?;
        Ok(move |writer: &mut Writer| {
            writer.put(br#"{"task":"#)?;
            writer.json(&TaskShort::from(&listed))?;
            writer.put(br#","metrics":"#)?;
            let of_node = (of_node.config().node.clone(), of_node.store.epoch());
            write_records(writer, (&of_node.0, of_node.1), &sources, &selection)?;
            writer.put(b"}")
        })
    };
    api.pages.answer(request, gather).await
}

/// Writes a document.
///
/// # Panics
/// If JSON cannot express the type, which the first test of it finds.
#[expect(clippy::expect_used, reason = "memory takes everything, so only a mistake in a type can fail")]
pub(super) fn write(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("a type that JSON can express");
}

/// Where a container's records come from.
pub(super) struct Source {
    info: Arc<ContainerInfo>,
    history: Option<Arc<History>>,
    open: Option<Arc<Window>>,
}

/// What is there of a task's containers; the open windows only where the selection may want them.
async fn sources(
    api: &Api,
    work: &Work,
    listed: &Listed,
    selection: &Arc<Selection>,
) -> Result<Vec<Source>, ApiError> {
    // A filter that names a container means it, whether or not it lives.
    let containers = match selection.filters.names_containers() {
        true => api.containers.directory().every_container_of(listed.task_id.as_str()),
        false => listed.containers.clone(),
    };
    let chosen = Arc::clone(selection);
    let choose =
        move |deadline: &Deadline| deadline.choose(containers, |info| chosen.filters.origin(&info.origin));
    let containers = work.run(choose).await?;
    let mut open = HashMap::new();
    if matches!(selection.windows, Windows::Newest | Windows::Open) {
        let live = containers.iter().filter(|info| info.last.is_none()).map(|info| info.allocation).collect();
        let stats_by_container = api.pool.open_windows(&Of::These(live)).await?;
        let window =
            |stats: &Arc<ContainerStats>| Some((stats.allocation, Arc::clone(&stats.open.as_ref()?.0)));
        open = stats_by_container.iter().filter_map(window).collect();
    }
    // After the open windows: a window that closes in between is then in both, and counted as closed.
    let source = |info: Arc<ContainerInfo>| Source {
        history: api.store.history(info.allocation),
        open: open.remove(&info.allocation),
        info,
    };
    Ok(containers.into_iter().map(source).collect())
}

/// A record that was chosen, and the frame it belongs to.
struct Pick<'a> {
    frame: usize,
    number: Option<Number>,
    record: Record<'a>,
    origin: &'a Arc<Origin>,
    span: Span,
}

/// The frames of the windows that records were chosen from.
struct Frames<'a> {
    node: &'a str,
    epoch: u64,
    frames: Vec<Frame<'a>>,
    known: HashMap<*const Published, usize>,
}

impl<'a> Frames<'a> {
    fn of(&mut self, published: &'a Arc<Published>) -> usize {
        *self.known.entry(Arc::as_ptr(published)).or_insert_with(|| {
            let span = published.window().span;
            self.frames.push(Frame::new(self.node, self.epoch, published.origin(), span));
            self.frames.len() - 1
        })
    }

    fn open(&mut self, origin: &'a Origin, span: Span) -> usize {
        self.frames.push(Frame::new(self.node, self.epoch, origin, span).open());
        self.frames.len() - 1
    }
}

/// Writes the records that a selection chooses as a JSON array, sorted by name, tags, type, container and time.
fn write_records(
    writer: &mut Writer,
    (node, epoch): (&str, u64),
    sources: &[Source],
    selection: &Selection,
) -> Result<(), Stop> {
    let mut frames = Frames { node, epoch, frames: Vec::new(), known: HashMap::new() };
    let mut picks = Vec::new();
    for source in sources {
        pick(&mut picks, &mut frames, source, selection, writer);
        // One that stopped in between has only some of the records.
        writer.check()?;
    }
    writer.hold(picks.capacity() * size_of::<Pick<'_>>());
    picks.sort_by(by_series_container_and_time);
    writer.put(b"[")?;
    if selection.merge {
        write_merged(writer, (node, epoch), &picks)?;
    } else {
        for (index, pick) in picks.iter().enumerate() {
            if index > 0 {
                writer.put(b",")?;
            }
            if let Some(frame) = frames.frames.get(pick.frame) {
                writer.json(&frame.record(pick.number, &pick.record))?;
            }
        }
    }
    writer.put(b"]")
}

fn by_series_container_and_time(a: &Pick<'_>, b: &Pick<'_>) -> Ordering {
    SeriesKey(a.record.series)
        .cmp(&SeriesKey(b.record.series))
        .then_with(|| a.origin.container_id.cmp(&b.origin.container_id))
        .then_with(|| (a.origin.generation, a.span.start).cmp(&(b.origin.generation, b.span.start)))
}

fn pick<'a>(
    picks: &mut Vec<Pick<'a>>,
    frames: &mut Frames<'a>,
    source: &'a Source,
    selection: &Selection,
    writer: &Writer,
) {
    let recent = |span: Span| selection.since.is_none_or(|since| span.end > since);
    // A series is compared with patterns once, not once for each of its records.
    let mut known: HashMap<SeriesKey<'a>, bool> = HashMap::new();
    let mut wanted = |series: &'a Series| {
        writer.goes_on()
            && *known.entry(SeriesKey(series)).or_insert_with(|| selection.filters.series(series))
    };
    let mut seen = HashSet::new();
    let newest_only = matches!(selection.windows, Windows::Newest | Windows::Last);
    if selection.windows != Windows::Open {
        let kept = source.history.iter().flat_map(|history| history.kept().rev());
        for kept in kept.filter(|kept| kept.span().is_some_and(recent)) {
            for (published, number, record) in kept.records() {
                if newest_only && !seen.insert(SeriesKey(record.series)) || !wanted(record.series) {
                    continue;
                }
                let (frame, span) = (frames.of(published), published.window().span);
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

/// One record for each series, merged from all that were chosen.
fn write_merged(writer: &mut Writer, (node, epoch): (&str, u64), picks: &[Pick<'_>]) -> Result<(), Stop> {
    let mut first = true;
    for picks in picks.chunk_by(|a, b| SeriesKey(a.record.series) == SeriesKey(b.record.series)) {
        let Some((state, total)) = merged(picks) else { continue };
        let packed = state.packed();
        let (Some(pick), Some(view)) = (picks.last(), state.view(total, &packed)) else { continue };
        if !std::mem::take(&mut first) {
            writer.put(b",")?;
        }
        let others: Vec<&Origin> = picks.iter().map(|pick| pick.origin.as_ref()).collect();
        let frame = Frame::new(node, epoch, pick.origin, whole_span(picks)).merged(picks.len(), &others);
        let frame = if picks.iter().any(|pick| pick.number.is_none()) { frame.open() } else { frame };
        let record = Record { place: 0, series: pick.record.series, view };
        writer.json(&frame.record(None, &record))?;
    }
    Ok(())
}

/// All picks of one series together, in the order of time, and its counters' totals: of each container in each
/// generation that of the record that was made last, which a revision of an old window can be.
fn merged(picks: &[Pick<'_>]) -> Option<(State, f64)> {
    let mut in_time: Vec<_> = picks.iter().collect();
    in_time.sort_by_key(|pick| pick.span.start);
    let mut totals = BTreeMap::new();
    let mut state: Option<State> = None;
    for pick in in_time {
        if let View::Counter { total, .. } = pick.record.view {
            // An open record has no place yet; it comes after all that have.
            let made = pick.number.map_or(u64::MAX, |number| number.seq);
            let newest =
                totals.entry((&pick.origin.container_id, pick.origin.generation)).or_insert((made, total));
            if made >= newest.0 {
                *newest = (made, total);
            }
        }
        let next = pick.record.view.to_state()?;
        match &mut state {
            Some(state) => state.merge(&next),
            None => state = Some(next),
        }
    }
    Some((state?, totals.values().map(|(_, total)| total).sum()))
}

/// From the first start to the last end; covered as long as any of the containers was in each window. Generations of
/// one container follow each other, so theirs add up.
fn whole_span(picks: &[Pick<'_>]) -> Span {
    let mut of_each: BTreeMap<_, Duration> = BTreeMap::new();
    for pick in picks {
        *of_each.entry((pick.span.start, &pick.origin.container_id)).or_default() += pick.span.covered;
    }
    let mut covered: BTreeMap<Timestamp, Duration> = BTreeMap::new();
    for ((start, _), of_one) in of_each {
        let longest = covered.entry(start).or_default();
        *longest = (*longest).max(of_one);
    }
    let start = picks.iter().map(|pick| pick.span.start).min().unwrap_or_default();
    let end = picks.iter().map(|pick| pick.span.end).max().unwrap_or_default();
    Span { start, end, covered: covered.values().sum() }
}
