//! Threads that receive: each owns some containers' sockets and aggregators, and nobody else touches them.
//!
//! Everything reaches a shard as a command or a question and leaves it as an answer or a closed window in the store. In
//! each turn a shard obeys commands, closes windows that are over, receives, and answers readers. Each of these has a
//! bounded share of the turn, so that none of them can keep the others waiting. Window ends are kept whether or not
//! anything arrives.

mod balance;
mod command;
mod gather;
mod inlet;
mod listener;
mod looks;
mod loss_log;
mod pool;
mod share;
mod suspend;
mod tail;
mod worker;

pub use command::{
    Before, Checkpoint, ContainerSelection, ContainerStats, NewListener, SnapshotSlice, TappedLine,
};
pub use inlet::Senders;
pub use looks::StatsByContainer;
pub use pool::{Gauges, OpenError, ShardGone, ShardId, ShardPlan, ShardPool};
pub use suspend::{ContainerPart, OpenState, SentAhead, SuspendedContainers};
pub use tail::TailRoom;
