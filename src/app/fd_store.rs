//! The service manager's descriptor store as a place where an agent leaves what it has: systemd's, or any that understands
//! `FDSTORE=1` on the socket of `NOTIFY_SOCKET` and passes at the next start what it was given (`LISTEN_FDS`).
//!
//! Each descriptor has a name, `tp` and its place; `tp0` is the state, which is given last: without it nothing is complete.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::handover::PATIENCE;
use super::saved_state::SavedState;
use crate::net::notify::ServiceManager;
use crate::net::passing::{create_sealed_memory, read_sealed_memory};
use crate::net::sys;

/// What our descriptors' names begin with.
const PREFIX: &str = "tp";
/// So many names can be passed in one variable of 128 KiB.
const NAMES: usize = 16_000;

/// A store that takes descriptors.
#[derive(Debug)]
pub(super) struct FdStore {
    manager: ServiceManager,
    /// How many it takes.
    room: usize,
    /// How many there are.
    stored: usize,
}

/// What the service manager has passed to this process.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(String, OwnedFd)>);

impl FdStore {
    /// The store of this process's service manager, where it says (`FDSTORE`) that there is one.
    pub(super) fn find() -> Option<Self> {
        let socket = std::env::var_os("NOTIFY_SOCKET")?;
        let room = std::env::var("FDSTORE").ok()?.parse().ok()?;
        Self::connect(&socket, room, 0).inspect_err(|error| tracing::warn!(%error, "no service manager")).ok()
    }

    fn connect(socket: &OsStr, room: usize, stored: usize) -> io::Result<Self> {
        Ok(Self { manager: ServiceManager::connect(socket)?, room: room.min(NAMES), stored })
    }

    /// Has everything kept.
    ///
    /// # Errors
    /// When there is not enough room, or the manager does not say that it has done so.
    pub(super) fn store_state(&self, kept: &SavedState) -> io::Result<()> {
        let count = kept.descriptors.len() + 1;
        if count > self.room {
            return Err(io::Error::other(format!("{count} descriptors, and the store takes {}", self.room)));
        }
        let store = || {
            for (n, descriptor) in (1..).zip(&kept.descriptors) {
                self.manager.store_descriptor(&name(n), descriptor.as_fd())?;
            }
            self.manager.store_descriptor(&name(0), create_sealed_memory(&kept.bytes)?.as_fd())?;
            self.manager.wait_for_barrier(PATIENCE)
        };
        store().inspect_err(|_| self.remove(count))
    }

    /// Has it let go of everything.
    pub(super) fn let_go(&self) {
        self.remove(self.stored);
    }

    fn remove(&self, count: usize) {
        // What it does not have it does not mind.
        let removed = (0..count).try_for_each(|n| self.manager.remove(&name(n)));
        if let Err(error) = removed.and_then(|()| self.manager.wait_for_barrier(PATIENCE)) {
            tracing::warn!(%error, "the service manager may still keep what this process has now");
        }
    }
}

impl Inherited {
    /// What was passed to this process. To be called once, before anything is opened.
    ///
    /// # Errors
    /// When there is less than the environment says.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let ours = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
        let count = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).filter(|_| ours);
        let descriptors = sys::inherit_descriptors(count.unwrap_or(0))?;
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned);
        Ok(Self(names.zip(descriptors).collect()))
    }

    /// What an agent has left, where it is complete. What is not is let go of.
    pub(super) fn into_saved_state(self) -> Option<(FdStore, SavedState)> {
        let mut all: Vec<_> =
            self.0.into_iter().filter_map(|(name, it)| Some((parse_name(&name)?, it))).collect();
        all.sort_by_key(|(place, _)| *place);
        let stored = all.last()?.0 + 1;
        let socket = std::env::var_os("NOTIFY_SOCKET")?;
        let store = FdStore::connect(&socket, 0, stored)
            .inspect_err(|error| tracing::warn!(%error, "no service manager"))
            .ok()?;
        if !all.iter().map(|(place, _)| *place).eq(0..stored) {
            tracing::warn!("what an agent has left is not complete, and let go of");
            store.let_go();
            return None;
        }
        let mut descriptors: Vec<_> = all.into_iter().map(|(_, descriptor)| descriptor).collect();
        let state = descriptors.remove(0);
        match read_sealed_memory(state) {
            Ok(bytes) => Some((store, SavedState { bytes, descriptors })),
            Err(error) => {
                tracing::warn!(%error, "what an agent has left cannot be read, and is let go of");
                store.let_go();
                None
            }
        }
    }
}

fn name(n: usize) -> String {
    format!("{PREFIX}{n}")
}

fn parse_name(name: &str) -> Option<usize> {
    name.strip_prefix(PREFIX)?.parse().ok()
}
