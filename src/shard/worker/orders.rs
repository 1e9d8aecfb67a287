//! Commands to a shard, in bounded slices of its turns, and questions of readers, which are answered after its other work
//! and in a part of its time.

use std::time::Duration;

use super::{LoopControl, MIN_STALL, Worker};
use crate::aggregate::ReadGap;
use crate::model::{Allocation, Moment, Timestamp};
use crate::shard::command::{Checkpoint, Question, ShardCommand, SnapshotSlice};
use crate::shard::listener::ContainerListener;
use crate::shard::stats_queries::{ContainerStats, StatsDetail};
use crate::shard::turn::Share;

/// Maximum number of commands executed in one turn.
const ORDERS: usize = 256;
/// No further command is begun in a turn after this time.
const OBEYING: Duration = Duration::from_millis(5);
/// A checkpoint, or snapshots for a hand-over, delay receiving for at most this long at once, plus one container.
const CHECKPOINT: Duration = Duration::from_millis(1);

impl Worker {
    /// Executes commands in order, within this turn's share; the rest follow in the next turn.
    pub(super) fn execute_commands(&mut self, now: Duration) -> LoopControl {
        use std::sync::mpsc::TryRecvError;
        let mut share = Share::new(now, ORDERS, OBEYING);
        while share.take_step(|| self.clock.monotonic_time()) {
            match self.commands.try_recv() {
                Ok(ShardCommand::Stop(reply)) => {
                    self.answer_all();
                    let _not_waited_for = reply.send(self.drain_all());
                    return LoopControl::End;
                }
                Ok(command) => self.execute_command(command),
                Err(TryRecvError::Empty) => {
                    self.commands_left = false;
                    return LoopControl::Go;
                }
                Err(TryRecvError::Disconnected) => return LoopControl::End,
            }
        }
        self.commands_left = true;
        LoopControl::Go
    }

    /// An answer that is no longer waited for is no mistake: the reader was disconnected.
    fn execute_command(&mut self, command: ShardCommand) {
        match command {
            ShardCommand::Open(new, reply) => {
                let _not_waited_for = reply.send(self.open(new));
            }
            ShardCommand::Drain(allocation, reply) => self.begin_drain(allocation, reply),
            ShardCommand::Work(reply) => {
                let work = self
                    .listeners
                    .iter()
                    .flatten()
                    .map(|listener| (listener.allocation, listener.total_work()));
                let _not_waited_for = reply.send(work.collect());
            }
            ShardCommand::Leave(allocation, reply) => {
                // Accept queued requests for tails first, so that they move with the container.
                self.take_in(usize::MAX);
                if let Err(Some(listener)) = reply.send(self.release_listener(allocation)) {
                    // It is not taken, so it stays.
                    let _could_watch_it_before = self.adopt_listener(listener);
                }
            }
            ShardCommand::Adopt(listener, reply) => {
                let now = self.observe_clock();
                self.note_suspension(now);
                let _not_waited_for = reply.send(self.adopt_listener(listener));
            }
            ShardCommand::Checkpoint(from, file, reply) => {
                let _not_waited_for = reply.send(self.checkpoint_from(from, file));
            }
            ShardCommand::SnapshotAhead(from, reply) => {
                let _not_waited_for = reply.send(self.snapshot_ahead(from));
            }
            ShardCommand::Quiet(reply) => {
                let closing = self.closing.is_some() || !self.merging.is_empty();
                let left = self.next_end.duration_since(self.observe_clock().wall);
                let _not_waited_for = reply.send(if closing { Duration::ZERO } else { left });
            }
            ShardCommand::SetContainerProcesses(allocation, process_identity, reply) => {
                if let Some(unix) = self.find(allocation).and_then(|listener| listener.unix.as_mut()) {
                    unix.set_container_processes(process_identity);
                }
                let _not_waited_for = reply.send(());
            }
            ShardCommand::Configure(settings) => {
                self.settings = settings;
                self.remember_totals();
                for (place, listener) in self.listeners.iter_mut().enumerate() {
                    self.current_place = Some(place);
                    if let Some(listener) = listener {
                        listener.aggregator.apply_settings(&self.settings);
                    }
                }
            }
            ShardCommand::Suspend(reply) => {
                self.take_in(usize::MAX);
                // Before any container leaves: merging may panic, and those that had left would be lost.
                (0..self.listeners.len()).for_each(|place| self.publish_all(place));
                // Containers being drained leave as they are, without emptying their sockets: the other process is
                // waiting.
                self.draining.clear();
                let all: Vec<_> = self.places.keys().copied().collect();
                let all =
                    all.into_iter().filter_map(|allocation| self.release_listener(allocation)).collect();
                let now = self.observe_clock();
                self.suspended = Some(now);
                if let Err((all, _)) = reply.send((all, now.wall)) {
                    all.into_iter().for_each(|listener| drop(self.adopt_listener(listener)));
                }
            }
            ShardCommand::Stop(_) => {}
        }
    }

    /// Records how long nothing was read when containers come back from a failed hand-over: as after any other pause,
    /// the window that counts the waiting datagrams must be marked.
    pub(super) fn note_suspension(&mut self, now: Moment) {
        let Some(since) = self.suspended.take() else { return };
        if now.mono.saturating_sub(since.mono) >= MIN_STALL {
            self.unread = Some(ReadGap { from: since.wall, until: now.wall });
        }
    }

    /// The changes in open windows. Windows that have ended are skipped: they are about to be closed.
    fn checkpoint_from(&mut self, from: usize, file: u64) -> Checkpoint {
        let now = self.observe_clock().wall;
        let started = self.clock.monotonic_time();
        let (mut windows, mut next) = (Vec::new(), from);
        while next < self.listeners.len() {
            // Publish the previous window first: this checkpoint would replace the one that contains it.
            self.publish_all(next);
            let Some(place) = self.listeners.get_mut(next) else { break };
            next += 1;
            let Some(listener) = place.as_mut().filter(|l| l.aggregator.window_end() > now) else { continue };
            let changed = listener.checkpoint_window(file, now);
            windows.extend(changed.map(|window| (listener.allocation, window)));
            if self.clock.monotonic_time().saturating_sub(started) >= CHECKPOINT {
                break;
            }
        }
        Checkpoint { windows, next: (next < self.listeners.len()).then_some(next) }
    }

    /// Snapshots of containers, except those whose window has ended or that are being drained: these are sent whole
    /// later.
    fn snapshot_ahead(&mut self, from: usize) -> SnapshotSlice {
        let now = self.observe_clock().wall;
        let started = self.clock.monotonic_time();
        let (mut snapshots, mut next) = (Vec::new(), from);
        while let Some(place) = self.listeners.get_mut(next) {
            self.current_place = Some(next);
            next += 1;
            let lives = |l: &&mut ContainerListener| l.ending.is_none() && l.aggregator.window_end() > now;
            let Some(listener) = place.as_mut().filter(lives) else { continue };
            snapshots.push((listener.allocation, listener.aggregator.snapshot_ahead()));
            if self.clock.monotonic_time().saturating_sub(started) >= CHECKPOINT {
                break;
            }
        }
        SnapshotSlice { snapshots, next: (next < self.listeners.len()).then_some(next) }
    }

    pub(super) fn find(&mut self, allocation: Allocation) -> Option<&mut ContainerListener> {
        self.current_place = self.places.get(&allocation).copied();
        self.current_place.and_then(|at| self.listeners.get_mut(at))?.as_mut()
    }
}

/// Most questions that are accepted in one turn.
const QUESTIONS: usize = 1024;
/// Most containers that are looked at in one turn.
const QUERIED_PER_SLICE: usize = 4096;
/// No further container is looked at in a turn after this time.
const QUERY_TIME_PER_TURN: Duration = Duration::from_millis(1);
/// After a slice of queries, readers wait this many times as long as the slice took. So they get at most a quarter of a
/// shard's time, however much they ask.
const READERS_PAUSE: u32 = 3;
/// A shorter pause is skipped, because going to sleep and waking up takes about as long.
const SHORTEST_PAUSE: Duration = Duration::from_micros(200);

impl Worker {
    /// Answers readers within this turn's share.
    pub(super) fn answer_readers(&mut self) {
        if !self.queries.has_waiting() {
            return;
        }
        let began = self.clock.monotonic_time();
        if !self.pause_of_readers(began).is_zero() {
            return;
        }
        let wall = self.observe_clock().wall;
        let mut share = Share::new(began, QUERIED_PER_SLICE, QUERY_TIME_PER_TURN);
        while share.take_step(|| self.clock.monotonic_time()) && self.look_at_next(wall) {}
        let ended = self.clock.monotonic_time();
        self.readers_wait_until = ended + ended.saturating_sub(began) * READERS_PAUSE;
    }

    /// Answers all pending questions; for a shard that ends.
    pub(super) fn answer_all(&mut self) {
        self.take_in(usize::MAX);
        let wall = self.observe_clock().wall;
        while self.look_at_next(wall) {}
    }

    /// How long readers must still wait at `now`; zero if they need not.
    pub(super) fn pause_of_readers(&self, now: Duration) -> Duration {
        let pause = self.readers_wait_until.saturating_sub(now);
        if pause < SHORTEST_PAUSE { Duration::ZERO } else { pause }
    }

    /// Accepts readers' questions. Call it before reading this turn's datagrams: a tail must show everything that is
    /// sent after it was requested.
    pub(super) fn take_in_questions(&mut self) {
        self.take_in(QUESTIONS);
    }

    pub(super) fn take_in(&mut self, most: usize) {
        self.questions_left = true;
        for _ in 0..most {
            match self.questions.try_recv() {
                Ok(Question::Stats(of, detail, reply)) => self.queries.add(of, detail, reply),
                Ok(Question::Tap(allocation, to, room, wanted)) => {
                    if let Some(listener) = self.find(allocation) {
                        listener.add_tap(to, room, wanted);
                    }
                }
                Err(_) => {
                    self.questions_left = false;
                    return;
                }
            }
        }
    }

    /// Looks at one container; returns false if there was none left.
    fn look_at_next(&mut self, now: Timestamp) -> bool {
        let places = &self.places;
        let Some((allocation, detail)) = self.queries.next(|| places.keys().copied().collect()) else {
            return false;
        };
        let stats = self.collect_stats(allocation, detail, now);
        self.queries.record_stats(stats);
        true
    }

    fn collect_stats(
        &mut self,
        allocation: Allocation,
        detail: StatsDetail,
        now: Timestamp,
    ) -> Option<ContainerStats> {
        let listener = self.find(allocation)?;
        listener.count_kernel_drops();
        Some(listener.collect_stats(detail, now))
    }
}
