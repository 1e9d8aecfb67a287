//! One request's way through a page.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Shows;
use super::page::{BufferedPage, OpenedPage};
use crate::api::error::ApiError;
use crate::net::http::ClientKey;

/// Bytes that a connection may write before it yields. A fast reader would otherwise hold a thread for megabytes at a
/// time, and small requests would wait for it.
const BYTES_PER_TURN: u32 = 64 << 10;

/// How long a reader waits before it checks again whether responses are suspended.
const STILL: Duration = Duration::from_millis(10);

/// One request's way through a page. Dropping it frees what the page held for it.
#[derive(Debug)]
pub(in crate::api) struct PageReader {
    page: Arc<BufferedPage>,
    number: u64,
    /// Bytes taken since the last yield.
    taken: u32,
    /// A delay that keeps all readers within the rate limit.
    rest: Option<Pin<Box<Sleep>>>,
}

impl PageReader {
    /// Opens a page for a request of a client, at its first chunk.
    pub(super) fn open(page: &Arc<BufferedPage>, client: Option<ClientKey>) -> Self {
        Self::with_number(page, page.add_reader(client))
    }

    /// Opens a page for another request, unless what the page shows may be older than that request.
    pub(super) fn open_shared(
        page: &Arc<BufferedPage>,
        client: Option<ClientKey>,
        shows: Option<&Shows>,
        most: Duration,
    ) -> Option<Self> {
        page.add_shared_reader(client, shows, most).map(|number| Self::with_number(page, number))
    }

    fn with_number(page: &Arc<BufferedPage>, number: u64) -> Self {
        Self { page: Arc::clone(page), number, taken: 0, rest: None }
    }

    #[cfg(test)]
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Waits for the head.
    ///
    /// # Errors
    /// With what the build failed with, where it had rendered nothing yet.
    pub(super) async fn wait_for_head(&mut self) -> Result<OpenedPage, ApiError> {
        poll_fn(|context| self.page.poll_opened(self.number, context)).await
    }
}

impl Stream for PageReader {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.taken >= BYTES_PER_TURN {
            let taken = std::mem::take(&mut self.taken);
            match self.page.room.pace.count(taken, Instant::now()) {
                Some(until) => {
                    self.page.mark_resting(self.number, until.into_std());
                    self.rest = Some(Box::pin(sleep_until(until)));
                }
                None => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        loop {
            if let Some(rest) = &mut self.rest {
                ready!(rest.as_mut().poll(context));
                self.rest = None;
            }
            if !self.page.room.is_still() {
                break;
            }
            let until = Instant::now() + STILL;
            self.page.mark_resting(self.number, until.into_std());
            self.rest = Some(Box::pin(sleep_until(until)));
        }
        // An error breaks the connection, so that no client mistakes a part for the whole.
        let next = self.page.poll_next(self.number, context);
        if let Poll::Ready(Some(Ok(chunk))) = &next {
            self.taken = self.taken.saturating_add(u32::try_from(chunk.len()).unwrap_or(u32::MAX));
        }
        next.map(|chunk| chunk.map(|chunk| chunk.map_err(io::Error::other)))
    }
}

impl Drop for PageReader {
    fn drop(&mut self) {
        self.page.remove_reader(self.number);
    }
}
