//! Takes the place of `nri.rs` in a build without the feature `nri`: what a hand-over needs to know of a plugin, which never runs
//! here.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

/// The plugin of another process, on its way to this one. To drop it closes the connection, and the runtime continues without a
/// plugin.
#[derive(Debug)]
pub struct Carried {
    /// What the plugin knows.
    pub state: Vec<u8>,
    /// The connection, where the runtime has registered the plugin.
    pub socket: Option<OwnedFd>,
}

/// A plugin that has stopped between two calls. This build has no plugin, so the type has no values.
#[derive(Debug)]
pub struct SuspendedPlugin {
    /// What the other process needs.
    pub carried: Carried,
    never: Infallible,
}

impl SuspendedPlugin {
    /// Says whether another process has what was carried.
    pub fn report_outcome(self, _taken: bool) {
        match self.never {}
    }
}

/// Stops the plugin before a hand-over.
#[derive(Clone, Debug)]
pub struct Suspender(());

/// Receives what [`Suspender`] asks, which is nothing.
#[derive(Debug)]
pub struct Suspensions(());

/// Both ends of a way to suspend the plugin.
#[must_use]
pub fn suspension_channel() -> (Suspender, Suspensions) {
    (Suspender(()), Suspensions(()))
}

impl Suspender {
    /// Stops the plugin. None runs, so nothing is stopped.
    #[expect(clippy::unused_async, reason = "the signature is that of nri.rs")]
    pub async fn suspend_plugin(&self) -> Option<SuspendedPlugin> {
        None
    }
}
