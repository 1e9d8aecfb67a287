//! The threads that build answers: their priority, and how long they may work.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::lane::{BuilderPermit, ThreadPriority};
use super::page::BufferedPage;
use super::room::{LOOK, Room};
use crate::api::error::ApiError;
use crate::net::sys;
use crate::query::Budget;

/// [`Deadline::goes_on`] reads the clock in one of this many calls. Comparing a name with the longest patterns takes up
/// to half a millisecond.
const CALLS_PER_CLOCK_READ: u32 = 32;

/// Runs work on a thread of this priority.
///
/// # Errors
/// With 503 where it panics or no thread can be started.
pub(super) async fn on_thread<T: Send + 'static>(
    priority: ThreadPriority,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    match priority {
        ThreadPriority::Usual => {
            tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::unfinished_response())
        }
        ThreadPriority::Low => on_thread_of_its_own(work).await,
    }
}

/// Lowering the priority of a thread cannot be undone without privileges, so the thread ends with its work.
async fn on_thread_of_its_own<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
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
    result.await.map_err(|_| ApiError::unfinished_response())
}

/// The builder of one page. It is free again when the build and every thread that works for it have ended, whether or not
/// the request still waits: otherwise requests that time out would leave more threads at work than there are builders.
#[derive(Clone, Debug)]
pub(in crate::api) struct PageWork {
    page: Arc<BufferedPage>,
    turn: Arc<BuilderPermit>,
    priority: ThreadPriority,
    limit: TimeLimit,
}

impl PageWork {
    pub(super) fn new(
        page: Arc<BufferedPage>,
        turn: BuilderPermit,
        priority: ThreadPriority,
        within: Duration,
    ) -> Self {
        let limit = TimeLimit::starting_now(within, &page.room);
        Self { page, turn: Arc::new(turn), priority, limit }
    }

    /// Until when the page has to be finished.
    pub(super) const fn time_limit(&self) -> TimeLimit {
        self.limit
    }

    pub(super) const fn page(&self) -> &Arc<BufferedPage> {
        &self.page
    }

    /// Runs a step on a thread of the build. A step that takes long asks its [`Deadline`] whether it is still wanted.
    ///
    /// # Errors
    /// With what the step fails with, and with 503 where it panics or no thread can be started.
    pub(in crate::api) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Deadline) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (turn, deadline) =
            (Arc::clone(&self.turn), Deadline::new(self.limit, &self.page.room, Some(&self.page)));
        let work = move || {
            let done = step(&deadline);
            drop(turn);
            done
        };
        on_thread(self.priority, work).await.flatten()
    }
}

/// When something has to be done. The time in which everything stands still is not counted: a hand-over that fails after
/// seconds must not cost the answers that waited for it.
#[derive(Copy, Clone, Debug)]
pub(super) struct TimeLimit {
    until: Instant,
    /// For how long everything had stood still in all when the time began.
    still: Duration,
}

impl TimeLimit {
    pub(super) fn starting_now(within: Duration, room: &Room) -> Self {
        let now = Instant::now();
        Self { until: now + within, still: room.still_time(now) }
    }

    pub(super) fn remaining_time(self, room: &Room, now: Instant) -> Duration {
        let still = room.still_time(now).saturating_sub(self.still);
        (self.until + still).saturating_duration_since(now)
    }

    /// Waits for something. `None` where it is not done in time.
    pub(super) async fn wait_for<T>(self, room: &Room, waits: impl Future<Output = T>) -> Option<T> {
        let mut waits = std::pin::pin!(waits);
        loop {
            let left = self.remaining_time(room, Instant::now());
            // While everything stands still, the remaining time stays the same, so it is checked less often.
            let next_check = if room.is_still() { left.max(LOOK) } else { left };
            match tokio::time::timeout(next_check, &mut waits).await {
                Ok(done) => return Some(done),
                Err(_) if left.is_zero() => return None,
                // Everything may have stood still meanwhile, which leaves more time.
                Err(_) => {}
            }
        }
    }
}

/// When a step has to end: when its time is over, or as soon as its page has no reader left.
#[derive(Debug)]
pub(in crate::api) struct Deadline {
    limit: TimeLimit,
    room: Arc<Room>,
    page: Option<Arc<BufferedPage>>,
    calls: Cell<u32>,
    stopped: Cell<bool>,
}

impl Deadline {
    pub(super) fn new(limit: TimeLimit, room: &Arc<Room>, page: Option<&Arc<BufferedPage>>) -> Self {
        let (calls, stopped) = Default::default();
        Self { limit, room: Arc::clone(room), page: page.cloned(), calls, stopped }
    }

    /// Whether the step has to end. Waits while everything stands still.
    fn has_come(&self) -> bool {
        let _not_counted = self.room.wait_while_still();
        self.limit.remaining_time(&self.room, Instant::now()).is_zero()
            || self.page.as_ref().is_some_and(|page| page.abandon_if_unread())
    }
}

impl Budget for Deadline {
    /// Reads the clock in the first call, and then in every 32nd.
    fn goes_on(&self) -> bool {
        let calls = self.calls.get();
        self.calls.set(calls.wrapping_add(1));
        if calls.is_multiple_of(CALLS_PER_CLOCK_READ) && !self.stopped.get() {
            self.stopped.set(self.has_come());
        }
        !self.stopped.get()
    }

    fn has_passed(&self) -> bool {
        self.stopped.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use super::*;
    use crate::config::{AgentConfig, ProcessEnvironment};
    use crate::query::Error;

    fn room() -> Room {
        let config = AgentConfig::from_toml("", &ProcessEnvironment).unwrap();
        Room::new(Arc::new(RwLock::new(Arc::new(config))))
    }

    #[test]
    fn a_step_that_is_late_compares_a_few_more_names_and_stops() {
        let compared = Cell::new(0);
        let compare = |_: &u32| {
            compared.set(compared.get() + 1);
            true
        };
        let room = Arc::new(room());
        let within = |time| Deadline::new(TimeLimit::starting_now(time, &room), &room, None);
        let in_time = within(Duration::from_hours(1));
        assert_eq!(in_time.choose_items(0..1000, compare).unwrap().len(), 1000);
        compared.set(0);
        let late = within(Duration::ZERO);
        assert_eq!(late.choose_items(0..1000, compare), Err(Error::Unfinished));
        assert!(compared.get() < CALLS_PER_CLOCK_READ, "{} names were compared", compared.get());
    }

    #[test]
    fn the_time_in_which_everything_stands_still_is_not_counted() {
        let (room, within, hour) = (room(), Duration::from_secs(20), Duration::from_hours(1));
        room.stand_still(true);
        let limit = TimeLimit::starting_now(within, &room);
        assert_eq!(limit.remaining_time(&room, limit.until + hour), within);
        room.stand_still(false);
        assert_eq!(limit.remaining_time(&room, limit.until + hour), Duration::ZERO, "it goes on");
    }

    #[tokio::test]
    async fn what_is_waited_for_may_come_late_by_as_long_as_everything_stood_still() {
        let room = room();
        room.stand_still(true);
        let limit = TimeLimit::starting_now(Duration::from_millis(1), &room);
        let late = async {
            while Instant::now() <= limit.until {
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(limit.wait_for(&room, late).await, Some(()));
        room.stand_still(false);
        assert_eq!(limit.wait_for(&room, std::future::pending::<()>()).await, None);
    }
}
