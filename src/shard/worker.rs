//! The loop of one shard.

mod closing;
mod failure;
mod members;
mod orders;
mod receiving;

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use super::command::{Question, ShardCommand};
use super::listener::ContainerListener;
use super::looks::Looks;
use super::shared::PoolShared;
use super::turn::Gather;
use crate::aggregate::{AggregatorSettings, ReadGap};
use crate::model::{Allocation, Moment, Timestamp};
use crate::net::clock::{Clock, ClockStep, SteadyClock};
use crate::net::listener::Inbox;
use crate::store::Store;
use closing::Closing;
use failure::Failures;
use receiving::Pass;

/// The event of the eventfd; no listener has this place.
const WAKE: u64 = u64::MAX;
/// Added to the place in events of a Unix socket; no listener's place is as large.
const UNIX: u64 = 1 << 63;
/// Events that are taken at once.
const EVENTS: usize = 1024;
/// Longest wait, so that a stepped clock is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Two turns that begin this far apart mean that the thread did not run in between, because the process was stopped or the machine is
/// overloaded: one turn's shares of work add up to far less.
const PAUSE: Duration = Duration::from_secs(2);

/// One shard. Everything in it belongs to its thread.
pub(super) struct Worker {
    index: usize,
    epoll: Epoll,
    wake: Arc<EventFd>,
    commands: Receiver<ShardCommand>,
    /// Whether commands may be left over from the last turn.
    orders_left: bool,
    questions: Receiver<Question>,
    /// Whether questions may be left over from the last turn.
    questions_left: bool,
    looks: Looks,
    /// Until when readers wait, because they have had their part of the shard's time.
    readers_wait_until: Duration,
    store: Arc<Store>,
    settings: Arc<AggregatorSettings>,
    shared: Arc<PoolShared>,
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
    unread: Option<ReadGap>,
    /// When its containers left for another process, until the first of them is back.
    suspended: Option<Moment>,
    /// Sockets that are ready and not read yet, by the data of their events.
    ready: VecDeque<u64>,
    /// What was read of those that were ready together, while some of them are left over.
    pass: Option<Pass>,
    /// Windows that are over and not closed yet.
    closing: Option<Closing>,
    /// Places of containers whose closed windows wait for their late samples to be merged.
    merging: VecDeque<usize>,
    /// Containers that end.
    draining: VecDeque<Allocation>,
    listeners: Vec<Option<ContainerListener>>,
    places: HashMap<Allocation, usize>,
    /// No place before this one is vacant.
    vacant_from: usize,
    inbox: Inbox,
    /// The place of the listener that is being worked on, should that fail.
    at_hand: Option<usize>,
    failures: Failures,
}

/// Where commands and questions come from, and what wakes the shard up for them.
pub(super) struct Orders {
    pub(super) commands: Receiver<ShardCommand>,
    pub(super) questions: Receiver<Question>,
    pub(super) wake: Arc<EventFd>,
}

/// What a shard starts with.
pub(super) struct Setup {
    /// Its number.
    pub(super) index: usize,
    /// How long datagrams may gather.
    pub(super) gather: Duration,
    /// The moment before which its clock may not be, where another process closed windows up to it.
    pub(super) not_before: Option<Timestamp>,
    pub(super) orders: Orders,
    pub(super) store: Arc<Store>,
    pub(super) settings: Arc<AggregatorSettings>,
    pub(super) shared: Arc<PoolShared>,
    pub(super) clock: Clock,
}

/// Whether the loop goes on.
enum LoopControl {
    Go,
    End,
}

impl Worker {
    pub(super) fn new(setup: Setup) -> nix::Result<Self> {
        let Setup { index, gather, not_before, orders, store, settings, shared, clock } = setup;
        let Orders { commands, questions, wake } = orders;
        let epoll = Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(wake.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let new = Self {
            index,
            epoll,
            wake,
            commands,
            orders_left: false,
            questions,
            questions_left: false,
            looks: Looks::default(),
            readers_wait_until: Duration::ZERO,
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
            suspended: None,
            ready: VecDeque::new(),
            pass: None,
            closing: None,
            merging: VecDeque::new(),
            draining: VecDeque::new(),
            listeners: Vec::new(),
            places: HashMap::new(),
            vacant_from: 0,
            inbox: Inbox::default(),
            at_hand: None,
            failures: Failures::default(),
        };
        new.remember_totals();
        Ok(new)
    }

    /// Serves until it is told to stop or its command channel is closed. Everything that a turn does is bounded.
    fn run_turns(&mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut began = Instant::now();
        loop {
            self.shared.was_busy(self.index, began.elapsed());
            // Sockets that are left over are read before others are asked for.
            if self.ready.is_empty() && !self.wait_for_events(&mut events) {
                return;
            }
            began = Instant::now();
            self.notice_pause();
            if matches!(self.execute_commands(), LoopControl::End) {
                return;
            }
            self.take_in_questions();
            self.drain_some();
            self.close_windows();
            self.merge_late();
            self.drain_ready();
            self.answer_readers();
        }
    }

    /// Notes when this thread has not run for long: windows have to say that what waited is counted in one of them.
    fn notice_pause(&mut self) {
        let now = self.observe_clock();
        let paused = now.mono.saturating_sub(self.turned.mono);
        if paused >= PAUSE {
            self.unread = Some(ReadGap { from: self.turned.wall, until: now.wall });
            self.shared.count_pause();
            tracing::warn!(
                shard = self.index,
                ?paused,
                "this shard did not run and read nothing; datagrams that waited are counted in the open window, which is marked partial"
            );
        }
        self.turned = now;
    }

    /// Waits for something to do. Answers whether that is still possible.
    fn wait_for_events(&mut self, events: &mut [EpollEvent]) -> bool {
        let patience = self.wait_timeout();
        let first = self.first_events();
        let Some(mut ready) = self.poll(events.get_mut(..first).unwrap_or_default(), patience) else {
            return false;
        };
        if self.wait_for_more(events, ready) || (ready == first && first < EVENTS) {
            // Sockets that became ready meanwhile have their turn, too.
            let Some(now) = self.poll(events, EpollTimeout::ZERO) else { return false };
            ready = now;
        }
        for event in events.iter().take(ready) {
            match event.data() {
                // Before the queues are read: what is sent after that wakes the shard again.
                WAKE => drop(self.wake.read()),
                socket => self.ready.push_back(socket),
            }
        }
        true
    }

    /// How many events to wait for. Where datagrams will gather after the first, it says enough: the kernel looks at each
    /// socket that it names, and will look at all of them again.
    fn first_events(&mut self) -> usize {
        let since = self.observe_clock().mono.saturating_sub(self.drain_began);
        if self.gather.wait_duration(since).is_zero() { EVENTS } else { 1 }
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
        if ready == 0 || told || self.has_work() || self.looks.has_waiting() {
            return false;
        }
        let since = self.observe_clock().mono.saturating_sub(self.drain_began);
        let wait = self.gather.wait_duration(since);
        if wait.is_zero() {
            return false;
        }
        // A command ends the wait, so that its sender does not wait for data.
        let mut wake = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        let _either_way = nix::poll::ppoll(&mut wake, Some(TimeSpec::from_duration(wait)), None);
        true
    }

    /// Whether work is left over from the last turn, the looks of readers not counted.
    fn has_work(&self) -> bool {
        let left = !(self.ready.is_empty() && self.merging.is_empty() && self.draining.is_empty());
        left || self.closing.is_some() || self.orders_left || self.questions_left
    }

    /// How long to wait: until the next window ends, or work that is left over goes on.
    fn wait_timeout(&mut self) -> EpollTimeout {
        if self.has_work() {
            return EpollTimeout::ZERO;
        }
        let now = self.observe_clock();
        let mut wait = self.next_end.duration_since(now.wall).min(LONGEST_WAIT);
        if self.looks.has_waiting() {
            wait = wait.min(self.pause_of_readers(now.mono));
        }
        // Rounded up: a millisecond too early would wake the thread for nothing, once for each window.
        let millis = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        EpollTimeout::from(millis)
    }

    fn observe_clock(&mut self) -> Moment {
        let (now, step) = self.steady.advance_to(self.clock.read());
        if let Some(step) = step {
            self.shared.count_step(self.index, step);
            match step {
                ClockStep::Forward(by) if self.index == 0 => {
                    tracing::warn!(?by, "the clock was set forward; windows in between are skipped");
                }
                ClockStep::Back(by) if self.index == 0 => {
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
}

/// The place that an event names.
fn place_of(data: u64) -> usize {
    usize::try_from(data).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
