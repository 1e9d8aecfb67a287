//! Saves the state of an agent in the service manager's descriptor store: systemd's, or any other that accepts
//! `FDSTORE=1` on the socket in `NOTIFY_SOCKET` and passes the descriptors on at the next start (`LISTEN_FDS`).
//!
//! Each descriptor is named `tp` and its index. `tp0` is the state, which is stored last: without it, the set is
//! incomplete.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::conversation::PATIENCE;
use super::saved_state::{LetGo, SavedState, StateStore};
use crate::net::notify::ServiceManager;
use crate::net::passing::{create_sealed_memory, read_sealed_memory};
use crate::net::sys;

/// The prefix of our descriptors' names.
const PREFIX: &str = "tp";
/// Maximum number of descriptors: as many names fit into one environment variable of 128 KiB.
const MAX_DESCRIPTORS: usize = 16_000;

/// The descriptor store of this process's service manager.
#[derive(Debug)]
pub(super) struct FdStore {
    manager: ServiceManager,
    /// How many descriptors it takes.
    room: usize,
    /// Those that a former agent has stored, by their places.
    passed: Vec<(usize, OwnedFd)>,
    /// How many places these have.
    stored: usize,
}

/// The descriptors that the service manager passed to this process.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(String, OwnedFd)>);

impl FdStore {
    /// The store of this process's service manager, where `FDSTORE` says that there is one.
    pub(super) fn find() -> Option<Self> {
        let room: usize = std::env::var("FDSTORE").ok()?.parse().ok()?;
        Self::connect(room.min(MAX_DESCRIPTORS), Vec::new())
    }

    /// The store that has passed descriptors of a former agent to this process. `None` where it has passed none.
    pub(super) fn from_inherited(Inherited(descriptors): Inherited) -> Option<Self> {
        let ours = |(name, descriptor): (String, OwnedFd)| Some((parse_name(&name)?, descriptor));
        let mut passed: Vec<_> = descriptors.into_iter().filter_map(ours).collect();
        passed.sort_by_key(|(place, _)| *place);
        if passed.is_empty() { None } else { Self::connect(0, passed) }
    }

    fn connect(room: usize, passed: Vec<(usize, OwnedFd)>) -> Option<Self> {
        let socket = std::env::var_os("NOTIFY_SOCKET")?;
        let manager = ServiceManager::connect(&socket, PATIENCE);
        let manager = manager.inspect_err(|error| tracing::warn!(%error, "no service manager")).ok()?;
        let stored = passed.last().map_or(0, |(last, _)| last.saturating_add(1));
        Some(Self { manager, room, passed, stored })
    }

    fn remove(&self, count: usize) {
        // It ignores names that it does not have.
        let removed = (0..count).try_for_each(|n| self.manager.remove(&name(n)));
        if let Err(error) = removed.and_then(|()| self.manager.wait_for_barrier(PATIENCE)) {
            tracing::warn!(%error, "the service manager may still hold copies of the descriptors of this process");
        }
    }
}

impl StateStore for FdStore {
    fn name(&self) -> &'static str {
        "service manager"
    }

    fn store_state(&self, state: &SavedState) -> io::Result<()> {
        let count = state.descriptors.len() + 1;
        if count > self.room {
            return Err(io::Error::other(format!("{count} descriptors, and the store takes {}", self.room)));
        }
        let store = || {
            for (n, descriptor) in (1..).zip(&state.descriptors) {
                self.manager.store_descriptor(&name(n), descriptor.as_fd())?;
            }
            self.manager.store_descriptor(&name(0), create_sealed_memory(&state.bytes)?.as_fd())?;
            self.manager.wait_for_barrier(PATIENCE)
        };
        store().inspect_err(|_| self.remove(count))
    }

    fn fetch_state(&mut self) -> io::Result<Option<SavedState>> {
        let passed = std::mem::take(&mut self.passed);
        if !passed.iter().map(|(place, _)| *place).eq(0..self.stored) {
            tracing::warn!("the saved state is incomplete and was discarded; starting without it");
            self.remove(self.stored);
            return Ok(None);
        }
        let mut descriptors = passed.into_iter().map(|(_, descriptor)| descriptor);
        let Some(state) = descriptors.next() else { return Ok(None) };
        match read_sealed_memory(state) {
            Ok(bytes) => Ok(Some(SavedState { bytes, descriptors: descriptors.collect() })),
            Err(error) => {
                tracing::warn!(%error, "the saved state cannot be read and was discarded; starting without it");
                self.remove(self.stored);
                Ok(None)
            }
        }
    }

    fn let_go(&self, _why: LetGo) -> io::Result<()> {
        self.remove(self.stored);
        Ok(())
    }
}

impl Inherited {
    /// Takes the descriptors that were passed to this process. Must be called once, before any other descriptor is
    /// opened.
    ///
    /// # Errors
    /// When there are fewer descriptors than the environment says.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let ours = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
        let count = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).filter(|_| ours);
        let descriptors = sys::inherit_descriptors(count.unwrap_or(0))?;
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned);
        Ok(Self(names.zip(descriptors).collect()))
    }
}

fn name(n: usize) -> String {
    format!("{PREFIX}{n}")
}

/// The place of one of our descriptors. Other names are left alone: an index beyond [`MAX_DESCRIPTORS`] would make
/// [`FdStore::remove`] send as many messages.
fn parse_name(descriptor: &str) -> Option<usize> {
    let place = descriptor.strip_prefix(PREFIX)?.parse().ok()?;
    (place < MAX_DESCRIPTORS && name(place) == descriptor).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_this_program_gives_are_its_own() {
        assert_eq!(
            (parse_name("tp0"), parse_name(&name(MAX_DESCRIPTORS - 1))),
            (Some(0), Some(MAX_DESCRIPTORS - 1))
        );
        for foreign in ["tp16000", "tp18446744073709551615", "tp+1", "tp01", "tp", "tp-1", "stored", "1"] {
            assert_eq!(parse_name(foreign), None, "{foreign}");
        }
    }
}
