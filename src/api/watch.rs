//! `GET /v1/tasks/{task_id}/watch`: server-sent events, one for each closed window of a task.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::watch;

use super::error::ApiError;
use super::metrics::write;
use super::pages::{Asker, Deadline, Events, Reader};
use super::query::{Filters, Query};
use super::{Answer, Api};
use crate::model::{Origin, TaskId};
use crate::render::record::Frame;
use crate::shutdown::Drain;
use crate::store::{Cursor, Published};

/// The content type of streams that do not end by themselves.
pub const EVENT_STREAM: &str = "text/event-stream";
/// How often a stream without events sends a comment, so that no proxy closes it as idle.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many windows of the node one step looks through for one of the task. Other streams get the builder between steps.
const AT_ONCE: usize = 256;

/// One stream of events. It follows the store by its cursor and holds no windows: a client that does not read keeps one rendered
/// event in memory, however much it asked for.
struct Watch {
    api: Api,
    task_id: TaskId,
    filters: Arc<Filters>,
    cursor: Cursor,
    newest: watch::Receiver<u64>,
    /// A container is shown as finished only after its last window was published.
    changed: watch::Receiver<()>,
    drain: Drain,
    events: Events,
    /// What is left of the event that is being sent.
    sending: Option<Reader>,
    /// A comment or a short event that is sent next.
    note: Option<String>,
    /// No windows follow those that are published already.
    last: bool,
}

/// `GET /v1/tasks/{task_id}/watch`
pub(super) async fn watch(
    api: &Api,
    asker: Asker,
    id: &str,
    raw: &str,
    last_event_id: Option<&str>,
) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "name", "tag", "label"])?)?;
    let listed = api.task(asker, id).await?;
    let (newest, changed) = (api.store.subscribe(), api.containers.directory().subscribe());
    let after = |id: &str| {
        id.parse::<Cursor>().map_err(|error| ApiError::bad_parameter("Last-Event-ID", id, &error.to_string()))
    };
    let cursor = last_event_id.map(after).transpose()?.unwrap_or_else(|| api.store.end());
    let watch = Watch {
        api: api.clone(),
        task_id: listed.task_id,
        events: api.pages.events(asker, filters.has_patterns()),
        filters: Arc::new(filters),
        cursor,
        newest,
        changed,
        drain: api.drain.clone(),
        sending: None,
        note: Some(": watching\n\n".to_owned()),
        last: false,
    };
    let chunks = stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) });
    Ok(Answer::chunks(EVENT_STREAM, Box::pin(chunks)).with_header("cache-control", "no-store".to_owned()))
}

/// Whether a container is one of those whose windows a stream is about.
fn follows(task_id: &TaskId, filters: &Filters, origin: &Origin) -> bool {
    origin.task_id == *task_id && filters.origin(origin)
}

#[derive(Serialize)]
struct Gap {
    oldest: String,
}

#[derive(Serialize)]
struct Finished<'a> {
    task_id: &'a str,
}

/// An event as it goes over the wire.
pub(super) fn event(name: &str, id: Option<Cursor>, data: &impl Serialize) -> String {
    let mut text = format!("event: {name}\n");
    if let Some(id) = id {
        let _infallible = writeln!(text, "id: {id}");
    }
    // A JSON text has no line end outside its strings, and none inside them.
    let _infallible = write!(text, "data: {}\n\n", String::from_utf8_lossy(&super::to_json(data)));
    text
}

impl Watch {
    /// The next part of the stream; nothing after its end. An error breaks the connection: the client sees that there is more, and
    /// can come back with the id of the last event.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(note) = self.note.take() {
                return Some(Ok(note.into()));
            }
            if let Some(sending) = &mut self.sending {
                if let Some(chunk) = sending.next().await {
                    return Some(chunk);
                }
                self.sending = None;
            }
            // Read before the store: a task is shown as finished only after its last window was published.
            let lives = self.lives();
            if let Err(error) = self.advance().await {
                return Some(Err(io::Error::other(error.message)));
            }
            if self.sending.is_some() {
                continue;
            }
            if self.last {
                return None;
            }
            if !lives {
                self.last = true;
                self.note = Some(event("finished", None, &Finished { task_id: self.task_id.as_str() }));
                continue;
            }
            tokio::select! {
                published = self.newest.changed() => self.last = published.is_err(),
                // Its sender lives as long as the API does, which this holds.
                _ = self.changed.changed() => {}
                () = self.drain.started() => self.last = true,
                () = tokio::time::sleep(KEEP_ALIVE) => self.note = Some(": still here\n\n".to_owned()),
            }
        }
    }

    /// Whether more can come.
    fn lives(&self) -> bool {
        let listed = self.api.containers.directory().task(self.task_id.as_str());
        listed.is_some_and(|listed| listed.containers.iter().any(|info| info.finished_at.is_none()))
    }

    /// Renders the next event, if there is one: that of the first window of the task that was published since.
    async fn advance(&mut self) -> Result<(), ApiError> {
        while self.sending.is_none() && self.api.store.end() != self.cursor {
            let (api, task, filters) = (self.api.clone(), self.task_id.clone(), Arc::clone(&self.filters));
            let cursor = self.cursor;
            let render = move |text: &mut Vec<u8>, deadline: &Deadline| {
                write_next(text, &api, (&task, &filters), cursor, deadline)
            };
            (self.cursor, self.sending) = self.events.render(render).await?;
        }
        Ok(())
    }
}

/// Writes the first event after a cursor, if there is one, and answers where to go on. Looks through a bounded number of windows;
/// where none of them is wanted, nothing is written.
fn write_next(
    text: &mut Vec<u8>,
    api: &Api,
    (task, filters): (&TaskId, &Filters),
    cursor: Cursor,
    deadline: &Deadline,
) -> Result<Cursor, ApiError> {
    let wanted = |origin: &Origin| deadline.goes_on() && follows(task, filters, origin);
    let since = api.store.some_since_of(cursor, AT_ONCE, wanted);
    let next = match since {
        Ok(since) => match since.published.iter().find(|published| wanted(published.origin())) {
            Some(published) => {
                write_window(text, api, published, filters, cursor, deadline);
                Cursor { seq: published.last(), ..since.next }
            }
            None => since.next,
        },
        Err(expired) => {
            // The windows in between are gone. The event reports that, and the stream continues with the oldest that is kept.
            text.extend_from_slice(
                event("gap", None, &Gap { oldest: expired.oldest.to_string() }).as_bytes(),
            );
            expired.oldest
        }
    };
    // A step that ran out of time has skipped windows or records.
    if deadline.has_passed() { Err(ApiError::unfinished()) } else { Ok(next) }
}

/// Writes the event of one window, unless no record that is new after the cursor is wanted.
fn write_window(
    text: &mut Vec<u8>,
    api: &Api,
    published: &Published,
    filters: &Filters,
    cursor: Cursor,
    deadline: &Deadline,
) {
    let (node, span) = (&api.config().node, published.window().span);
    let frame = Frame::new(node, api.store.epoch(), published.origin(), span);
    let mut records = published
        .records()
        .filter(|(number, record)| number.seq > cursor.seq && deadline.goes_on() && filters.record(record))
        .peekable();
    if records.peek().is_none() {
        return;
    }
    let id = Cursor { epoch: api.store.epoch(), seq: published.last() };
    text.extend_from_slice(format!("event: window\nid: {id}\ndata: ").as_bytes());
    text.extend_from_slice(br#"{"container_id":"#);
    write(text, &published.origin().container_id.as_str());
    text.extend_from_slice(br#","start":"#);
    write(text, &span.start);
    text.extend_from_slice(br#","end":"#);
    write(text, &span.end);
    text.extend_from_slice(br#","metrics":["#);
    let mut separator: &[u8] = b"";
    for (number, record) in records {
        text.extend_from_slice(separator);
        write(text, &frame.record(Some(number), &record));
        separator = b",";
    }
    text.extend_from_slice(b"]}\n\n");
}
