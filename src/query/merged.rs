//! Merges records: those of one series over several windows, and those of several series into their sum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::records::{Pick, encode_hdr};
use super::sink::Sink;
use crate::aggregate::{Record, SeriesState, View, WindowSpan};
use crate::model::{MetricType, Origin, Series, SeriesKey, TagSet, Timestamp};
use crate::render::hdr::HdrEncoder;
use crate::render::record::RecordFrame;

/// What is merged into one record: the series of the result, and the start of its window unless windows are merged.
type GroupKey = (Arc<Series>, Option<Timestamp>);

/// Groups records, sorted by series, that are merged into one. With `by`, series are added up over all tags except these, and
/// each window stays a record unless `merge` is set. Types whose records cannot be added up are then left out.
pub(super) fn group_picks<'p, 'a>(
    picks: &'p [Pick<'a>],
    by: Option<&[String]>,
    merge: bool,
) -> BTreeMap<GroupKey, Vec<&'p Pick<'a>>> {
    let mut groups: BTreeMap<GroupKey, Vec<&Pick<'_>>> = BTreeMap::new();
    for same in picks.chunk_by(|a, b| SeriesKey(a.record.series) == SeriesKey(b.record.series)) {
        let Some(series) = same.first().map(|pick| pick.record.series) else { continue };
        if by.is_some() && !can_be_added(series.metric_type) {
            continue;
        }
        let series = Arc::new(project_series(series, by));
        for pick in same {
            let window = (!merge).then_some(pick.span.start);
            groups.entry((Arc::clone(&series), window)).or_default().push(pick);
        }
    }
    groups
}

/// Whether records of several series of this type have a sum: levels and the outcomes of checks have none.
const fn can_be_added(metric_type: MetricType) -> bool {
    match metric_type {
        MetricType::Counter
        | MetricType::Timer
        | MetricType::Histogram
        | MetricType::Distribution
        | MetricType::Set => true,
        MetricType::Gauge | MetricType::ServiceCheck => false,
    }
}

/// The series with these tags alone. Its creation time is dropped, so that equal series compare as equal.
fn project_series(series: &Series, by: Option<&[String]>) -> Series {
    let tags = match by {
        None => series.tags.clone(),
        Some(keys) => {
            TagSet::from_pairs(series.tags.iter().filter(|(key, _)| keys.iter().any(|kept| kept == key)))
        }
    };
    Series { name: series.name.clone(), tags, metric_type: series.metric_type, created: Timestamp::default() }
}

/// Writes one record for each group, merged from all its records.
pub(super) fn write_merged<S: Sink>(
    writer: &mut S,
    (node, epoch): (&str, u64),
    groups: BTreeMap<GroupKey, Vec<&Pick<'_>>>,
    hdr: &mut Option<HdrEncoder>,
) -> Result<(), S::Stop> {
    let mut first = true;
    for ((series, _), picks) in groups {
        writer.ensure_wanted()?;
        let Some((state, total)) = merge_picks(&picks) else { continue };
        let packed = state.to_packed_bytes();
        let (Some(pick), Some(view)) = (picks.last(), state.as_view(total, &packed)) else { continue };
        if !std::mem::take(&mut first) {
            writer.write_bytes(b",")?;
        }
        let others: Vec<&Origin> = picks.iter().map(|pick| pick.origin.as_ref()).collect();
        let frame =
            RecordFrame::new(node, epoch, pick.origin, whole_span(&picks)).into_merged(picks.len(), &others);
        let frame = if picks.iter().any(|pick| pick.number.is_none()) { frame.into_open() } else { frame };
        let record = Record { place: 0, series: &series, view };
        let encoded = encode_hdr(hdr, &record.view);
        writer.write_json(&frame.record_document(None, &record).with_hdr(encoded))?;
    }
    Ok(())
}

/// Merges all picks of a group in the order of time, and sums the totals of counters. For each series in each generation of a
/// container, the total of the record with the highest sequence number counts, which can be a revision of an old window.
fn merge_picks(picks: &[&Pick<'_>]) -> Option<(SeriesState, f64)> {
    let mut in_time: Vec<_> = picks.iter().collect();
    in_time.sort_by_key(|pick| pick.span.start);
    let mut totals = BTreeMap::new();
    let mut state: Option<SeriesState> = None;
    for pick in in_time {
        if let View::Counter { total, .. } = pick.record.view {
            // An open record has no sequence number yet; it sorts after all others.
            let made = pick.number.map_or(u64::MAX, |number| number.seq);
            let key = (SeriesKey(pick.record.series), &pick.origin.container_id, pick.origin.generation);
            let newest = totals.entry(key).or_insert((made, total));
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

/// The span from the first start to the last end. The covered time of each window is that of its longest covered
/// container; generations of one container follow each other, so theirs are added.
fn whole_span(picks: &[&Pick<'_>]) -> WindowSpan {
    // Several series of one container have the same window, which counts once.
    let mut of_generation: BTreeMap<_, Duration> = BTreeMap::new();
    for pick in picks {
        let key = (pick.span.start, &pick.origin.container_id, pick.origin.generation);
        let covered = of_generation.entry(key).or_default();
        *covered = (*covered).max(pick.span.covered);
    }
    let mut of_each: BTreeMap<_, Duration> = BTreeMap::new();
    for ((start, container, _), covered) in of_generation {
        *of_each.entry((start, container)).or_default() += covered;
    }
    let mut covered: BTreeMap<Timestamp, Duration> = BTreeMap::new();
    for ((start, _), of_one) in of_each {
        let longest = covered.entry(start).or_default();
        *longest = (*longest).max(of_one);
    }
    let start = picks.iter().map(|pick| pick.span.start).min().unwrap_or_default();
    let end = picks.iter().map(|pick| pick.span.end).max().unwrap_or_default();
    WindowSpan { start, end, covered: covered.values().sum() }
}
