//! Building answers: where it happens, how many are built at a time, and how much memory they may hold.
//!
//! Every answer that reads series or containers is rendered on a thread of its own or a blocking one, never on the control
//! runtime, by one of the builders of its [`BuildLane`]. Requests for the same page share one build. Events of streams are rendered
//! one at a time by builders of their own ([`events`]). Whatever is rendered and not yet sent counts against one bound for the
//! whole process ([`room`]). Decision: `docs/adr/0059-shared-bounded-answers.md`.

mod events;
mod lane;
mod pace;
mod page;
mod reader;
mod room;
mod work;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::error::ApiError;
use super::{ApiResponse, Body};
use crate::config::AgentConfig;
use crate::net::http::ClientKey;
use crate::store::Cursor;
pub(super) use events::EventRenderer;
pub(super) use lane::{Asker, BuildLane};
use lane::{Builders, ThreadPriority};
use page::BufferedPage;
pub(super) use reader::PageReader;
use room::Room;
pub(super) use work::{Deadline, PageWork};
use work::{TimeLimit, on_thread};
pub(super) use writer::{PageWriter, Stop};

/// How long a page is shared with requests that come after its build began.
const SHARED: Duration = Duration::from_secs(1);
/// How long a request waits for a builder before it is answered with 429.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a build may work, not counting its waits for memory.
const DEADLINE: Duration = Duration::from_secs(20);

/// Requests with equal keys can share a page.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PageKey {
    lane: u8,
    route: &'static str,
    /// Path parameters, query and negotiated headers.
    detail: String,
}

/// The state that a page shows. Two pages with the same key and state differ only in their build time.
#[derive(Clone, Debug)]
pub(super) struct Shows {
    pub(super) published: Cursor,
    pub(super) containers: u64,
    pub(super) config: Arc<AgentConfig>,
}

impl PartialEq for Shows {
    fn eq(&self, other: &Self) -> bool {
        self.published == other.published
            && self.containers == other.containers
            && Arc::ptr_eq(&self.config, &other.config)
    }
}

pub(super) struct PageRequest {
    pub(super) asker: Asker,
    pub(super) lane: BuildLane,
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
pub(super) struct PageCounts {
    /// Bytes of pages that are built or being sent.
    pub(super) held: usize,
    /// The limit of `held`, in bytes.
    pub(super) limit: usize,
    /// Pages built.
    pub(super) built: u64,
    /// Requests that shared a page built for another request.
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
pub struct Pages(Arc<PagesInner>);

#[derive(Debug)]
struct PagesInner {
    room: Arc<Room>,
    shelf: Mutex<Shelf>,
    builders: Builders,
    events: events::EventBuilders,
    /// One comparison of names at a time for each listener.
    comparing: [Arc<Semaphore>; 2],
    built: AtomicU64,
    shared: AtomicU64,
    busy: AtomicU64,
    late: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    pages: HashMap<PageKey, Arc<BufferedPage>>,
    /// Pages that wait for a builder, by lane and client.
    waiting: HashMap<(u8, Option<ClientKey>), usize>,
}

impl Shelf {
    /// Takes a place in the queue of a lane, if there is one.
    fn join_queue(&mut self, lane: BuildLane, client: Option<ClientKey>) -> bool {
        let (most, most_of_one) = lane.queue_limits();
        let of_lane =
            |((of, _), n): (&(u8, Option<ClientKey>), &usize)| if *of == lane as u8 { *n } else { 0 };
        let all: usize = self.waiting.iter().map(of_lane).sum();
        let own = self.waiting.entry((lane as u8, client)).or_default();
        let free = all < most && *own < most_of_one;
        *own += usize::from(free);
        if *own == 0 {
            self.waiting.remove(&(lane as u8, client));
        }
        free
    }

    fn leave_queue(&mut self, lane: BuildLane, client: Option<ClientKey>) {
        if let Some(waiting) = self.waiting.get_mut(&(lane as u8, client)) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.waiting.remove(&(lane as u8, client));
            }
        }
    }

    /// Takes a page off the shelf, if it is still there.
    fn remove(&mut self, key: &PageKey, page: &Arc<BufferedPage>) {
        if self.pages.get(key).is_some_and(|shelved| Arc::ptr_eq(shelved, page)) {
            self.pages.remove(key);
        }
    }
}

impl PageRequest {
    /// A request for a JSON document that is not compressed, and shared only until its build begins.
    pub(super) const fn new(asker: Asker, lane: BuildLane, route: &'static str, detail: String) -> Self {
        Self { asker, lane, route, detail, content_type: super::JSON, gzip: false, shows: None }
    }
}

impl Pages {
    /// Starts without pages. Their total memory is limited by `http.page_memory` of the configuration.
    #[must_use]
    pub fn new(config: &Arc<RwLock<Arc<AgentConfig>>>) -> Self {
        Self(Arc::new(PagesInner {
            room: Arc::new(Room::new(Arc::clone(config))),
            shelf: Mutex::default(),
            builders: Builders::new(),
            events: events::EventBuilders::new(),
            comparing: [1, 1].map(|comparisons| Arc::new(Semaphore::new(comparisons))),
            built: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            late: AtomicU64::new(0),
        }))
    }

    pub(super) fn load_counts(&self) -> PageCounts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PageCounts {
            held: self.0.room.held_bytes(),
            limit: self.0.room.byte_limit(),
            built: load(&self.0.built),
            shared: load(&self.0.shared),
            busy: load(&self.0.busy),
            late: load(&self.0.late),
            cut: self.0.room.cut_count(),
        }
    }

    /// Suspends or resumes rendering and writing of pages. In the pause of a hand-over, datagrams wait in the kernel,
    /// and any other use of the CPUs prolongs it.
    pub(crate) fn stand_still(&self, still: bool) {
        self.0.room.stand_still(still);
    }

    /// Responds to a request with a page that is shared with another request, or with a new one. `gather` runs first,
    /// on the control runtime. It collects data from other threads, and runs long computations on a thread of the build
    /// ([`PageWork::run`]). It returns the function that renders the page, which runs on such a thread.
    ///
    /// # Errors
    /// With 429 if too many pages wait for a builder, with 503 if the page was not finished in time, and with
    /// the errors of `gather` and the renderer.
    pub(super) async fn answer_request<R, F>(
        &self,
        request: PageRequest,
        gather: impl FnOnce(PageWork) -> F + Send + 'static,
    ) -> Result<ApiResponse, ApiError>
    where
        R: FnOnce(&mut PageWriter) -> Result<(), Stop> + Send + 'static,
        F: Future<Output = Result<R, ApiError>> + Send + 'static,
    {
        let content_type = request.content_type;
        let mut reader = self.open_reader(request, gather)?;
        let opened = reader.wait_for_head().await?;
        let body = match opened.whole {
            Some(bytes) if bytes.is_empty() => Body::Empty,
            Some(bytes) => Body::Whole(bytes),
            None => Body::Chunks(Box::pin(reader)),
        };
        // An empty page of metrics has a content type, too: scrapers reject one without.
        let content_type = if opened.head.status == 204 { "" } else { content_type };
        Ok(ApiResponse { status: opened.head.status, content_type, headers: opened.head.headers, body })
    }

    fn open_reader<R, F>(
        &self,
        request: PageRequest,
        gather: impl FnOnce(PageWork) -> F + Send + 'static,
    ) -> Result<PageReader, ApiError>
    where
        R: FnOnce(&mut PageWriter) -> Result<(), Stop> + Send + 'static,
        F: Future<Output = Result<R, ApiError>> + Send + 'static,
    {
        let PageRequest { asker, lane, route, detail, gzip, shows, .. } = request;
        // The priority follows the requested lane: patterns are as expensive on the admin socket.
        let priority = lane.thread_priority();
        let (lane, client) = (asker.effective_lane(lane), asker.client());
        let key = PageKey { lane: lane as u8, route, detail };
        let mut shelf = self.0.lock_shelf();
        if let Some(reader) = shelf
            .pages
            .get(&key)
            .and_then(|page| PageReader::open_shared(page, client, shows.as_ref(), SHARED))
        {
            self.0.shared.fetch_add(1, Ordering::Relaxed);
            return Ok(reader);
        }
        if !shelf.join_queue(lane, client) {
            self.0.busy.fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::too_many_requests());
        }
        let page = BufferedPage::new(&self.0.room);
        let reader = PageReader::open(&page, client);
        shelf.pages.insert(key.clone(), Arc::clone(&page));
        drop(shelf);
        let queued = Queued { inner: Arc::clone(&self.0), lane, client };
        let build = Build { key, page, shows, gzip, priority };
        tokio::spawn(build.run(queued, gather));
        Ok(reader)
    }

    /// Compares an unknown name with the known ones, for the suggestions in an answer. Returns none while another comparison
    /// for the same listener runs, so that no request waits for suggestions.
    pub(super) async fn suggest_names(
        &self,
        asker: Asker,
        compare: impl FnOnce() -> Vec<String> + Send + 'static,
    ) -> Vec<String> {
        let [http, admin] = &self.0.comparing;
        let comparing = Arc::clone(if asker.is_admin() { admin } else { http });
        let Ok(turn) = comparing.try_acquire_owned() else { return Vec::new() };
        let compared = on_thread(ThreadPriority::Low, move || {
            let names = compare();
            drop(turn);
            names
        });
        compared.await.unwrap_or_default()
    }
}

impl PagesInner {
    fn lock_shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue of a lane, while it is held.
struct Queued {
    inner: Arc<PagesInner>,
    lane: BuildLane,
    client: Option<ClientKey>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.inner.lock_shelf().leave_queue(self.lane, self.client);
    }
}

/// A page whose build is scheduled.
struct Build {
    key: PageKey,
    page: Arc<BufferedPage>,
    shows: Option<Shows>,
    gzip: bool,
    priority: ThreadPriority,
}

impl Build {
    /// Builds the page once a builder is free, and takes it off the shelf when it is too old to be shared.
    async fn run<R, F>(self, queued: Queued, gather: impl FnOnce(PageWork) -> F + Send)
    where
        R: FnOnce(&mut PageWriter) -> Result<(), Stop> + Send + 'static,
        F: Future<Output = Result<R, ApiError>> + Send,
    {
        let Self { key, page, shows, gzip, priority } = self;
        let inner = Arc::clone(&queued.inner);
        let free = inner.builders.acquire_builder(queued.lane, queued.client);
        let turn = TimeLimit::starting_now(PATIENCE, &inner.room).wait_for(&inner.room, free).await;
        drop(queued);
        let turn = match turn {
            Some(Ok(turn)) => turn,
            waited_in_vain => {
                let error = if waited_in_vain.is_none() {
                    ApiError::too_many_requests()
                } else {
                    ApiError::shutting_down()
                };
                let waiting = page.fail_with(error);
                inner.busy.fetch_add(waiting as u64, Ordering::Relaxed);
                inner.lock_shelf().remove(&key, &page);
                return;
            }
        };
        let keep = shows.is_some();
        // Requests from here on are newer than what the page will show, unless nothing has changed since.
        if !page.begin_build(shows, Instant::now()) {
            inner.lock_shelf().remove(&key, &page);
        }
        if page.abandon_if_unread() {
            // All its readers left while it waited. The builder is free for the next page.
            inner.lock_shelf().remove(&key, &page);
            return;
        }
        inner.built.fetch_add(1, Ordering::Relaxed);
        let work = PageWork::new(Arc::clone(&page), turn, priority, DEADLINE);
        if !render_page(work, gzip, gather).await {
            inner.late.fetch_add(1, Ordering::Relaxed);
        }
        if keep {
            tokio::time::sleep(page.shared_for(SHARED)).await;
            inner.lock_shelf().remove(&key, &page);
            page.stop_sharing();
        }
    }
}

/// Gathers data and renders the page; returns whether that finished in time.
async fn render_page<R, F>(work: PageWork, gzip: bool, gather: impl FnOnce(PageWork) -> F) -> bool
where
    R: FnOnce(&mut PageWriter) -> Result<(), Stop> + Send + 'static,
    F: Future<Output = Result<R, ApiError>>,
{
    let page = Arc::clone(work.page());
    let gathered = work.time_limit().wait_for(&page.room, gather(work.clone())).await;
    let render = match gathered.unwrap_or_else(|| Err(ApiError::unfinished_response())) {
        Ok(render) => render,
        Err(error) => {
            let in_time = error != ApiError::unfinished_response();
            page.fail_with(error);
            return in_time;
        }
    };
    let writer = PageWriter::new(Arc::clone(&page), gzip, DEADLINE);
    let rendered = work.run(move |_| Ok(writer.run(render))).await;
    // A panic has been logged already.
    rendered.unwrap_or_else(|error| {
        page.fail_with(error);
        true
    })
}
