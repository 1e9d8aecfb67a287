//! What the agent's streams bring to the screen.

use super::super::live::LiveRecord;
use crate::wire::TaskChanges;

/// Whether a stream has a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum StreamState {
    /// The first answer has not arrived yet.
    Connecting,
    Up,
    /// Lost, for this reason; what is shown is older.
    Lost(String),
}

/// A change of the node.
#[derive(Debug)]
pub(super) enum NodeUpdate {
    Connected,
    /// The name of the node.
    Named(String),
    Tasks(TaskChanges),
    Lost(String),
}

/// A change of the open task.
#[derive(Debug)]
pub(super) enum TaskUpdate {
    /// The agent answers, with the windows that it has kept.
    Connected(Vec<LiveRecord>),
    Window(Vec<LiveRecord>),
    /// Windows were skipped.
    Gap,
    /// No more windows follow.
    Finished,
    /// There is no connection, for this reason.
    Lost(String),
}
