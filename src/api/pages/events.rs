//! Builds events of streams: one at a time for each stream, the next one after the last has been sent.
//!
//! A stream holds no more than one rendered event. Like the chunks of a page, it counts against `http.page_memory`, and a
//! reader that does not take it is disconnected while that is used up.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::page::Page;
use super::room::Room;
use super::work::{Deadline, Priority, on_thread};
use super::writer::CHUNK;
use super::{Asker, DEADLINE, Pages, Reader};
use crate::api::error::ApiError;
use crate::net::http::Client;

/// Builders of events. Streams whose filters have patterns do not hold up others, and the admin socket does not wait behind
/// the HTTP listener.
#[derive(Debug)]
pub(super) struct Builders {
    plain: Arc<Semaphore>,
    patterns: Arc<Semaphore>,
    admin: Arc<Semaphore>,
}

impl Builders {
    pub(super) fn new() -> Self {
        let builders = |n| Arc::new(Semaphore::new(n));
        Self { plain: builders(2), patterns: builders(1), admin: builders(1) }
    }
}

/// Builds the events of one stream.
#[derive(Clone, Debug)]
pub(in crate::api) struct Events {
    room: Arc<Room>,
    builders: Arc<Semaphore>,
    priority: Priority,
    client: Option<Client>,
}

impl Pages {
    /// The builder of a new stream's events. `patterns` is whether its filters contain patterns.
    pub(in crate::api) fn events(&self, asker: Asker, patterns: bool) -> Events {
        let Builders { plain, patterns: of_patterns, admin } = &self.0.events;
        let builders = match (asker.is_admin(), patterns) {
            (true, _) => admin,
            (false, true) => of_patterns,
            (false, false) => plain,
        };
        let priority = if patterns { Priority::Low } else { Priority::Usual };
        let (room, builders) = (Arc::clone(&self.0.room), Arc::clone(builders));
        Events { room, builders, priority, client: asker.client() }
    }
}

impl Events {
    /// Waits until there is room for another event. Streams gather data after that, so that those that wait hold none.
    pub(in crate::api) async fn wait_for_room(&self) {
        self.room.free(self.client).await;
    }

    /// Runs a step that renders nothing, once a builder is free.
    ///
    /// # Errors
    /// With what the step fails with, and with 503 where it panics or no thread can be started.
    pub(in crate::api) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Deadline) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.turn().await?;
        self.run_with(turn, step).await
    }

    /// Renders an event, once there is room for it and a builder is free. Answers what `render` does, and the event's chunks
    /// where it has any text.
    ///
    /// The bound can be exceeded by the events that are being rendered: one for each builder.
    ///
    /// # Errors
    /// As [`Events::run`].
    pub(in crate::api) async fn render<T: Send + 'static>(
        &self,
        render: impl FnOnce(&mut Vec<u8>, &Deadline) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Option<Reader>), ApiError> {
        let turn = loop {
            // Without a builder: streams that wait for room keep none from those whose readers read.
            self.room.free(self.client).await;
            let turn = self.turn().await?;
            // Others that waited may have filled it by now.
            if self.room.has_room_for(self.client) {
                break turn;
            }
        };
        let (room, client) = (Arc::clone(&self.room), self.client);
        let step = move |deadline: &Deadline| {
            let mut text = Vec::new();
            let rendered = render(&mut text, deadline)?;
            Ok((rendered, (!text.is_empty()).then(|| chunks(&room, client, &text))))
        };
        self.run_with(turn, step).await
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.builders).acquire_owned().await.map_err(|_| ApiError::ending())
    }

    async fn run_with<T: Send + 'static>(
        &self,
        turn: OwnedSemaphorePermit,
        step: impl FnOnce(&Deadline) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let room = Arc::clone(&self.room);
        let work = move || {
            room.wait_while_still();
            let done = step(&Deadline::new(Instant::now() + DEADLINE, None));
            drop(turn);
            done
        };
        on_thread(self.priority, work).await.flatten()
    }
}

/// A page with this text and one reader.
fn chunks(room: &Arc<Room>, client: Option<Client>, text: &[u8]) -> Reader {
    let page = Page::new(room);
    let reader = page.reader(client);
    // It is shared with no other request, so each chunk is freed as soon as it is sent.
    page.begin(None, Instant::now());
    for chunk in text.chunks(CHUNK) {
        page.append(room.take(chunk.to_vec()), false);
    }
    page.finish();
    reader
}
