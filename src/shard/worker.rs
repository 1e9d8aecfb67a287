//! The main loop of one shard.

mod closing;
mod failure;
mod members;
mod orders;
mod receiving;

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use super::command::{Question, ShardCommand};
use super::listener::ContainerListener;
use super::shared::PoolShared;
use super::stats_queries::StatsQueries;
use super::turn::Gather;
use crate::aggregate::{AggregatorSettings, ReadGap};
use crate::model::{Allocation, Moment, Timestamp};
use crate::net::clock::{Clock, ClockStep, SteadyClock};
use crate::net::listener::Inbox;
use crate::store::Store;
use closing::Closing;
use failure::Failures;
use receiving::Pass;

/// Event data of the eventfd; no listener's place has this value.
const WAKE: u64 = u64::MAX;
/// Bit set in the event data of Unix sockets; no listener's place is this large.
const UNIX: u64 = 1 << 63;
/// Maximum number of events per epoll call.
const EVENTS: usize = 1024;
/// Longest wait, so that clock steps are noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Two turns that begin this far apart mean that the thread did not run in between, because the process was stopped or the
/// machine is overloaded: one turn's shares of work add up to far less.
const MIN_STALL: Duration = Duration::from_secs(2);

/// One shard. Everything in it belongs to its thread.
pub(super) struct Worker {
    index: usize,
    epoll: Epoll,
    wake: Arc<EventFd>,
    commands: Receiver<ShardCommand>,
    /// Whether commands may be left over from the last turn.
    commands_left: bool,
    questions: Receiver<Question>,
    /// Whether questions may be left over from the last turn.
    questions_left: bool,
    queries: StatsQueries,
    /// Readers wait until this time, because they have used up their part of the shard's time.
    readers_wait_until: Duration,
    store: Arc<Store>,
    settings: Arc<AggregatorSettings>,
    shared: Arc<PoolShared>,
    clock: Clock,
    steady: SteadyClock,
    /// A lower bound on the end of the next window of any listener.
    next_end: Timestamp,
    gather: Gather,
    /// When the last drain began.
    drain_began: Duration,
    /// When the last drain ended.
    drained_at: Duration,
    /// When the last turn began.
    turned: Moment,
    /// The last period without reads that is long enough to be marked in windows.
    unread: Option<ReadGap>,
    /// When its containers were suspended for a hand-over; cleared when the first of them is back.
    suspended: Option<Moment>,
    /// Sockets that are ready but not read yet, as event data.
    ready: VecDeque<u64>,
    /// What was read so far in the current pass over ready sockets, while some of them are left.
    pass: Option<Pass>,
    /// The round of closing windows under way, if any.
    closing: Option<Closing>,
    /// Places of containers with closed windows whose late samples are not merged yet.
    merging: VecDeque<usize>,
    /// Containers that are being drained.
    draining: VecDeque<Allocation>,
    listeners: Vec<Option<ContainerListener>>,
    places: HashMap<Allocation, usize>,
    /// No place before this one is vacant.
    vacant_from: usize,
    inbox: Inbox,
    /// The place of the listener being worked on, for recovery from a panic.
    current_place: Option<usize>,
    failures: Failures,
}

/// The channels of commands and questions, and the eventfd that wakes the shard up for them.
pub(super) struct ShardChannels {
    pub(super) commands: Receiver<ShardCommand>,
    pub(super) questions: Receiver<Question>,
    pub(super) wake: Arc<EventFd>,
}

/// The parameters of a new shard.
pub(super) struct Setup {
    /// Its number.
    pub(super) index: usize,
    /// How long datagrams may gather before they are read.
    pub(super) gather: Duration,
    /// The earliest time that its clock may give, because the previous process has closed windows up to then.
    pub(super) not_before: Option<Timestamp>,
    pub(super) channels: ShardChannels,
    pub(super) store: Arc<Store>,
    pub(super) settings: Arc<AggregatorSettings>,
    pub(super) shared: Arc<PoolShared>,
    pub(super) clock: Clock,
}

/// Whether the loop continues.
enum LoopControl {
    Go,
    End,
}

impl Worker {
    pub(super) fn new(setup: Setup) -> nix::Result<Self> {
        let Setup { index, gather, not_before, channels, store, settings, shared, clock } = setup;
        let ShardChannels { commands, questions, wake } = channels;
        let epoll = Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(wake.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let new = Self {
            index,
            epoll,
            wake,
            commands,
            commands_left: false,
            questions,
            questions_left: false,
            queries: StatsQueries::default(),
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
            current_place: None,
            failures: Failures::default(),
        };
        new.remember_totals();
        Ok(new)
    }

    /// Runs turns until the shard is stopped or its command channel is closed. All work in a turn is bounded.
    fn run_turns(&mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut began = self.clock.monotonic_time();
        loop {
            let now = self.observe_clock();
            self.shared.was_busy(self.index, now.mono.saturating_sub(began));
            // Remaining ready sockets are read before epoll is called again.
            if self.ready.is_empty() && !self.wait_for_events(&mut events, now) {
                return;
            }
            // The clocks are read as seldom as possible: a turn that reads a single datagram costs little more than they do.
            let turn = self.observe_clock();
            began = turn.mono;
            self.notice_pause(turn);
            if matches!(self.execute_commands(turn.mono), LoopControl::End) {
                return;
            }
            self.take_in_questions();
            self.drain_some();
            self.close_windows(turn);
            self.merge_late();
            self.drain_ready();
            self.answer_readers();
        }
    }

    /// Detects that this thread has not run for long: the window that counts the waiting datagrams must be marked.
    fn notice_pause(&mut self, now: Moment) {
        let paused = now.mono.saturating_sub(self.turned.mono);
        if paused >= MIN_STALL {
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

    /// Waits for work. Returns false if waiting is no longer possible.
    fn wait_for_events(&mut self, events: &mut [EpollEvent], now: Moment) -> bool {
        let patience = self.wait_timeout(now);
        let first = self.first_events(now.mono);
        let Some(mut ready) = self.poll(events.get_mut(..first).unwrap_or_default(), patience) else {
            return false;
        };
        if self.wait_for_more(events, ready) || (ready == first && first < EVENTS) {
            // Also take the sockets that became ready meanwhile.
            let Some(now) = self.poll(events, EpollTimeout::ZERO) else { return false };
            ready = now;
        }
        for event in events.iter().take(ready) {
            match event.data() {
                // Cleared before the queues are read: anything sent later wakes the shard again.
                WAKE => drop(self.wake.read()),
                socket => self.ready.push_back(socket),
            }
        }
        true
    }

    /// How many events to wait for. If datagrams will gather after the first event, one is enough: the kernel checks
    /// every socket that it reports, and would check all of them again after the wait.
    fn first_events(&self, now: Duration) -> usize {
        if self.gather.wait_duration(now.saturating_sub(self.drain_began)).is_zero() { EVENTS } else { 1 }
    }

    /// The number of events; `None` if waiting for them is no longer possible.
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

    /// Lets datagrams gather, unless a command waits or it is not worth it. Returns whether it waited.
    fn wait_for_more(&self, events: &[EpollEvent], ready: usize) -> bool {
        let told = events.iter().take(ready).any(|event| event.data() == WAKE);
        if ready == 0 || told || self.has_work() || self.queries.has_waiting() {
            return false;
        }
        let since = self.clock.monotonic_time().saturating_sub(self.drain_began);
        let wait = self.gather.wait_duration(since);
        if wait.is_zero() {
            return false;
        }
        // A command ends the wait, so that its sender does not wait for data.
        let mut wake = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        let _either_way = nix::poll::ppoll(&mut wake, Some(TimeSpec::from_duration(wait)), None);
        true
    }

    /// Whether work other than queries of readers is left over from the last turn.
    fn has_work(&self) -> bool {
        let left = !(self.ready.is_empty() && self.merging.is_empty() && self.draining.is_empty());
        left || self.closing.is_some() || self.commands_left || self.questions_left
    }

    /// The longest wait: until the next window ends or remaining work can continue.
    fn wait_timeout(&self, now: Moment) -> EpollTimeout {
        if self.has_work() {
            return EpollTimeout::ZERO;
        }
        let mut wait = self.next_end.duration_since(now.wall).min(LONGEST_WAIT);
        if self.queries.has_waiting() {
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
                        "the clock was set back; windows continue ahead of it, so that none is repeated"
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
