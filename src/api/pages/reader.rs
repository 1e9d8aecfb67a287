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

/// One request's way through a page. The page is not held for it any more once this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Reader {
    page: Arc<Page>,
    number: u64,
}

impl Reader {
    pub(super) fn new(page: Arc<Page>, number: u64) -> Self {
        Self { page, number }
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

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // An error breaks the connection, so that no client takes a part for the whole.
        let next = self.page.poll_next(self.number, context);
        next.map(|chunk| chunk.map(|chunk| chunk.map_err(io::Error::other)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.page.leave(self.number);
    }
}
