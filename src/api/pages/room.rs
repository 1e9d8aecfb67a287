//! The bytes that pages hold, all together, and their bound.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::page::Page;
use crate::config::Config;

/// How long a reader may take for one chunk before it can be cut short in favour of others.
const LAGGING: Duration = Duration::from_secs(2);

/// How long a wait for room lasts before slow readers are looked for again.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// The bytes that pages hold, all together, and their bound.
#[derive(Debug)]
pub(super) struct Room {
    config: Arc<RwLock<Arc<Config>>>,
    held: Mutex<Sizes>,
    freed: Condvar,
    /// The same for streams, which wait on the control runtime.
    freed_for_streams: Notify,
    pages: Mutex<Vec<Weak<Page>>>,
    /// When slow readers were looked for last.
    looked: Mutex<Option<Instant>>,
    cut: AtomicU64,
}

#[derive(Copy, Clone, Default, Debug)]
struct Sizes {
    /// Chunks, which the bound is for.
    chunks: usize,
    /// What builds are working on. Their number is bounded, and what they read was there before them.
    builds: usize,
}

impl Room {
    /// The bound is that of the configuration that holds.
    pub(super) fn new(config: Arc<RwLock<Arc<Config>>>) -> Self {
        Self {
            config,
            held: Mutex::default(),
            freed: Condvar::new(),
            freed_for_streams: Notify::new(),
            pages: Mutex::default(),
            looked: Mutex::default(),
            cut: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sizes> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All bytes held.
    pub(super) fn held(&self) -> usize {
        let Sizes { chunks, builds } = *self.lock();
        chunks + builds
    }

    pub(super) fn limit(&self) -> usize {
        self.config.read().unwrap_or_else(PoisonError::into_inner).http.page_memory
    }

    /// Responses that were cut short to make room.
    pub(super) fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, page: &Arc<Page>) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|page| page.strong_count() > 0);
        pages.push(Arc::downgrade(page));
    }

    /// Counts the memory of a build.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.lock().builds += bytes;
        Held { room: Arc::clone(self), chunks: 0, builds: bytes }
    }

    /// The chunk, counted until its last copy is dropped; or the chunk itself where there is no room for it. One that
    /// is larger than the bound is admitted when there is no other.
    pub(super) fn admit(self: &Arc<Self>, chunk: Vec<u8>) -> Result<Bytes, Vec<u8>> {
        let bytes = chunk.capacity();
        {
            let mut held = self.lock();
            if held.chunks > 0 && held.chunks.saturating_add(bytes) > self.limit() {
                return Err(chunk);
            }
            held.chunks += bytes;
        }
        let held = Held { room: Arc::clone(self), chunks: bytes, builds: 0 };
        Ok(Bytes::from_owner(Chunk { chunk, _held: held }))
    }

    /// The chunk, counted until its last copy is dropped, whether or not there is room for it.
    pub(super) fn take(self: &Arc<Self>, chunk: Vec<u8>) -> Bytes {
        let bytes = chunk.capacity();
        self.lock().chunks += bytes;
        let held = Held { room: Arc::clone(self), chunks: bytes, builds: 0 };
        Bytes::from_owner(Chunk { chunk, _held: held })
    }

    /// Whether the bound is reached.
    pub(super) fn is_full(&self) -> bool {
        self.lock().chunks >= self.limit()
    }

    /// Waits until the bound is not reached, and cuts off slow readers meanwhile.
    pub(super) async fn free(&self) {
        loop {
            let mut freed = pin!(self.freed_for_streams.notified());
            // What is freed after this line is not missed.
            freed.as_mut().enable();
            if !self.is_full() {
                return;
            }
            self.make();
            let _either_way = tokio::time::timeout(LOOK, freed).await;
        }
    }

    /// Frees what can be freed: pages that are only kept to be shared, and those whose readers are slow. Looks at all pages
    /// at most twenty times a second, however many wait.
    pub(super) fn make(&self) {
        let now = Instant::now();
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|at| now.saturating_duration_since(at) < LOOK / 2) {
                return;
            }
            *looked = Some(now);
        }
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for page in pages.iter().filter_map(Weak::upgrade) {
            page.unshelve_begun();
            let cut = page.cut_lagging(now, LAGGING);
            self.cut.fetch_add(cut as u64, Ordering::Relaxed);
        }
    }

    /// Waits until something was freed, for `most` at the longest.
    pub(super) fn wait(&self, most: Duration) {
        drop(self.freed.wait_timeout(self.lock(), most));
    }
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    chunks: usize,
    builds: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.room.lock();
        held.chunks = held.chunks.saturating_sub(self.chunks);
        held.builds = held.builds.saturating_sub(self.builds);
        drop(held);
        self.room.freed.notify_all();
        self.room.freed_for_streams.notify_waiters();
    }
}

/// A part of a page.
struct Chunk {
    chunk: Vec<u8>,
    _held: Held,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}
