//! The agent while it moves to another process, or to what keeps it for the next one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::handover::{PATIENCE, to_bytes};
use crate::api::Api;
use crate::containers::{Leaving, Manifest};
use crate::net::clock;
use crate::nri::{Suspended, Suspender};
use crate::shutdown::Pauser;

/// The last message of a hand-over, beside descriptors.
#[derive(Serialize, Deserialize)]
pub(super) struct FinalState {
    pub(super) manifest: Manifest,
    /// Windows that were closed since the last were sent, where the sequence is, and what is gone.
    pub(super) part: Bytes,
    /// What the NRI plugin knows, and whether its connection is the first descriptor after those of the agent itself.
    pub(super) nri: Option<(Vec<u8>, bool)>,
}

/// How long the NRI plugin may take to stop between two calls. Longer than it takes to answer one; everything is paused
/// meanwhile.
const STOPPING: Duration = Duration::from_secs(1);

/// How long the plugin may be stopped until the other process has put everything together, and until it receives. The runtime
/// disconnects a plugin that does not answer within two seconds, and a call that waits in the connection may take the plugin half
/// a second once it goes on here. The second step takes milliseconds, and what is received in it is lost if the hand-over still fails.
const READY_WITHIN: Duration = Duration::from_millis(1200);
const SERVING_WITHIN: Duration = Duration::from_millis(1600);

/// A step of the other process that this one waits for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It puts together what came.
    Ready,
    /// It begins to receive.
    Serving,
}

impl Step {
    /// How long it may still take where the runtime's connection has been held for so long; `None` where none is held.
    fn patience(self, held: Option<Duration>) -> Duration {
        let within = match self {
            Self::Ready => READY_WITHIN,
            Self::Serving => SERVING_WITHIN,
        };
        held.map_or(PATIENCE, |held| within.saturating_sub(held))
    }
}

/// What the old process holds that is neither the table nor the store.
#[derive(Debug)]
pub(super) struct Holding {
    shared: Shared,
    pauser: Pauser,
    nri: Suspender,
    /// Whether another process has everything. Locked from the moment that everything stops until that is decided.
    moved: Mutex<bool>,
}

/// The agent while it moves: nothing new is begun, the plugin has stopped, and the table waits for the decision. If it is
/// dropped without one, everything goes on.
#[derive(Debug)]
pub(super) struct Moving<'a> {
    holding: &'a Holding,
    moved: MutexGuard<'a, bool>,
    plugin: Option<Suspended>,
    /// When the plugin stopped, since the machine was booted.
    stopped: Duration,
    leaving: Option<Leaving>,
}

impl Holding {
    pub(super) fn new(shared: Shared, pauser: Pauser, nri: Suspender) -> Self {
        Self { shared, pauser, nri, moved: Mutex::new(false) }
    }

    /// Waits for a hand-over that is under way, and answers whether another process has everything.
    pub(super) fn has_moved(&self) -> bool {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops everything that changes what is handed over.
    ///
    /// # Errors
    /// When another process has everything already, the plugin does not stop, a shard has ended, or descriptors ran out. Then
    /// everything goes on.
    pub(super) fn stop(&self, api: &Api, handle: &tokio::runtime::Handle) -> io::Result<Moving<'_>> {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if *moved {
            return Err(io::Error::other("another process has taken over"));
        }
        self.pauser.pause(true);
        let mut moving =
            Moving { holding: self, moved, plugin: None, stopped: clock::since_boot(), leaving: None };
        // Before the table: a call that is being answered asks it.
        let suspended = handle.block_on(async { tokio::time::timeout(STOPPING, self.nri.suspend()).await });
        moving.plugin = suspended.map_err(|_| io::Error::other("the NRI plugin is busy; try again"))?;
        moving.stopped = clock::since_boot();
        moving.leaving = Some(handle.block_on(api.containers.hand_over())?);
        Ok(moving)
    }
}

impl Moving<'_> {
    /// The last message, but for descriptors.
    pub(super) fn state(&self, part: Vec<u8>) -> Vec<u8> {
        let carried = self.plugin.as_ref().map(|plugin| &plugin.carried);
        let nri = carried.map(|carried| (&carried.state, carried.socket.is_some()));
        self.leaving
            .as_ref()
            .map(|leaving| to_bytes(&(&leaving.manifest, Bytes::from(part), nri)))
            .unwrap_or_default()
    }

    /// Every descriptor that goes with it, in order.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub(super) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let nri = self.plugin.as_ref().and_then(|plugin| plugin.carried.socket.as_ref());
        let of_containers = self.leaving.iter().flat_map(|leaving| &leaving.descriptors);
        let all = self.holding.shared.0.iter().chain(nri).chain(of_containers);
        all.map(OwnedFd::try_clone).collect()
    }

    /// How long the other process may take for a step. The container runtime waits, too, while its connection is handed over.
    pub(super) fn patience(&self, step: Step) -> Duration {
        let carries = self.plugin.as_ref().is_some_and(|plugin| plugin.carried.socket.is_some());
        step.patience(carries.then(|| clock::since_boot().saturating_sub(self.stopped)))
    }

    /// What keeps the guard of listeners up until the next agent has one.
    pub(super) fn guard(&self) -> &[OwnedFd] {
        self.leaving.as_ref().map_or(&[], |leaving| &leaving.guard)
    }

    /// Ends here where another process has everything, and goes on where none has.
    pub(super) fn decide(mut self, taken: bool) {
        *self.moved = taken;
        self.settle(taken);
    }

    fn settle(&mut self, taken: bool) {
        self.leaving.take().into_iter().for_each(|leaving| leaving.decide(taken));
        self.plugin.take().into_iter().for_each(|plugin| plugin.decide(taken));
        self.holding.pauser.pause(taken);
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if !*self.moved {
            self.settle(false);
        }
    }
}

/// How many descriptors come before those of containers.
pub(super) const SHARED: usize = 8;

/// The descriptors of the agent itself: HTTP, admin socket, the socket for descriptors, that for handing over, and the locks
/// of the state directory and of the three sockets.
#[derive(Debug)]
pub(super) struct Shared(pub(super) [OwnedFd; SHARED]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_waited_for_until_the_runtime_would_lose_its_patience() {
        let held = |millis| Some(Duration::from_millis(millis));
        assert_eq!((Step::Ready.patience(None), Step::Serving.patience(None)), (PATIENCE, PATIENCE));
        assert_eq!(Step::Ready.patience(held(200)), Duration::from_secs(1));
        assert_eq!(
            Step::Serving.patience(held(1200)),
            Duration::from_millis(400),
            "there is time for the second step"
        );
        assert_eq!(Step::Serving.patience(held(9000)), Duration::ZERO);
    }
}
