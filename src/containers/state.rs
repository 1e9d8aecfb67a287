//! The states of a container.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::net::netns::NamespaceId;

/// The network namespace of a container's socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SocketNamespace {
    /// The agent's: every process in it can reach the socket.
    Shared,
    /// The container's own, or its pod's: it cannot be reached from outside.
    Own(NamespaceId),
    /// The container's own, which does not exist before its process.
    Unborn,
}

/// Whether the kernel rejects datagrams from other processes, for one container on the host's network or for all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Guarded {
    /// It rejects them.
    On,
    /// It is not configured to.
    #[default]
    Off,
    /// It cannot, for this reason.
    Unavailable(Arc<str>),
}

impl Guarded {
    /// Why it cannot.
    #[must_use]
    pub fn unavailable_reason(&self) -> Option<&str> {
        match self {
            Self::Unavailable(why) => Some(why),
            Self::On | Self::Off => None,
        }
    }
}

/// Where a container is in its life.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LifecycleState {
    /// Its network namespace does not exist yet; its socket is bound when its process is attached.
    Reserved,
    /// Its socket is open.
    Listening,
    /// It has ended; what it sent is being read.
    Draining,
    /// It has ended; its windows can still be read.
    Gone,
    /// Its address could not be restored.
    Lost,
    /// It was found running without an address.
    Mute,
}

impl LifecycleState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Reserved, Self::Listening, Self::Draining, Self::Gone, Self::Lost, Self::Mute];

    /// The name used in JSON, in the CLI and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Listening => "listening",
            Self::Draining => "draining",
            Self::Gone => "gone",
            Self::Lost => "lost",
            Self::Mute => "mute",
        }
    }

    /// Whether the container is live: a reserve call finds it instead of starting a new generation.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Reserved | Self::Listening | Self::Lost | Self::Mute)
    }

    /// Whether a process can be attached.
    #[must_use]
    pub const fn can_attach(self) -> bool {
        matches!(self, Self::Reserved | Self::Listening)
    }

    /// Whether its windows are final.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Draining | Self::Gone)
    }
}

impl fmt::Display for LifecycleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
