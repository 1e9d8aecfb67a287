//! Why an agent does not start.

use std::io;
use std::path::PathBuf;

use super::entrance::EntranceError;
use crate::net::guard::GuardError;
use crate::restart::ListenError;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A path or an address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The state directory cannot be written.
    #[error("cannot write to {}: {source}", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file of the state directory cannot be read or replaced.
    #[error("cannot use {}: {source}; remove it, or make it a file that this user can read and replace", path.display())]
    StateFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The guard is required and unavailable.
    #[error(
        "containers on the host's network cannot be guarded, as listeners.guard = \"required\" wants: {0}"
    )]
    Guard(#[from] GuardError),
    /// The HTTP listener's certificate or tokens cannot be used.
    #[error(transparent)]
    Entrance(#[from] EntranceError),
    /// The agent that runs does not hand over, or this one cannot continue with what it has.
    #[error("cannot take over from the agent that runs: {source}")]
    TakeOver {
        /// The system's error.
        source: io::Error,
    },
    /// The system refused threads, descriptors or signals.
    #[error("cannot start {what}: {source}")]
    System {
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}
