//! Builds events of streams: one at a time for each stream, the next one after the last has been sent.
//!
//! A stream holds no more than one rendered event. Like the chunks of a page, it counts against `http.page_memory`, and a
//! reader that does not take it is disconnected while that is used up.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lane::ThreadPriority;
use super::page::BufferedPage;
use super::room::{CHUNK, Room};
use super::work::{Deadline, TimeLimit, on_thread};
use super::{Asker, DEADLINE, PageReader, Pages};
use crate::api::error::ApiError;
use crate::net::http::ClientKey;

/// Builders of events. Streams whose filters have patterns do not hold up others, and the admin socket does not wait behind
/// the HTTP listener.
#[derive(Debug)]
pub(super) struct EventBuilders {
    plain: Arc<Semaphore>,
    patterns: Arc<Semaphore>,
    admin: Arc<Semaphore>,
}

impl EventBuilders {
    pub(super) fn new() -> Self {
        let builders = |n| Arc::new(Semaphore::new(n));
        Self { plain: builders(2), patterns: builders(1), admin: builders(1) }
    }
}

/// Builds the events of one stream.
#[derive(Clone, Debug)]
pub(in crate::api) struct EventRenderer {
    room: Arc<Room>,
    builders: Arc<Semaphore>,
    priority: ThreadPriority,
    client: Option<ClientKey>,
}

impl Pages {
    /// The builder of a new stream's events. `patterns` tells whether its filters contain patterns.
    pub(in crate::api) fn event_renderer(&self, asker: Asker, patterns: bool) -> EventRenderer {
        let EventBuilders { plain, patterns: of_patterns, admin } = &self.0.events;
        let builders = match (asker.is_admin(), patterns) {
            (true, _) => admin,
            (false, true) => of_patterns,
            (false, false) => plain,
        };
        let priority = if patterns { ThreadPriority::Low } else { ThreadPriority::Usual };
        let (room, builders) = (Arc::clone(&self.0.room), Arc::clone(builders));
        EventRenderer { room, builders, priority, client: asker.client() }
    }
}

impl EventRenderer {
    /// Waits until there is room for another event. Streams gather data after that, so that those that wait hold none.
    pub(in crate::api) async fn wait_for_room(&self) {
        self.room.wait_until_room_for(self.client).await;
    }

    /// Runs a step that renders nothing, once a builder is free.
    ///
    /// # Errors
    /// With what the step fails with, and with 503 where it panics or no thread can be started.
    pub(in crate::api) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Deadline) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.acquire_builder().await?;
        self.run_with(turn, step).await
    }

    /// Renders an event, once there is room for it and a builder is free. Returns the result of `render`, and a reader
    /// of the event unless it is empty.
    ///
    /// The bound can be exceeded by the events that are being rendered: one for each builder.
    ///
    /// # Errors
    /// As [`EventRenderer::run`].
    pub(in crate::api) async fn render_event<T: Send + 'static>(
        &self,
        render: impl FnOnce(&mut Vec<u8>, &Deadline) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Option<PageReader>), ApiError> {
        let turn = loop {
            // Waits without holding a builder, so that streams whose readers are slow take none from the others.
            self.room.wait_until_room_for(self.client).await;
            let turn = self.acquire_builder().await?;
            // Other streams may have used it up by now.
            if self.room.has_room_for(self.client) {
                break turn;
            }
        };
        let (room, client) = (Arc::clone(&self.room), self.client);
        let step = move |deadline: &Deadline| {
            let mut text = Vec::new();
            let rendered = render(&mut text, deadline)?;
            Ok((rendered, (!text.is_empty()).then(|| reader_for_text(&room, client, &text))))
        };
        self.run_with(turn, step).await
    }

    async fn acquire_builder(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.builders).acquire_owned().await.map_err(|_| ApiError::shutting_down())
    }

    async fn run_with<T: Send + 'static>(
        &self,
        turn: OwnedSemaphorePermit,
        step: impl FnOnce(&Deadline) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let room = Arc::clone(&self.room);
        let work = move || {
            room.wait_while_still();
            let done = step(&Deadline::new(TimeLimit::starting_now(DEADLINE, &room), &room, None));
            drop(turn);
            done
        };
        on_thread(self.priority, work).await.flatten()
    }
}

fn reader_for_text(room: &Arc<Room>, client: Option<ClientKey>, text: &[u8]) -> PageReader {
    let page = BufferedPage::new(room);
    let reader = PageReader::open(&page, client);
    // It is shared with no other request, so each chunk is freed as soon as it is sent.
    page.begin_build(None, Instant::now());
    for chunk in text.chunks(CHUNK) {
        page.append_chunk(room.hold_chunk(chunk.to_vec()), false);
    }
    page.finish();
    reader
}
