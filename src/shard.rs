//! Threads that receive: each owns some containers' sockets and aggregators, which no other thread uses.
//!
//! All input to a shard is a command or a question; all output is a reply, or a closed window in the store. In each
//! turn a shard executes commands, closes windows that have ended, receives, and answers readers. Each of these has a
//! bounded share of the turn, so that none of them can starve the others. Windows close on time whether or not anything
//! arrives.

mod balance;
mod command;
mod inlet;
mod listener;
mod pool;
mod shared;
mod stats_queries;
mod suspend;
mod tail;
mod turn;
mod worker;

pub use command::{Checkpoint, SnapshotSlice};
pub use inlet::Senders;
pub use listener::{Before, NewListener};
pub use pool::{OpenError, ShardGone, ShardId, ShardPlan, ShardPool};
pub use shared::PoolMeasurements;
pub use stats_queries::{ContainerSelection, ContainerStats, StatsByContainer};
pub use suspend::{ContainerPart, OpenState, SentAhead, SuspendedContainers};
pub use tail::{LineFilter, TailRoom, TappedLine};
