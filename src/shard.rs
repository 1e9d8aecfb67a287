//! Threads that receive: each owns some containers' sockets and aggregators, and nobody else touches them.
//!
//! Everything reaches a shard as a command and leaves it as an answer or a closed window in the store. Commands go
//! before data, so that asking about a busy container does not wait for its queue to empty. Window ends are kept
//! whether or not anything arrives.

mod balance;
mod command;
mod gather;
mod inlet;
mod listener;
mod loss_log;
mod pool;
mod suspend;
mod tail;
mod worker;

pub use command::{Before, Checkpoint, Glimpse, NewListener, Of, TappedLine};
pub use pool::{Gauges, OpenError, Plan, ShardGone, ShardId, ShardPool};
pub use suspend::{Part, Suspended};
pub use tail::TailRoom;
