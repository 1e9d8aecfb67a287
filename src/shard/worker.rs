//! The loop of one shard.

mod failure;
mod members;
mod orders;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use super::command::Command;
use super::gather::{Drained, Gather};
use super::listener::Listener;
use super::pool::Shared;
use crate::aggregate::{Settings, Unread};
use crate::model::{Allocation, Moment, Timestamp};
use crate::net::clock::{Clock, SteadyClock, Step};
use crate::net::listener::{Emptied, Inbox};
use crate::store::Store;
use failure::Failures;

/// The event of the eventfd; no listener has this place.
const WAKE: u64 = u64::MAX;
/// Added to the place in events of a Unix socket; no listener's place is as large.
const UNIX: u64 = 1 << 63;
/// Events that are taken at once.
const EVENTS: usize = 1024;
/// Closing windows holds up receiving for so long at one go, and for one container more.
const STALL: Duration = Duration::from_millis(5);
/// Longest wait, so that a stepped clock is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// From one turn to the next it takes no longer than this, unless the process was stopped or the turn took very long.
const PAUSE: Duration = Duration::from_secs(3);

/// One shard. Everything in it belongs to its thread.
pub(super) struct Worker {
    index: usize,
    epoll: Epoll,
    wake: Arc<EventFd>,
    commands: Receiver<Command>,
    store: Arc<Store>,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    clock: Clock,
    steady: SteadyClock,
    /// When the next window is over; never later than that of any listener.
    next_end: Timestamp,
    gather: Gather,
    /// When the last drain began.
    drain_began: Duration,
    /// When it ended.
    drained_at: Duration,
    /// When the last turn began.
    turned: Moment,
    /// When nothing was read last, for so long that it shows in windows.
    unread: Option<Unread>,
    /// Windows that are over and not closed yet.
    closing: Option<Closing>,
    listeners: Vec<Option<Listener>>,
    places: HashMap<Allocation, usize>,
    inbox: Inbox,
    /// The place of the listener that is being worked on, should that fail.
    at_hand: Option<usize>,
    failures: Failures,
}

/// A round of closing windows that is under way.
#[derive(Debug, Default)]
struct Closing {
    /// The next listener's place.
    next: usize,
    /// Bytes of those before it.
    memory: usize,
}

/// Whether the loop goes on.
enum Next {
    Go,
    End,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        gather: Duration,
        (commands, wake): (Receiver<Command>, Arc<EventFd>),
        (store, settings, shared, clock): (Arc<Store>, Arc<Settings>, Arc<Shared>, Clock),
        not_before: Option<Timestamp>,
    ) -> nix::Result<Self> {
        let epoll = Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(wake.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            index,
            epoll,
            wake,
            commands,
            store,
            settings,
            shared,
            clock,
            steady: SteadyClock::from(not_before, clock.read()),
            next_end: Timestamp::MAX,
            gather: Gather::new(gather),
            drain_began: Duration::ZERO,
            drained_at: Duration::ZERO,
            turned: clock.read(),
            unread: None,
            closing: None,
            listeners: Vec::new(),
            places: HashMap::new(),
            inbox: Inbox::default(),
            at_hand: None,
            failures: Failures::default(),
        })
    }

    /// Serves until it is told to stop, or nobody can tell it anything any more.
    fn serve(&mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut began = Instant::now();
        loop {
            let patience = self.patience();
            self.shared.was_busy(self.index, began.elapsed());
            let first = self.first_events();
            let Some(mut ready) = self.poll(events.get_mut(..first).unwrap_or_default(), patience) else {
                return;
            };
            if self.wait_for_more(&events, ready) || (ready == first && first < EVENTS) {
                // Sockets that became ready meanwhile have their turn, too.
                let Some(now) = self.poll(&mut events, EpollTimeout::ZERO) else { return };
                ready = now;
            }
            began = Instant::now();
            self.notice_pause();
            if matches!(self.obey(), Next::End) {
                return;
            }
            self.close_windows();
            self.drain_ready(events.get(..ready).unwrap_or_default());
        }
    }

    /// How many events to wait for. Where datagrams will gather after the first, it says enough: the kernel looks at each
    /// socket that it names, and will look at all of them again.
    fn first_events(&mut self) -> usize {
        let since = self.now().mono.saturating_sub(self.drain_began);
        if self.gather.wait(since).is_zero() { EVENTS } else { 1 }
    }

    /// How many events there are; `None` where waiting for them is no longer possible.
    fn poll(&self, events: &mut [EpollEvent], patience: EpollTimeout) -> Option<usize> {
        match self.epoll.wait(events, patience) {
            Ok(ready) => Some(ready),
            Err(Errno::EINTR) => Some(0),
            Err(error) => {
                tracing::error!(%error, shard = self.index, "cannot wait for sockets");
                None
            }
        }
    }

    /// Lets datagrams gather, unless there is a command or it is not worth it. Answers whether it waited.
    fn wait_for_more(&mut self, events: &[EpollEvent], ready: usize) -> bool {
        let told = events.iter().take(ready).any(|event| event.data() == WAKE);
        if ready == 0 || told || self.closing.is_some() {
            return false;
        }
        let since = self.now().mono.saturating_sub(self.drain_began);
        let wait = self.gather.wait(since);
        if wait.is_zero() {
            return false;
        }
        // A command ends the wait: nobody who asks waits for data.
        let mut wake = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        let _either_way = nix::poll::ppoll(&mut wake, Some(TimeSpec::from_duration(wait)), None);
        true
    }

    fn drain_ready(&mut self, events: &[EpollEvent]) {
        let mut drained = Drained::default();
        let began = self.now().mono;
        for event in events {
            match event.data() {
                // Reading it makes it quiet again; what it stands for is in the command queue.
                WAKE => drop(self.wake.read()),
                unix if unix & UNIX != 0 => drained.add(self.receive_unix(place_of(unix & !UNIX))),
                place => drained.add(self.receive(place_of(place), began)),
            }
        }
        if drained.datagrams > 0 {
            let now = self.now().mono;
            self.drain_began = began;
            self.gather.learn(drained, now.saturating_sub(self.drained_at));
            self.drained_at = now;
        }
    }

    /// How long to wait: until the next window ends.
    fn patience(&mut self) -> EpollTimeout {
        if self.closing.is_some() {
            return EpollTimeout::ZERO;
        }
        let wait = self.next_end.since(self.now().wall).min(LONGEST_WAIT);
        // Rounded up: a millisecond too early would wake the thread for nothing, once for each window.
        let millis = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        EpollTimeout::from(millis)
    }

    fn now(&mut self) -> Moment {
        let (now, step) = self.steady.observe(self.clock.read());
        if let Some(step) = step {
            self.shared.count_step(self.index, step);
            match step {
                Step::Forward(by) if self.index == 0 => {
                    tracing::warn!(?by, "the clock was set forward; windows in between are skipped");
                }
                Step::Back(by) if self.index == 0 => {
                    tracing::warn!(
                        ?by,
                        "the clock was set back; windows go on ahead of it, so that none comes twice"
                    );
                }
                _ => {}
            }
        }
        now
    }

    /// Notes when this thread has not run for long: windows have to say that what waited is counted in one of them.
    fn notice_pause(&mut self) {
        let now = self.now();
        let paused = now.mono.saturating_sub(self.turned.mono);
        if paused >= PAUSE {
            self.unread = Some(Unread { from: self.turned.wall, until: now.wall });
            self.shared.paused();
            tracing::warn!(
                shard = self.index,
                ?paused,
                "nothing was read meanwhile; what waited is counted in the window that is open now, which is partial"
            );
        }
        self.turned = now;
    }

    fn receive(&mut self, place: usize, began: Duration) -> Drained {
        let now = self.now();
        self.at_hand = Some(place);
        let Some(Some(listener)) = self.listeners.get_mut(place) else { return Drained::default() };
        if let Some(closed) = listener.aggregator.roll_across(now.wall, self.unread) {
            let kept = self.store.push(listener.allocation, closed);
            listener.aggregator.set_kept_bytes(kept);
        }
        let (drained, emptied) = listener.receive(&mut self.inbox, now);
        let since = began.saturating_sub(self.drain_began);
        listener.regulate(self.gather.is_hot(drained.fullest, since), &self.shared.buffers);
        if let Emptied::Broken(error) = emptied {
            let container = listener.allocation;
            tracing::warn!(%error, %container, "cannot receive");
        }
        drained
    }

    /// The same for a Unix socket, which has no buffer that could grow.
    fn receive_unix(&mut self, place: usize) -> Drained {
        let now = self.now();
        self.at_hand = Some(place);
        let Some(Some(listener)) = self.listeners.get_mut(place) else { return Drained::default() };
        if let Some(closed) = listener.aggregator.roll_across(now.wall, self.unread) {
            let kept = self.store.push(listener.allocation, closed);
            listener.aggregator.set_kept_bytes(kept);
        }
        let (drained, emptied) = listener.receive_unix(&mut self.inbox, now);
        if let Emptied::Broken(error) = emptied {
            let container = listener.allocation;
            tracing::warn!(%error, %container, "cannot receive by its Unix socket");
        }
        drained
    }

    /// Closes windows that are over, for at most [`STALL`]; what is left has its turn after the next datagrams. A container
    /// that sends meanwhile has its window closed before its datagrams are read.
    fn close_windows(&mut self) {
        let now = self.now().wall;
        if self.closing.is_none() && now < self.next_end {
            return;
        }
        let started = Instant::now();
        let mut closing = self.closing.take().unwrap_or_default();
        while let Some(place) = self.listeners.get_mut(closing.next) {
            self.at_hand = Some(closing.next);
            closing.next += 1;
            let Some(listener) = place else { continue };
            listener.count_kernel_drops();
            if let Some(closed) = listener.aggregator.roll_across(now, self.unread) {
                let kept = self.store.push(listener.allocation, closed);
                listener.aggregator.set_kept_bytes(kept);
            }
            listener.log_losses(&self.shared.loss_log, now);
            closing.memory += listener.aggregator.memory();
            if started.elapsed() >= STALL {
                break;
            }
        }
        self.shared.held_up(started.elapsed());
        if closing.next < self.listeners.len() {
            self.closing = Some(closing);
        } else {
            self.closed_windows(closing.memory);
        }
    }

    /// Every window that was over is closed.
    fn closed_windows(&mut self, memory: usize) {
        let listeners = || self.listeners.iter().flatten();
        let ends = listeners().map(|listener| listener.aggregator.window_end());
        self.next_end = ends.min().unwrap_or(Timestamp::MAX);
        let full = self.shared.is_full_with(self.index, memory);
        for listener in self.listeners.iter_mut().flatten() {
            listener.aggregator.set_node_full(full);
        }
    }
}

/// The place that an event names.
fn place_of(data: u64) -> usize {
    usize::try_from(data).unwrap_or(usize::MAX)
}
