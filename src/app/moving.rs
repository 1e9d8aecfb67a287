//! The agent while it moves to another process, or to what keeps it for the next one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::handover::to_bytes;
use crate::api::Api;
use crate::containers::{Leaving, Manifest};
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
        let mut moving = Moving { holding: self, moved, plugin: None, leaving: None };
        // Before the table: a call that is being answered asks it.
        let suspended = handle.block_on(async { tokio::time::timeout(STOPPING, self.nri.suspend()).await });
        moving.plugin = suspended.map_err(|_| io::Error::other("the NRI plugin is busy; try again"))?;
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
