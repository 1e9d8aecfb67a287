//! What others ask of a shard.

use std::time::{Duration, Instant};

use super::{Next, Worker};
use crate::model::{Allocation, Timestamp};
use crate::shard::command::{Checkpoint, Command, Detail, Glimpse, Of};
use crate::shard::listener::Listener;

/// A checkpoint holds up receiving for so long at one go, and for one container more.
const CHECKPOINT: Duration = Duration::from_millis(1);

impl Worker {
    /// Does everything that was asked so far.
    pub(super) fn obey(&mut self) -> Next {
        use std::sync::mpsc::TryRecvError;
        loop {
            match self.commands.try_recv() {
                Ok(Command::Stop(reply)) => {
                    let _nobody_waits = reply.send(self.drain_all());
                    return Next::End;
                }
                Ok(command) => self.execute(command),
                Err(TryRecvError::Empty) => return Next::Go,
                Err(TryRecvError::Disconnected) => return Next::End,
            }
        }
    }

    /// An answer that nobody waits for any more is no mistake: the asker was disconnected.
    fn execute(&mut self, command: Command) {
        match command {
            Command::Open(new, reply) => {
                let _nobody_waits = reply.send(self.open(new));
            }
            Command::Drain(allocation, reply) => {
                let _nobody_waits = reply.send(self.drain(allocation));
            }
            Command::Work(reply) => {
                let work =
                    self.listeners.iter().flatten().map(|listener| (listener.allocation, listener.work()));
                let _nobody_waits = reply.send(work.collect());
            }
            Command::Leave(allocation, reply) => {
                if let Err(Some(listener)) = reply.send(self.leave(allocation)) {
                    // Nobody takes it, so it stays.
                    let _could_watch_it_before = self.adopt(listener);
                }
            }
            Command::Adopt(listener, reply) => {
                let _nobody_waits = reply.send(self.adopt(listener));
            }
            Command::Look(of, detail, reply) => {
                let _nobody_waits = reply.send(self.look(&of, detail));
            }
            Command::Checkpoint(from, file, reply) => {
                let _nobody_waits = reply.send(self.checkpoint(from, file));
            }
            Command::Acquaint(allocation, kin, reply) => {
                if let Some(unix) = self.find(allocation).and_then(|listener| listener.unix.as_mut()) {
                    unix.acquaint(kin);
                }
                let _nobody_waits = reply.send(());
            }
            Command::Tap(allocation, to, room) => {
                if let Some(listener) = self.find(allocation) {
                    listener.tap(to, room);
                }
            }
            Command::Configure(settings) => {
                self.settings = settings;
                for (place, listener) in self.listeners.iter_mut().enumerate() {
                    self.at_hand = Some(place);
                    if let Some(listener) = listener {
                        listener.aggregator.reconfigure(&self.settings);
                    }
                }
            }
            Command::Suspend(reply) => {
                let all: Vec<_> = self.places.keys().copied().collect();
                let all = all.into_iter().filter_map(|allocation| self.leave(allocation)).collect();
                let now = self.now().wall;
                if let Err((all, _)) = reply.send((all, now)) {
                    all.into_iter().for_each(|listener| drop(self.adopt(listener)));
                }
            }
            Command::Stop(_) => {}
        }
    }

    /// What has changed in open windows. One that is over is left to be closed.
    fn checkpoint(&mut self, from: usize, file: u64) -> Checkpoint {
        let now = self.now().wall;
        let started = Instant::now();
        let (mut windows, mut next) = (Vec::new(), from);
        while let Some(place) = self.listeners.get_mut(next) {
            next += 1;
            let Some(listener) = place.as_mut().filter(|l| l.aggregator.window_end() > now) else { continue };
            let changed = listener.checkpoint(file, now);
            windows.extend(changed.map(|window| (listener.allocation, window)));
            if started.elapsed() >= CHECKPOINT {
                break;
            }
        }
        Checkpoint { windows, next: (next < self.listeners.len()).then_some(next) }
    }

    fn find(&mut self, allocation: Allocation) -> Option<&mut Listener> {
        self.at_hand = self.places.get(&allocation).copied();
        self.at_hand.and_then(|at| self.listeners.get_mut(at))?.as_mut()
    }

    /// Empties a socket, closes its window, and lets it go. Only at the very end: should any of it fail, the container is
    /// still here, and is drained when that is asked again.
    fn drain(&mut self, allocation: Allocation) -> Option<Glimpse> {
        let now = self.now();
        let place = self.places.get(&allocation).copied()?;
        self.at_hand = Some(place);
        let listener = self.listeners.get_mut(place)?.as_mut()?;
        if let Some(closed) = listener.aggregator.roll_across(now.wall, self.unread) {
            self.store.push(allocation, closed);
        }
        listener.empty(&mut self.inbox, now);
        let closed = listener.aggregator.finish(now.wall);
        self.store.push(allocation, closed);
        let glimpse = listener.look(Detail::Counts, now.wall);
        listener.log_losses(&self.shared.loss_log, now.wall);
        let listener = self.leave(allocation)?;
        listener.give_back(&self.shared.buffers);
        Some(glimpse)
    }

    fn drain_all(&mut self) -> Vec<Glimpse> {
        let all: Vec<_> = self.places.keys().copied().collect();
        all.into_iter().filter_map(|allocation| self.drain(allocation)).collect()
    }

    fn look(&mut self, of: &Of, detail: Detail) -> Vec<Glimpse> {
        let now: Timestamp = self.now().wall;
        let places: Vec<usize> = match of {
            Of::All => (0..self.listeners.len()).collect(),
            Of::These(these) => these.iter().filter_map(|these| self.places.get(these).copied()).collect(),
        };
        let mut glimpses = Vec::with_capacity(places.len());
        for place in places {
            self.at_hand = Some(place);
            if let Some(Some(listener)) = self.listeners.get_mut(place) {
                listener.count_kernel_drops();
                glimpses.push(listener.look(detail, now));
            }
        }
        glimpses
    }
}
