//! One request's way through a page.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;

use super::page::{Opened, Page};
use crate::api::error::ApiError;

/// Bytes that a connection may write before others have a turn. Readers that take data as fast as it is written would else hold
/// a thread for megabytes at a time, and a small request waits for every one of them.
const TURN: usize = 64 << 10;

/// One request's way through a page. The page is not held for it any more once this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Reader {
    page: Arc<Page>,
    number: u64,
    /// Bytes taken since other tasks had a turn.
    taken: usize,
}

impl Reader {
    pub(super) fn new(page: Arc<Page>, number: u64) -> Self {
        Self { page, number, taken: 0 }
    }

    /// Waits for the head.
    ///
    /// # Errors
    /// With what the build failed with, where it had rendered nothing yet.
    pub(super) async fn opened(&mut self) -> Result<Opened, ApiError> {
        poll_fn(|context| self.page.poll_opened(self.number, context)).await
    }
}

impl Stream for Reader {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.taken >= TURN {
            self.taken = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        // An error breaks the connection, so that no client takes a part for the whole.
        let next = self.page.poll_next(self.number, context);
        if let Poll::Ready(Some(Ok(chunk))) = &next {
            self.taken += chunk.len();
        }
        next.map(|chunk| chunk.map(|chunk| chunk.map_err(io::Error::other)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.page.leave(self.number);
    }
}
