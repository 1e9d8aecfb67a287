//! `GET /v1/tasks/{task_id}/watch`: server-sent events, one for each closed window of a task.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;

use super::error::ApiError;
use super::metrics::write;
use super::query::{Filters, Query};
use super::{Answer, Api};
use crate::model::{Origin, TaskId};
use crate::render::record::Frame;
use crate::shutdown::Drain;
use crate::store::{Cursor, Published};

/// What streams that do not end by themselves are.
pub const EVENT_STREAM: &str = "text/event-stream";
/// How often a quiet stream says that it is alive, so that nobody in between closes it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One stream of events.
struct Watch {
    api: Api,
    task_id: TaskId,
    filters: Arc<Filters>,
    cursor: Cursor,
    newest: watch::Receiver<u64>,
    /// A container is shown as finished only after its last window was published.
    changed: watch::Receiver<()>,
    drain: Drain,
    ready: VecDeque<String>,
    /// What was published while the agent ended has been sent.
    last: bool,
}

/// `GET /v1/tasks/{task_id}/watch`
pub(super) async fn watch(
    api: &Api,
    id: &str,
    raw: &str,
    last_event_id: Option<&str>,
) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "name", "tag", "label"])?)?;
    let listed = api.task(id).await?;
    let (newest, changed) = (api.store.subscribe(), api.containers.directory().subscribe());
    let mut ready = VecDeque::from([": watching\n\n".to_owned()]);
    let after = |id: &str| {
        id.parse::<Cursor>().map_err(|error| ApiError::bad_parameter("Last-Event-ID", id, &error.to_string()))
    };
    let cursor = match last_event_id.map(after).transpose()? {
        Some(cursor) => match api.store.since_of(cursor, |origin| follows(&listed.task_id, &filters, origin))
        {
            Ok(_) => cursor,
            Err(expired) => {
                // What lies between is lost to this reader; it is told, and goes on from what is there.
                ready.push_back(event("gap", None, &Gap { oldest: expired.oldest.to_string() }));
                expired.oldest
            }
        },
        None => api.store.end(),
    };
    let watch = Watch {
        api: api.clone(),
        task_id: listed.task_id,
        filters: Arc::new(filters),
        cursor,
        newest,
        changed,
        drain: api.drain.clone(),
        ready,
        last: false,
    };
    let chunks = stream::unfold(watch, |mut watch| async move {
        let text = watch.next().await?;
        Some((Ok(Bytes::from(text)), watch))
    });
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
    let _infallible = write!(text, "data: {}\n\n", serde_json::to_string(data).unwrap_or_default());
    text
}

impl Watch {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Some(text);
            }
            if self.last {
                return None;
            }
            self.collect().await;
            if !self.ready.is_empty() {
                continue;
            }
            if !self.lives() {
                self.last = true;
                return Some(event("finished", None, &Finished { task_id: self.task_id.as_str() }));
            }
            tokio::select! {
                published = self.newest.changed() => self.last = published.is_err(),
                // Its sender lives as long as the API does, which this holds.
                _ = self.changed.changed() => {}
                () = self.drain.started() => {
                    self.collect().await;
                    self.last = true;
                }
                () = tokio::time::sleep(KEEP_ALIVE) => self.ready.push_back(": still here\n\n".to_owned()),
            }
        }
    }

    /// Whether more can come.
    fn lives(&self) -> bool {
        let listed = self.api.containers.directory().task(self.task_id.as_str());
        listed.is_some_and(|listed| listed.containers.iter().any(|info| info.finished_at.is_none()))
    }

    /// Makes an event of every window of the task that was published since.
    async fn collect(&mut self) {
        if self.api.store.end() == self.cursor {
            return;
        }
        let (api, task, filters, cursor) =
            (self.api.clone(), self.task_id.clone(), Arc::clone(&self.filters), self.cursor);
        // Events that could not be made are made with the next ones.
        let Ok((events, next)) = self.api.pages.aside(move || events(&api, &task, &filters, cursor)).await
        else {
            return;
        };
        self.ready.extend(events);
        self.cursor = next;
    }
}

/// An event of every window of a task that was published after a cursor, and where to go on.
fn events(api: &Api, task: &TaskId, filters: &Filters, cursor: Cursor) -> (Vec<String>, Cursor) {
    let wanted = |origin: &Origin| follows(task, filters, origin);
    match api.store.since_of(cursor, wanted) {
        Ok(since) => {
            let mine = since.published.iter().filter(|published| wanted(published.origin()));
            (mine.filter_map(|published| window(api, published, filters, cursor)).collect(), since.next)
        }
        Err(expired) => {
            let gap = event("gap", None, &Gap { oldest: expired.oldest.to_string() });
            (vec![gap], expired.oldest)
        }
    }
}

fn window(api: &Api, published: &Published, filters: &Filters, cursor: Cursor) -> Option<String> {
    let (node, span) = (&api.config().node, published.window().span);
    let frame = Frame::new(node, api.store.epoch(), published.origin(), span);
    let records: Vec<_> = published
        .records()
        .filter(|(number, record)| number.seq > cursor.seq && filters.record(record))
        .map(|(number, record)| frame.record(Some(number), &record))
        .collect();
    if records.is_empty() {
        return None;
    }
    let mut data = Vec::from(br#"{"container_id":"#);
    write(&mut data, &published.origin().container_id.as_str());
    data.extend_from_slice(br#","start":"#);
    write(&mut data, &span.start);
    data.extend_from_slice(br#","end":"#);
    write(&mut data, &span.end);
    data.extend_from_slice(br#","metrics":"#);
    write(&mut data, &records);
    data.push(b'}');
    let id = Cursor { epoch: api.store.epoch(), seq: published.last() };
    Some(format!("event: window\nid: {id}\ndata: {}\n\n", String::from_utf8_lossy(&data)))
}
