//! A task's closed windows as server-sent events, one after another from a cursor on.

use super::data::Data;
use super::error::Error;
use super::parameters::Filters;
use super::sink::{Budget, append_json, format_event};
use crate::model::{Origin, TaskId};
use crate::render::record::RecordFrame;
use crate::store::{Cursor, Published};
use crate::wire;

/// How many windows of the node one step looks through for one of the task. Other streams get the builder between steps.
const AT_ONCE: usize = 256;

/// Whether a container is one of those whose windows a stream is about.
#[must_use]
pub fn matches_task(task_id: &TaskId, filters: &Filters, origin: &Origin) -> bool {
    origin.task_id == *task_id && filters.matches_origin(origin)
}

/// Writes the first event after a cursor, if there is one, and answers where to go on. Looks through a bounded number of windows;
/// where none of them is wanted, nothing is written.
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

/// Writes the event of one window, unless no record that is new after the cursor is wanted.
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
