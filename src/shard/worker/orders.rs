//! What a shard is told, in bounded slices of its turns.

use std::time::Duration;

use super::{LoopControl, PAUSE, Worker};
use crate::aggregate::ReadGap;
use crate::model::{Allocation, Moment};
use crate::shard::command::{Checkpoint, ShardCommand, SnapshotSlice};
use crate::shard::listener::ContainerListener;
use crate::shard::share::Share;

/// Commands that are obeyed in one turn at most.
const ORDERS: usize = 256;
/// No further command is begun in a turn after this time.
const OBEYING: Duration = Duration::from_millis(5);
/// A checkpoint, or snapshots for the process that takes over, hold up receiving for so long at one go, and for one container more.
const CHECKPOINT: Duration = Duration::from_millis(1);

impl Worker {
    /// Obeys commands in their order, as far as this turn's share goes; the rest are obeyed in the next.
    pub(super) fn execute_commands(&mut self) -> LoopControl {
        use std::sync::mpsc::TryRecvError;
        let mut share = Share::new(self.clock.monotonic_time(), ORDERS, OBEYING);
        while share.take_step(self.clock.monotonic_time()) {
            match self.commands.try_recv() {
                Ok(ShardCommand::Stop(reply)) => {
                    self.answer_all();
                    let _not_waited_for = reply.send(self.drain_all());
                    return LoopControl::End;
                }
                Ok(command) => self.execute_command(command),
                Err(TryRecvError::Empty) => {
                    self.orders_left = false;
                    return LoopControl::Go;
                }
                Err(TryRecvError::Disconnected) => return LoopControl::End,
            }
        }
        self.orders_left = true;
        LoopControl::Go
    }

    /// An answer that nobody waits for any more is no mistake: the asker was disconnected.
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
                // A tail that was asked for before is the container's, and goes with it.
                self.take_in(usize::MAX);
                if let Err(Some(listener)) = reply.send(self.release_listener(allocation)) {
                    // Nobody takes it, so it stays.
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
                    self.at_hand = Some(place);
                    if let Some(listener) = listener {
                        listener.aggregator.apply_settings(&self.settings);
                    }
                }
            }
            ShardCommand::Suspend(reply) => {
                self.take_in(usize::MAX);
                // Before any of them leaves: merging may fail, and those that have left would be lost with it.
                (0..self.listeners.len()).for_each(|place| self.publish_all(place));
                // What is being drained goes as it is, however much waits in its sockets: the other process waits.
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

    /// Notes how long nothing was read when containers come back from a hand-over that has failed: as after any other pause, windows have
    /// to say that what waited is counted in one of them.
    pub(super) fn note_suspension(&mut self, now: Moment) {
        let Some(since) = self.suspended.take() else { return };
        if now.mono.saturating_sub(since.mono) >= PAUSE {
            self.unread = Some(ReadGap { from: since.wall, until: now.wall });
        }
    }

    /// What has changed in open windows. One that is over is left to be closed.
    fn checkpoint_from(&mut self, from: usize, file: u64) -> Checkpoint {
        let now = self.observe_clock().wall;
        let started = self.clock.monotonic_time();
        let (mut windows, mut next) = (Vec::new(), from);
        while next < self.listeners.len() {
            // The window before must not be overtaken: this checkpoint would replace the one that has it.
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

    /// Snapshots of containers whose windows are not over, and that have not begun to end: those go over as they are then.
    fn snapshot_ahead(&mut self, from: usize) -> SnapshotSlice {
        let now = self.observe_clock().wall;
        let started = self.clock.monotonic_time();
        let (mut snapshots, mut next) = (Vec::new(), from);
        while let Some(place) = self.listeners.get_mut(next) {
            self.at_hand = Some(next);
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
        self.at_hand = self.places.get(&allocation).copied();
        self.at_hand.and_then(|at| self.listeners.get_mut(at))?.as_mut()
    }
}
