//! What a shard is told, in bounded slices of its turns.

use std::time::Duration;

use super::{Next, PAUSE, Worker};
use crate::aggregate::Unread;
use crate::model::{Allocation, Moment};
use crate::shard::command::{Checkpoint, Command, SnapshotSlice};
use crate::shard::listener::Listener;
use crate::shard::share::Share;

/// Commands that are obeyed in one turn at most.
const ORDERS: usize = 256;
/// No further command is begun in a turn after this time.
const OBEYING: Duration = Duration::from_millis(5);
/// A checkpoint, or snapshots for the process that takes over, hold up receiving for so long at one go, and for one container more.
const CHECKPOINT: Duration = Duration::from_millis(1);

impl Worker {
    /// Obeys commands in their order, as far as this turn's share goes; the rest are obeyed in the next.
    pub(super) fn obey(&mut self) -> Next {
        use std::sync::mpsc::TryRecvError;
        let mut share = Share::new(self.clock.mono(), ORDERS, OBEYING);
        while share.take(self.clock.mono()) {
            match self.commands.try_recv() {
                Ok(Command::Stop(reply)) => {
                    self.answer_all();
                    let _not_waited_for = reply.send(self.drain_all());
                    return Next::End;
                }
                Ok(command) => self.execute(command),
                Err(TryRecvError::Empty) => {
                    self.orders_left = false;
                    return Next::Go;
                }
                Err(TryRecvError::Disconnected) => return Next::End,
            }
        }
        self.orders_left = true;
        Next::Go
    }

    /// An answer that nobody waits for any more is no mistake: the asker was disconnected.
    fn execute(&mut self, command: Command) {
        match command {
            Command::Open(new, reply) => {
                let _not_waited_for = reply.send(self.open(new));
            }
            Command::Drain(allocation, reply) => self.begin_drain(allocation, reply),
            Command::Work(reply) => {
                let work =
                    self.listeners.iter().flatten().map(|listener| (listener.allocation, listener.work()));
                let _not_waited_for = reply.send(work.collect());
            }
            Command::Leave(allocation, reply) => {
                // A tail that was asked for before is the container's, and goes with it.
                self.take_in(usize::MAX);
                if let Err(Some(listener)) = reply.send(self.leave(allocation)) {
                    // Nobody takes it, so it stays.
                    let _could_watch_it_before = self.adopt(listener);
                }
            }
            Command::Adopt(listener, reply) => {
                let now = self.now();
                self.note_suspension(now);
                let _not_waited_for = reply.send(self.adopt(listener));
            }
            Command::Checkpoint(from, file, reply) => {
                let _not_waited_for = reply.send(self.checkpoint(from, file));
            }
            Command::SnapshotAhead(from, reply) => {
                let _not_waited_for = reply.send(self.snapshot_ahead(from));
            }
            Command::Quiet(reply) => {
                let closing = self.closing.is_some() || !self.merging.is_empty();
                let left = self.next_end.since(self.now().wall);
                let _not_waited_for = reply.send(if closing { Duration::ZERO } else { left });
            }
            Command::SetContainerProcesses(allocation, process_identity, reply) => {
                if let Some(unix) = self.find(allocation).and_then(|listener| listener.unix.as_mut()) {
                    unix.set_container_processes(process_identity);
                }
                let _not_waited_for = reply.send(());
            }
            Command::Configure(settings) => {
                self.settings = settings;
                self.remember_totals();
                for (place, listener) in self.listeners.iter_mut().enumerate() {
                    self.at_hand = Some(place);
                    if let Some(listener) = listener {
                        listener.aggregator.reconfigure(&self.settings);
                    }
                }
            }
            Command::Suspend(reply) => {
                self.take_in(usize::MAX);
                // Before any of them leaves: merging may fail, and those that have left would be lost with it.
                (0..self.listeners.len()).for_each(|place| self.publish_all(place));
                // What is being drained goes as it is, however much waits in its sockets: the other process waits.
                self.draining.clear();
                let all: Vec<_> = self.places.keys().copied().collect();
                let all = all.into_iter().filter_map(|allocation| self.leave(allocation)).collect();
                let now = self.now();
                self.suspended = Some(now);
                if let Err((all, _)) = reply.send((all, now.wall)) {
                    all.into_iter().for_each(|listener| drop(self.adopt(listener)));
                }
            }
            Command::Stop(_) => {}
        }
    }

    /// Notes how long nothing was read when containers come back from a hand-over that has failed: as after any other pause, windows have
    /// to say that what waited is counted in one of them.
    pub(super) fn note_suspension(&mut self, now: Moment) {
        let Some(since) = self.suspended.take() else { return };
        if now.mono.saturating_sub(since.mono) >= PAUSE {
            self.unread = Some(Unread { from: since.wall, until: now.wall });
        }
    }

    /// What has changed in open windows. One that is over is left to be closed.
    fn checkpoint(&mut self, from: usize, file: u64) -> Checkpoint {
        let now = self.now().wall;
        let started = self.clock.mono();
        let (mut windows, mut next) = (Vec::new(), from);
        while next < self.listeners.len() {
            // The window before must not be overtaken: this checkpoint would replace the one that has it.
            self.publish_all(next);
            let Some(place) = self.listeners.get_mut(next) else { break };
            next += 1;
            let Some(listener) = place.as_mut().filter(|l| l.aggregator.window_end() > now) else { continue };
            let changed = listener.checkpoint(file, now);
            windows.extend(changed.map(|window| (listener.allocation, window)));
            if self.clock.mono().saturating_sub(started) >= CHECKPOINT {
                break;
            }
        }
        Checkpoint { windows, next: (next < self.listeners.len()).then_some(next) }
    }

    /// Snapshots of containers whose windows are not over, and that have not begun to end: those go over as they are then.
    fn snapshot_ahead(&mut self, from: usize) -> SnapshotSlice {
        let now = self.now().wall;
        let started = self.clock.mono();
        let (mut snapshots, mut next) = (Vec::new(), from);
        while let Some(place) = self.listeners.get_mut(next) {
            self.at_hand = Some(next);
            next += 1;
            let lives = |l: &&mut Listener| l.ending.is_none() && l.aggregator.window_end() > now;
            let Some(listener) = place.as_mut().filter(lives) else { continue };
            snapshots.push((listener.allocation, listener.aggregator.snapshot_ahead()));
            if self.clock.mono().saturating_sub(started) >= CHECKPOINT {
                break;
            }
        }
        SnapshotSlice { snapshots, next: (next < self.listeners.len()).then_some(next) }
    }

    pub(super) fn find(&mut self, allocation: Allocation) -> Option<&mut Listener> {
        self.at_hand = self.places.get(&allocation).copied();
        self.at_hand.and_then(|at| self.listeners.get_mut(at))?.as_mut()
    }
}
