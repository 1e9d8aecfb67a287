//! The bytes that pages hold, all together, and their bound.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::pace::PageRateLimiter;
use crate::config::AgentConfig;
use crate::net::http::ClientKey;

/// Approximate size of a chunk, in bytes.
pub(super) const CHUNK: usize = 64 << 10;
/// How long a reader may take for one chunk before it can be disconnected in favour of others.
const LAGGING: Duration = Duration::from_secs(2);

/// The same while the reserve for clients that read is used up as well.
const LAGGING_IN_RESERVE: Duration = Duration::from_millis(500);

/// How long a wait for room lasts before slow readers are looked for again.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// A page whose memory can be freed while others wait for room.
pub(super) trait Reclaimable: std::fmt::Debug + Send + Sync {
    /// Frees what is kept only for requests that may share the page, unless its build has yet to begin: a page that waits holds
    /// nothing, and requests that share it need one build instead of one each.
    fn stop_sharing_begun(&self);

    /// Disconnects readers that have not taken their next chunk for `most`; returns how many.
    fn cut_lagging(&self, now: Instant, most: Duration) -> usize;
}

/// The bytes that pages hold, all together, and their bound.
#[derive(Debug)]
pub(super) struct Room {
    config: Arc<RwLock<Arc<AgentConfig>>>,
    held: Mutex<Sizes>,
    freed: Condvar,
    /// The same for streams, which wait on the control runtime.
    freed_for_streams: Notify,
    pages: Mutex<Vec<Weak<dyn Reclaimable>>>,
    /// When slow readers were last looked for.
    looked: Mutex<Option<Instant>>,
    cut: AtomicU64,
    /// Whether nothing is rendered or written for now.
    still: AtomicBool,
    still_time: Mutex<StillTime>,
    pub(super) pace: PageRateLimiter,
}

/// For how long nothing was rendered or written.
#[derive(Default, Debug)]
struct StillTime {
    /// In all pauses that are over.
    total: Duration,
    /// When the present pause began.
    since: Option<Instant>,
}

#[derive(Default, Debug)]
struct Sizes {
    /// Chunks, which the bound applies to.
    chunks: usize,
    /// Memory of running builds, which does not count against the bound: their number is limited, and they mostly share
    /// existing data.
    builds: usize,
    /// Chunks that a client's readers have not taken, or that are still being written to its connections. A chunk that several clients
    /// share counts for each of them.
    unread: HashMap<ClientKey, usize>,
}

impl Room {
    /// The bound is read from the current configuration.
    pub(super) fn new(config: Arc<RwLock<Arc<AgentConfig>>>) -> Self {
        Self {
            config,
            held: Mutex::default(),
            freed: Condvar::new(),
            freed_for_streams: Notify::new(),
            pages: Mutex::default(),
            looked: Mutex::default(),
            cut: AtomicU64::new(0),
            still: AtomicBool::new(false),
            still_time: Mutex::default(),
            pace: PageRateLimiter::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sizes> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All bytes held.
    pub(super) fn held_bytes(&self) -> usize {
        let held = self.lock();
        held.chunks + held.builds
    }

    pub(super) fn byte_limit(&self) -> usize {
        self.config.read().unwrap_or_else(PoisonError::into_inner).http.page_memory
    }

    /// Responses that were cut short to make room.
    pub(super) fn cut_count(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Adds a page whose memory can be freed.
    pub(super) fn add(&self, page: Weak<dyn Reclaimable>) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|page| page.strong_count() > 0);
        pages.push(page);
    }

    /// Counts the memory of a build.
    pub(super) fn hold_bytes(self: &Arc<Self>, bytes: usize) -> HeldMemory {
        self.lock().builds += bytes;
        HeldMemory { room: Arc::clone(self), chunks: 0, builds: bytes }
    }

    /// A chunk, counted until its last copy is dropped, whether or not there is room for it.
    pub(super) fn hold_chunk(self: &Arc<Self>, chunk: Vec<u8>) -> Bytes {
        let bytes = chunk.capacity();
        self.lock().chunks += bytes;
        let held = HeldMemory { room: Arc::clone(self), chunks: bytes, builds: 0 };
        Bytes::from_owner(Chunk { chunk, _held: held })
    }

    /// Counts a chunk as unread by a client until the result is dropped.
    pub(super) fn charge_unread(
        self: &Arc<Self>,
        client: Option<ClientKey>,
        bytes: usize,
    ) -> Option<UnreadCharge> {
        let client = client?;
        *self.lock().unread.entry(client).or_default() += bytes;
        Some(UnreadCharge { room: Arc::clone(self), client, bytes })
    }

    /// Whether a client may be sent more: memory is below the bound, or the client has read what it was sent before. So a client that
    /// reads does not wait for those that do not, as long as all together hold less than twice the bound.
    ///
    /// The bound can be exceeded by what builders are about to add, which is one chunk or event for each of them.
    pub(super) fn has_room_for(&self, client: Option<ClientKey>) -> bool {
        let limit = self.byte_limit();
        let held = self.lock();
        let unread = client.and_then(|client| held.unread.get(&client)).copied().unwrap_or_default();
        held.chunks < limit || (unread < CHUNK && held.chunks < with_reserve(limit))
    }

    /// Waits until there is room for an event of this client, and cuts off slow readers meanwhile.
    pub(super) async fn wait_until_room_for(&self, client: Option<ClientKey>) {
        loop {
            let mut freed = pin!(self.freed_for_streams.notified());
            // What is freed after this line is not missed.
            freed.as_mut().enable();
            if self.has_room_for(client) {
                return;
            }
            self.free_memory();
            let _either_way = tokio::time::timeout(LOOK, freed).await;
        }
    }

    /// Frees memory: stops sharing pages and disconnects slow readers. Scans all pages at most twenty times a second,
    /// however many builds wait.
    pub(super) fn free_memory(&self) {
        let now = Instant::now();
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|at| now.saturating_duration_since(at) < LOOK / 2) {
                return;
            }
            *looked = Some(now);
        }
        let in_reserve = self.lock().chunks >= with_reserve(self.byte_limit());
        let lagging = if in_reserve { LAGGING_IN_RESERVE } else { LAGGING };
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for page in pages.iter().filter_map(Weak::upgrade) {
            page.stop_sharing_begun();
            let cut = page.cut_lagging(now, lagging);
            self.cut.fetch_add(cut as u64, Ordering::Relaxed);
        }
    }

    /// Suspends or resumes everything that renders or writes responses.
    pub(super) fn stand_still(&self, still: bool) {
        let mut time = self.still_time.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        time.since = match time.since {
            Some(since) if !still => {
                time.total += now.saturating_duration_since(since);
                None
            }
            None if still => Some(now),
            unchanged => unchanged,
        };
        self.still.store(still, Ordering::Relaxed);
        drop(time);
        if !still {
            self.tell_freed();
        }
    }

    pub(super) fn is_still(&self) -> bool {
        self.still.load(Ordering::Relaxed)
    }

    /// For how long everything stood still in all, until `now`.
    pub(super) fn still_time(&self, now: Instant) -> Duration {
        let time = self.still_time.lock().unwrap_or_else(PoisonError::into_inner);
        time.total + time.since.map(|since| now.saturating_duration_since(since)).unwrap_or_default()
    }

    /// Waits while rendering is suspended; returns how long that took.
    pub(super) fn wait_while_still(&self) -> Duration {
        if !self.is_still() {
            return Duration::ZERO;
        }
        let began = Instant::now();
        while self.is_still() {
            self.wait_until_freed(LOOK);
        }
        began.elapsed()
    }

    /// Wakes builds and streams that wait for room.
    fn tell_freed(&self) {
        self.freed.notify_all();
        self.freed_for_streams.notify_waiters();
    }

    /// Waits until something was freed, for `most` at the longest.
    pub(super) fn wait_until_freed(&self, most: Duration) {
        drop(self.freed.wait_timeout(self.lock(), most));
    }
}

/// The bound with the reserve for clients that read.
const fn with_reserve(limit: usize) -> usize {
    limit.saturating_mul(2)
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(super) struct HeldMemory {
    room: Arc<Room>,
    chunks: usize,
    builds: usize,
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        let mut held = self.room.lock();
        held.chunks = held.chunks.saturating_sub(self.chunks);
        held.builds = held.builds.saturating_sub(self.builds);
        drop(held);
        self.room.tell_freed();
    }
}

/// A chunk that counts as unread by a client until this is dropped.
#[derive(Debug)]
pub(super) struct UnreadCharge {
    room: Arc<Room>,
    client: ClientKey,
    bytes: usize,
}

impl Drop for UnreadCharge {
    fn drop(&mut self) {
        let mut held = self.room.lock();
        if let Some(bytes) = held.unread.get_mut(&self.client) {
            *bytes = bytes.saturating_sub(self.bytes);
            if *bytes == 0 {
                held.unread.remove(&self.client);
            }
        }
        drop(held);
        self.room.tell_freed();
    }
}

/// A part of a page.
struct Chunk {
    chunk: Vec<u8>,
    _held: HeldMemory,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}
