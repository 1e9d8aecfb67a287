//! `GET /v1/tasks/{task_id}/watch`: server-sent events, one for each closed window of a task.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;

use super::error::ApiError;
use super::pages::{Asker, Deadline, EventRenderer, PageReader};
use super::{ApiResponse, ReaderContext};
use crate::model::TaskId;
use crate::query::{Filters, Query, format_event, write_next};
use crate::shutdown::Drain;
use crate::store::Cursor;
use crate::wire;

/// The content type of streams that do not end by themselves.
pub const EVENT_STREAM: &str = "text/event-stream";
/// The interval at which a stream without events sends a comment, so that no proxy closes it as idle.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// One stream of events. It follows the store by its cursor and holds no windows: a client that does not read keeps one rendered
/// event in memory, however much it asked for.
struct Watch {
    reading: ReaderContext,
    task_id: TaskId,
    filters: Arc<Filters>,
    cursor: Cursor,
    newest: watch::Receiver<u64>,
    /// A container is shown as finished only after its last window was published.
    changed: watch::Receiver<()>,
    drain: Drain,
    events: EventRenderer,
    /// The unsent rest of the current event.
    sending: Option<PageReader>,
    /// A comment or a short event that is sent next.
    note: Option<String>,
    /// No windows follow those that are published already.
    last: bool,
}

/// `GET /v1/tasks/{task_id}/watch`
pub(super) async fn watch_task(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    raw: &str,
    last_event_id: Option<&str>,
) -> Result<ApiResponse, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "name", "tag", "label"])?)?;
    let listed = reading.find_task(asker, id).await?;
    let (newest, changed) = (reading.data.store.subscribe(), reading.data.directory.subscribe());
    let after = |id: &str| {
        id.parse::<Cursor>().map_err(|error| ApiError::bad_parameter("Last-Event-ID", id, &error.to_string()))
    };
    let cursor = last_event_id.map(after).transpose()?.unwrap_or_else(|| reading.data.store.end_cursor());
    let watch = Watch {
        reading: reading.clone(),
        task_id: listed.task_id,
        events: reading.pages.event_renderer(asker, filters.has_patterns()),
        filters: Arc::new(filters),
        cursor,
        newest,
        changed,
        drain: reading.drain.clone(),
        sending: None,
        note: Some(": watching\n\n".to_owned()),
        last: false,
    };
    let chunks = stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) });
    Ok(ApiResponse::with_chunks(EVENT_STREAM, Box::pin(chunks))
        .with_header("cache-control", "no-store".to_owned()))
}

impl Watch {
    /// The next part of the stream; `None` after its end. An error breaks the connection: the client sees that the
    /// stream is incomplete, and can resume with the id of the last event.
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
            let lives = self.is_live();
            if let Err(error) = self.render_next_event().await {
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
                self.note = Some(format_event(
                    "finished",
                    None,
                    &wire::FinishedDocument { task_id: self.task_id.as_str().into() },
                ));
                continue;
            }
            tokio::select! {
                published = self.newest.changed() => self.last = published.is_err(),
                // Its sender lives as long as the directory, which `reading` holds.
                _ = self.changed.changed() => {}
                () = self.drain.wait_for_start() => self.last = true,
                () = tokio::time::sleep(KEEP_ALIVE) => self.note = Some(": still here\n\n".to_owned()),
            }
        }
    }

    /// Whether more windows can follow.
    fn is_live(&self) -> bool {
        let listed = self.reading.data.directory.find_task(self.task_id.as_str());
        listed.is_some_and(|listed| listed.containers.iter().any(|info| info.finished_at.is_none()))
    }

    /// Renders the next event, if there is one: the first window of the task that was published since the last event.
    async fn render_next_event(&mut self) -> Result<(), ApiError> {
        while self.sending.is_none() && self.reading.data.store.end_cursor() != self.cursor {
            let (data, task, filters) =
                (self.reading.data.clone(), self.task_id.clone(), Arc::clone(&self.filters));
            let cursor = self.cursor;
            let render = move |text: &mut Vec<u8>, deadline: &Deadline| {
                Ok(write_next(text, &data, (&task, &filters), cursor, deadline)?)
            };
            (self.cursor, self.sending) = self.events.render_event(render).await?;
        }
        Ok(())
    }
}
