//! Every task's records: the newest of each interval, or everything from a cursor on, in order.

use std::sync::Arc;

use super::data::Data;
use super::error::Error;
use super::parameters::Filters;
use super::sink::{Sink, write};
use crate::aggregate::Record;
use crate::model::Origin;
use crate::render::record::{Frame, Number};
use crate::store::{Cursor, IntervalWindows, Published};

/// One window's worth of records.
enum Part {
    /// What was published at once; records up to this place were read before.
    Published(Arc<Published>, u64),
    /// The newest revision of each record of an interval.
    Interval(IntervalWindows),
}

/// Writes the records that filters want as a document, or as `lines`. `found` runs once it is known that there is an answer, with the
/// cursor to continue from.
///
/// # Errors
/// When the cursor cannot be followed, or the document is not wanted any more.
pub fn write_changes<S: Sink>(
    writer: &mut S,
    data: &Data,
    since: Option<Cursor>,
    filters: Filters,
    lines: bool,
    found: impl FnOnce(&mut S, Cursor),
) -> Result<(), S::Stop> {
    let (parts, next) = match since {
        Some(cursor) => {
            let wanted = |origin: &Origin| writer.goes_on() && filters.origin(origin);
            let since = data.store.since_of(cursor, wanted).map_err(Error::from);
            // A build that ran out of time has not checked every container for lost windows.
            writer.check()?;
            let since = since?;
            let parts = since.published.into_iter().map(|p| Part::Published(p, cursor.seq));
            (parts.collect::<Vec<_>>(), since.next)
        }
        None => {
            let (newest, next) = data.store.newest();
            (newest.into_iter().map(Part::Interval).collect(), next)
        }
    };
    found(writer, next);
    let node = data.config().node.clone();
    let mut records = Records { node, epoch: data.store.epoch(), filters, lines, next, any: false };
    writer.put(&records.head())?;
    for part in &parts {
        let part = records.part(part, writer)?;
        writer.put(&part)?;
    }
    writer.put(&records.tail())
}

/// Renders records, window by window.
struct Records {
    node: String,
    epoch: u64,
    filters: Filters,
    lines: bool,
    next: Cursor,
    any: bool,
}

impl Records {
    fn head(&self) -> Vec<u8> {
        if self.lines {
            return Vec::new();
        }
        let mut out = Vec::from(br#"{"node":"#);
        write(&mut out, &self.node);
        out.extend_from_slice(br#","cursor":"#);
        write(&mut out, &self.next.to_string());
        out.extend_from_slice(br#","metrics":["#);
        out
    }

    fn part<S: Sink>(&mut self, part: &Part, writer: &S) -> Result<Vec<u8>, S::Stop> {
        writer.check()?;
        let mut records: Vec<(&Arc<Published>, Number, Record<'_>)> = match part {
            Part::Published(published, seen) => {
                let unread = published.records().filter(|(number, _)| number.seq > *seen);
                unread.map(|(number, record)| (published, number, record)).collect()
            }
            Part::Interval(kept) => kept.records().collect(),
        };
        records.sort_by_key(|(_, number, _)| number.seq);
        records.retain(|(published, _, record)| {
            writer.goes_on() && self.filters.origin(published.origin()) && self.filters.record(record)
        });
        writer.check()?;
        let mut out = Vec::new();
        for of_one in records.chunk_by(|a, b| Arc::ptr_eq(a.0, b.0)) {
            let Some((published, ..)) = of_one.first() else { continue };
            let frame = Frame::new(&self.node, self.epoch, published.origin(), published.window().span);
            for (_, number, record) in of_one {
                if !self.lines && std::mem::replace(&mut self.any, true) {
                    out.push(b',');
                }
                write(&mut out, &frame.record(Some(*number), record));
                if self.lines {
                    out.push(b'\n');
                }
            }
        }
        Ok(out)
    }

    fn tail(&self) -> Vec<u8> {
        if !self.lines {
            return b"]}\n".to_vec();
        }
        let mut out = Vec::from(br#"{"cursor":"#);
        write(&mut out, &self.next.to_string());
        out.extend_from_slice(b"}\n");
        out
    }
}
