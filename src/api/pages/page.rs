//! One page: the rendered chunks that at least one reader has not taken yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Shows;
use super::room::{Reclaimable, Room, UnreadCharge};
use crate::api::error::ApiError;
use crate::net::http::ClientKey;

/// Status and header fields of a page.
#[derive(Clone, Debug)]
pub(super) struct PageHead {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// What a reader gets first.
#[derive(Debug)]
pub(super) struct OpenedPage {
    pub(super) head: PageHead,
    /// The body, where it is a single chunk and complete.
    pub(super) whole: Option<Bytes>,
}

/// One page. Chunks are kept from the first one while other requests may come to share the page, and then only until every
/// reader has taken them.
#[derive(Debug)]
pub(super) struct BufferedPage {
    pub(super) room: Arc<Room>,
    state: Mutex<PageState>,
}

#[derive(Debug)]
struct PageState {
    begun: Option<(Instant, Option<Shows>)>,
    /// Whether new requests may share it.
    open: bool,
    head: PageHead,
    chunks: VecDeque<Bytes>,
    /// The number of the first chunk.
    first: u64,
    outcome: Option<Result<(), ApiError>>,
    readers: HashMap<u64, ReaderState>,
    next_reader: u64,
}

/// The position of a reader.
#[derive(Debug)]
struct ReaderState {
    client: Option<ClientKey>,
    next: u64,
    /// What counts as unread by the client: the chunks from `next` on.
    unread: VecDeque<Option<UnreadCharge>>,
    /// Since when it has not taken the chunk that is next.
    since: Instant,
    cut: bool,
    waker: Option<Waker>,
}

/// A chunk on its way out by one connection.
struct OutgoingChunk {
    chunk: Bytes,
    _unread: Option<UnreadCharge>,
}

impl AsRef<[u8]> for OutgoingChunk {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl PageState {
    fn end_number(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }

    fn chunk_at(&self, number: u64) -> Option<&Bytes> {
        self.chunks.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Removes the chunks that no reader needs any more. The caller drops them after releasing the lock.
    fn trim_chunks(&mut self) -> Vec<Bytes> {
        if self.open {
            return Vec::new();
        }
        let live = self.readers.values().filter(|place| !place.cut);
        let needed = live.map(|place| place.next).min().unwrap_or_else(|| self.end_number());
        let unneeded = usize::try_from(needed.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let trimmed: Vec<Bytes> = self.chunks.drain(..unneeded.min(self.chunks.len())).collect();
        self.first += trimmed.len() as u64;
        trimmed
    }

    /// Adds a reader at the first chunk, and returns its number.
    fn join(&mut self, room: &Arc<Room>, client: Option<ClientKey>) -> u64 {
        let number = self.next_reader;
        self.next_reader += 1;
        let unread = self.chunks.iter().map(|chunk| room.charge_unread(client, chunk.len())).collect();
        let place = ReaderState { client, next: 0, unread, since: Instant::now(), cut: false, waker: None };
        self.readers.insert(number, place);
        number
    }

    /// Takes the next chunk for a reader. It counts as unread until the result is dropped.
    fn take_next(&mut self, reader: u64) -> Option<Bytes> {
        let next = self.readers.get(&reader)?.next;
        let chunk = self.chunk_at(next)?.clone();
        let place = self.readers.get_mut(&reader)?;
        place.next += 1;
        place.since = Instant::now();
        let unread = place.unread.pop_front().flatten();
        Some(Bytes::from_owner(OutgoingChunk { chunk, _unread: unread }))
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        self.readers.values_mut().filter_map(|place| place.waker.take()).collect()
    }
}

impl BufferedPage {
    pub(super) fn new(room: &Arc<Room>) -> Arc<Self> {
        let page = Arc::new(Self {
            room: Arc::clone(room),
            state: Mutex::new(PageState {
                begun: None,
                open: true,
                head: PageHead { status: 200, headers: Vec::new() },
                chunks: VecDeque::new(),
                first: 0,
                outcome: None,
                readers: HashMap::new(),
                next_reader: 0,
            }),
        });
        let reclaimable: Weak<dyn Reclaimable> = Arc::downgrade(&page) as _;
        room.add(reclaimable);
        page
    }

    fn lock(&self) -> MutexGuard<'_, PageState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a client's reader, which begins at the first chunk; answers its number.
    pub(super) fn add_reader(&self, client: Option<ClientKey>) -> u64 {
        self.lock().join(&self.room, client)
    }

    /// The same for a reader of another request, unless what the page shows may be older than that request.
    pub(super) fn add_shared_reader(
        &self,
        client: Option<ClientKey>,
        shows: Option<&Shows>,
        most: Duration,
    ) -> Option<u64> {
        let mut state = self.lock();
        let fresh = match &state.begun {
            None => true,
            Some((at, shown)) => at.elapsed() < most && shown.is_some() && shown.as_ref() == shows,
        };
        let usable = state.open && fresh && !matches!(state.outcome, Some(Err(_)));
        usable.then(|| state.join(&self.room, client))
    }

    /// Records that the build begins, and with what state; returns whether the page may be shared from here on.
    pub(super) fn begin_build(&self, shows: Option<Shows>, now: Instant) -> bool {
        let mut state = self.lock();
        state.open = shows.is_some();
        state.begun = Some((now, shows));
        state.open
    }

    /// How much longer it may be shared.
    pub(super) fn shared_for(&self, most: Duration) -> Duration {
        let begun = self.lock().begun.as_ref().map(|(at, _)| *at);
        begun.map_or(Duration::ZERO, |at| most.saturating_sub(at.elapsed()))
    }

    /// Shares it with no other request, and frees what its readers have taken.
    pub(super) fn stop_sharing(&self) {
        let mut state = self.lock();
        state.open = false;
        let trimmed = state.trim_chunks();
        drop(state);
        drop(trimmed);
    }

    /// Abandons it if all its readers have gone, and returns whether it did. No request shares it from then on.
    pub(super) fn abandon_if_unread(&self) -> bool {
        let mut state = self.lock();
        let unread = state.readers.values().all(|place| place.cut);
        if unread {
            state.open = false;
            state.outcome.get_or_insert_with(|| Err(ApiError::unfinished_response()));
        }
        let trimmed = state.trim_chunks();
        drop(state);
        drop(trimmed);
        unread
    }

    /// Whether another chunk may be added: at least one of its readers has room.
    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        let mut live = state.readers.values().filter(|place| !place.cut);
        live.any(|place| self.room.has_room_for(place.client))
    }

    /// Changes status or header fields. Has no effect once there is a chunk.
    pub(super) fn change_head(&self, change: impl FnOnce(&mut PageHead)) {
        let mut state = self.lock();
        if state.end_number() == 0 {
            change(&mut state.head);
        }
    }

    /// Adds a chunk; the last one also ends the page, so that a reader waiting for the head sees both at once.
    pub(super) fn append_chunk(&self, chunk: Bytes, last: bool) {
        let mut state = self.lock();
        let (end, now) = (state.end_number(), Instant::now());
        for place in state.readers.values_mut().filter(|place| !place.cut) {
            if place.next == end {
                place.since = now;
            }
            place.unread.push_back(self.room.charge_unread(place.client, chunk.len()));
        }
        state.chunks.push_back(chunk);
        if last {
            state.outcome.get_or_insert(Ok(()));
        }
        let trimmed = state.trim_chunks();
        let woken = state.take_wakers();
        drop(state);
        drop(trimmed);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ends it; returns the number of its readers.
    pub(super) fn finish(&self) -> usize {
        self.set_outcome(Ok(()))
    }

    /// Ends it with an error; returns the number of readers that get it.
    pub(super) fn fail_with(&self, error: ApiError) -> usize {
        self.set_outcome(Err(error))
    }

    fn set_outcome(&self, outcome: Result<(), ApiError>) -> usize {
        let mut state = self.lock();
        state.open &= outcome.is_ok();
        state.outcome.get_or_insert(outcome);
        let readers = state.readers.len();
        let woken = state.take_wakers();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        readers
    }

    /// Records that a reader must wait for its next chunk until then, so that it does not count as slow.
    pub(super) fn mark_resting(&self, reader: u64, until: Instant) {
        if let Some(place) = self.lock().readers.get_mut(&reader) {
            place.since = place.since.max(until);
        }
    }

    pub(super) fn remove_reader(&self, reader: u64) {
        let mut state = self.lock();
        state.readers.remove(&reader);
        let trimmed = state.trim_chunks();
        drop(state);
        drop(trimmed);
    }

    /// The head, and the body if it is a single chunk and complete.
    pub(super) fn poll_opened(
        &self,
        reader: u64,
        context: &mut Context<'_>,
    ) -> Poll<Result<OpenedPage, ApiError>> {
        let mut state = self.lock();
        let opened = match (&state.outcome, state.end_number()) {
            (Some(Err(error)), 0) => return Poll::Ready(Err(error.clone())),
            (Some(Ok(())), 0) => OpenedPage { head: state.head.clone(), whole: Some(Bytes::new()) },
            (Some(Ok(())), 1) => OpenedPage { head: state.head.clone(), whole: state.take_next(reader) },
            (_, 1..) => OpenedPage { head: state.head.clone(), whole: None },
            (None, 0) => {
                if let Some(place) = state.readers.get_mut(&reader) {
                    place.waker = Some(context.waker().clone());
                }
                return Poll::Pending;
            }
        };
        Poll::Ready(Ok(opened))
    }

    /// The next chunk; `None` after the last, an error if the page was not finished or this reader was too slow.
    pub(super) fn poll_next(
        &self,
        reader: u64,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, &'static str>>> {
        let mut state = self.lock();
        let Some(place) = state.readers.get(&reader) else { return Poll::Ready(None) };
        if place.cut {
            return Poll::Ready(Some(Err("the reader was too slow while memory for pages was short")));
        }
        let Some(chunk) = state.take_next(reader) else {
            return match &state.outcome {
                Some(Ok(())) => Poll::Ready(None),
                Some(Err(_)) => Poll::Ready(Some(Err("the page was not finished"))),
                None => {
                    if let Some(place) = state.readers.get_mut(&reader) {
                        place.waker = Some(context.waker().clone());
                    }
                    Poll::Pending
                }
            };
        };
        let trimmed = state.trim_chunks();
        drop(state);
        drop(trimmed);
        Poll::Ready(Some(Ok(chunk)))
    }
}

impl Reclaimable for BufferedPage {
    fn stop_sharing_begun(&self) {
        if self.lock().begun.is_some() {
            self.stop_sharing();
        }
    }

    fn cut_lagging(&self, now: Instant, most: Duration) -> usize {
        let mut state = self.lock();
        let end = state.end_number();
        let mut cut = 0;
        for place in state.readers.values_mut() {
            let lagging = place.next < end && now.saturating_duration_since(place.since) >= most;
            if lagging && !place.cut {
                place.cut = true;
                place.unread.clear();
                cut += 1;
            }
        }
        let trimmed = state.trim_chunks();
        let woken = state.take_wakers();
        drop(state);
        drop(trimmed);
        woken.into_iter().for_each(Waker::wake);
        cut
    }
}
