//! The agent while it moves to another process, or to what keeps it for the next one.

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::handover::to_bytes;
use crate::api::Api;
use crate::containers::{Leaving, Manifest};
use crate::nri::{Suspended, Suspender};
use crate::shutdown::Pauser;

/// What goes over at last, beside descriptors.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) manifest: Manifest,
    /// Windows that were closed since the last were sent, where the sequence is, and what is gone.
    pub(super) part: Vec<u8>,
    /// What the NRI plugin knows, and whether its connection is the first descriptor after those of the agent itself.
    pub(super) nri: Option<(Vec<u8>, bool)>,
}

/// What the old process holds that is neither the table nor the store.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) shared: Shared,
    pub(super) pauser: Pauser,
    pub(super) nri: Suspender,
}

/// The agent while it moves: nothing new is begun, the plugin has stopped, and the table waits for the decision.
#[derive(Debug)]
pub(super) struct Moving<'a> {
    holding: &'a Holding,
    plugin: Option<Suspended>,
    pub(super) leaving: Leaving,
}

impl Holding {
    /// Stops everything that changes what is handed over.
    ///
    /// # Errors
    /// When a shard has ended, or descriptors ran out. Then everything goes on.
    pub(super) fn stop(&self, api: &Api, handle: &tokio::runtime::Handle) -> io::Result<Moving<'_>> {
        self.pauser.pause(true);
        // Before the table: a call that is being answered asks it.
        let plugin = handle.block_on(self.nri.suspend());
        match handle.block_on(api.containers.hand_over()) {
            Ok(leaving) => Ok(Moving { holding: self, plugin, leaving }),
            Err(error) => {
                plugin.into_iter().for_each(|plugin| plugin.decide(false));
                self.pauser.pause(false);
                Err(error)
            }
        }
    }
}

impl Moving<'_> {
    /// The last message, but for descriptors.
    pub(super) fn state(&self, part: Vec<u8>) -> Vec<u8> {
        let carried = self.plugin.as_ref().map(|plugin| &plugin.carried);
        let nri = carried.map(|carried| (&carried.state, carried.socket.is_some()));
        to_bytes(&(&self.leaving.manifest, part, nri))
    }

    /// Every descriptor that goes with it, in order.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub(super) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let nri = self.plugin.as_ref().and_then(|plugin| plugin.carried.socket.as_ref());
        let all = self.holding.shared.0.iter().chain(nri).chain(&self.leaving.descriptors);
        all.map(OwnedFd::try_clone).collect()
    }

    /// Ends here where another process has everything, and goes on where none has.
    pub(super) fn decide(self, taken: bool) {
        self.leaving.decide(taken);
        self.plugin.into_iter().for_each(|plugin| plugin.decide(taken));
        if !taken {
            self.holding.pauser.pause(false);
        }
    }
}

/// How many descriptors come before those of containers.
pub(super) const SHARED: usize = 8;

/// The descriptors of the agent itself: HTTP, admin socket, the socket for descriptors, that for handing over, and the locks
/// of the state directory and of the three sockets.
#[derive(Debug)]
pub(super) struct Shared(pub(super) [OwnedFd; SHARED]);
