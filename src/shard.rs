//! Threads that receive: each owns some containers' sockets and aggregators, which no other thread uses.
//!
//! Everything reaches a shard as a command or a question and leaves it as an answer or a closed window in the store. In
//! each turn a shard obeys commands, closes windows that are over, receives, and answers readers. Each of these has a
//! bounded share of the turn, so that none of them can keep the others waiting. Window ends are kept whether or not
//! anything arrives.

mod balance;
mod command;
mod inlet;
mod listener;
mod looks;
mod pool;
mod shared;
mod suspend;
mod tail;
mod turn;
mod worker;

pub use command::{Checkpoint, SnapshotSlice};
pub use inlet::Senders;
pub use listener::{Before, NewListener};
pub use looks::{ContainerSelection, ContainerStats, StatsByContainer};
pub use pool::{OpenError, ShardGone, ShardId, ShardPlan, ShardPool};
pub use shared::Gauges;
pub use suspend::{ContainerPart, OpenState, SentAhead, SuspendedContainers};
pub use tail::{TailRoom, TappedLine};
