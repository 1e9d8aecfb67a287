//! Records as they come: those of every task, the newest of each interval or everything from a cursor on, in order; and the
//! closed windows of one task as server-sent events.

use std::sync::Arc;

use super::data::{Data, Error};
use super::parameters::Filters;
use super::records::{encode_hdr, start_hdr};
use super::sink::{Budget, Sink, append_json, format_event};
use crate::aggregate::Record;
use crate::model::{Origin, TaskId};
use crate::render::hdr::HdrEncoder;
use crate::render::record::{RecordFrame, RecordNumber};
use crate::store::{Cursor, IntervalWindows, Published};
use crate::wire;

/// One window's worth of records.
enum ScrapePart {
    /// Records published together; those up to this sequence number were read before.
    Published(Arc<Published>, u64),
    /// The newest revision of each record of an interval.
    Interval(IntervalWindows),
}

/// How [`write_changes`] writes records.
#[derive(Copy, Clone, Debug, Default)]
pub struct RecordFormat {
    /// One document per line instead of an array.
    pub lines: bool,
    /// With distributions in HdrHistogram's encoding.
    pub hdr: bool,
}

/// Writes the records that match the filters. `found` is called with the next cursor once the query is known to
/// succeed.
///
/// # Errors
/// When the cursor has expired, or the document is no longer wanted.
pub fn write_changes<S: Sink>(
    writer: &mut S,
    data: &Data,
    since: Option<Cursor>,
    filters: Filters,
    format: RecordFormat,
    found: impl FnOnce(&mut S, Cursor),
) -> Result<(), S::Stop> {
    let (parts, next) = match since {
        Some(cursor) => {
            let wanted = |origin: &Origin| writer.goes_on() && filters.matches_origin(origin);
            let since = data.store.since_of(cursor, wanted).map_err(Error::from);
            // A build that ran out of time has not checked every container for lost windows.
            writer.ensure_wanted()?;
            let since = since?;
            let parts = since.published.into_iter().map(|p| ScrapePart::Published(p, cursor.seq));
            (parts.collect::<Vec<_>>(), since.next)
        }
        None => {
            let (newest, next) = data.store.newest_intervals();
            (newest.into_iter().map(ScrapePart::Interval).collect(), next)
        }
    };
    found(writer, next);
    let node = data.current_config().node.clone();
    let hdr = start_hdr(writer, format.hdr);
    let lines = format.lines;
    let mut records = Records { node, epoch: data.store.epoch(), filters, lines, hdr, next, any: false };
    writer.write_bytes(&records.render_head())?;
    for part in &parts {
        records.write_part(part, writer)?;
    }
    writer.write_bytes(&records.render_tail())
}

/// Writes records, window by window.
struct Records {
    node: String,
    epoch: u64,
    filters: Filters,
    lines: bool,
    hdr: Option<HdrEncoder>,
    next: Cursor,
    any: bool,
}

impl Records {
    fn render_head(&self) -> Vec<u8> {
        if self.lines {
            return Vec::new();
        }
        let mut out = Vec::from(br#"{"node":"#);
        append_json(&mut out, &self.node);
        out.extend_from_slice(br#","cursor":"#);
        append_json(&mut out, &self.next.to_string());
        out.extend_from_slice(br#","metrics":["#);
        out
    }

    fn write_part<S: Sink>(&mut self, part: &ScrapePart, writer: &mut S) -> Result<(), S::Stop> {
        writer.ensure_wanted()?;
        let mut records: Vec<(&Arc<Published>, RecordNumber, Record<'_>)> = match part {
            ScrapePart::Published(published, seen) => {
                let unread = published.numbered_records().filter(|(number, _)| number.seq > *seen);
                unread.map(|(number, record)| (published, number, record)).collect()
            }
            ScrapePart::Interval(kept) => kept.newest_records().collect(),
        };
        records.sort_by_key(|(_, number, _)| number.seq);
        records.retain(|(published, _, record)| {
            writer.goes_on()
                && self.filters.matches_origin(published.origin())
                && self.filters.matches_record(record)
        });
        writer.ensure_wanted()?;
        // One record at a time: with its distribution, a record can have tens of kilobytes, and a window thousands of records.
        let mut text = Vec::new();
        for of_one in records.chunk_by(|a, b| Arc::ptr_eq(a.0, b.0)) {
            let Some((published, ..)) = of_one.first() else { continue };
            let frame = RecordFrame::new(&self.node, self.epoch, published.origin(), published.window().span);
            for (_, number, record) in of_one {
                text.clear();
                if !self.lines && std::mem::replace(&mut self.any, true) {
                    text.push(b',');
                }
                let encoded = encode_hdr(&mut self.hdr, &record.view);
                append_json(&mut text, &frame.record_document(Some(*number), record).with_hdr(encoded));
                if self.lines {
                    text.push(b'\n');
                }
                writer.write_bytes(&text)?;
            }
        }
        Ok(())
    }

    fn render_tail(&self) -> Vec<u8> {
        if !self.lines {
            return b"]}\n".to_vec();
        }
        let mut out = Vec::from(br#"{"cursor":"#);
        append_json(&mut out, &self.next.to_string());
        out.extend_from_slice(b"}\n");
        out
    }
}

/// Maximum number of windows of the node that one step scans for one of the task. Other streams get the builder between
/// steps.
const AT_ONCE: usize = 256;

/// Whether a stream includes the windows of this container.
#[must_use]
pub fn matches_task(task_id: &TaskId, filters: &Filters, origin: &Origin) -> bool {
    origin.task_id == *task_id && filters.matches_origin(origin)
}

/// Writes the first event after a cursor, if there is one, and returns the next cursor. Scans a bounded number of
/// windows; if none of them is wanted, nothing is written.
///
/// # Errors
/// When the budget is used up.
pub fn write_next(
    text: &mut Vec<u8>,
    data: &Data,
    (task, filters): (&TaskId, &Filters),
    cursor: Cursor,
    budget: &impl Budget,
) -> Result<Cursor, Error> {
    let wanted = |origin: &Origin| budget.goes_on() && matches_task(task, filters, origin);
    let since = data.store.some_since_of(cursor, AT_ONCE, wanted);
    let next = match since {
        Ok(since) => match since.published.iter().find(|published| wanted(published.origin())) {
            Some(published) => {
                write_window(text, data, published, filters, cursor, budget);
                Cursor { seq: published.last_seq(), ..since.next }
            }
            None => since.next,
        },
        Err(expired) => {
            // The windows in between are gone. The event reports that, and the stream continues with the oldest that is kept.
            text.extend_from_slice(
                format_event("gap", None, &wire::Gap { oldest: expired.oldest.to_string() }).as_bytes(),
            );
            expired.oldest
        }
    };
    // A step that ran out of time has skipped windows or records.
    if budget.has_passed() { Err(Error::Unfinished) } else { Ok(next) }
}

/// Writes the event of one window, unless it has no matching record after the cursor.
fn write_window(
    text: &mut Vec<u8>,
    data: &Data,
    published: &Published,
    filters: &Filters,
    cursor: Cursor,
    budget: &impl Budget,
) {
    let (node, span) = (&data.current_config().node, published.window().span);
    let frame = RecordFrame::new(node, data.store.epoch(), published.origin(), span);
    let mut records = published
        .numbered_records()
        .filter(|(number, record)| {
            number.seq > cursor.seq && budget.goes_on() && filters.matches_record(record)
        })
        .peekable();
    if records.peek().is_none() {
        return;
    }
    let id = Cursor { epoch: data.store.epoch(), seq: published.last_seq() };
    text.extend_from_slice(format!("event: window\nid: {id}\ndata: ").as_bytes());
    text.extend_from_slice(br#"{"container_id":"#);
    append_json(text, &published.origin().container_id.as_str());
    text.extend_from_slice(br#","start":"#);
    append_json(text, &span.start);
    text.extend_from_slice(br#","end":"#);
    append_json(text, &span.end);
    text.extend_from_slice(br#","metrics":["#);
    let mut separator: &[u8] = b"";
    for (number, record) in records {
        text.extend_from_slice(separator);
        append_json(text, &frame.record_document(Some(number), &record));
        separator = b",";
    }
    text.extend_from_slice(b"]}\n\n");
}
