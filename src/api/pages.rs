//! Building answers: where it happens, how many are built at a time, and what they may hold.
//!
//! Every answer that reads series or containers is rendered on a thread of its own or a blocking one, never on the control
//! runtime, by one of the builders of its [`Lane`]. Requests for the same page share one build. What is built and not yet sent counts
//! against one bound for the whole process ([`room`]). Decision: `docs/adr/0059-shared-bounded-answers.md`.

mod page;
mod reader;
mod room;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::error::ApiError;
use super::{Answer, Body};
use crate::config::Config;
use crate::net::http::{Client, Peer};
use crate::net::sys;
use crate::store::Cursor;
use page::Page;
use reader::Reader;
use room::Room;
pub(super) use writer::{Stop, Writer};

/// How long a page is shared with requests that come after its build began.
const SHARED: Duration = Duration::from_secs(1);
/// How long a request waits for a builder before it is answered with 429.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a build may work, its waits for memory aside.
const DEADLINE: Duration = Duration::from_secs(20);
/// Builders for events of streams.
const ASIDE: usize = 1;

/// Which builders a request is served by. Cheap requests do not wait behind expensive ones, and the admin socket does not
/// wait behind the HTTP listener.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// Documents about one task, and lists without series.
    Short,
    /// All series of the node.
    Node,
    /// Requests with patterns, and those for every kept window of a task.
    Search,
    /// Everything on the admin socket.
    Admin,
}

impl Lane {
    const ALL: [Self; 4] = [Self::Short, Self::Node, Self::Search, Self::Admin];

    /// Builds at a time.
    const fn builders(self) -> usize {
        match self {
            Self::Short | Self::Node | Self::Admin => 2,
            Self::Search => 1,
        }
    }

    /// Whether its pages are rendered by threads that leave the processors to others. Not those of scrapers: where the
    /// rest of the node shares a control group with the agent, they would come too late.
    const fn yields(self) -> bool {
        matches!(self, Self::Search)
    }

    /// Pages that may wait for a builder, and how many of them for requests of one client.
    const fn queue(self) -> (usize, usize) {
        match self {
            Self::Short | Self::Admin => (256, 128),
            Self::Node | Self::Search => (64, 32),
        }
    }
}

/// Who sent a request.
#[derive(Copy, Clone, Debug)]
pub(super) struct Asker(Option<Peer>);

impl Asker {
    pub(super) const fn new(peer: Option<Peer>) -> Self {
        Self(peer)
    }

    fn client(self) -> Option<Client> {
        self.0.map(Peer::client)
    }

    fn lane(self, lane: Lane) -> Lane {
        if matches!(self.0, Some(Peer::Unix { .. })) { Lane::Admin } else { lane }
    }
}

/// What requests have in common that get the same page.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    lane: u8,
    route: &'static str,
    /// Path parameters, query and negotiated headers.
    detail: String,
}

/// The state that a page shows. Two pages of one key and equal state differ only in the time that they were built at.
#[derive(Clone, Debug)]
pub(super) struct Shows {
    pub(super) published: Cursor,
    pub(super) containers: u64,
    pub(super) config: Arc<Config>,
}

impl PartialEq for Shows {
    fn eq(&self, other: &Self) -> bool {
        self.published == other.published
            && self.containers == other.containers
            && Arc::ptr_eq(&self.config, &other.config)
    }
}

/// A request for a page.
pub(super) struct Request {
    pub(super) asker: Asker,
    pub(super) lane: Lane,
    pub(super) route: &'static str,
    pub(super) detail: String,
    pub(super) content_type: &'static str,
    pub(super) gzip: bool,
    /// The state at the moment of the request, for pages that depend on nothing else. Without it, a page is shared only
    /// until its build begins.
    pub(super) shows: Option<Shows>,
}

/// Figures about pages, for metrics and `doctor`.
#[derive(Copy, Clone, Default, Debug)]
pub(super) struct Counts {
    /// Bytes of pages that are built or being sent.
    pub(super) held: usize,
    /// What they may be.
    pub(super) limit: usize,
    /// Pages built.
    pub(super) built: u64,
    /// Requests that got a page that was built for another.
    pub(super) shared: u64,
    /// Requests answered with 429.
    pub(super) busy: u64,
    /// Builds that were given up at the deadline.
    pub(super) late: u64,
    /// Responses cut short because their readers were slow while memory for pages was short.
    pub(super) cut: u64,
}

/// Pages that are waiting, being built, or shared.
#[derive(Clone, Debug)]
pub struct Pages(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    room: Arc<Room>,
    shelf: Mutex<Shelf>,
    builders: [Arc<Semaphore>; Lane::ALL.len()],
    aside: Semaphore,
    built: AtomicU64,
    shared: AtomicU64,
    busy: AtomicU64,
    late: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    pages: HashMap<Key, Arc<Page>>,
    /// Pages that wait for a builder, by lane and client.
    waiting: HashMap<(u8, Option<Client>), usize>,
}

impl Shelf {
    /// Takes a place in the queue of a lane, if there is one.
    fn queue(&mut self, lane: Lane, client: Option<Client>) -> bool {
        let (most, most_of_one) = lane.queue();
        let of_lane = |((of, _), n): (&(u8, Option<Client>), &usize)| if *of == lane as u8 { *n } else { 0 };
        let all: usize = self.waiting.iter().map(of_lane).sum();
        let own = self.waiting.entry((lane as u8, client)).or_default();
        let free = all < most && *own < most_of_one;
        *own += usize::from(free);
        if *own == 0 {
            self.waiting.remove(&(lane as u8, client));
        }
        free
    }

    fn leave_queue(&mut self, lane: Lane, client: Option<Client>) {
        if let Some(waiting) = self.waiting.get_mut(&(lane as u8, client)) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.waiting.remove(&(lane as u8, client));
            }
        }
    }

    /// Takes a page off the shelf, if it is still there.
    fn remove(&mut self, key: &Key, page: &Arc<Page>) {
        if self.pages.get(key).is_some_and(|shelved| Arc::ptr_eq(shelved, page)) {
            self.pages.remove(key);
        }
    }
}

impl Request {
    /// A request for a JSON document that is not compressed, and shared only until its build begins.
    pub(super) const fn new(asker: Asker, lane: Lane, route: &'static str, detail: String) -> Self {
        Self { asker, lane, route, detail, content_type: super::JSON, gzip: false, shows: None }
    }
}

impl Pages {
    /// No pages. What they may hold together is `http.page_memory` of the configuration.
    #[must_use]
    pub fn new(config: &Arc<RwLock<Arc<Config>>>) -> Self {
        Self(Arc::new(Inner {
            room: Arc::new(Room::new(Arc::clone(config))),
            shelf: Mutex::default(),
            builders: Lane::ALL.map(|lane| Arc::new(Semaphore::new(lane.builders()))),
            aside: Semaphore::new(ASIDE),
            built: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            late: AtomicU64::new(0),
        }))
    }

    pub(super) fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            held: self.0.room.held(),
            limit: self.0.room.limit(),
            built: load(&self.0.built),
            shared: load(&self.0.shared),
            busy: load(&self.0.busy),
            late: load(&self.0.late),
            cut: self.0.room.cut(),
        }
    }

    /// Answers a request: with a page that another request is getting, or with a new one. `gather` runs first, on the
    /// control runtime, and asks other threads for what is needed; what it returns renders the page on a blocking thread.
    ///
    /// # Errors
    /// With 429 where too many pages wait for a builder, with 503 where the page was not finished in time, and with what
    /// `gather` or the renderer fail with.
    pub(super) async fn answer<R>(
        &self,
        request: Request,
        gather: impl Future<Output = Result<R, ApiError>> + Send + 'static,
    ) -> Result<Answer, ApiError>
    where
        R: FnOnce(&mut Writer) -> Result<(), Stop> + Send + 'static,
    {
        let content_type = request.content_type;
        let mut reader = self.reader(request, gather)?;
        let opened = reader.opened().await?;
        let body = match opened.whole {
            Some(bytes) if bytes.is_empty() => Body::Empty,
            Some(bytes) => Body::Whole(bytes),
            None => Body::Chunks(Box::pin(reader)),
        };
        // An empty page of metrics has a type, too: scrapers refuse one without.
        let content_type = if opened.head.status == 204 { "" } else { content_type };
        Ok(Answer { status: opened.head.status, content_type, headers: opened.head.headers, body })
    }

    fn reader<R>(
        &self,
        request: Request,
        gather: impl Future<Output = Result<R, ApiError>> + Send + 'static,
    ) -> Result<Reader, ApiError>
    where
        R: FnOnce(&mut Writer) -> Result<(), Stop> + Send + 'static,
    {
        let Request { asker, lane, route, detail, gzip, shows, .. } = request;
        let (lane, client) = (asker.lane(lane), asker.client());
        let key = Key { lane: lane as u8, route, detail };
        let mut shelf = self.0.shelf();
        if let Some(reader) = shelf.pages.get(&key).and_then(|page| page.share(shows.as_ref(), SHARED)) {
            self.0.shared.fetch_add(1, Ordering::Relaxed);
            return Ok(reader);
        }
        if !shelf.queue(lane, client) {
            self.0.busy.fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::busy());
        }
        let page = Page::new(&self.0.room);
        let reader = page.reader();
        shelf.pages.insert(key.clone(), Arc::clone(&page));
        drop(shelf);
        let queued = Queued { inner: Arc::clone(&self.0), lane, client };
        tokio::spawn(build(queued, key, page, shows, gzip, gather));
        Ok(reader)
    }

    /// Runs what makes an event of a stream, on a blocking thread, after those that wait already.
    ///
    /// # Errors
    /// With 503 where it could not be finished.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let _turn = self.0.aside.acquire().await.map_err(|_| ApiError::ending())?;
        blocking(work).await
    }
}

/// Runs a step of a build on a blocking thread. The build holds its builder meanwhile, which bounds their number.
///
/// # Errors
/// With 503 where it could not be finished.
pub(super) async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(step).await.map_err(|_| ApiError::unfinished())
}

impl Inner {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue of a lane, while it is held.
struct Queued {
    inner: Arc<Inner>,
    lane: Lane,
    client: Option<Client>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.inner.shelf().leave_queue(self.lane, self.client);
    }
}

/// Builds a page once a builder is free, and takes it off the shelf when it is too old to be shared.
async fn build<R>(
    queued: Queued,
    key: Key,
    page: Arc<Page>,
    shows: Option<Shows>,
    gzip: bool,
    gather: impl Future<Output = Result<R, ApiError>> + Send + 'static,
) where
    R: FnOnce(&mut Writer) -> Result<(), Stop> + Send + 'static,
{
    let (inner, lane) = (Arc::clone(&queued.inner), queued.lane);
    let Some(builders) = inner.builders.get(lane as usize).map(Arc::clone) else { return };
    let turn = tokio::time::timeout(PATIENCE, builders.acquire_owned()).await;
    drop(queued);
    let turn = match turn {
        Ok(Ok(turn)) => turn,
        waited_in_vain => {
            let error = if waited_in_vain.is_err() { ApiError::busy() } else { ApiError::ending() };
            let waiting = page.fail(error);
            inner.busy.fetch_add(waiting as u64, Ordering::Relaxed);
            inner.shelf().remove(&key, &page);
            return;
        }
    };
    let keep = shows.is_some();
    // From here on a request that comes is newer than what the page will show, unless nothing has changed since.
    if !page.begin(shows, Instant::now()) {
        inner.shelf().remove(&key, &page);
    }
    if page.abandon() {
        // Its readers have gone while it waited. The builder is the next page's at once.
        inner.shelf().remove(&key, &page);
        return;
    }
    inner.built.fetch_add(1, Ordering::Relaxed);
    if !render(&page, (lane, turn), gzip, gather).await {
        inner.late.fetch_add(1, Ordering::Relaxed);
    }
    if keep {
        tokio::time::sleep(page.shared_for(SHARED)).await;
        inner.shelf().remove(&key, &page);
        page.unshelve();
    }
}

/// Gathers and renders; answers whether that was in time.
async fn render<R>(
    page: &Arc<Page>,
    (lane, turn): (Lane, OwnedSemaphorePermit),
    gzip: bool,
    gather: impl Future<Output = Result<R, ApiError>>,
) -> bool
where
    R: FnOnce(&mut Writer) -> Result<(), Stop> + Send + 'static,
{
    let Ok(gathered) = tokio::time::timeout(DEADLINE, gather).await else {
        page.fail(ApiError::unfinished());
        return false;
    };
    let render = match gathered {
        Ok(render) => render,
        Err(error) => {
            page.fail(error);
            return true;
        }
    };
    let writer = Writer::new(Arc::clone(page), gzip, DEADLINE);
    let work = move || {
        let in_time = writer.run(render);
        drop(turn);
        in_time
    };
    let rendered = if lane.yields() { yielding(work).await } else { blocking(work).await };
    // A panic is in the log already.
    rendered.unwrap_or_else(|error| {
        page.fail(error);
        true
    })
}

/// Runs work on a thread of its own that leaves the processors to others.
async fn yielding<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("page".to_owned());
    let spawned = thread.spawn(move || {
        if let Err(error) = sys::lower_priority() {
            tracing::debug!(%error, "a page is rendered at normal priority");
        }
        // The request may be gone by now.
        let _either_way = done.send(work());
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "cannot start a thread for a page; raise TasksMax= or the limit of the container");
    }
    result.await.map_err(|_| ApiError::unfinished())
}
